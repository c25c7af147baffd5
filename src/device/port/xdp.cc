#include "ringway/device/port/xdp.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/device/port/interface.h"
#include "ringway/device/port/offload.h"
#include "ringway/device/port/xdp_program.h"

namespace ringway::port {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t frames_per_turn = 64;  // that are received
constexpr auto retry_interval = milliseconds(200);
constexpr auto send_again_interval = milliseconds(1);

enum Count : uint8_t { sent, received, no_place, too_long, nowhere, counts };
constexpr std::array<const char*, counts> names = {
    "xdp: frames to the interface", "xdp: frames from the interface",
    "xdp: dropped, the interface is too slow", "xdp: dropped, longer than a frame of AF_XDP",
    "xdp: dropped, the interface is gone"};
// Of the kernel's.
enum KernelCount : uint8_t { rx_dropped, rx_ring_full, rx_no_places, kernel_counts };
constexpr std::array<const char*, kernel_counts> kernel_names = {
    "xdp: dropped by the kernel", "xdp: dropped by the kernel, the driver had too few buffers",
    "xdp: dropped by the kernel, no place in memory"};
using KernelCounts = std::array<uint64_t, kernel_counts>;

KernelCounts counts_of(const XdpSocket& socket) {
  const xdp_statistics counted = socket.statistics();
  return {counted.rx_dropped, counted.rx_ring_full, counted.rx_fill_ring_empty_descs};
}

// One queue of the interface. Its receiving half belongs to the inlet's thread, which also replaces the
// socket; outlets may be several, where the device has more pairs than the interface.
class XdpQueue {
 public:
  XdpQueue(uint32_t number, std::unique_ptr<XdpSocket> socket)
      : number_(number), socket_(std::move(socket)) {}

  [[nodiscard]] uint32_t number() const { return number_; }
  // The inlet's thread, or before there is any.
  [[nodiscard]] XdpSocket* socket() const { return socket_.get(); }
  void replace(std::unique_ptr<XdpSocket> socket) {
    const std::scoped_lock lock(mutex_);
    if (socket_) {
      const KernelCounts last = counts_of(*socket_);
      for (size_t i = 0; i < last.size(); ++i) before_[i] += last[i];
    }
    socket_.reset();  // first: there can be one for each queue of an interface
    socket_ = std::move(socket);
  }

  void send(const Frame& frame) {
    const std::scoped_lock lock(mutex_);
    add(try_to_send(frame));
  }
  // False: to be called again.
  bool flush() {
    const std::scoped_lock lock(mutex_);
    return !socket_ || socket_->kick();
  }

  void add(Count what, uint64_t number = 1) { counts_[what].fetch_add(number, std::memory_order_relaxed); }
  [[nodiscard]] uint64_t count(Count what) const { return counts_[what].load(std::memory_order_relaxed); }
  [[nodiscard]] KernelCounts kernel_counts() const {
    const std::scoped_lock lock(mutex_);
    KernelCounts all = before_;
    if (!socket_) return all;
    const KernelCounts now = counts_of(*socket_);
    for (size_t i = 0; i < all.size(); ++i) all[i] += now[i];
    return all;
  }

 private:
  Count try_to_send(const Frame& frame) {
    if (!socket_) return nowhere;
    if (frame.length > socket_->longest()) return too_long;
    std::span<std::byte> place = socket_->next_place();
    if (place.empty()) {
      socket_->kick();
      place = socket_->next_place();
    }
    if (place.empty()) return no_place;
    copy_frame(frame, place.data());
    socket_->send(frame.length);
    return sent;
  }

  const uint32_t number_;     // on the interface
  mutable std::mutex mutex_;  // guards socket_, but for its receiving half, and before_
  std::unique_ptr<XdpSocket> socket_;
  KernelCounts before_{};  // of sockets that are closed
  std::array<std::atomic<uint64_t>, counts> counts_{};
};

class XdpPort final : public Port {
 public:
  explicit XdpPort(XdpOptions options) : options_(std::move(options)) {}
  Result<> open();

