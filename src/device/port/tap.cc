#include "ringway/device/port/tap.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/device/port/tap_device.h"
#include "ringway/device/port/virtio_net.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::port {
namespace {

using std::chrono::milliseconds;

constexpr unsigned frames_per_turn = 64;  // that are read
constexpr auto retry_interval = milliseconds(200);
constexpr uint32_t small_window = 2048;  // bytes reserved for a frame while none was longer lately
constexpr unsigned large_for = 64;       // frames for which a long one is expected again
constexpr size_t max_pieces = IOV_MAX - 1;

// For counting by one thread and reading by any.
class Tally {
 public:
  void add() { value_.store(value_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
  [[nodiscard]] uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_ = 0;
};

// The kernel has taken the interface away; the fd will never work again.
bool means_gone(int error) { return error == EBADFD || error == EBADF || error == ENODEV; }

// One queue of the tap: what the outlet and the inlet of a pair share. On their loop, but for what the port
// says.
class TapQueue {
 public:
  // How a queue comes to be ours.
  enum class Origin : uint8_t {
    opened,
    as_it_is,  // see TapOptions
    shared,    // with another process until an inlet opens
  };
  TapQueue(TapDevice& device, UniqueFd fd, bool may_detach, Origin origin)
      : device_(device),
        fd_(std::move(fd)),
        may_detach_(may_detach),
        as_it_is_(origin == Origin::as_it_is),
        is_shared_(origin == Origin::shared) {
    if (is_shared_)
      is_attached_.reset();
    else if (may_detach_)
      attach(false);
  }

  [[nodiscard]] int fd() const { return fd_.get(); }
  // Bytes in front of each frame. Whoever has set up a file as it is may change that while no queue is open.
  [[nodiscard]] size_t header() const {
    return as_it_is_ ? header_of(fd_).value_or(plain_header) : plain_header;
  }
  // Any thread: a copy for another process.
  [[nodiscard]] Result<UniqueFd> share() {
    const std::scoped_lock lock(mutex_);
    is_lent_ = true;
    return fd_.duplicate();
  }
  [[nodiscard]] bool usable() const { return !gone_.load(std::memory_order_relaxed); }

  // Any thread: what the driver wishes.
  Result<> wish(uint64_t offloads, bool wanted) {
    const std::scoped_lock lock(mutex_);
    offloads_ = offloads;
    wanted_ = wanted;
    return apply();
  }
  // The inlet has come or gone. To detach a queue is to lose what waits in it: one that another process reads
  // on stays attached.
  void set_read(bool is_read) {
    const std::scoped_lock lock(mutex_);
    is_read_ = is_read;
    if (is_read) is_shared_ = is_lent_ = false;
    if (is_lent_) return;
    if (auto applied = apply(); !applied) log::warning("{}", applied.error().to_string());
  }

  // After an error that means it: true if the interface has just been found to be gone.
  bool lose() { return !gone_.exchange(true); }
  // Any thread. Tries again, if the last attempt was long enough ago. True if it is there. An inlet watches
  // the file, so where there is one nobody else may bring another.
  enum class Finder : uint8_t { inlet, outlet };
  bool find(Finder who) {
    const std::scoped_lock lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (usable() || (who == Finder::outlet && is_read_) || now - last_attempt_ < retry_interval / 2)
      return usable();
    last_attempt_ = now;
    auto fd = device_.open_queue();
    // The number stays the same, for outlets that use it on other threads.
    if (!fd || ::dup3(fd->get(), fd_.get(), O_CLOEXEC) < 0) return false;
    is_attached_ = true;
    gone_ = false;
    if (auto applied = apply(); !applied) log::warning("{}", applied.error().to_string());
    return true;
  }

  Tally sent, received, dropped_out, dropped_in;

 private:
  Result<> apply() {
    if (gone_ || is_shared_) return {};
    const bool attached = !may_detach_ || (is_read_ && wanted_);
    if (attached != is_attached_) attach(attached);
    if (as_it_is_) return {};
    // A queue that is detached does not know its interface.
    return attached ? set_tap_offloads(fd_, offloads_) : Result<>();
  }
  void attach(bool attached) {
    if (auto done = attach_tap_queue(fd_, attached); !done)
      return log::warning("{}", done.error().to_string());
    is_attached_ = attached;
  }

  TapDevice& device_;
  std::mutex mutex_;  // guards what follows, but for reading fd_
  UniqueFd fd_;
  const bool may_detach_;
  const bool as_it_is_;
  bool is_shared_;
  bool is_lent_ = false;                    // to a process that goes on when our inlet has gone
  std::optional<bool> is_attached_ = true;  // nothing: another process knows
  bool is_read_ = false;
  bool wanted_ = true;
  uint64_t offloads_ = 0;
  std::atomic<bool> gone_ = false;
  std::chrono::steady_clock::time_point last_attempt_;
};

class TapPort final : public Port {
 public:
  TapPort(TapDevice device, std::vector<UniqueFd> fds, TapQueue::Origin origin, bool knows_uso)
      : device_(std::move(device)), knows_uso_(knows_uso) {
    abilities_.pairs = static_cast<uint16_t>(fds.size());
    abilities_.takes = transmit_offloads;
    abilities_.gives = receive_offloads;
    if (!knows_uso) {
      abilities_.takes &= ~bit(VIRTIO_NET_F_HOST_USO);
      abilities_.gives &= ~(bit(VIRTIO_NET_F_GUEST_USO4) | bit(VIRTIO_NET_F_GUEST_USO6));
    }
    for (UniqueFd& fd : fds) {
      // The first stays, so that the interface has somebody to talk to.
      queues_.push_back(std::make_unique<TapQueue>(device_, std::move(fd), !queues_.empty(), origin));
    }
  }

  [[nodiscard]] const Abilities& abilities() const override { return abilities_; }
  Result<> wish(const Wishes& wishes) override {
    for (size_t i = 0; i < queues_.size(); ++i) TRY(queues_[i]->wish(wishes.offloads, i < wishes.pairs));
    return {};
  }
  std::unique_ptr<Outlet> open_outlet(loop::Loop& loop, uint16_t pair) override;
  std::unique_ptr<Inlet> open_inlet(loop::Loop& loop, uint16_t pair, Receiver& receiver) override;
  [[nodiscard]] Link link() const override { return {.up = queues_.front()->usable()}; }
  [[nodiscard]] Result<HandedPort> hand_over() const override;
  [[nodiscard]] std::vector<Counter> counters() const override;

  // Any queue: the interface is gone, or back.
  void tell(bool there) {
    log::warning("tap {} is {}", device_.name(), there ? "back" : "gone");
    link_changed();
  }

 private:
  TapDevice device_;
  const bool knows_uso_;
  Abilities abilities_;
  std::vector<std::unique_ptr<TapQueue>> queues_;
};

class TapOutlet final : public Outlet {
 public:
  TapOutlet(TapPort& port, TapQueue& queue) : port_(port), queue_(queue), header_(queue.header()) {
    pieces_.reserve(IOV_MAX);
  }

  Sent send(Frame& frame) override {
    if (!queue_.usable()) [[unlikely]] {
      if (!queue_.find(TapQueue::Finder::outlet)) {
        queue_.dropped_out.add();
        return Sent::done;
      }
      port_.tell(true);
    }
    Header header = to_header(frame.offload);
    pieces_.clear();
    pieces_.push_back({.iov_base = &header, .iov_len = header_});
    if (frame.pieces.size() > max_pieces - 1) return send_joined(frame);
    if (!frame.head.empty()) {
      pieces_.push_back(
          {.iov_base = const_cast<std::byte*>(frame.head.data()), .iov_len = frame.head.size()});
    }
    pieces_.insert(pieces_.end(), frame.pieces.begin(), frame.pieces.end());
    write();
    return Sent::done;
  }

 private:
  // A frame in more pieces than the kernel takes at once.
  Sent send_joined(const Frame& frame) {
    joined_.assign(frame.head.begin(), frame.head.end());
    for (const iovec& piece : frame.pieces) {
      const size_t at = joined_.size();
      joined_.resize(at + piece.iov_len);
      memory::copy_out(joined_.data() + at, piece.iov_base, piece.iov_len);
    }
    pieces_.push_back({.iov_base = joined_.data(), .iov_len = joined_.size()});
    write();
    return Sent::done;
  }
  void write() {
    if (::writev(queue_.fd(), pieces_.data(), static_cast<int>(pieces_.size())) > 0) [[likely]] {
      queue_.sent.add();
      return;
    }
    queue_.dropped_out.add();
    if (means_gone(errno) && queue_.lose()) port_.tell(false);
  }

  TapPort& port_;
  TapQueue& queue_;
  const size_t header_;  // bytes
  std::vector<iovec> pieces_;
  std::vector<std::byte> joined_;
};

class TapInlet final : public Inlet, private loop::Source {
 public:
  TapInlet(TapPort& port, TapQueue& queue, loop::Loop& loop, Receiver& receiver)
      : port_(port),
        queue_(queue),
        header_(queue.header()),
        loop_(loop),
        receiver_(receiver),
        rest_(max_frame) {
    places_.reserve(IOV_MAX);
    loop_.add(*this);
    queue_.set_read(true);
  }
  ~TapInlet() override {
    queue_.set_read(false);
    loop_.cancel(retry_);
    loop_.remove(*this);
  }
  void resume() override { loop_.wake(*this); }

 private:
  enum class Outcome : uint8_t { frame, nothing, starved };

  bool poll() override {
    unsigned count = 0;
    starved_ = false;
    if (!queue_.usable() && retry_ == 0) retry_later();  // an outlet has noticed
    while (count < frames_per_turn && queue_.usable()) {
      const Outcome outcome = read_one();
      starved_ = outcome == Outcome::starved;
      if (outcome != Outcome::frame) break;
      ++count;
    }
    return count > 0;
  }
  bool park() override {
    if (starved_ || !queue_.usable()) return true;  // resume() or the timer
    if (auto watched = loop_.wake_when_ready(*this, queue_.fd(), POLLIN); !watched) {
      log::warning("{}", watched.error().to_string());
    }
    return true;
  }
  void unpark() override {}

  Outcome read_one() {
    Header header;
    const uint32_t window = large_left_ > 0 ? max_frame : small_window;
    const std::span<const iovec> reserved = receiver_.reserve(window);
    if (reserved.empty()) return Outcome::starved;
    const size_t count = std::min(reserved.size(), max_pieces - 2);
    places_.clear();
    places_.push_back({.iov_base = &header, .iov_len = header_});
    places_.insert(places_.end(), reserved.begin(), reserved.begin() + static_cast<ptrdiff_t>(count));
    places_.push_back({.iov_base = rest_.data(), .iov_len = rest_.size()});
    const ssize_t length = ::readv(queue_.fd(), places_.data(), static_cast<int>(places_.size()));
    if (length < 0) return failed(errno);
    if (static_cast<size_t>(length) < header_ + min_frame) return Outcome::frame;
    commit(header, static_cast<size_t>(length) - header_, std::span(places_).subspan(1, count));
    return Outcome::frame;
  }
  void commit(const Header& header, size_t length, std::span<const iovec> reserved) {
    size_t room = 0;
    for (const iovec& place : reserved) room += place.iov_len;
    const size_t in_place = std::min(length, room);
    large_left_ = length > small_window ? large_for : large_left_ - (large_left_ > 0 ? 1 : 0);
    if (receiver_.commit(to_offload(header), static_cast<uint32_t>(in_place),
                         std::span(rest_).first(length - in_place))) {
      queue_.received.add();
    } else {
      queue_.dropped_in.add();
    }
  }
  Outcome failed(int error) {
    if (!means_gone(error)) return Outcome::nothing;
    if (queue_.lose()) port_.tell(false);
    retry_later();
    return Outcome::nothing;
  }
  void retry_later() {
    loop_.unwatch_fd(*this);
    retry_ = loop_.after(retry_interval, [this] { retry(); });
  }
  void retry() {
    retry_ = 0;
    if (!queue_.find(TapQueue::Finder::inlet)) return retry_later();
    port_.tell(true);
    loop_.wake(*this);
  }

  TapPort& port_;
  TapQueue& queue_;
  const size_t header_;  // bytes
  loop::Loop& loop_;
  Receiver& receiver_;
  std::vector<iovec> places_;
  std::vector<std::byte> rest_;  // what did not fit into the reserved places
  unsigned large_left_ = 0;
  bool starved_ = false;
  uint64_t retry_ = 0;
};

std::unique_ptr<Outlet> TapPort::open_outlet(loop::Loop&, uint16_t pair) {
  return std::make_unique<TapOutlet>(*this, *queues_[pair % queues_.size()]);
}

std::unique_ptr<Inlet> TapPort::open_inlet(loop::Loop& loop, uint16_t pair, Receiver& receiver) {
  return std::make_unique<TapInlet>(*this, *queues_[pair], loop, receiver);
}

Result<HandedPort> TapPort::hand_over() const {
  HandedPort handed{.words = fmt::format("{} {}", device_.is_created() ? "created" : "found",
                                         knows_uso_ ? "uso" : "no-uso")};
  for (const auto& queue : queues_) {
    if (!queue->usable()) return refused("the tap is gone; it can move to another process when it is back");
    handed.fds.push_back(TRY(queue->share()));
  }
  return handed;
}

std::vector<Counter> TapPort::counters() const {
  Counter sent{"tap: frames to the host"};
  Counter received{"tap: frames from the host"};
  Counter dropped_out{"tap: dropped, the host did not take them"};
  Counter dropped_in{"tap: dropped, too few buffers"};
  for (const auto& queue : queues_) {
    sent.value += queue->sent.value();
    received.value += queue->received.value();
    dropped_out.value += queue->dropped_out.value();
    dropped_in.value += queue->dropped_in.value();
  }
  return {sent, received, dropped_out, dropped_in};
}

}  // namespace

Result<std::unique_ptr<Port>> open_tap(TapOptions options) {
  TapDevice device = !options.fd        ? TRY(TapDevice::of_name(options.name, options.pairs > 1))
                     : options.as_it_is ? TRY(TapDevice::as_it_is(options.fd))
                                        : TRY(TapDevice::of_fd(options.fd));
  std::vector<UniqueFd> queues;
  queues.push_back(device.take_first());
  // Others than the first can be had by name only.
  const size_t wanted = device.has_many_queues() && !options.fd ? options.pairs : 1;
  while (queues.size() < wanted) queues.push_back(TRY(device.open_queue()));
  const bool knows_uso = options.as_it_is || tap_knows_uso(queues.front());
  const auto origin = options.as_it_is ? TapQueue::Origin::as_it_is : TapQueue::Origin::opened;
  return std::make_unique<TapPort>(std::move(device), std::move(queues), origin, knows_uso);
}

Result<std::unique_ptr<Port>> resume_tap(const std::string& name, HandedPort handed) {
  const std::string_view words = handed.words;
  const size_t space = words.find(' ');
  const std::string_view created = words.substr(0, space);
  const std::string_view uso = space == std::string_view::npos ? "" : words.substr(space + 1);
  if ((created != "created" && created != "found") || (uso != "uso" && uso != "no-uso"))
    return refused("a tap is handed over in an unknown way");
  if (handed.fds.empty()) return refused("a tap is handed over without its queues");
  TapDevice device = TRY(TapDevice::of_shared_fd(handed.fds.front(), created == "created"));
  if (!name.empty() && name != device.name()) return refused("another tap than this is served now");
  return std::make_unique<TapPort>(std::move(device), std::move(handed.fds), TapQueue::Origin::shared,
                                   uso == "uso");
}

}  // namespace ringway::port
