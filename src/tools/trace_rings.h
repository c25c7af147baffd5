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
  struct About {
    uint64_t number = 0;  // of the message
    const char* name = "";
  };
  bool is_mistake = false;  // else only odd
  About about;
  std::string text;
};

class RingWatch {
 public:
  // A request that is well-formed, and the message that it came as.
  std::vector<Doubt> see(const vhost::DeviceRequest& request, const SeenMessage& message, const Talk& talk);
  // What has not come by the end. `is_cut_off`: the front-end may have had more to say.
  std::vector<Doubt> end(const Talk& talk, bool is_cut_off);
  // Regions came that cannot be read: until the next table anything may be shared.
  void forget_memory();
  void forget_rings();

 private:
  using About = Doubt::About;
  struct Ring {
    uint32_t size = 0;
    std::optional<vhost::SetVringAddr> address;
    std::optional<About> kicked;      // by this message, and not stopped since
    std::optional<uint64_t> stopped;  // by the message of this number, and not started since
    bool switched = false;            // on or off by SET_VRING_ENABLE
    bool memory_is_missed = false;    // which has been said
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
  void on(const vhost::SetVringEnable& request);
  void on(const vhost::SetVringCall& request);
  void on(const vhost::SetVringErr& request);
  void on(const vhost::GetVringBase& request);
  void on(const vhost::GetVringBaseSkipDrain& request);
  void on(const vhost::ResetDevice&) { forget_rings(); }
  void on(const vhost::ResetOwner&) { forget_rings(); }
  void on(const vhost::SetStatus& request);

  void add(const memory::RegionLayout& region, size_t index);
  void check_file(const memory::RegionLayout& region, size_t index);
  void check_notifier(const char* what);
  void kick(uint32_t ring);
  void stop(uint32_t ring);
  void check_start(uint32_t index, Ring& ring);
  void check_owner();
  void check_parts(uint32_t index, const Ring& ring);
  void check_enabling(uint32_t index, const Ring& ring);
  [[nodiscard]] std::string lacks(const Ring& ring) const;
  [[nodiscard]] bool waits_for_enable(uint32_t index, const Ring& ring) const;
  [[nodiscard]] bool is_switched(uint32_t index) const;
  [[nodiscard]] bool is_shared(uint64_t address, uint64_t size) const;
  void doubt(bool is_mistake, std::string text) { doubts_.push_back({is_mistake, about_, std::move(text)}); }

  static constexpr size_t max_regions = 1024;  // that are followed; with more nothing is said of them
  static constexpr uint32_t max_rings = 256;

  std::map<uint32_t, Ring> rings_;
  std::vector<memory::RegionLayout> regions_;
  bool memory_is_known_ = true;
  bool rings_are_known_ = true;       // all that was ever said of them
  std::optional<About> memory_came_;  // first
  bool owner_was_missed_ = false;
  // Of the request that is looked at.
  const Talk* talk_ = nullptr;
  const std::vector<PassedFd>* fds_ = nullptr;
  About about_;
  std::vector<Doubt> doubts_;
};

}  // namespace ringway::tools
