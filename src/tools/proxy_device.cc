#include "ringway/tools/proxy_device.h"

#include <fmt/format.h>

#include <utility>

#include "ringway/base/log.h"
#include "ringway/tools/back_end.h"

namespace ringway::tools {
namespace {

vhost::Mask::Taken both(vhost::Mask::Taken a, vhost::Mask::Taken b) {
  return {.features = a.features | b.features, .capabilities = a.capabilities | b.capabilities};
}

}  // namespace

ProxyDevice::ProxyDevice(Options options)
    : options_(std::move(options)),
      taken_(vhost::Mask::with_consequences(both(options_.taken, never_passed))) {}

ProxyDevice::~ProxyDevice() = default;

ProxyDevice::Chain::Chain(ProxyDevice& owner, std::shared_ptr<user::Connection> connection, UniqueFd copy)
    : socket(std::move(copy)),
      remote(std::move(connection), owner.options_.reply_time_out),
      watched(remote, {.asked = {},
                       .answered = [&owner](const vhost::RequestInfo& info, const auto& reply,
                                            auto) { owner.told(info, reply); }}),
      mask(watched, owner.taken_) {}

std::expected<void, std::string> ProxyDevice::reach_back_end() {
  auto chain = make_chain();
  if (!chain) return std::unexpected(std::move(chain).error());
  chain_ = *std::move(chain);
  return {};
}

std::expected<std::unique_ptr<ProxyDevice::Chain>, std::string> ProxyDevice::make_chain() {
  auto peer = reach(options_.back_end);
  if (!peer) return std::unexpected(std::move(peer).error());
  const auto failed = [this](const Error& error) {
    return std::unexpected(fmt::format("{}: {}", options_.back_end, error.to_string()));
  };
  Result<UniqueFd> copy = peer->fd.duplicate();
  if (!copy) return failed(copy.error());
  auto connection = user::Connection::adopt(
      std::move(peer->fd),
      {.name = options_.back_end, .message_time_out = options_.reply_time_out, .observer = {}});
  if (!connection) return failed(connection.error());
  auto chain = std::make_unique<Chain>(*this, *std::move(connection), *std::move(copy));
  const auto begin = std::chrono::steady_clock::now();
  const Result<user::SocketFeatures> offered = chain->remote.offered_by_socket();
  if (!offered && std::chrono::steady_clock::now() - begin >= options_.reply_time_out)
    return std::unexpected(
        fmt::format("the back-end at {} did not answer within {} s", options_.back_end, seconds()));
  if (!offered)
    return std::unexpected(fmt::format("what is at {} does not talk vhost-user: {}", options_.back_end,
                                       offered.error().to_string()));
  chain->offered = {.protocol_features = offered->protocol_features &&
                                         !taken_.has_feature(vhost::VHOST_USER_F_PROTOCOL_FEATURES),
                    .capabilities = offered->capabilities & ~taken_.capabilities};
  return chain;
}

Result<vhost::Device*> ProxyDevice::connected() {
  if (chain_ != nullptr && HangUpWatch::hung_up(chain_->socket.get())) chain_.reset();
  if (chain_ == nullptr) {
    if (auto reached = reach_back_end(); !reached) {
      log::warning("{}", reached.error());
      front_end_.reset();
      return gone("there is no back-end for it");
    }
  }
  watch_ = TRY(HangUpWatch::start(chain_->socket.get(), [this] {
    log::info("{}: the back-end has closed the connection", options_.back_end);
    // Its last reply may still be on the way: the session ends when it reads the next request.
    front_end_->stop_receiving();
  }));
  return &chain_->mask;
}

user::SocketFeatures ProxyDevice::socket_features() { return chain_->offered; }

void ProxyDevice::disconnected() {
  watch_.reset();
  chain_.reset();
  front_end_.reset();
}

// What the server logs of a late reply does not say how long was waited.
void ProxyDevice::told(const vhost::RequestInfo& info, const Result<vhost::DeviceReply>& reply) const {
  if (reply || reply.error().fault != Fault::violation) return;
  log::warning("{}: the back-end failed at {}, for which it has {} s: {}", options_.back_end, info.name,
               seconds(), reply.error().to_string());
}

}  // namespace ringway::tools
