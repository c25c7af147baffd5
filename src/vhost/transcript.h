// Transcript: a decorator that can tell, at any time, the shortest conversation which brings a fresh device
// to where the one behind it is: how a device moves to another process. What the driver has told the model
// itself is not in it (engine::Model::save_state). It keeps a second file descriptor of everything that the
// front-end has given. Thread rule: as the device behind it; retold while no request is under way.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "ringway/memory/iotlb.h"
#include "ringway/vhost/handler.h"

namespace ringway::vhost {

class Transcript final : public Device {
 public:
  // `next` outlives it.
  explicit Transcript(Device& next) : next_(next) {}

  Result<DeviceReply> handle(DeviceRequest request) override;

  // All but what starts rings. Refused while something is under way, or has come, that no request repeats.
  [[nodiscard]] Result<std::vector<DeviceRequest>> setting() const;
  // What starts the rings that are started, at the place where each of them stands: `bases`, by ring; of
  // rings that are not mentioned, where they were told to begin.
  [[nodiscard]] Result<std::vector<DeviceRequest>> start(std::span<const RingState> bases) const;

 private:
  static constexpr size_t most_config_writes = 64;

  // An fd that was given, or expressly not.
  struct Given {
    bool came = false;
    UniqueFd fd;
  };
  struct Ring {
    std::optional<uint32_t> size;
    std::optional<uint32_t> big_endian;
    std::optional<SetVringAddr> address;
    uint32_t base = 0;
    std::optional<uint32_t> enable;
    Given kick;
    bool kicked_in_band = false;
    Given call;
    Given err;
  };
  using Change = std::move_only_function<void(const DeviceReply&)>;

  template <class T>
  Result<DeviceReply> forward(T request);
  template <class T>
  Change change(const T&) {
    return [](const DeviceReply&) {};
  }
  Change change(const SetOwner&);
  Change change(const ResetOwner&);
  Change change(const SetFeatures& request);
  Change change(const SetProtocolFeatures& request);
  Change change(const SetMemTable& request);
  Change change(const AddMemReg& request);
  Change change(const RemMemReg& request);
  Change change(const SetLogBase& request);
  Change change(const SetLogFd& request);
  Change change(const SetVringNum& request);
  Change change(const SetVringAddr& request);
  Change change(const SetVringBase& request);
  Change change(const SetVringEndian& request);
  Change change(const SetVringEnable& request);
  Change change(const GetVringBase& request) { return stop(request.ring); }
  Change change(const GetVringBaseSkipDrain& request) { return stop(request.ring); }
  Change change(const SetVringKick& request);
  Change change(const VringKick& request);
  Change change(const SetVringCall& request);
  Change change(const SetVringErr& request);
  Change change(const SetFrontEnd& request);
  Change change(const UpdateIotlb& request);
  Change change(const NetSetMtu& request);
  Change change(const SetConfig& request);
  Change change(const SetStatus& request);
  Change change(const ResetDevice&);
  Change change(const SetInflightFd& request);
  Change change(const PostcopyAdvise&);
  Change change(const PostcopyEnd&);
  Change change(const SetDeviceStateFd&);
  Change change(const CheckDeviceState&);
  Change change(const CreateCryptoSession&);
  Change change(const CloseCryptoSession&);
  Change change(const GpuSetSocket&);

  Change stop(RingIndex ring);
  void reset();
  UniqueFd copy_of(const UniqueFd& fd);
  Given given(const UniqueFd& fd);
  [[nodiscard]] Result<> check_obstacles() const;
  Result<> tell_memory(std::vector<DeviceRequest>& to) const;
  void tell_iotlb(std::vector<DeviceRequest>& to) const;
  static Result<> tell_ring(RingIndex index, const Ring& ring, std::vector<DeviceRequest>& to);
  static Result<> tell_start(RingIndex index, const Ring& ring, std::vector<DeviceRequest>& to);

  Device& next_;
  bool owned_ = false;
  std::optional<uint64_t> features_;
  std::optional<Capabilities> capabilities_;
  std::shared_ptr<FrontEnd> front_end_;
  std::vector<MemoryRegion> regions_;
  bool by_slots_ = false;  // ADD_MEM_REG is how the front-end tells of its memory
  std::optional<SetLogBase> log_base_;
  Given log_;
  std::shared_ptr<const memory::IotlbTable> iotlb_ = memory::IotlbTable::empty();
  std::optional<uint64_t> mtu_;
  std::vector<ConfigBytes> config_;
  std::optional<uint64_t> status_;
  std::optional<InflightArea> inflight_;
  std::map<RingIndex, Ring> rings_;
  // What cannot be told again.
  bool postcopy_ = false;
  bool state_moves_ = false;
  unsigned crypto_sessions_ = 0;
  bool has_gpu_socket_ = false;
  bool too_much_config_ = false;
  bool out_of_fds_ = false;
};

}  // namespace ringway::vhost
