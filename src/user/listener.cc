#include "ringway/user/listener.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "ringway/base/log.h"
#include "ringway/base/notifier.h"
#include "ringway/user/place.h"
#include "ringway/user/sockets.h"
#include "ringway/user/stop.h"

namespace ringway::user {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds accept_again_after{100};  // when file descriptors have run out

bool may_connect(int fd, const std::vector<uid_t>& allowed) {
  if (allowed.empty()) return true;
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return std::find(allowed.begin(), allowed.end(), peer.uid) != allowed.end();
}

bool out_of_resources(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

}  // namespace

class Listener::Impl {
 public:
  Impl(ListenerOptions options, std::shared_ptr<Stop> stop, std::shared_ptr<Gate> gate, UniqueFd epoll,
       Signal wake_signal, Notifier wake)
      : options_(std::move(options)),
        stop_(std::move(stop)),
        gate_(std::move(gate)),
        epoll_(std::move(epoll)),
        wake_signal_(std::move(wake_signal)),
        wake_(std::move(wake)) {}

  Result<> start();
  Result<> add(std::unique_ptr<Place> place, UniqueFd connected = {},
               std::shared_ptr<Inheritance> inheritance = {});
  void stop();
  Result<std::vector<HandedPlace>> hold(Clock::time_point deadline);
  Result<std::vector<Frame>> start_of(const SessionOwner& owner, std::span<const vhost::RingState> bases);
  void release();
  Result<> take_up();
  [[nodiscard]] const ListenerOptions& options() const { return options_; }

 private:
  std::vector<std::unique_ptr<Place>> take_places();
  void run();
  void wait();
  Result<> watch(Place& place);
  void accept(Place& place, Clock::time_point now);
  void welcome(Place& place, UniqueFd front_end);
  void begin(Place& place, UniqueFd front_end, std::shared_ptr<Inheritance> inheritance = {});
  Result<std::vector<HandedPlace>> hand_over();
  void end(Place& place, Clock::time_point now);
  void try_again(Place& place, Clock::time_point now);
  [[nodiscard]] int time_to_next_try();
  [[nodiscard]] bool is_finished() const;

  const ListenerOptions options_;
  const std::shared_ptr<Stop> stop_;
  const std::shared_ptr<Gate> gate_;  // null: nothing is ever handed over
  const UniqueFd epoll_;
  const Signal wake_signal_;
  const Notifier wake_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Place>> places_;  // guarded by mutex_
  std::unique_lock<std::mutex> held_;           // from hold() to release()
  bool was_finished_ = false;
  std::once_flag stopped_;
  std::thread thread_;
};

// ---- control, any thread

Result<> Listener::Impl::start() {
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    return os_failure("cannot start a thread that waits for connections", error.code().value());
  }
  return {};
}

Result<> Listener::Impl::add(std::unique_ptr<Place> place, UniqueFd connected,
                             std::shared_ptr<Inheritance> inheritance) {
  const std::scoped_lock lock(mutex_);
  if (stop_->requested()) return gone("stopping");
  if (!place->dormant) TRY(watch(*place));
  if (connected) begin(*place, std::move(connected), std::move(inheritance));
  places_.push_back(std::move(place));
  wake_.signal();
  return {};
}

Result<> Listener::Impl::watch(Place& place) {
  if (!place.listening) return {};
  epoll_event event{.events = EPOLLIN, .data = {.ptr = &place}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, place.listening.get(), &event) != 0)
    return os_failure("cannot wait for connections");
  return {};
}

void Listener::Impl::stop() {
  std::call_once(stopped_, [this] {
    stop_->request();
    wake_.signal();
    if (thread_.joinable()) thread_.join();
    for (const auto& place : take_places()) {
      place->session.reset();
      if (place->file) place->file->remove();
    }
  });
}

std::vector<std::unique_ptr<Place>> Listener::Impl::take_places() {
  const std::scoped_lock lock(mutex_);
  return std::exchange(places_, {});
}

// ---- live upgrade, one thread

Result<std::vector<HandedPlace>> Listener::Impl::hold(Clock::time_point deadline) {
  if (!gate_) return refused("this listener was not started to be handed over");
  held_ = std::unique_lock(mutex_);
  gate_->close();
  const auto living = [this] {
    return static_cast<size_t>(std::ranges::count_if(
        places_, [](const auto& place) { return place->session && !place->session->ended(); }));
  };
  if (!gate_->wait_for(living, deadline)) {
    release();
    return refused("a front-end's request takes too long");
  }
  auto places = hand_over();
  if (!places) release();
  return places;
}

