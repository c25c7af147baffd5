#include "ringway/tools/trace_tap.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "ringway/tools/back_end.h"
#include "ringway/tools/hang_up_watch.h"
#include "ringway/user/sockets.h"

namespace ringway::tools {
namespace {

using namespace std::chrono_literals;
constexpr auto last_words = 10s;  // for what one side has sent before it left, if the other does not read it
constexpr auto accept_again_after = 100ms;

void keep_first(std::optional<SeenMessage::Clock::time_point>& first, SeenMessage::Clock::time_point other) {
  if (!first || other < *first) first = other;
}

}  // namespace

// A connection on either side and the two pumps between.
class Tap::Link {
 public:
  Link(Channel channel, UniqueFd front_end, UniqueFd back_end, Pump::Intercept intercept)
      : channel_(channel),
        front_end_(std::move(front_end)),
        back_end_(std::move(back_end)),
        to_back_end_(front_end_.get(), back_end_.get(), std::move(intercept)),
        to_front_end_(back_end_.get(), front_end_.get(), nullptr) {}

  // Two entries, the front-end's first.
  void add_to(std::vector<pollfd>& entries) const {
    entries.push_back(entry(front_end_, front_end_gone_, to_back_end_, to_front_end_));
    entries.push_back(entry(back_end_, back_end_gone_, to_front_end_, to_back_end_));
  }

  template <class Tell>
  void handle(const pollfd& front_end, const pollfd& back_end, Tell tell) {
    handle_end(front_end, to_back_end_, to_front_end_, Side::front_end, tell);
    handle_end(back_end, to_front_end_, to_back_end_, Side::back_end, tell);
    if ((front_end_gone_ || back_end_gone_) && !give_up_at_) give_up_at_ = Clock::now() + last_words;
  }
  // Whoever has left altogether reads nothing any more, so only what it has sent is waited for.
  [[nodiscard]] bool is_over(Clock::time_point now) const {
    if (to_back_end_.is_over() && to_front_end_.is_over()) return true;
    if (front_end_gone_ && to_back_end_.is_over()) return true;
    if (back_end_gone_ && to_front_end_.is_over()) return true;
    return give_up_at_ && now >= *give_up_at_;
  }
  [[nodiscard]] std::optional<Side> first_to_leave() const { return first_to_leave_; }
  [[nodiscard]] std::optional<Clock::time_point> give_up_at() const { return give_up_at_; }
  [[nodiscard]] Channel channel() const { return channel_; }
  Framer& framer(Side from) {
    return from == Side::front_end ? to_back_end_.framer() : to_front_end_.framer();
  }

 private:
  static pollfd entry(const UniqueFd& fd, bool gone, const Pump& from, const Pump& to) {
    const short events =
        static_cast<short>((from.wants_to_read() ? POLLIN : 0) | (to.wants_to_write() ? POLLOUT : 0));
    // While nothing is wanted of it, a hang-up that is known would only wake us.
    return {.fd = events == 0 && (gone || from.has_ended()) ? -1 : fd.get(), .events = events};
  }

