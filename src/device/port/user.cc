#include "ringway/device/port/user.h"

#include <poll.h>
#include <slirp/libslirp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <thread>

#include "ringway/base/log.h"
#include "ringway/base/notifier.h"
#include "ringway/device/port/offload.h"

namespace ringway::port {
namespace {

using Clock = std::chrono::steady_clock;
using Packet = std::vector<std::byte>;

constexpr size_t max_queued = 512;  // frames, each way
constexpr size_t frames_a_turn = 64;
constexpr uint32_t longest_sleep = 1000;  // ms
constexpr uint32_t host_gateway = 2;
constexpr uint32_t host_name_server = 3;
constexpr uint32_t host_first_guest = 15;

// An eventfd, both ends of it.
struct Bell {
  Signal signal;
  Notifier notifier;
  static Result<Bell> make() {
    UniqueFd fd = TRY(make_eventfd());
    Notifier notifier = TRY(Notifier::adopt(TRY(fd.duplicate())));
    return Bell{.signal = TRY(Signal::adopt(std::move(fd))), .notifier = std::move(notifier)};
  }
};

// Frames between two threads; full, it drops and counts.
class Queue {
 public:
  explicit Queue(Bell bell) : bell_(std::move(bell)) {}
  void push(Packet packet) {
    {
      const std::scoped_lock lock(mutex_);
      if (packets_.size() == max_queued) {
        ++dropped_;
        return;
      }
      packets_.push_back(std::move(packet));
    }
    bell_.notifier.signal();
  }
  // Empty: there is none.
  Packet pop() {
    const std::scoped_lock lock(mutex_);
    if (packets_.empty()) return {};
    Packet packet = std::move(packets_.front());
    packets_.pop_front();
    return packet;
  }
  void put_back(Packet packet) {
    const std::scoped_lock lock(mutex_);
    packets_.push_front(std::move(packet));
  }
  [[nodiscard]] bool empty() const {
    const std::scoped_lock lock(mutex_);
    return packets_.empty();
  }
  void ring() const { bell_.notifier.signal(); }
  [[nodiscard]] const Signal& signal() const { return bell_.signal; }
  [[nodiscard]] uint64_t dropped() const { return dropped_; }

 private:
  const Bell bell_;
  mutable std::mutex mutex_;
  std::deque<Packet> packets_;
  std::atomic<uint64_t> dropped_ = 0;
};

// The stack and its thread.
class Stack {
 public:
  Stack(Queue& from_guest, Queue& to_guest) : from_guest_(from_guest), to_guest_(to_guest) {}
  ~Stack() {
    if (thread_.joinable()) {
      stopping_ = true;
      from_guest_.ring();
      thread_.join();
    }
    if (slirp_ != nullptr) ::slirp_cleanup(slirp_);
  }
  Result<> start(const UserOptions& options) {
    const SlirpConfig config = TRY(configure(options));
    slirp_ = ::slirp_new(&config, &callbacks(), this);
    if (slirp_ == nullptr) return refused("libslirp does not take this network");
    for (const UserOptions::Forward& one : options.forwards) {
      if (::slirp_add_hostfwd(slirp_, int{one.is_udp}, one.host, one.host_port, one.guest, one.guest_port) !=
          0)
        return os_failure("cannot listen on a port to forward");
    }
    thread_ = std::thread([this] { run(); });
    return {};
  }
  [[nodiscard]] uint64_t errors() const { return errors_; }

 private:
  struct Timer {
    SlirpTimerCb call;
    void* argument;
    int64_t at = 0;  // ms; 0: it does not run
  };

  static int64_t now() { return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count(); }
  static Stack& of(void* opaque) { return *static_cast<Stack*>(opaque); }

