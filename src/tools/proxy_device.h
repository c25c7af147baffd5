// ProxyDevice: a device that is a back-end elsewhere, for a listener to serve: each front-end gets a
// connection to the back-end of its own, and a mask between. When the back-end goes, so does the front-end's
// connection. Thread rule: made and ended by the main thread; sessions call it from their own.
#pragma once

#include <chrono>
#include <expected>
#include <memory>
#include <optional>
#include <string>

#include "ringway/tools/hang_up_watch.h"
#include "ringway/user/listener.h"
#include "ringway/user/remote.h"
#include "ringway/vhost/mask.h"
#include "ringway/vhost/trace.h"

namespace ringway::tools {

class ProxyDevice final : public user::SessionOwner {
 public:
  struct Options {
    std::string back_end;      // the path of its socket
    vhost::Mask::Taken taken;  // features of device and socket that the front-end shall not see
    std::chrono::milliseconds reply_time_out = user::default_reply_time_out;
  };
  explicit ProxyDevice(Options options);
  ~ProxyDevice() override;

  // Connects to the back-end and asks what it offers, for the next front-end. The error is a sentence for the
  // user.
  std::expected<void, std::string> reach_back_end();

  void arrived(const std::shared_ptr<user::Connection>& front_end) override { front_end_ = front_end; }
  Result<vhost::Device*> connected() override;
  user::SocketFeatures socket_features() override;
  void disconnected() override;

 private:
  // What the request seam cannot carry: regions of another layout, and a reply that the front-end
  // acknowledges.
  static constexpr vhost::Mask::Taken never_passed{.capabilities =
                                                       vhost::bit(vhost::VHOST_USER_PROTOCOL_F_XEN_MMAP) |
                                                       vhost::bit(vhost::VHOST_USER_PROTOCOL_F_PAGEFAULT)};

  // One connection to the back-end and what stands in front of it, the last first.
  struct Chain {
    Chain(ProxyDevice& owner, std::shared_ptr<user::Connection> connection, UniqueFd copy);
    UniqueFd socket;  // a copy, to see it hung up
    user::RemoteDevice remote;
    vhost::Trace<vhost::DeviceRequest> watched;
    vhost::Mask mask;
    user::SocketFeatures offered;
  };
  std::expected<std::unique_ptr<Chain>, std::string> make_chain();
  void told(const vhost::RequestInfo& info, const Result<vhost::DeviceReply>& reply) const;
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(options_.reply_time_out).count();
  }

  const Options options_;
  const vhost::Mask::Taken taken_;
  std::unique_ptr<Chain> chain_;  // of the present session, or kept for the next
  std::shared_ptr<user::Connection> front_end_;
  std::unique_ptr<HangUpWatch> watch_;
};

}  // namespace ringway::tools
