#include "ringway/check/trial.h"

#include "ringway/user/remote.h"

namespace ringway::check {
namespace {

class WireLease final : public Lease {
 public:
  explicit WireLease(const Wire& wire) : wire_(wire), device_(wire.connection(), wire.patience()) {}
  vhost::Device& device() override { return device_; }
  [[nodiscard]] std::string transcript() const override { return wire_.transcript(); }
  [[nodiscard]] bool acknowledges() const override {
    return device_.agreement().has_capability(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK);
  }

 private:
  const Wire& wire_;
  user::RemoteDevice device_;
};

}  // namespace

Or<Rig*> Trial::rig() {
  rigs_.push_back(TRY(Rig::make(target_, kind_, patience_)));
  return rigs_.back().get();
}

Or<Rig*> Trial::running(const Rig::Wanted& wanted) {
  Rig* made = TRY(rig());
  TRY(made->set_up(wanted));
  return made;
}

Or<Wire*> Trial::connected() {
  wires_.push_back(TRY(reach(target_.connect_frames(), "connecting")));
  return wires_.back().get();
}

Or<Wire*> Trial::wire(uint64_t wanted_protocol) {
  Wire* made = TRY(connected());
  TRY(reach(made->greet(wanted_protocol), "the first messages"));
  return made;
}

Or<Rig*> Trial::rig_over(Wire& wire) {
  auto lease = std::make_unique<WireLease>(wire);
  vhost::Device& device = lease->device();
  SharedMemory memory =
      TRY(reach(SharedMemory::make(Rig::guest_base, Rig::user_base, Rig::memory_bytes), "memory"));
  rigs_.push_back(std::make_unique<Rig>(std::move(lease), device, kind_, patience_, std::move(memory)));
  return rigs_.back().get();
}

std::string Trial::transcript() const {
  if (!wires_.empty()) return wires_.back()->transcript();
  return rigs_.empty() ? std::string() : rigs_.back()->transcript();
}

}  // namespace ringway::check
