#include "ringway/tools/service.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "ringway/user/sockets.h"

namespace ringway::tools {
namespace {

constexpr int first_passed_fd = 3;  // SD_LISTEN_FDS_START
constexpr int most_passed_fds = 1024;
// Of become(): a line for each socket: fd, "given" or "made", path.
constexpr const char* sockets_variable = "RINGWAY_SOCKETS";

std::string take_variable(const char* name) {
  const char* const value = std::getenv(name);
  std::string text = value == nullptr ? "" : value;
  ::unsetenv(name);
  return text;
}

std::optional<int64_t> number(const std::string& text) {
  int64_t value = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (wrong != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// As a program takes its arguments.
std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

bool is_ours(const std::string& pid) { return number(pid) == ::getpid(); }

// Where an inherited socket is bound; empty: nowhere, or it is none.
std::string path_of(int fd) {
  sockaddr_un address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 || address.sun_family != AF_UNIX)
    return {};
  if (size <= offsetof(sockaddr_un, sun_path)) return {};
  return {address.sun_path, ::strnlen(address.sun_path, size - offsetof(sockaddr_un, sun_path))};
}

}  // namespace

Service Service::from_environment() {
  Service self;
  const std::string pid = take_variable("LISTEN_PID");
  const std::string count = take_variable("LISTEN_FDS");
  std::istringstream names(take_variable("LISTEN_FDNAMES"));
  if (is_ours(pid)) {
    const int64_t passed = number(count).value_or(0);
    for (int i = 0; i < passed && i < most_passed_fds; ++i) {
      UniqueFd fd(first_passed_fd + i);
      ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
      // What we have given to be kept has the path for its name: it is bound to one that it had before.
      std::string name;
      std::getline(names, name, ':');
      if (name.find('/') == std::string::npos) name = path_of(fd.get());
      self.give(std::move(name), std::move(fd));
    }
  }
  std::istringstream kept(take_variable(sockets_variable));
  int fd = -1;
  std::string origin;
  std::string path;
  while (kept >> fd >> origin && std::getline(kept >> std::ws, path)) {
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    self.give(path, UniqueFd(fd), origin == "made" ? Origin::made : Origin::given);
  }
  self.notify_ = take_variable("NOTIFY_SOCKET");
  const std::string watched = take_variable("WATCHDOG_PID");
  const auto interval = number(take_variable("WATCHDOG_USEC"));
  if (interval && *interval > 0 && (watched.empty() || is_ours(watched)))
    self.watchdog_ = std::chrono::microseconds(*interval);
  return self;
}

Result<std::optional<UniqueFd>> Service::listening_at(const std::string& path) {
  const auto found = sockets_.find(path);
  if (found != sockets_.end()) return std::optional<UniqueFd>(TRY(found->second.listening.duplicate()));
  if (notify_.empty()) return std::optional<UniqueFd>();
  UniqueFd made = TRY(user::listen_at(path));
  tell(fmt::format("FDSTORE=1\nFDNAME={}\n", path), made.get());
  return std::optional<UniqueFd>(std::move(made));
}

void Service::moved_to(pid_t successor) const { tell(fmt::format("MAINPID={}\n", successor)); }

std::vector<std::string> Service::environment_of_successor() const {
  std::vector<std::string> variables;
  if (!notify_.empty()) variables.push_back("NOTIFY_SOCKET=" + notify_);
  if (watchdog_) variables.push_back(fmt::format("WATCHDOG_USEC={}", watchdog_->count()));
  return variables;
}

void Service::remove_made() const {
  for (const auto& [path, socket] : sockets_) {
    if (socket.origin == Origin::made) ::unlink(path.c_str());
  }
}

std::string Service::become(const std::string& binary, std::vector<std::string> words) const {
  std::string kept;
  for (const auto& [path, socket] : sockets_) {
    ::fcntl(socket.listening.get(), F_SETFD, 0);
    kept += fmt::format("{} {} {}\n", socket.listening.get(),
                        socket.origin == Origin::made ? "made" : "given", path);
  }
  std::vector<std::string> variables = environment_of_successor();
  variables.push_back(fmt::format("{}={}", sockets_variable, kept));
  for (char** one = environ; *one != nullptr; ++one) variables.emplace_back(*one);
  ::execve(binary.c_str(), pointers_to(words).data(), pointers_to(variables).data());
  const std::string why = std::strerror(errno);
  for (const auto& [path, socket] : sockets_) ::fcntl(socket.listening.get(), F_SETFD, FD_CLOEXEC);
  return why;
}

void Service::tell(std::string_view text, int fd) const {
  sockaddr_un address{.sun_family = AF_UNIX};
  if (notify_.empty() || notify_.size() >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, notify_.data(), notify_.size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // the abstract namespace
  const UniqueFd to(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!to) return;
  iovec piece{.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};  // NOLINT: is only read
  alignas(cmsghdr) std::byte control[CMSG_SPACE(sizeof fd)]{};
  msghdr message{.msg_name = &address,
                 .msg_namelen = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + notify_.size()),
                 .msg_iov = &piece,
                 .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  ::sendmsg(to.get(), &message, MSG_NOSIGNAL);
}

}  // namespace ringway::tools
