// The epoll poller: for places where io_uring is forbidden. Watches are edge-triggered; file requests go to a
// pool of threads.
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <climits>
#include <memory>
#include <unordered_set>
#include <vector>

#include "ringway/loop/file_pool.h"
#include "ringway/loop/poller.h"

namespace ringway::loop {
namespace {

constexpr size_t events_per_turn = 64;
// While other things keep the loop awake, it asks the kernel for events only once in so many turns.
constexpr unsigned turns_between_looks = 8;

int milliseconds_until(std::optional<Loop::Clock::time_point> time) {
  if (!time) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*time - Loop::Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, INT_MAX));
}

// poll(2) and epoll(7) have the same bits for what is asked for here.
uint32_t once(short events) { return static_cast<uint16_t>(events) | EPOLLONESHOT; }

class EpollPoller final : public Poller {
 public:
  EpollPoller(Client& client, std::shared_ptr<Doorbell> doorbell)
      : client_(client), doorbell_(std::move(doorbell)) {}
  Result<> open();

  Result<Watch*> watch(const Signal& signal, SourceState& source) override;
  Result<Watch*> watch_once(int fd, short events, SourceState& source) override;
  Result<> rearm(Watch& watch) override;
  void unwatch(Watch* watch) override;
  void submit(FileRequest& request) override { files_.submit(request); }
  [[nodiscard]] size_t in_flight() const override { return files_.in_flight(); }
  bool reap() override;
  void flush() override { files_.flush(); }
  void sleep(std::optional<Loop::Clock::time_point> until) override;
  [[nodiscard]] bool pending() const override { return files_.pending(); }

 private:
  Result<> add(int fd, uint32_t events, void* data);
  void look(int timeout);
  bool reap_events();

  Client& client_;
  std::shared_ptr<Doorbell> doorbell_;
  UniqueFd epoll_;
  std::array<epoll_event, events_per_turn> events_{};
  size_t event_count_ = 0;  // seen, and not yet dealt with
  unsigned turns_ = 0;
  std::unordered_set<Watch*> watches_;
  std::vector<std::unique_ptr<Watch>> ended_;  // may still be named in events_
  PoolQueue files_{doorbell_};
};

Result<> EpollPoller::open() {
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return os_failure("cannot create an epoll instance");
  return add(doorbell_->fd(), EPOLLIN | EPOLLET, nullptr);
}

Result<> EpollPoller::add(int fd, uint32_t events, void* data) {
  epoll_event event{.events = events, .data = {.ptr = data}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return os_failure("cannot watch a notification fd");
  return {};
}

Result<Watch*> EpollPoller::watch(const Signal& signal, SourceState& source) {
  auto watch = std::make_unique<Watch>(Watch{.signal = &signal, .fd = signal.fd(), .source = &source});
  TRY(add(watch->fd, EPOLLIN | EPOLLET, watch.get()));
  watches_.insert(watch.get());
  return watch.release();
}

Result<Watch*> EpollPoller::watch_once(int fd, short events, SourceState& source) {
  auto watch = std::make_unique<Watch>(Watch{.fd = fd, .events = events, .source = &source});
  TRY(add(fd, once(events), watch.get()));
  watches_.insert(watch.get());
  return watch.release();
}

Result<> EpollPoller::rearm(Watch& watch) {
  epoll_event event{.events = once(watch.events), .data = {.ptr = &watch}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, watch.fd, &event) != 0)
    return os_failure("cannot watch an fd");
  return {};
}

void EpollPoller::unwatch(Watch* watch) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, watch->fd, nullptr);
  watches_.erase(watch);
  watch->wanted = false;
  ended_.emplace_back(watch);
}

void EpollPoller::look(int timeout) {
  const int count = ::epoll_wait(epoll_.get(), events_.data(), events_per_turn, timeout);
  event_count_ = static_cast<size_t>(std::max(count, 0));
  turns_ = 0;
}

void EpollPoller::sleep(std::optional<Loop::Clock::time_point> until) {
  flush();
  if (!files_.pending()) look(milliseconds_until(until));
}

bool EpollPoller::reap() {
  if (event_count_ == 0 && ++turns_ >= turns_between_looks) look(0);
  const bool events = reap_events();
  return files_.reap() || events;
}

bool EpollPoller::reap_events() {
  const size_t count = std::exchange(event_count_, 0);
  for (size_t i = 0; i < count; ++i) {
    const auto* watch = static_cast<const Watch*>(events_[i].data.ptr);
    if (watch == nullptr || !watch->wanted) continue;
    if (watch->signal != nullptr) watch->signal->take();
    client_.signalled(*watch->source);
  }
  ended_.clear();
  return count > 0;
}

}  // namespace

Result<std::unique_ptr<Poller>> make_epoll_poller(Poller::Client& client,
                                                  std::shared_ptr<Doorbell> doorbell) {
  auto poller = std::make_unique<EpollPoller>(client, std::move(doorbell));
  TRY(poller->open());
  return poller;
}

}  // namespace ringway::loop
