#include "ringway/kernel/notices.h"

#include <poll.h>

#include <array>
#include <cassert>

#include "ringway/base/log.h"

namespace ringway::kernel {

Result<std::unique_ptr<Notices>> Notices::start(Sources sources, std::shared_ptr<vhost::FrontEnd> front_end) {
  UniqueFd stop = TRY(make_eventfd());
  return std::unique_ptr<Notices>(new Notices(sources, std::move(front_end), std::move(stop)));
}

Notices::Notices(Sources sources, std::shared_ptr<vhost::FrontEnd> front_end, UniqueFd stop)
    : sources_(sources),
      front_end_(std::move(front_end)),
      stop_(std::move(stop)),
      thread_([this] { run(); }) {}

Notices::~Notices() {
  const uint64_t one = 1;
  const ssize_t written = ::write(stop_.get(), &one, sizeof one);
  assert(written == sizeof one);
  thread_.join();
}

void Notices::run() {
  // poll() passes over negative numbers.
  std::array<pollfd, 3> entries{
      {{.fd = stop_.get(), .events = POLLIN},
       {.fd = sources_.misses == nullptr ? -1 : sources_.misses->fd(), .events = POLLIN},
       {.fd = sources_.config == nullptr ? -1 : sources_.config->fd(), .events = POLLIN}}};
  while (true) {
    if (::poll(entries.data(), entries.size(), -1) < 0) continue;
    if (entries[0].revents != 0) return;
    if ((entries[1].revents & POLLIN) != 0) tell_misses();
    if ((entries[1].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) entries[1].fd = -1;
    if ((entries[2].revents & POLLIN) != 0 && sources_.config->take()) {
      (void)vhost::call(*front_end_, vhost::ConfigChange{});
    }
  }
}

// A front-end that does not take a miss answers it never, or later by itself.
void Notices::tell_misses() {
  auto miss = sources_.iotlb->take();
  if (!miss || !*miss) return;
  auto told = vhost::call(*front_end_, vhost::IotlbFault{**miss});
  if (!told) log::debug("IOTLB miss: {}", told.error().to_string());
}

}  // namespace ringway::kernel
