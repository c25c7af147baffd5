#include "ringway/tools/front_end.h"

#include <fmt/format.h>

#include <utility>

namespace ringway::tools {

std::expected<std::unique_ptr<FrontEnd>, std::string> FrontEnd::connect(const std::string& socket,
                                                                        std::chrono::milliseconds patience) {
  std::unique_ptr<FrontEnd> self(new FrontEnd(socket, patience));
  if (auto done = self->reconnect(); !done) return std::unexpected(std::move(done).error());
  return self;
}

std::expected<void, std::string> FrontEnd::reconnect() {
  auto peer = reach(socket_);
  if (!peer) return std::unexpected(std::move(peer).error());
  session_.reset();
  device_.reset();
  peer_ = *std::move(peer);
  if (const Result<> opened = open_session(); !opened) return std::unexpected(explain(opened.error()));
  return {};
}

std::string FrontEnd::explain(const Error& error) const {
  const std::string sentence = fmt::format("{}: {}", socket_, error.to_string());
  if (error.fault != Fault::violation) return sentence;
  return fmt::format("{} (an answer may take {} s)", sentence,
                     std::chrono::duration<double>(patience_).count());
}

Result<> FrontEnd::open_session() {
  connection_ = TRY(user::Connection::adopt(
      std::move(peer_.fd),
      {.name = socket_, .stop = nullptr, .message_time_out = patience_, .observer = {}}));
  device_ = std::make_unique<user::RemoteDevice>(connection_, patience_);
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

Result<Notifier> FrontEnd::add_ring(uint32_t size, const ring::Format& format,
                                    const RingAddresses& addresses) {
  Ring ring{.size = size, .format = format, .addresses = addresses};
  for (UniqueFd* const fd : {&ring.kick_fd, &ring.call_fd, &ring.err_fd}) *fd = TRY(make_eventfd());
  ring.call = TRY(Signal::adopt(TRY(ring.call_fd.duplicate())));
  ring.err = TRY(Signal::adopt(TRY(ring.err_fd.duplicate())));
  Notifier kick = TRY(Notifier::adopt(TRY(ring.kick_fd.duplicate())));
  rings_.push_back(std::move(ring));
  return kick;
}

Result<> FrontEnd::start_ring(size_t ring, const Start& start) {
  const Ring& own = rings_[ring];
  const memory::RegionLayout layout = memory_->layout();
  const auto user_address = [&](memory::GuestAddress guest) {
    return layout.front_end.value + (guest.value - layout.guest.value);
  };
  vhost::QueueSetup setup{.ring = static_cast<vhost::RingIndex>(ring),
                          .size = own.size,
                          .base = start.base.to_wire(own.format.packed),
                          .desc = user_address(own.addresses.desc),
                          .driver = user_address(own.addresses.driver),
                          .device = user_address(own.addresses.device),
                          .log = start.logged ? std::optional(own.addresses.device.value) : std::nullopt,
                          .kick = TRY(own.kick_fd.duplicate()),
                          .call = TRY(own.call_fd.duplicate()),
                          .err = TRY(own.err_fd.duplicate())};
  return session_->start_queue(std::move(setup));
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
    if (!stopped) return std::unexpected(explain(stopped.error()));
  }
  return {};
}

}  // namespace ringway::tools