  static Result<SlirpConfig> configure(const UserOptions& options) {
    if (options.prefix < 8 || options.prefix > 27)
      return refused("a network has a prefix of 8 to 27 bits", options.prefix);
    const uint32_t mask = ~uint32_t{0} << (32 - options.prefix);
    const uint32_t network = ntohl(options.network.s_addr) & mask;
    const auto host = [network](uint32_t number) { return in_addr{.s_addr = htonl(network + number)}; };
    SlirpConfig config{};
    config.version = 1;
    config.restricted = int{options.is_restricted};
    config.in_enabled = true;
    config.vnetwork = host(0);
    config.vnetmask.s_addr = htonl(mask);
    config.vhost = host(host_gateway);
    config.vnameserver = host(host_name_server);
    config.vdhcp_start = host(host_first_guest);
    return config;
  }
  static const SlirpCb& callbacks() {
    static const SlirpCb table = [] {
      SlirpCb calls{};
      calls.send_packet = [](const void* bytes, size_t length, void* self) {
        const auto* from = static_cast<const std::byte*>(bytes);
        if (length >= min_frame && length <= max_frame) of(self).to_guest_.push(Packet(from, from + length));
        return static_cast<ssize_t>(length);
      };
      calls.guest_error = [](const char*, void* self) { ++of(self).errors_; };
      calls.clock_get_ns = [](void*) { return now(); };
      calls.timer_new = [](SlirpTimerCb call, void* argument, void* self) -> void* {
        return of(self).timers_.emplace_back(new Timer{.call = call, .argument = argument}).get();
      };
      calls.timer_free = [](void* timer, void* self) {
        std::erase_if(of(self).timers_, [timer](const auto& one) { return one.get() == timer; });
      };
      calls.timer_mod = [](void* timer, int64_t at, void*) { static_cast<Timer*>(timer)->at = at; };
      calls.register_poll_fd = [](int, void*) {};
      calls.unregister_poll_fd = [](int, void*) {};
      calls.notify = [](void*) {};
      return calls;
    }();
    return table;
  }

  void run() {
    ::pthread_setname_np(::pthread_self(), "rw-user");
    while (!stopping_) turn();
  }
  void turn() {
    fds_ = {{.fd = from_guest_.signal().fd(), .events = POLLIN, .revents = 0}};
    uint32_t timeout = longest_sleep;
    ::slirp_pollfds_fill(slirp_, &timeout, add_fd, this);
    const int ready = ::poll(fds_.data(), fds_.size(), static_cast<int>(std::min(timeout, until_timer())));
    from_guest_.signal().take();
    for (Packet packet = from_guest_.pop(); !packet.empty(); packet = from_guest_.pop())
      ::slirp_input(slirp_, reinterpret_cast<const uint8_t*>(packet.data()), static_cast<int>(packet.size()));
    ::slirp_pollfds_poll(
        slirp_, int{ready < 0}, [](int index, void* self) { return of(self).events_of(index); }, this);
    fire_timers();
  }
  static int add_fd(int fd, int events, void* self) {
    short wanted = 0;
    if ((events & SLIRP_POLL_IN) != 0) wanted |= POLLIN;
    if ((events & SLIRP_POLL_OUT) != 0) wanted |= POLLOUT;
    if ((events & SLIRP_POLL_PRI) != 0) wanted |= POLLPRI;
    of(self).fds_.push_back({.fd = fd, .events = wanted, .revents = 0});
    return static_cast<int>(of(self).fds_.size()) - 1;
  }
  [[nodiscard]] int events_of(int index) const {
    const short seen = fds_[static_cast<size_t>(index)].revents;
    int events = 0;
    if ((seen & POLLIN) != 0) events |= SLIRP_POLL_IN;
    if ((seen & POLLOUT) != 0) events |= SLIRP_POLL_OUT;
    if ((seen & POLLPRI) != 0) events |= SLIRP_POLL_PRI;
    if ((seen & POLLERR) != 0) events |= SLIRP_POLL_ERR;
    if ((seen & POLLHUP) != 0) events |= SLIRP_POLL_HUP;
    return events;
  }
  [[nodiscard]] uint32_t until_timer() const {
    int64_t least = longest_sleep;
    for (const auto& timer : timers_) {
      if (timer->at != 0) least = std::clamp<int64_t>(timer->at - now() / 1'000'000, 0, least);
    }
    return static_cast<uint32_t>(least);
  }
  void fire_timers() {
    for (size_t i = 0; i < timers_.size(); ++i) {
      Timer& timer = *timers_[i];
      if (timer.at == 0 || timer.at > now() / 1'000'000) continue;
      timer.at = 0;
      timer.call(timer.argument);
    }
  }

