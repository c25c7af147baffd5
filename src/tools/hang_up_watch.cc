#include "ringway/tools/hang_up_watch.h"

#include <poll.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

namespace ringway::tools {
namespace {

void wait_for(int socket, int stop, const std::function<void()>& on_hang_up) {
  std::array<pollfd, 2> entries{{{.fd = socket, .events = POLLRDHUP}, {.fd = stop, .events = POLLIN}}};
  while (::poll(entries.data(), entries.size(), -1) < 0 && errno == EINTR) {
  }
  if (entries[1].revents == 0 && entries[0].revents != 0) on_hang_up();
}

}  // namespace

Result<std::unique_ptr<HangUpWatch>> HangUpWatch::start(int socket, std::function<void()> on_hang_up) {
  auto stop = TRY(user::Stop::make());
  try {
    return std::unique_ptr<HangUpWatch>(new HangUpWatch(socket, std::move(stop), std::move(on_hang_up)));
  } catch (const std::system_error& error) {
    return os_failure("cannot start a thread to watch a connection", error.code().value());
  }
}

HangUpWatch::HangUpWatch(int socket, std::shared_ptr<user::Stop> stop, std::function<void()> on_hang_up)
    : stop_(std::move(stop)),
      thread_([socket, fd = stop_->fd(), call = std::move(on_hang_up)] { wait_for(socket, fd, call); }) {}

HangUpWatch::~HangUpWatch() {
  stop_->request();
  thread_.join();
}

bool HangUpWatch::hung_up(int socket) {
  pollfd entry{.fd = socket, .events = POLLRDHUP};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace ringway::tools