  [[nodiscard]] const Abilities& abilities() const override { return abilities_; }
  std::unique_ptr<Outlet> open_outlet(loop::Loop& loop, uint16_t pair) override;
  std::unique_ptr<Inlet> open_inlet(loop::Loop& loop, uint16_t pair, Receiver& receiver) override;
  [[nodiscard]] Link link() const override { return {.up = is_up_, .speed_mbps = speed_mbps_}; }
  [[nodiscard]] std::vector<Counter> counters() const override;

  // On the inlet's thread: looks at the interface again. False: to be called again.
  bool look(XdpQueue& queue);

 private:
  Result<std::unique_ptr<XdpSocket>> open_socket(uint32_t queue, const Interface& interface);
  void set_up(bool up);

  const XdpOptions options_;
  Abilities abilities_;
  uint32_t speed_mbps_ = 0;
  std::vector<std::unique_ptr<XdpQueue>> queues_;
  std::mutex mutex_;  // guards what follows
  UniqueFd promiscuous_;
  std::unique_ptr<XdpProgram> program_;
  std::atomic<bool> complained_ = false;
  std::atomic<bool> is_up_ = true;
};

Result<> XdpPort::open() {
  const Interface interface = TRY(Interface::find(options_.interface));
  if (options_.queue >= interface.queues)
    return refused("the interface has no such queue; the first is 0", options_.queue);
  const uint32_t pairs = std::min<uint32_t>(options_.pairs, interface.queues - options_.queue);
  for (uint32_t i = 0; i < pairs; ++i) {
    const uint32_t number = options_.queue + i;
    auto socket = TRY(open_socket(number, interface));
    queues_.push_back(std::make_unique<XdpQueue>(number, std::move(socket)));
  }
  abilities_.pairs = static_cast<uint16_t>(pairs);
  is_up_ = interface.is_up;
  speed_mbps_ = interface.speed_mbps;
  log::info("interface {}: {} by AF_XDP, {}", options_.interface, pairs == 1 ? "a queue" : "queues",
            queues_.front()->socket()->is_zero_copy() ? "zero-copy" : "copied");
  return {};
}

// The first one brings the program with it.
Result<std::unique_ptr<XdpSocket>> XdpPort::open_socket(uint32_t queue, const Interface& interface) {
  auto socket = TRY(XdpSocket::open(options_.interface, interface, queue, options_.mode));
  const std::scoped_lock lock(mutex_);
  if (!program_ || program_->interface() != interface.index) {
    program_.reset();
    promiscuous_ = TRY(make_promiscuous(interface.index));
    program_ = TRY(XdpProgram::attach(interface.index, options_.mode == XdpMode::zero_copy));
  }
  TRY(program_->lead(queue, socket->fd()));
  return socket;
}

void XdpPort::set_up(bool up) {
  if (is_up_.exchange(up) == up) return;
  log::warning("interface {} is {}", options_.interface, up ? "up" : "down or gone");
  link_changed();
}

bool XdpPort::look(XdpQueue& queue) {
  const auto interface = Interface::find(options_.interface);
  const XdpSocket* const socket = queue.socket();
  if (interface && socket != nullptr && socket->interface() == interface->index) {
    set_up(interface->is_up);
    return queue.flush();
  }
  if (socket != nullptr) queue.replace(nullptr);
  if (!interface) {
    set_up(false);
    return true;  // that there is another is told
  }
  auto opened = open_socket(queue.number(), *interface);
  if (!opened) {
    if (!complained_.exchange(true))
      log::warning("interface {}: {}", options_.interface, opened.error().to_string());
    return false;
  }
  complained_ = false;
  queue.replace(*std::move(opened));
  set_up(interface->is_up);
  return true;
}

std::vector<Counter> XdpPort::counters() const {
  std::vector<Counter> all;
  for (size_t i = 0; i < names.size(); ++i) {
    all.push_back({.name = names[i]});
    for (const auto& queue : queues_) all.back().value += queue->count(static_cast<Count>(i));
  }
  KernelCounts of_kernel{};
  for (const auto& queue : queues_) {
    const KernelCounts one = queue->kernel_counts();
    for (size_t i = 0; i < one.size(); ++i) of_kernel[i] += one[i];
  }
  for (size_t i = 0; i < of_kernel.size(); ++i)
    all.push_back({.name = kernel_names[i], .value = of_kernel[i]});
  return all;
}

// Sends what is gathered; what the interface does not take at once a little later.
class XdpOutlet final : public Outlet, private loop::Source {
 public:
  XdpOutlet(XdpQueue& queue, loop::Loop& loop) : queue_(queue), loop_(loop) { loop_.add(*this); }
  ~XdpOutlet() override {
    loop_.cancel(timer_);
    loop_.remove(*this);
  }
  Sent send(Frame& frame) override {
    queue_.send(frame);
    return Sent::done;
  }
  void flush() override {
    pending_ = !queue_.flush();
    if (pending_) loop_.wake(*this);
  }

