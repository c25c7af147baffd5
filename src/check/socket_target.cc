#include "ringway/check/socket_target.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "ringway/check/exit_status.h"
#include "ringway/user/remote.h"
#include "ringway/user/sockets.h"

namespace ringway::check {
namespace {

constexpr milliseconds between_tries{20};
constexpr milliseconds time_to_start{20'000};
constexpr milliseconds time_to_end{3'000};

class RemoteLease final : public Lease {
 public:
  explicit RemoteLease(std::unique_ptr<Wire> wire)
      : wire_(std::move(wire)), device_(wire_->connection(), wire_->patience()) {}
  vhost::Device& device() override { return device_; }
  [[nodiscard]] std::string transcript() const override { return wire_->transcript(); }
  [[nodiscard]] bool acknowledges() const override {
    return device_.agreement().has_capability(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK);
  }

 private:
  const std::unique_ptr<Wire> wire_;
  user::RemoteDevice device_;
};

bool is_absent(const Error& error) {
  return error.fault == Fault::os && (error.os_error == ENOENT || error.os_error == ECONNREFUSED);
}

}  // namespace

SocketTarget::SocketTarget(std::string path, milliseconds patience, std::string command)
    : path_(std::move(path)), patience_(patience), command_(std::move(command)) {}

SocketTarget::~SocketTarget() { end_child(); }

void SocketTarget::end_child() {
  status_.reset();
  end_.reset();
  if (child_ == 0) return;
  const pid_t child = std::exchange(child_, 0);
  process_ = 0;
  ::kill(-child, SIGTERM);
  for (milliseconds waited{0}; waited < time_to_end; waited += between_tries) {
    if (::waitpid(child, nullptr, WNOHANG) != 0) return;
    std::this_thread::sleep_for(between_tries);
  }
  ::kill(-child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

// It is started when it is reached next: some end as soon as a front-end has left.
Result<> SocketTarget::restart() {
  if (command_.empty()) return refused("there is no --restart");
  end_child();
  return {};
}

Result<std::unique_ptr<Lease>> SocketTarget::connect() {
  return std::make_unique<RemoteLease>(TRY(connect_frames()));
}

// A back-end that serves one front-end at a time may not have noticed yet that the one before has left, and
// sends the next away: what it does at the first message tells.
Result<std::unique_ptr<Wire>> SocketTarget::connect_frames() {
  for (milliseconds waited{0};; waited += between_tries) {
    std::unique_ptr<Wire> wire = TRY(connect_once());
    const auto first = wire->ask(id<vhost::GetFeatures>);
    if (first || first.error().fault != Fault::gone) return wire;
    if (waited >= patience_) return std::unexpected(first.error());
    std::this_thread::sleep_for(between_tries);
  }
}

Result<std::unique_ptr<Wire>> SocketTarget::connect_once() {
  UniqueFd fd = TRY(reach());
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) process_ = credentials.pid;
  return Wire::over(std::move(fd), patience_);
}

Result<UniqueFd> SocketTarget::reach() {
  look_for_end();
  auto fd = user::connect_to(path_);
  if (!fd && !command_.empty() && is_absent(fd.error())) fd = start();
  has_served_ = has_served_ || fd;
  return fd;
}

// What has crashed may take a moment to be gone, and what is being started one to listen.
Result<UniqueFd> SocketTarget::start() {
  failure_.reset();
  for (milliseconds waited{0}; waited < time_to_start; waited += between_tries) {
    look_for_end();
    if (child_ == 0 && waited.count() % 1000 == 0) {
      child_ = ::fork();
      if (child_ < 0) return os_failure("cannot start a process");
      if (child_ == 0) {
        ::setpgid(0, 0);
        ::signal(SIGPIPE, SIG_DFL);
        if (const int null = ::open("/dev/null", O_RDWR); null >= 0) {
          ::dup2(null, 0);
          ::dup2(null, 1);
        }
        ::execl("/bin/sh", "sh", "-c", command_.c_str(), static_cast<char*>(nullptr));
        ::_exit(127);
      }
    }
    std::this_thread::sleep_for(between_tries);
    auto fd = user::connect_to(path_);
    if (fd || !is_absent(fd.error())) return fd;
    if (failure_ && !has_served_) return refused("the command of --restart has failed");
  }
  return refused("the command of --restart did not bring a back-end within 20 s");
}

// A command that has put its back-end into the background ends long before it.
void SocketTarget::look_for_end() {
  int status = 0;
  if (child_ != 0 && ::waitpid(child_, &status, WNOHANG) == child_) {
    child_ = 0;
    status_ = status;
    if (status != 0) failure_ = status;
    outlived_ = false;
  }
  if (child_ != 0 || !status_) return;
  auto end = end_by(*status_);
  if (!end) return;
  end_ = std::move(end);
  status_.reset();
  process_ = 0;
}

std::optional<Target::End> SocketTarget::end_by(int status) {
  if (signal_of_death(status) > 0) return End{"it " + describe_end(status), true};
  outlived_ = outlived_ || (process_ != 0 && ::kill(process_, 0) == 0);
  if (process_ == 0 || ::kill(process_, 0) == 0) return std::nullopt;
  if (outlived_) return End{"it ended", false};
  return End{fmt::format("it exited with status {}", WEXITSTATUS(status)), false};
}

std::optional<Target::End> SocketTarget::end() {
  look_for_end();
  return std::exchange(end_, std::nullopt);
}

}  // namespace ringway::check