  template <class Tell>
  void handle_end(const pollfd& entry, Pump& from, Pump& to, Side side, Tell tell) {
    if (entry.fd < 0 || entry.revents == 0) return;
    if ((entry.revents & (POLLOUT | POLLHUP | POLLERR)) != 0) to.write();
    if (from.wants_to_read() && (entry.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
      from.read();
      if (auto message = from.framer().take()) tell(*std::move(message), channel_, side);
    }
    if (from.has_ended() && !first_to_leave_) first_to_leave_ = side;
    if ((entry.revents & (POLLHUP | POLLERR)) == 0) return;
    (side == Side::front_end ? front_end_gone_ : back_end_gone_) = true;
    to.end();
  }

  const Channel channel_;
  const UniqueFd front_end_;
  const UniqueFd back_end_;
  Pump to_back_end_;
  Pump to_front_end_;
  bool front_end_gone_ = false;
  bool back_end_gone_ = false;
  std::optional<Side> first_to_leave_;
  std::optional<Clock::time_point> give_up_at_;
};

// One front-end: its main channel, and the back-end channels that it opens.
class Tap::Session {
 public:
  Session(uint32_t number, UniqueFd front_end, UniqueFd back_end, TapObserver& observer)
      : number_(number), observer_(observer) {
    links_.push_back(std::make_unique<Link>(Channel::main, std::move(front_end), std::move(back_end),
                                            [this](UniqueFd& fd) { intercept(fd); }));
    observer_.began(number_);
  }
  ~Session() {
    for (const auto& link : links_) tell_unfinished(*link);
    observer_.ended(number_, links_.front()->first_to_leave());
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void add_to(std::vector<pollfd>& entries) {
    polled_ = links_.size();
    for (const auto& link : links_) link->add_to(entries);
  }
  void handle(const pollfd*& entry) {
    for (size_t i = 0; i < polled_; ++i, entry += 2) {
      links_[i]->handle(entry[0], entry[1], [this](SeenMessage message, Channel channel, Side side) {
        tell(std::move(message), channel, side);
      });
    }
  }
  // Ends the channels that are over, and what there is of messages that have waited for too long.
  void tidy(Clock::time_point now, std::chrono::milliseconds patience) {
    for (size_t i = links_.size(); i-- > 0;) {
      for (const Side side : {Side::front_end, Side::back_end}) {
        const auto began = links_[i]->framer(side).began();
        if (began && now - *began >= patience) tell_rest(*links_[i], side);
      }
      if (i == 0 || !links_[i]->is_over(now)) continue;
      tell_unfinished(*links_[i]);
      links_.erase(links_.begin() + static_cast<ptrdiff_t>(i));
    }
  }
  [[nodiscard]] bool is_over(Clock::time_point now) const { return links_.front()->is_over(now); }
  void add_times(std::optional<Clock::time_point>& first, std::chrono::milliseconds patience) {
    for (const auto& link : links_) {
      if (const auto at = link->give_up_at()) keep_first(first, *at);
      for (const Side side : {Side::front_end, Side::back_end}) {
        if (const auto began = link->framer(side).began()) keep_first(first, *began + patience);
      }
    }
  }

 private:
  // The socket that the front-end is asked over stays here; the back-end gets one of ours.
  void intercept(UniqueFd& fd) {
    if (!user::is_unix_stream(fd.get())) return;
    auto ends = user::socket_pair();
    if (!ends) return;
    UniqueFd front_end = std::exchange(fd, std::move((*ends)[1]));
    links_.push_back(
        std::make_unique<Link>(Channel::back_end, std::move(front_end), std::move((*ends)[0]), nullptr));
  }
  void tell(SeenMessage message, Channel channel, Side side) {
    message.session = number_;
    message.number = next_message_++;
    message.channel = channel;
    message.from = side;
    observer_.saw(std::move(message));
  }
  void tell_rest(Link& link, Side side) {
    if (auto message = link.framer(side).take_unfinished()) tell(*std::move(message), link.channel(), side);
  }
  void tell_unfinished(Link& link) {
    tell_rest(link, Side::front_end);
    tell_rest(link, Side::back_end);
  }

  const uint32_t number_;
  TapObserver& observer_;
  std::vector<std::unique_ptr<Link>> links_;  // the main channel first
  size_t polled_ = 0;
  uint64_t next_message_ = 1;
};

Tap::Tap(int listening, std::string back_end, UniqueFd kept, std::chrono::milliseconds patience,
         TapObserver& observer)
    : listening_(listening),
      back_end_(std::move(back_end)),
      kept_(std::move(kept)),
      patience_(patience),
      observer_(observer) {}

Tap::~Tap() = default;

void Tap::run(int stop) {
  std::vector<pollfd> entries;
  while (!sessions_.empty() || !observer_.is_done()) {
    const Clock::time_point before = Clock::now();
    const bool deaf =
        sessions_.size() >= max_sessions || (deaf_until_ && before < *deaf_until_) || observer_.is_done();
    entries.assign({{.fd = stop, .events = POLLIN}, {.fd = deaf ? -1 : listening_, .events = POLLIN}});
    for (const auto& session : sessions_) session->add_to(entries);
    if (::poll(entries.data(), entries.size(), time_to_wait(before)) < 0 && errno != EINTR) return;
    if (entries[0].revents != 0) return sessions_.clear();
    const pollfd* entry = entries.data() + 2;
    for (const auto& session : sessions_) session->handle(entry);
    if (entries[1].revents != 0) accept();
    reap();
  }
}

void Tap::accept() {
  UniqueFd front_end(::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC));
  if (!front_end) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
      deaf_until_ = Clock::now() + accept_again_after;
    return;
  }
  if (kept_ && HangUpWatch::hung_up(kept_.get())) kept_.reset();
  if (!kept_) {
    auto peer = reach(back_end_);
    if (!peer) return observer_.turned_away(peer.error());
    kept_ = std::move(peer->fd);
  }
  sessions_.push_back(
      std::make_unique<Session>(next_session_++, std::move(front_end), std::exchange(kept_, {}), observer_));
}

void Tap::reap() {
  const Clock::time_point now = Clock::now();
  for (const auto& session : sessions_) session->tidy(now, patience_);
  std::erase_if(sessions_, [now](const auto& session) { return session->is_over(now); });
}

// Milliseconds, as poll takes them.
int Tap::time_to_wait(Clock::time_point now) {
  std::optional<Clock::time_point> first = observer_.tick(now);
  for (const auto& session : sessions_) session->add_times(first, patience_);
  if (deaf_until_ && now < *deaf_until_) keep_first(first, *deaf_until_);
  if (!first) return -1;
  return static_cast<int>(
      std::max<int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(*first - now).count()));
}

}  // namespace ringway::tools
