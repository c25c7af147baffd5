#include "ringway/user/sockets.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace ringway::user {
namespace {

constexpr int queue_length = 16;  // connections that wait to be accepted

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{.sun_family = AF_UNIX};
  if (path.empty()) return refused("a socket path must not be empty");
  if (path.size() >= sizeof address.sun_path)
    return refused("a socket path has at most 107 bytes", path.size());
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<UniqueFd> stream_socket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return os_failure("cannot create a socket");
  return fd;
}

bool bind_to(int fd, const sockaddr_un& address) {
  return ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

bool connect_fd(int fd, const sockaddr_un& address) {
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

// Only a socket that refuses connections is stale.
Result<> remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat before{};
  struct stat now{};
  if (::lstat(path.c_str(), &before) != 0) return os_failure("cannot examine the socket path");
  if (!S_ISSOCK(before.st_mode)) return refused("there is something at the socket path that is not a socket");
  const UniqueFd probe = TRY(stream_socket());
  if (connect_fd(probe.get(), address) || errno == EAGAIN)
    return refused("another process serves the socket path");
  if (errno != ECONNREFUSED) return os_failure("cannot tell whether the socket path is in use");
  if (::lstat(path.c_str(), &now) != 0 || now.st_dev != before.st_dev || now.st_ino != before.st_ino) {
    return refused("another process has just taken the socket path");
  }
  if (::unlink(path.c_str()) != 0) return os_failure("cannot remove a stale socket");
  return {};
}

}  // namespace

Result<UniqueFd> listen_at(const std::string& path, std::optional<mode_t> mode) {
  const sockaddr_un address = TRY(address_of(path));
  UniqueFd fd = TRY(stream_socket());
  if (mode) ::fchmod(fd.get(), *mode);  // already at bind: nobody gets in before chmod
  if (!bind_to(fd.get(), address)) {
    if (errno != EADDRINUSE) return os_failure("cannot bind to the socket path");
    TRY(remove_stale(path, address));
    if (!bind_to(fd.get(), address)) return os_failure("cannot bind to the socket path");
  }
  if (mode && ::chmod(path.c_str(), *mode) != 0)
    return os_failure("cannot set the permissions of the socket");
  if (::listen(fd.get(), queue_length) != 0) return os_failure("cannot listen at the socket path");
  return fd;
}

Result<UniqueFd> connect_to(const std::string& path) {
  const sockaddr_un address = TRY(address_of(path));
  UniqueFd fd = TRY(stream_socket());
  if (!connect_fd(fd.get(), address)) return os_failure("cannot connect to the socket path");
  return fd;
}

Result<std::array<UniqueFd, 2>> socket_pair() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return os_failure("cannot create a socket pair");
  return std::array<UniqueFd, 2>{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

Result<bool> is_listening(int fd) {
  int domain = 0;
  int type = 0;
  int listens = 0;
  socklen_t size = sizeof(int);
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return os_failure("not a socket");
  ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
  if (domain != AF_UNIX || type != SOCK_STREAM) return refused("not a UNIX stream socket");
  if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0)
    return os_failure("cannot examine a socket");
  return listens != 0;
}

}  // namespace ringway::user
