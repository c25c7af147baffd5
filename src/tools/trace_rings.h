// RingWatch: what a front-end has said of its memory and rings, and whether it can be true: areas in memory
// that is shared, files as large as their regions, rings that are stopped once. A value; owned by the tap's
// thread. vhost-user "Ring states", "Memory region description".
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ringway/tools/trace_fd.h"
#include "ringway/tools/trace_talk.h"
#include "ringway/vhost/request.h"

namespace ringway::tools {

struct Doubt {
  bool is_mistake = false;  // else only odd
  std::string text;
};

class RingWatch {
 public:
  // A request that is well-formed, and the file descriptors that came with it.
  std::vector<Doubt> see(const vhost::DeviceRequest& request, const std::vector<PassedFd>& fds,
                         const Talk& talk, uint64_t number);
  // Regions came that cannot be read: until the next table anything may be shared.
  void forget_memory();
  void forget_rings() { rings_.clear(); }

 private:
  struct Ring {
    uint32_t size = 0;
    std::optional<vhost::SetVringAddr> address;
    bool kicked = false;
    std::optional<uint64_t> stopped;  // by the message of this number, and not started since
  };

  template <class T>
  void on(const T&) {}
  void on(const vhost::SetMemTable& request);
  void on(const vhost::AddMemReg& request);
  void on(const vhost::RemMemReg& request);
  void on(const vhost::SetVringNum& request);
  void on(const vhost::SetVringAddr& request);
  void on(const vhost::SetVringKick& request);
  void on(const vhost::VringKick& request);
  void on(const vhost::SetVringCall& request);
  void on(const vhost::SetVringErr& request);
  void on(const vhost::GetVringBase& request);
  void on(const vhost::GetVringBaseSkipDrain& request);
  void on(const vhost::ResetDevice&) { rings_.clear(); }
  void on(const vhost::ResetOwner&) { rings_.clear(); }
  void on(const vhost::SetStatus& request);

  void add(const memory::RegionLayout& region, size_t index);
  void check_file(const memory::RegionLayout& region, size_t index);
  void check_notifier(const char* what);
  void kick(uint32_t ring);
  void stop(uint32_t ring);
  void check_start(uint32_t index, const Ring& ring);
  [[nodiscard]] bool is_shared(uint64_t address, uint64_t size) const;
  void doubt(bool is_mistake, std::string text) { doubts_.push_back({is_mistake, std::move(text)}); }

  static constexpr size_t max_regions = 1024;  // that are followed; with more nothing is said of them
  static constexpr uint32_t max_rings = 256;

  std::map<uint32_t, Ring> rings_;
  std::vector<memory::RegionLayout> regions_;
  bool memory_is_known_ = true;
  // Of the request that is looked at.
  const Talk* talk_ = nullptr;
  const std::vector<PassedFd>* fds_ = nullptr;
  uint64_t number_ = 0;
  std::vector<Doubt> doubts_;
};

}  // namespace ringway::tools
