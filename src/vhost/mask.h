// Mask: a decorator that takes features and protocol features away from a device, and everything that follows
// from them: bits that need a bit which has gone, requests and answers that need it, in both directions. What
// stands in front of it sees a device that never had them. One call at a time; the front-end's side on the
// device's thread. vhost-user "Protocol features"; VIRTIO "Feature Bits".
#pragma once

#include <cstdint>

#include "ringway/vhost/catalogue.h"
#include "ringway/vhost/handler.h"

namespace ringway::vhost {

class Mask final : public Device {
 public:
  // Features and protocol features that are taken away, whether or not the device offers them. Those of the
  // socket (bit 30, REPLY_ACK, ...) may be among them: of these a mask only knows what follows, since no
  // request carries them; whoever serves the device must not offer them.
  using Taken = Agreement;

  // `next` outlives it.
  Mask(Device& next, Taken taken) : next_(next), taken_(with_consequences(taken)) {}
  Result<DeviceReply> handle(DeviceRequest request) override;

  [[nodiscard]] const Taken& taken() const { return taken_; }
  // Adds what cannot stay without what is taken.
  static Taken with_consequences(Taken taken);

 private:
  template <class T>
  [[nodiscard]] Result<> check(const T&) const {
    return {};
  }
  [[nodiscard]] Result<> check(const SetFeatures& request) const;
  [[nodiscard]] Result<> check(const SetProtocolFeatures& request) const;
  [[nodiscard]] Result<> check(const GetQueueNum& request) const;
  [[nodiscard]] Result<> check(const SetLogBase& request) const;
  [[nodiscard]] Result<> check(const SetLogFd& request) const;
  [[nodiscard]] Result<> check(const SetVringAddr& request) const;
  [[nodiscard]] Result<> check(const SetVringEnable& request) const;

  template <class T>
  Result<DeviceReply> forward(T request);
  Result<DeviceReply> forward(GetFeatures request);
  Result<DeviceReply> forward(GetProtocolFeatures request);
  Result<DeviceReply> forward(SetFrontEnd request);

  Device& next_;
  const Taken taken_;
};

}  // namespace ringway::vhost