Result<std::vector<HandedPlace>> Listener::Impl::hand_over() {
  std::vector<HandedPlace> handed;
  for (const auto& place : places_) {
    HandedPlace one{.kind = place->kind, .name = place->name, .owner = &place->owner};
    const auto& file = place->file;
    one.owns_path = file && file->is_there();
    if (place->listening) one.listening = TRY(place->listening.duplicate());
    if (place->waiting) one.waiting = TRY(place->waiting.duplicate());
    if (place->session && !place->session->ended()) {
      DeviceServer* server = place->session->server();
      if (server == nullptr) return refused("a front-end is just being sent away");
      one.connection = TRY(server->duplicate_connection());
      one.setting = TRY(server->setting());
    }
    handed.push_back(std::move(one));
  }
  return handed;
}

Result<std::vector<Frame>> Listener::Impl::start_of(const SessionOwner& owner,
                                                    std::span<const vhost::RingState> bases) {
  for (const auto& place : places_) {
    if (&place->owner == &owner && place->session && place->session->server() != nullptr)
      return place->session->server()->start(bases);
  }
  return refused("no front-end is served there");
}

void Listener::Impl::release() {
  gate_->open();
  held_.unlock();
}

Result<> Listener::Impl::take_up() {
  const std::scoped_lock lock(mutex_);
  for (const auto& place : places_) {
    if (!std::exchange(place->dormant, false)) continue;
    TRY(watch(*place));
    if (place->session) continue;
    if (place->waiting) begin(*place, std::move(place->waiting));
    if (place->kind == Place::Kind::connects && !place->session) place->retry_at = Clock::now();
  }
  wake_.signal();
  return {};
}

// ---- the waiting thread

void Listener::Impl::run() {
  while (!stop_->requested()) wait();
}

void Listener::Impl::wait() {
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), time_to_next_try());
  const Clock::time_point now = Clock::now();
  bool finished = false;
  {
    const std::scoped_lock lock(mutex_);
    for (int i = 0; i < count; ++i) {
      auto* place = static_cast<Place*>(events[i].data.ptr);
      if (place == nullptr) wake_signal_.take();
      if (place != nullptr) accept(*place, now);
    }
    for (const auto& place : places_) {
      if (place->dormant) continue;
      end(*place, now);
      try_again(*place, now);
    }
    finished = !std::exchange(was_finished_, is_finished()) && was_finished_;
  }
  if (finished && options_.finished) options_.finished();
}

void Listener::Impl::accept(Place& place, Clock::time_point now) {
  UniqueFd front_end(::accept4(place.listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (front_end) return welcome(place, std::move(front_end));
  if (!out_of_resources(errno)) return;
  place.limited.warning("{}: {}", place.name, os_failure("cannot accept a front-end").error().to_string());
  epoll_event deaf{.events = 0, .data = {.ptr = &place}};
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, place.listening.get(), &deaf);
  place.retry_at = now + accept_again_after;
}

void Listener::Impl::welcome(Place& place, UniqueFd front_end) {
  if (!may_connect(front_end.get(), options_.allowed_users)) {
    return place.limited.warning("{}: front-end sent away: its user may not connect", place.name);
  }
  if (place.session == nullptr) return begin(place, std::move(front_end));
  if (place.session->is_ending() && !place.waiting) {
    place.waiting = std::move(front_end);
  } else {
    place.limited.warning("{}: front-end sent away: another one is served", place.name);
  }
}

void Listener::Impl::begin(Place& place, UniqueFd front_end, std::shared_ptr<Inheritance> inheritance) {
  auto connection = Connection::adopt(std::move(front_end), {.name = place.name,
                                                             .stop = stop_,
                                                             .gate = gate_,
                                                             .message_time_out = options_.message_time_out,
                                                             .observer = options_.observer});
  if (!connection) return place.limited.warning("{}: {}", place.name, connection.error().to_string());
  auto session = Session::start(
      *std::move(connection), place.owner, place.limited, [this] { wake_.signal(); }, std::move(inheritance));
  if (!session)
    return place.limited.warning("{}: front-end sent away: {}", place.name, session.error().to_string());
  place.session = *std::move(session);
  place.connected_at = Clock::now();
}

void Listener::Impl::end(Place& place, Clock::time_point now) {
  if (place.session == nullptr || !place.session->ended()) return;
  place.session.reset();
  if (place.waiting) return begin(place, std::move(place.waiting));
  if (place.kind != Place::Kind::connects) return;
  if (now - place.connected_at > options_.reconnect_at_most) place.back_off.reset();
  place.retry_at = now + place.back_off.next();
}

void Listener::Impl::try_again(Place& place, Clock::time_point now) {
  if (!place.retry_at || *place.retry_at > now) return;
  place.retry_at.reset();
  if (place.kind == Place::Kind::listens) {
    epoll_event event{.events = EPOLLIN, .data = {.ptr = &place}};
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, place.listening.get(), &event);
    return;
  }
  Result<UniqueFd> front_end = connect_to(place.name);
  if (front_end) {
    begin(place, *std::move(front_end));
  } else {
    log::debug("{}: {}", place.name, front_end.error().to_string());
  }
  if (place.session == nullptr) place.retry_at = now + place.back_off.next();
}

