#include "ringway/user/sockets.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>

namespace ringway::user {
namespace {

constexpr int queue_length = 16;  // connections that wait to be accepted
constexpr std::chrono::seconds longest_wait_for_folder{2};

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

bool connect_fd(int fd, const sockaddr_un& address) {
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

bool same(const struct stat& one, const struct stat& other) {
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// A name of our own beside the path, until the socket listens and goes there. Nothing is there any more when
// this ends.
class TemporaryName {
 public:
  static Result<TemporaryName> beside(const std::string& path) {
    TemporaryName own;
    const std::string suffix = fmt::format(".{:08x}", std::random_device{}());
    if (path.size() + suffix.size() < sizeof sockaddr_un{}.sun_path) {
      own.name_ = path + suffix;
      return own;
    }
    // The path is nearly as long as an address may be: reach its folder by a shorter one.
    own.folder_ = UniqueFd(::open(folder_of(path).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!own.folder_) return os_failure("cannot open the folder of the socket");
    own.name_ = fmt::format("/proc/self/fd/{}/{}", own.folder_.get(), suffix);
    return own;
  }
  TemporaryName(TemporaryName&&) = default;
  TemporaryName& operator=(TemporaryName&&) = delete;
  ~TemporaryName() {
    if (bound_) ::unlink(name_.c_str());
  }

  Result<> bind(int fd) {
    const sockaddr_un address = TRY(address_of(name_));
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      return os_failure("cannot bind to the socket path");
    bound_ = true;
    return {};
  }
  [[nodiscard]] const char* c_str() const { return name_.c_str(); }

 private:
  TemporaryName() = default;
  UniqueFd folder_;
  std::string name_;
  bool bound_ = false;
};

// What is at `path` and may be replaced: only a socket that refuses connections is stale.
Result<struct stat> find_stale(const std::string& path) {
  struct stat found{};
  if (::lstat(path.c_str(), &found) != 0) return os_failure("cannot examine the socket path");
  if (!S_ISSOCK(found.st_mode)) return refused("there is something at the socket path that is not a socket");
  const sockaddr_un address = TRY(address_of(path));
  const UniqueFd probe = TRY(stream_socket());
  if (connect_fd(probe.get(), address) || errno == EAGAIN)
    return refused("another process serves the socket path");
  if (errno != ECONNREFUSED) return os_failure("cannot tell whether the socket path is in use");
  return found;
}

// Where two names cannot be exchanged: between the second look and the removal somebody may be quicker.
Result<> replace_by_removing(const TemporaryName& from, const std::string& path, const struct stat& stale) {
  struct stat now{};
  if (::lstat(path.c_str(), &now) != 0 || !same(now, stale))
    return refused("another process has just taken the socket path");
  if (::unlink(path.c_str()) != 0) return os_failure("cannot remove a stale socket");
  if (::link(from.c_str(), path.c_str()) != 0) return os_failure("cannot put the socket at its path");
  return {};
}

// Those of us who replace sockets in one folder do so one after the other. Others need not keep to it.
Result<UniqueFd> lock_folder_of(const std::string& path) {
  UniqueFd folder(::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return folder;  // may be written and not read: then without
  const auto end = std::chrono::steady_clock::now() + longest_wait_for_folder;
  while (::flock(folder.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return folder;
    if (std::chrono::steady_clock::now() > end)
      return refused("another process holds a lock on the folder of the stale socket");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return folder;
}

// Takes the place of a stale socket. What is exchanged away goes only if it is the one that was looked at.
Result<> replace_stale(const TemporaryName& from, const std::string& path) {
  const UniqueFd lock = TRY(lock_folder_of(path));
  const struct stat stale = TRY(find_stale(path));
  const auto exchange = [&] {
    return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) == 0;
  };
  if (!exchange()) {
    if (errno == EINVAL || errno == ENOSYS) return replace_by_removing(from, path, stale);
    return os_failure("cannot replace a stale socket");
  }
  struct stat taken{};
  if (::lstat(from.c_str(), &taken) == 0 && same(taken, stale)) return {};
  exchange();  // back
  return refused("another process has just taken the socket path");
}

// A link, for it never replaces anything, on every file system.
Result<> put_at(const TemporaryName& from, const std::string& path) {
  if (::link(from.c_str(), path.c_str()) == 0) return {};
  if (errno == EEXIST) return replace_stale(from, path);
  return os_failure("cannot put the socket at its path");
}

}  // namespace

Result<UniqueFd> listen_at(const std::string& path, std::optional<mode_t> mode) {
  TRY(address_of(path));
  UniqueFd fd = TRY(stream_socket());
  TemporaryName name = TRY(TemporaryName::beside(path));
  if (mode) ::fchmod(fd.get(), *mode);  // already at bind: nobody gets in before chmod
  TRY(name.bind(fd.get()));
  if (mode && ::chmod(name.c_str(), *mode) != 0)
    return os_failure("cannot set the permissions of the socket");
  if (::listen(fd.get(), queue_length) != 0) return os_failure("cannot listen at the socket path");
  TRY(put_at(name, path));
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

bool is_unix_stream(int fd) {
  int domain = 0;
  int type = 0;
  socklen_t size = sizeof(int);
  return ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
         ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
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
