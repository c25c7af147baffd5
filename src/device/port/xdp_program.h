// XdpProgram: the program that an interface runs on each frame that it receives: frames of queues that have a
// socket go there, all others to this machine's network stack. It leaves the interface when this object ends,
// and when the process does, however that ends. Any thread, one at a time.
#pragma once

#include <cstdint>
#include <memory>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"

namespace ringway::port {

class XdpProgram {
 public:
  // In the driver if `must_be_native` or the driver can; else in front of the network stack.
  static Result<std::unique_ptr<XdpProgram>> attach(unsigned interface, bool must_be_native);
  // Linux ends a queue's share in it when the socket is closed.
  Result<> lead(uint32_t queue, int socket);
  [[nodiscard]] unsigned interface() const { return interface_; }

 private:
  static constexpr uint32_t max_queues = 1024;
  XdpProgram(unsigned interface, UniqueFd sockets, UniqueFd link)
      : interface_(interface), sockets_(std::move(sockets)), link_(std::move(link)) {}

  const unsigned interface_;  // its index
  const UniqueFd sockets_;    // the map: queue to socket
  const UniqueFd link_;
};

}  // namespace ringway::port