// Milliseconds, as epoll_wait takes them.
int Listener::Impl::time_to_next_try() {
  const std::scoped_lock lock(mutex_);
  std::optional<Clock::time_point> first;
  for (const auto& place : places_) {
    const auto& retry_at = place->retry_at;
    if (retry_at && (!first || *retry_at < *first)) first = retry_at;
  }
  if (!first) return -1;
  return static_cast<int>(
      std::max<int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(*first - Clock::now()).count()));
}

bool Listener::Impl::is_finished() const {
  return !places_.empty() && std::all_of(places_.begin(), places_.end(), [](const auto& place) {
    return place->kind == Place::Kind::was_connected && place->session == nullptr;
  });
}

// ---- Listener

Listener::Listener(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Listener::~Listener() { stop(); }
void Listener::stop() { impl_->stop(); }

Result<std::unique_ptr<Listener>> Listener::start(ListenerOptions options) {
  auto stop = TRY(Stop::make());
  std::shared_ptr<Gate> gate;
  if (options.can_hand_over) gate = TRY(Gate::make());
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return os_failure("cannot wait for connections");
  UniqueFd event = TRY(make_eventfd());
  UniqueFd copy = TRY(event.duplicate());
  Signal signal = TRY(Signal::adopt(std::move(event)));
  Notifier notifier = TRY(Notifier::adopt(std::move(copy)));
  epoll_event wake{.events = EPOLLIN, .data = {.ptr = nullptr}};
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, signal.fd(), &wake) != 0)
    return os_failure("cannot wait for connections");
  auto impl = std::make_unique<Impl>(std::move(options), std::move(stop), std::move(gate), std::move(epoll),
                                     std::move(signal), std::move(notifier));
  TRY(impl->start());
  return std::unique_ptr<Listener>(new Listener(std::move(impl)));
}

Result<> Listener::listen(const std::string& path, SessionOwner& owner) {
  auto place = std::make_unique<Place>(Place::Kind::listens, path, owner, impl_->options());
  place->listening = TRY(listen_at(path, impl_->options().socket_mode));
  place->file = TRY(SocketFile::of(path));
  return impl_->add(std::move(place));
}

Result<> Listener::adopt(UniqueFd fd, SessionOwner& owner, std::string name) {
  if (name.empty()) name = fmt::format("fd {}", fd.get());
  const bool listens = TRY(is_listening(fd.get()));
  ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
  const auto kind = listens ? Place::Kind::listens : Place::Kind::was_connected;
  auto place = std::make_unique<Place>(kind, std::move(name), owner, impl_->options());
  if (!listens) return impl_->add(std::move(place), std::move(fd));
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    return os_failure("cannot use an inherited socket");
  place->listening = std::move(fd);
  return impl_->add(std::move(place));
}

Result<> Listener::connect(const std::string& path, SessionOwner& owner) {
  auto place = std::make_unique<Place>(Place::Kind::connects, path, owner, impl_->options());
  place->retry_at = Clock::now();
  return impl_->add(std::move(place));
}

Result<std::vector<HandedPlace>> Listener::hold(std::chrono::steady_clock::time_point deadline) {
  return impl_->hold(deadline);
}

Result<std::vector<Frame>> Listener::start_of(const SessionOwner& owner,
                                              std::span<const vhost::RingState> bases) {
  return impl_->start_of(owner, bases);
}

void Listener::release() { impl_->release(); }
Result<> Listener::take_up() { return impl_->take_up(); }

Result<std::shared_ptr<Inheritance>> Listener::inherit(HandedPlace handed, SessionOwner& owner) {
  auto place = std::make_unique<Place>(handed.kind, handed.name, owner, impl_->options());
  if (handed.owns_path) place->file = TRY(SocketFile::of(handed.name));
  place->dormant = true;
  place->listening = std::move(handed.listening);
  place->waiting = std::move(handed.waiting);
  if (!handed.connection) {
    TRY(impl_->add(std::move(place)));
    return nullptr;
  }
  auto inheritance = std::make_shared<Inheritance>();
  inheritance->setting = std::move(handed.setting);
  TRY(impl_->add(std::move(place), std::move(handed.connection), inheritance));
  return inheritance;
}

}  // namespace ringway::user
