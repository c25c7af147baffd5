// HangUpWatch: tells when the peer of a socket has left, whoever else reads from that socket. A thread of its
// own.
#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "ringway/base/result.h"
#include "ringway/user/stop.h"

namespace ringway::tools {

class HangUpWatch {
 public:
  // `on_hang_up` is called at most once, on the watch's thread. `socket` stays open as long as the watch
  // lives.
  static Result<std::unique_ptr<HangUpWatch>> start(int socket, std::function<void()> on_hang_up);
  ~HangUpWatch();  // not on its own thread
  [[nodiscard]] static bool hung_up(int socket);

 private:
  HangUpWatch(int socket, std::shared_ptr<user::Stop> stop, std::function<void()> on_hang_up);
  const std::shared_ptr<user::Stop> stop_;
  std::thread thread_;
};

}  // namespace ringway::tools