 private:
  bool poll() override {
    if (pending_) pending_ = !queue_.flush();
    return false;
  }
  bool park() override {
    if (pending_ && timer_ == 0) {
      timer_ = loop_.after(send_again_interval, [this] {
        timer_ = 0;
        loop_.wake(*this);
      });
    }
    return true;
  }
  void unpark() override {}

  XdpQueue& queue_;
  loop::Loop& loop_;
  bool pending_ = false;
  uint64_t timer_ = 0;
};

class XdpInlet final : public Inlet, private loop::Source {
 public:
  XdpInlet(XdpPort& port, XdpQueue& queue, loop::Loop& loop, Receiver& receiver, UniqueFd links)
      : port_(port), queue_(queue), loop_(loop), receiver_(receiver), links_(std::move(links)) {
    loop_.add(*this);
    if (links_) watch_.emplace(loop_, links_.get(), [this] { look(); });
    // What has happened before anybody watched. Not here: a queue that starts must not tell of links.
    retry_ = loop_.after(milliseconds(0), [this] { look(); });
  }
  ~XdpInlet() override {
    loop_.cancel(retry_);
    watch_.reset();
    loop_.remove(*this);
  }
  void resume() override { loop_.wake(*this); }

 private:
  bool poll() override {
    XdpSocket* const socket = queue_.socket();
    starved_ = false;
    if (socket == nullptr) return false;
    const uint32_t count = socket->receive(frames_per_turn, [this](std::span<const std::byte> bytes) {
      starved_ = bytes.size() >= min_frame &&
                 !receiver_.deliver({.length = static_cast<uint32_t>(bytes.size()), .head = bytes});
      return !starved_;
    });
    socket->wake_driver();
    if (count > 0) queue_.add(received, count);
    return count > 0;
  }
  // Starved, it leaves frames where they are, until resume().
  bool park() override {
    if (starved_ || queue_.socket() == nullptr) return true;
    if (auto watched = loop_.wake_when_ready(*this, queue_.socket()->fd(), POLLIN); !watched)
      log::warning("{}", watched.error().to_string());
    return true;
  }
  void unpark() override {}

  void look() {
    loop_.cancel(std::exchange(retry_, 0));
    loop_.unwatch_fd(*this);  // which may be closed now
    if (!port_.look(queue_)) retry_ = loop_.after(retry_interval, [this] { look(); });
    loop_.wake(*this);
  }

  XdpPort& port_;
  XdpQueue& queue_;
  loop::Loop& loop_;
  Receiver& receiver_;
  const UniqueFd links_;
  std::optional<LinkWatch> watch_;
  bool starved_ = false;
  uint64_t retry_ = 0;
};

std::unique_ptr<Outlet> XdpPort::open_outlet(loop::Loop& loop, uint16_t pair) {
  return std::make_unique<XdpOutlet>(*queues_[pair % queues_.size()], loop);
}

std::unique_ptr<Inlet> XdpPort::open_inlet(loop::Loop& loop, uint16_t pair, Receiver& receiver) {
  auto links = LinkWatch::open();
  if (!links) log::warning("{}", links.error().to_string());
  return std::make_unique<XdpInlet>(*this, *queues_[pair], loop, receiver,
                                    links ? *std::move(links) : UniqueFd());
}

}  // namespace

Result<std::unique_ptr<Port>> open_xdp(const XdpOptions& options) {
  auto port = std::make_unique<XdpPort>(options);
  TRY(port->open());
  return port;
}

}  // namespace ringway::port
