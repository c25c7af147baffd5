// Contract: the protocol's state machine, as a decorator in front of whatever answers requests. What it lets
// through is in order, so that what stands behind it asserts instead of checking again. One for each
// connection; control thread. vhost-user "Ring states", "Protocol features", "Front-end message types".
//
// Behind it, of the requests that have such a part:
//   - it was negotiated (catalogue.h), apart from what belongs to the socket;
//   - features and protocol features are a part of what the device offers (and bit 30, which is passed as it
//   came);
//   - a ring index is below the number of queues; a ring size is 1 to the maximum, and a power of two if the
//   ring is known
//     to be split; addresses are aligned; flags, enable, endian and config flags have defined values;
//   - a ring that is started keeps its size, base, endian and addresses until GetVringBase; SetVringAddr may
//   come to switch
//     its log; all features but LOG_ALL and bit 30 stay. Started means: its size, its addresses and
//     SetVringKick or VringKick have come, in whatever order; by the older rule a ring may be kicked before
//     it is described.
// It says nothing about memory, nor whether the parts of a ring fit together: that is known when the ring
// starts. It refuses no order in which existing front-ends set a ring up, and remembers only what was
// accepted.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "ringway/vhost/catalogue.h"
#include "ringway/vhost/handler.h"

namespace ringway::vhost {

inline constexpr uint32_t max_config_bytes = 256;  // of one GetConfig or SetConfig

class Contract final : public Device {
 public:
  struct Limits {
    uint32_t queues = 256;
    uint32_t ring_size = 32768;  // entries
  };
  // `next` outlives it.
  Contract(Device& next, Limits limits) : next_(next), limits_(limits), rings_(limits.queues) {}

  Result<DeviceReply> handle(DeviceRequest request) override;
  [[nodiscard]] const Agreement& agreement() const { return agreed_; }
  [[nodiscard]] bool is_started(RingIndex ring) const { return rings_.at(ring).is_started(); }

 private:
  struct Ring {
    bool has_size = false;
    std::optional<SetVringAddr> address;
    bool kicked = false;
    [[nodiscard]] bool is_started() const { return kicked && has_size && address; }
  };
  using Change = std::function<void()>;  // what is remembered once the device has agreed

  template <class T>
  Result<DeviceReply> forward(T request);
  template <class T>
  [[nodiscard]] Result<> check_common(const T& request) const;

  template <class T>
  Result<> check(const T&) {
    return {};
  }
  Result<> check(const SetFeatures& request);
  Result<> check(const SetProtocolFeatures& request);
  Result<> check(const SetMemTable& request);
  Result<> check(const AddMemReg& request);
  Result<> check(const SetLogBase& request);
  Result<> check(const SetVringNum& request);
  Result<> check(const SetVringAddr& request);
  Result<> check(const SetVringBase& request);
  Result<> check(const SetVringEnable& request);
  Result<> check(const SetVringEndian& request);
  Result<> check(const NetSetMtu& request);
  Result<> check(const UpdateIotlb& request);
  Result<> check(const GetConfig& request);
  Result<> check(const SetConfig& request);
  Result<> check(const PostcopyAdvise& request);
  Result<> check(const PostcopyListen& request);
  Result<> check(const GetInflightFd& request);
  Result<> check(const SetInflightFd& request);
  Result<> check(const SetStatus& request);
  Result<> check(const SetDeviceStateFd& request);

  template <class T>
  Change change(const T&) {
    return [] {};
  }
  Change change(const SetFeatures& request);
  Change change(const SetProtocolFeatures& request);
  Change change(const SetVringNum& request);
  Change change(const SetVringAddr& request);
  Change change(const SetVringKick& request) { return start(request.ring); }
  Change change(const VringKick& request) { return start(request.ring); }
  Change change(const GetVringBase& request) { return stop(request.ring); }
  Change change(const GetVringBaseSkipDrain& request) { return stop(request.ring); }
  Change change(const SetStatus& request);
  Change change(const ResetDevice& request);

  Change start(RingIndex ring);
  Change stop(RingIndex ring);
  void reset();
  Result<uint64_t> offered_features();
  Result<uint64_t> offered_capabilities();
  [[nodiscard]] bool any_started() const;
  [[nodiscard]] bool is_split() const;   // known to be
  [[nodiscard]] bool is_packed() const;  // known to be
  [[nodiscard]] bool knows_protocol_features() const;
  [[nodiscard]] Result<> check_region(const memory::RegionLayout& layout) const;
  [[nodiscard]] Result<> check_inflight(uint32_t queues, uint32_t queue_size) const;
  [[nodiscard]] Result<> check_precopy() const;

  Device& next_;
  const Limits limits_;
  Agreement agreed_;
  bool features_set_ = false;
  bool capabilities_set_ = false;
  std::optional<uint64_t> offered_features_;
  std::optional<uint64_t> offered_capabilities_;
  std::vector<Ring> rings_;
};

}  // namespace ringway::vhost
