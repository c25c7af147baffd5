#include "ringway/tools/front_end.h"

#include <fmt/format.h>

#include <utility>

namespace ringway::tools {

std::expected<std::unique_ptr<FrontEnd>, std::string> FrontEnd::connect(const std::string& socket,
                                                                        std::chrono::milliseconds patience) {
  auto peer = reach(socket);
  if (!peer) return std::unexpected(std::move(peer).error());
  std::unique_ptr<FrontEnd> self(new FrontEnd(socket, *std::move(peer)));
  if (const Result<> opened = self->open_session(patience); !opened) {
    return std::unexpected(fmt::format("{}: {}", socket, opened.error().to_string()));
  }
  return self;
}

Result<> FrontEnd::open_session(std::chrono::milliseconds patience) {
  connection_ = TRY(user::Connection::adopt(
      std::move(peer_.fd), {.name = socket_, .stop = nullptr, .message_time_out = patience, .observer = {}}));
  device_ = std::make_unique<user::RemoteDevice>(connection_, patience);
  session_ = std::make_unique<vhost::Session>(*device_);
  return {};
}

Result<> FrontEnd::make_memory(uint64_t bytes, bool huge_pages) {
  memory_ = std::make_unique<GuestMemory>(TRY(GuestMemory::make(bytes, huge_pages)));
  return {};
}

Result<> FrontEnd::share_memory() {
  const UniqueFd file = TRY(memory_->file());
  const vhost::SharedRegion region{.layout = memory_->layout(), .fd = file.get()};
  return session_->map_memory({&region, 1});
}

Result<Notifier> FrontEnd::start_ring(uint32_t size, const ring::Format& format,
                                      const RingAddresses& addresses) {
  const memory::RegionLayout layout = memory_->layout();
  const auto user_address = [&](memory::GuestAddress guest) {
    return layout.front_end.value + (guest.value - layout.guest.value);
  };
  vhost::QueueSetup setup{.ring = static_cast<vhost::RingIndex>(rings_.size()),
                          .size = size,
                          .base = ring::RingBase{}.to_wire(format.packed),
                          .desc = user_address(addresses.desc),
                          .driver = user_address(addresses.driver),
                          .device = user_address(addresses.device),
                          .kick = TRY(make_eventfd()),
                          .call = TRY(make_eventfd()),
                          .err = TRY(make_eventfd())};
  Notifier kick = TRY(Notifier::adopt(TRY(setup.kick.duplicate())));
  Ring& ring = rings_.emplace_back();
  ring.call = TRY(Signal::adopt(TRY(setup.call.duplicate())));
  ring.err = TRY(Signal::adopt(TRY(setup.err.duplicate())));
  TRY(session_->start_queue(std::move(setup)));
  return kick;
}

std::optional<std::string> FrontEnd::trouble() const {
  if (connection_->hung_up()) return "the back-end has closed the connection";
  for (size_t index = 0; index < rings_.size(); ++index) {
    if (rings_[index].err.take()) return fmt::format("the back-end says that ring {} is broken", index);
  }
  return std::nullopt;
}

std::expected<void, std::string> FrontEnd::stop() {
  for (uint32_t index = 0; index < rings_.size(); ++index) {
    const auto stopped = session_->stop_queue(index);
    if (!stopped) return std::unexpected(fmt::format("{}: {}", socket_, stopped.error().to_string()));
  }
  return {};
}

}  // namespace ringway::tools
