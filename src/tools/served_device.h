// ServedDevice: one device as it is served: model, engine, contract, and the sessions of its front-ends.
// Thread rule: made and ended by the main thread; sessions call it from their own.
#pragma once

#include <memory>
#include <optional>

#include "ringway/engine/local_device.h"
#include "ringway/engine/standstill.h"
#include "ringway/engine/workers.h"
#include "ringway/tools/device_kinds.h"
#include "ringway/tools/hang_up_watch.h"
#include "ringway/tools/service.h"
#include "ringway/user/listener.h"
#include "ringway/vhost/contract.h"

namespace ringway::tools {

class ServedDevice final : public user::SessionOwner {
 public:
  static Parsed<std::unique_ptr<ServedDevice>> open(const DeviceOptions& options, engine::Workers& workers);

  // Makes it reachable where its options say. The listener must have stopped before the device ends.
  // Through `service`, if given, where that has the socket.
  Result<> attach(user::Listener& listener, Service* service = nullptr);
  // Live upgrade. Where it is served, as Listener calls it, and what it is.
  [[nodiscard]] std::string place() const { return place_of(options_); }
  [[nodiscard]] const std::string& type() const { return options_.type; }
  // What another process needs to open it; may be none.
  [[nodiscard]] Result<UniqueFd> hand_over() const;
  [[nodiscard]] std::unique_ptr<engine::LocalDevice::Standstill> stand_still();
  [[nodiscard]] bool is_translated_for() const {
    return engine::LocalDevice::Standstill::is_translated_for(engine_);
  }
  // One that was opened to take over: what Standstill::state() was elsewhere; all is ready, it begins.
  Result<> take_state(std::span<const std::byte> state) { return engine_.take_state(state); }
  void go_on() { engine_.go_on(); }
  // Looks at what it serves again: a file may have grown.
  Result<> refresh() { return opened_.refresh ? opened_.refresh() : Result<>(); }

  // Empty for kinds of devices that count nothing.
  [[nodiscard]] std::vector<port::Counter> counters() const {
    return opened_.counters ? opened_.counters() : std::vector<port::Counter>();
  }

  void arrived(const std::shared_ptr<user::Connection>& front_end) override { front_end_ = front_end; }
  Result<vhost::Device*> connected() override;
  void disconnected() override;

 private:
  // Postcopy: a session that waits for pages does not see that who has them leaves.
  struct PageSource {
    UniqueFd connection;
    std::unique_ptr<HangUpWatch> watch;
  };
  Result<std::unique_ptr<PageSource>> watch_page_source();
  ServedDevice(DeviceOptions options, OpenedDevice opened, engine::Workers& workers);

  const DeviceOptions options_;
  const OpenedDevice opened_;
  engine::LocalDevice engine_;
  // Of the present session.
  std::weak_ptr<user::Connection> front_end_;
  std::optional<vhost::Contract> contract_;
  std::unique_ptr<PageSource> page_source_;  // with postcopy
};

}  // namespace ringway::tools
