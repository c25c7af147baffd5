#include "ringway/tools/check_front_end.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include "ringway/check/conversation.h"
#include "ringway/check/exit_status.h"
#include "ringway/check/meddler.h"
#include "ringway/device/backing/memory.h"
#include "ringway/device/blk/blk.h"
#include "ringway/engine/local_device.h"
#include "ringway/user/server.h"
#include "ringway/user/sockets.h"
#include "ringway/vhost/contract.h"

namespace ringway::tools {
namespace {

using check::Conversation;
using check::Finding;
using check::Verdict;
using std::chrono::milliseconds;
using user::Direction;
using user::Frame;
using Clock = std::chrono::steady_clock;

constexpr uint64_t disk_bytes = 64 << 20;
constexpr milliseconds between_looks{20};
constexpr milliseconds time_to_end{5'000};

// The front-end as a program that we have started: how it ended.
class Program {
 public:
  explicit Program(const std::string& command) {
    if (command.empty()) return;
    child_ = ::fork();
    if (child_ != 0) return;
    ::setpgid(0, 0);
    ::signal(SIGPIPE, SIG_DFL);
    if (const int null = ::open("/dev/null", O_RDWR); null >= 0) {
      for (const int fd : {0, 1, 2}) ::dup2(null, fd);
    }
    ::execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
    ::_exit(127);
  }
  ~Program() {
    if (child_ <= 0 || ended()) return;
    ::kill(-child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Asks it to end: a front-end stops its rings then.
  void end() {
    if (child_ > 0 && !ended()) ::kill(-child_, SIGTERM);
  }
  bool ended() { return look().has_value(); }
  // How it ended, as waitpid() tells; nothing: it has not.
  std::optional<int> look() {
    if (child_ > 0 && !status_) {
      int status = 0;
      if (::waitpid(child_, &status, WNOHANG) == child_) status_ = status;
    }
    return status_;
  }
  // A command that ends well may have put its front-end into the background.
  bool failed() { return look().value_or(0) != 0; }

 private:
  pid_t child_ = 0;
  std::optional<int> status_;
};

// A disk in memory, with its engine.
struct Disk {
  blk::Blk model{backing::open_memory(disk_bytes).value(), {.queues = 1, .serial = "ringway-check"}};
  std::unique_ptr<engine::Workers> workers = engine::Workers::start({.count = 1}).value();
  engine::LocalDevice device{model, *workers};
  vhost::Contract contract{device, {.queues = 1, .ring_size = 1024}};
};

// One connection of a front-end with a back-end that may be wrong, until it ends or its time is over.
class Act {
 public:
  using Change = std::function<std::vector<Frame>(Direction, Frame)>;
  Act(UniqueFd front_end, Change change) {
    auto inner = user::socket_pair().value();
    outer_ = user::Connection::adopt(
                 std::move(front_end),
                 {.observer = [this](Direction direction, const Frame& frame) { hear(direction, frame); }})
                 .value();
    server_end_ = user::Connection::adopt(std::move(inner[1])).value();
    meddler_.emplace(outer_, user::Connection::adopt(std::move(inner[0])).value(), std::move(change));
    server_ = std::jthread([this] {
      user::DeviceServer(server_end_, disk_.contract).serve();
      disk_.device.disconnect();
    });
  }
  ~Act() { server_end_->close(); }
  Act(const Act&) = delete;
  Act& operator=(const Act&) = delete;

  [[nodiscard]] bool closed() const { return outer_->hung_up(); }
  // The front-end has been silent for a second, with its ring started.
  [[nodiscard]] bool is_settled() const {
    const std::scoped_lock lock(mutex_);
    return kicked_ && Clock::now() - last_ > std::chrono::seconds(2);
  }
  [[nodiscard]] size_t messages() const {
    const std::scoped_lock lock(mutex_);
    return conversation_.said().size();
  }
  [[nodiscard]] Conversation conversation() const {
    const std::scoped_lock lock(mutex_);
    return conversation_;
  }

 private:
  void hear(Direction direction, const Frame& frame) {
    const std::scoped_lock lock(mutex_);
    conversation_.hear(direction, frame);
    last_ = Clock::now();
    kicked_ = kicked_ || frame.header.request == check::id<vhost::SetVringKick>;
  }
  mutable std::mutex mutex_;
  Conversation conversation_;
  Clock::time_point last_ = Clock::now();
  bool kicked_ = false;
  Disk disk_;
  std::shared_ptr<user::Connection> outer_;
  std::shared_ptr<user::Connection> server_end_;
  std::optional<check::Meddler> meddler_;
  std::jthread server_;
};

// What the one before has left behind.
void send_away(const UniqueFd& listener) {
  pollfd entry{.fd = listener.get(), .events = POLLIN, .revents = 0};
  while (::poll(&entry, 1, 0) == 1) {
    const UniqueFd late(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!late) return;
  }
}

std::optional<UniqueFd> next_front_end(const UniqueFd& listener, milliseconds within, Program& program) {
  for (milliseconds waited{0}; waited < within; waited += between_looks) {
    const bool is_last_look = program.failed();
    pollfd entry{.fd = listener.get(), .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, is_last_look ? 0 : static_cast<int>(between_looks.count())) == 1) {
      UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (fd) return fd;
    }
    if (is_last_look) break;
  }
  return std::nullopt;
}

std::vector<Frame> unchanged(Direction, Frame frame) { return check::just(std::move(frame)); }

template <class T>
constexpr uint32_t id = check::id<T>;

bool answers(Direction direction, const Frame& frame, uint32_t request) {
  return direction == Direction::sent && frame.header.request == request;
}

uint64_t value_in(const Frame& frame) {
  uint64_t value = 0;
  if (frame.payload.size() >= sizeof value) std::memcpy(&value, frame.payload.data(), sizeof value);
  return value;
}

void set_value(Frame& frame, uint64_t value) {
  if (frame.payload.size() >= sizeof value) std::memcpy(frame.payload.data(), &value, sizeof value);
}

// ---- back-ends with less to offer: the front-end must do with it

struct Variant {
  const char* what;
  Act::Change change;
};

std::vector<Frame> without_mq(Direction direction, Frame frame) {
  if (answers(direction, frame, id<vhost::GetProtocolFeatures>))
    set_value(frame, value_in(frame) & ~vhost::bit(vhost::VHOST_USER_PROTOCOL_F_MQ));
  return check::just(std::move(frame));
}

std::vector<Frame> with_less(Direction direction, Frame frame) {
  constexpr uint64_t kept =
      vhost::bit(vhost::VHOST_USER_PROTOCOL_F_MQ) | vhost::bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG);
  if (answers(direction, frame, id<vhost::GetProtocolFeatures>)) set_value(frame, value_in(frame) & kept);
  return check::just(std::move(frame));
}

// ---- wrong replies: a front-end closes the connection, or does not believe them

struct Lie {
  const char* what;
  uint32_t request;  // whose reply is wrong
  std::function<std::vector<Frame>(Frame)> change;
};

template <class Edit>
std::function<std::vector<Frame>(Frame)> edited(Edit edit) {
  return [edit](Frame frame) {
    edit(frame);
    return check::just(std::move(frame));
  };
}

void resize(Frame& frame, size_t size) {
  frame.payload.resize(size);
  frame.header.size = static_cast<uint32_t>(size);
}

const std::vector<Lie>& lies() {
  static const std::vector<Lie> all = {
      {"GET_FEATURES is answered as SET_OWNER", id<vhost::GetFeatures>,
       edited([](Frame& f) { f.header.request = id<vhost::SetOwner>; })},
      {"GET_FEATURES is answered without the reply flag", id<vhost::GetFeatures>,
       edited([](Frame& f) { f.header.flags = 1; })},
      {"GET_FEATURES is answered by 4 bytes", id<vhost::GetFeatures>, edited([](Frame& f) { resize(f, 4); })},
      {"GET_FEATURES is answered by 16 bytes", id<vhost::GetFeatures>,
       edited([](Frame& f) { resize(f, 16); })},
      {"GET_PROTOCOL_FEATURES is answered in version 2", id<vhost::GetProtocolFeatures>,
       edited([](Frame& f) { f.header.flags = 6; })},
      {"GET_PROTOCOL_FEATURES says 4 GiB follow", id<vhost::GetProtocolFeatures>,
       edited([](Frame& f) { f.header.size = 0xffffffff; })},
      {"GET_CONFIG is answered by one byte less", id<vhost::GetConfig>,
       edited([](Frame& f) { resize(f, f.payload.empty() ? 0 : f.payload.size() - 1); })},
      {"GET_CONFIG is answered by 4000 bytes", id<vhost::GetConfig>,
       edited([](Frame& f) { resize(f, 4000); })},
      {"GET_CONFIG is answered by nothing: no", id<vhost::GetConfig>, edited([](Frame& f) { resize(f, 0); })},
      {"GET_QUEUE_NUM is answered by 0", id<vhost::GetQueueNum>, edited([](Frame& f) { set_value(f, 0); })},
      {"GET_QUEUE_NUM is answered by 2^63", id<vhost::GetQueueNum>,
       edited([](Frame& f) { set_value(f, uint64_t{1} << 63); })},
      {"GET_FEATURES is answered by all bits", id<vhost::GetFeatures>,
       edited([](Frame& f) { set_value(f, ~uint64_t{0}); })},
      {"GET_FEATURES is not answered", id<vhost::GetFeatures>,
       [](const Frame&) { return std::vector<Frame>{}; }},
  };
  return all;
}

// ---- the play

class Play {
 public:
  Play(const FrontEndCheck& options, UniqueFd listener) : options_(options), listener_(std::move(listener)) {}

  std::expected<FrontEndReport, std::string> run() {
    auto first = listen_to(unchanged);
    if (!first) return std::unexpected(first.error());
    FrontEndReport report{.rows = check::judge_front_end(*first, options_.only), .wrong_replies = {}};
    for (const Variant& variant : {Variant{"without MQ", without_mq}, Variant{"with little", with_less}}) {
      if (auto said = listen_to(variant.change))
        take_over(report.rows, check::judge_front_end(*said, options_.only), variant.what);
    }
    if (!options_.hostile) return report;
    for (const Lie& lie : lies()) report.wrong_replies.push_back({lie.what, try_lie(lie)});
    judge_wrong_replies(report);
    return report;
  }

 private:
  std::expected<Conversation, std::string> listen_to(Act::Change change) {
    send_away(listener_);
    Program program(options_.start);
    auto fd = next_front_end(listener_, options_.arrival, program);
    if (const auto status = program.look(); !fd && status.value_or(0) != 0)
      return std::unexpected("the command " + check::describe_end(*status));
    if (!fd)
      return std::unexpected(fmt::format("no front-end came within {} s", options_.arrival.count() / 1000));
    Act act(*std::move(fd), std::move(change));
    for (milliseconds waited{0}; waited < options_.talk && !act.closed() && !act.is_settled();
         waited += between_looks)
      std::this_thread::sleep_for(between_looks);
    program.end();
    for (milliseconds waited{0}; waited < time_to_end && !options_.start.empty() && !act.closed();
         waited += between_looks)
      std::this_thread::sleep_for(between_looks);
    return act.conversation();
  }

  // What a weaker back-end shows and the first did not, or shows to be wrong.
  static void take_over(std::vector<check::Row>& rows, const std::vector<check::Row>& others,
                        const char* what) {
    for (size_t i = 0; i < rows.size(); ++i) {
      const Finding& other = others[i].finding;
      const bool news = other.verdict == Verdict::fail ||
                        (other.verdict == Verdict::pass && rows[i].finding.verdict == Verdict::not_testable);
      if (!news || rows[i].finding.verdict == Verdict::fail) continue;
      rows[i].finding = other;
      rows[i].finding.detail += fmt::format(" (with a back-end {})", what);
    }
  }

  Finding try_lie(const Lie& lie) {
    send_away(listener_);
    Program program(options_.start);
    auto fd = next_front_end(listener_, options_.arrival, program);
    if (!fd) return {Verdict::not_testable, "no front-end came"};
    std::atomic<size_t> told = 0;
    Act act(*std::move(fd), [&](Direction direction, Frame frame) {
      if (!answers(direction, frame, lie.request)) return check::just(std::move(frame));
      ++told;
      return lie.change(std::move(frame));
    });
    for (milliseconds waited{0}; waited < options_.talk && !act.closed() && !act.is_settled();
         waited += between_looks)
      std::this_thread::sleep_for(between_looks);
    std::this_thread::sleep_for(between_looks * 5);
    if (const auto status = program.look(); status && check::signal_of_death(*status) > 0)
      return {Verdict::fail, "it " + check::describe_end(*status)};
    if (told == 0) return {Verdict::not_testable, "it did not ask"};
    if (act.closed()) return {Verdict::pass, "it closes the connection"};
    return {Verdict::pass, fmt::format("it stays, after {} messages", act.messages())};
  }

  // N025: of the replies that cannot be right, one that is taken is a fault; those that are well-formed are
  // not.
  void judge_wrong_replies(FrontEndReport& report) const {
    for (check::Row& row : report.rows) {
      if (row.requirement->number != 25) continue;
      row.finding = {Verdict::pass, ""};
      for (size_t i = 0; i < report.wrong_replies.size(); ++i) {
        const WrongReply& one = report.wrong_replies[i];
        constexpr size_t malformed = 4;  // the first of lies()
        const bool taken = i < malformed && one.finding.verdict == Verdict::pass &&
                           one.finding.detail.starts_with("it stays");
        if (one.finding.verdict == Verdict::fail || taken)
          row.finding = {Verdict::fail, one.what + ": " + one.finding.detail};
      }
    }
  }

  const FrontEndCheck& options_;
  const UniqueFd listener_;
};

}  // namespace

std::expected<FrontEndReport, std::string> check_front_end(const FrontEndCheck& options) {
  auto listener = user::listen_at(options.socket);
  if (!listener) return std::unexpected(fmt::format("{}: {}", options.socket, listener.error().to_string()));
  auto report = Play(options, *std::move(listener)).run();
  ::unlink(options.socket.c_str());
  return report;
}

}  // namespace ringway::tools