  Queue& from_guest_;
  Queue& to_guest_;
  Slirp* slirp_ = nullptr;
  std::vector<std::unique_ptr<Timer>> timers_;
  std::vector<pollfd> fds_;
  std::atomic<bool> stopping_ = false;
  std::atomic<uint64_t> errors_ = 0;
  std::thread thread_;
};

class UserPort final : public Port {
 public:
  UserPort(Bell from_guest, Bell to_guest)
      : from_guest_(std::move(from_guest)), to_guest_(std::move(to_guest)), stack_(from_guest_, to_guest_) {}
  Result<> start(const UserOptions& options) { return stack_.start(options); }

  [[nodiscard]] const Abilities& abilities() const override { return abilities_; }
  std::unique_ptr<Outlet> open_outlet(loop::Loop&, uint16_t) override {
    return std::make_unique<Out>(from_guest_);
  }
  std::unique_ptr<Inlet> open_inlet(loop::Loop& loop, uint16_t, Receiver& receiver) override {
    return std::make_unique<In>(to_guest_, loop, receiver);
  }
  [[nodiscard]] std::vector<Counter> counters() const override {
    return {{"user: sent, dropped: queue full", from_guest_.dropped()},
            {"user: to receive, dropped: queue full", to_guest_.dropped()},
            {"user: mistakes of the guest", stack_.errors()}};
  }

 private:
  class Out final : public Outlet {
   public:
    explicit Out(Queue& queue) : queue_(queue) {}
    Sent send(Frame& frame) override {
      Packet packet(frame.length);
      copy_frame(frame, packet.data());
      queue_.push(std::move(packet));
      return Sent::done;
    }

   private:
    Queue& queue_;
  };

  class In final : public Inlet, private loop::Source {
   public:
    In(Queue& queue, loop::Loop& loop, Receiver& receiver) : queue_(queue), loop_(loop), receiver_(receiver) {
      loop_.add(*this);
      if (auto watched = loop_.watch(*this, queue_.signal()); !watched)
        log::warning("{}", watched.error().to_string());
    }
    ~In() override { loop_.remove(*this); }
    void resume() override { loop_.wake(*this); }

   private:
    bool poll() override {
      starved_ = false;
      size_t count = 0;
      for (; count < frames_a_turn && !starved_; ++count) {
        Packet packet = queue_.pop();
        if (packet.empty()) break;
        const iovec piece{.iov_base = packet.data(), .iov_len = packet.size()};
        starved_ =
            !receiver_.deliver({.length = static_cast<uint32_t>(packet.size()), .pieces = {&piece, 1}});
        if (starved_) queue_.put_back(std::move(packet));
      }
      return count > 0 && !starved_;
    }
    // A notification that came before is told again by the watch.
    bool park() override { return starved_ || queue_.empty(); }
    void unpark() override {}

    Queue& queue_;
    loop::Loop& loop_;
    Receiver& receiver_;
    bool starved_ = false;
  };

  const Abilities abilities_{};
  Queue from_guest_;
  Queue to_guest_;
  Stack stack_;
};

}  // namespace

Result<std::unique_ptr<Port>> open_user(const UserOptions& options) {
  auto port = std::make_unique<UserPort>(TRY(Bell::make()), TRY(Bell::make()));
  TRY(port->start(options));
  return port;
}

}  // namespace ringway::port
