// What two peers of a socket agree on, and the decorators that keep the socket's own features from the device
// behind it: bit 30, REPLY_ACK, BACKEND_REQ, BACKEND_SEND_FD. vhost-user "Communication", "Protocol
// features".
#pragma once

#include <atomic>
#include <cstdint>

#include "ringway/vhost/catalogue.h"
#include "ringway/vhost/handler.h"

namespace ringway::user {

// Written by the main channel, read by both. Any thread.
class Negotiated {
 public:
  [[nodiscard]] vhost::Agreement get() const {
    return {.features = features_, .capabilities = capabilities_};
  }
  void set_features(uint64_t bits) { features_ = bits; }
  void set_capabilities(uint64_t bits) { capabilities_ = bits; }

 private:
  std::atomic<uint64_t> features_ = 0;
  std::atomic<uint64_t> capabilities_ = 0;
};

// What a socket offers of its own. A device that is itself behind a socket can do no more than that socket
// does.
struct SocketFeatures {
  bool protocol_features = true;                               // bit 30
  uint64_t capabilities = vhost::transport_protocol_features;  // nothing without bit 30
};

// In front of a device that is served over a socket: adds the socket's features to what the device offers,
// and keeps them when they come back. Bit 30 in SetFeatures is passed on: it decides how rings are enabled.
// Used on the session's thread.
class BackEndNegotiation final : public vhost::Device {
 public:
  BackEndNegotiation(vhost::Device& next, Negotiated& negotiated, SocketFeatures offered = {})
      : next_(next), negotiated_(negotiated), offered_(offered) {}
  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override;

 private:
  Result<vhost::DeviceReply> answer(vhost::GetFeatures request);
  Result<vhost::DeviceReply> answer(vhost::SetFeatures request);
  Result<vhost::DeviceReply> answer(vhost::GetProtocolFeatures request);
  Result<vhost::DeviceReply> answer(vhost::SetProtocolFeatures request);
  template <class Other>
  Result<vhost::DeviceReply> answer(Other request);

  vhost::Device& next_;
  Negotiated& negotiated_;
  const SocketFeatures offered_;
};

// In front of a device that is reached over a socket: takes the socket's features out of what the peer
// offers, agrees on them by itself when the caller sets protocol features, and asks nothing of a peer that
// knows no protocol features. One call at a time.
class FrontEndNegotiation final : public vhost::Device {
 public:
  FrontEndNegotiation(vhost::Device& next, Negotiated& negotiated) : next_(next), negotiated_(negotiated) {}
  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override;
  // What the peer's socket offers. The peer is asked if it has not been.
  Result<SocketFeatures> offered_by_socket();

 private:
  Result<vhost::DeviceReply> answer(vhost::GetFeatures request);
  Result<vhost::DeviceReply> answer(vhost::SetFeatures request);
  Result<vhost::DeviceReply> answer(vhost::GetProtocolFeatures request);
  Result<vhost::DeviceReply> answer(vhost::SetProtocolFeatures request);
  Result<vhost::DeviceReply> answer(vhost::GetQueueNum request);
  Result<vhost::DeviceReply> answer(vhost::SetVringEnable request);
  template <class Other>
  Result<vhost::DeviceReply> answer(Other request);

  Result<uint64_t> offered_features();
  Result<uint64_t> offered_capabilities();
  Result<bool> can_enable_rings();

  vhost::Device& next_;
  Negotiated& negotiated_;
  uint64_t offered_features_ = 0;
  uint64_t offered_capabilities_ = 0;
  bool knows_features_ = false;
  bool knows_capabilities_ = false;
  bool features_set_ = false;
};

}  // namespace ringway::user
