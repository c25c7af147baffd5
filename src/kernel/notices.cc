#include "ringway/kernel/notices.h"

#include <poll.h>

#include <array>
#include <cassert>

#include "ringway/base/log.h"

namespace ringway::kernel {

Result<std::unique_ptr<Notices>> Notices::start(Sources sources, std::shared_ptr<vhost::FrontEnd> front_end) {
  UniqueFd wake = TRY(make_eventfd());
  return std::unique_ptr<Notices>(new Notices(sources, std::move(front_end), std::move(wake)));
}

Notices::Notices(Sources sources, std::shared_ptr<vhost::FrontEnd> front_end, UniqueFd wake)
    : sources_(sources),
      front_end_(std::move(front_end)),
      wake_(std::move(wake)),
      thread_([this] { run(); }) {}

Notices::~Notices() {
  {
    const std::scoped_lock lock(mutex_);
    ends_ = true;
  }
  wake();
  thread_.join();
}

void Notices::tell(const vhost::IotlbMessage& miss) {
  {
    const std::scoped_lock lock(mutex_);
    waiting_.push_back(miss);
  }
  wake();
}

void Notices::wake() const {
  const uint64_t one = 1;
  const ssize_t written = ::write(wake_.get(), &one, sizeof one);
  assert(written == sizeof one);
}

void Notices::run() {
  // poll() passes over negative numbers.
  std::array<pollfd, 3> entries{
      {{.fd = wake_.get(), .events = POLLIN},
       {.fd = sources_.misses == nullptr ? -1 : sources_.misses->fd(), .events = POLLIN},
       {.fd = sources_.config == nullptr ? -1 : sources_.config->fd(), .events = POLLIN}}};
  while (true) {
    if (::poll(entries.data(), entries.size(), -1) < 0) continue;
    if (entries[0].revents != 0 && !take_waiting()) return;
    if (sources_.iotlb != nullptr && (entries[1].revents & POLLIN) != 0) {
      const auto miss = sources_.iotlb->take().value_or(std::nullopt);
      if (miss) pass_on(*miss);
    }
    if ((entries[1].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) entries[1].fd = -1;
    if (sources_.config != nullptr && (entries[2].revents & POLLIN) != 0 && sources_.config->take()) {
      const auto told = vhost::call(*front_end_, vhost::ConfigChange{});
      if (!told) log::debug("configuration change: {}", told.error().to_string());
    }
  }
}

bool Notices::take_waiting() {
  uint64_t events = 0;
  const ssize_t got = ::read(wake_.get(), &events, sizeof events);
  assert(got == sizeof events);
  std::vector<vhost::IotlbMessage> misses;
  {
    const std::scoped_lock lock(mutex_);
    if (ends_) return false;
    misses.swap(waiting_);
  }
  for (const vhost::IotlbMessage& miss : misses) pass_on(miss);
  return true;
}

// A front-end that does not take a miss answers it never, or later by itself.
void Notices::pass_on(const vhost::IotlbMessage& miss) {
  const auto told = vhost::call(*front_end_, vhost::IotlbFault{miss});
  if (!told) log::debug("IOTLB miss: {}", told.error().to_string());
}

}  // namespace ringway::kernel
