#include "ringway/tools/back_end.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <system_error>

#include "ringway/user/sockets.h"

namespace ringway::tools {
namespace {

std::string why_not(const std::string& path, const Error& error) {
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) return path + " is not a socket";
  if (error.fault == Fault::os) {
    switch (error.os_error) {
      case ENOENT:
        return fmt::format("there is nothing at {}: does the back-end run?", path);
      case ECONNREFUSED:
        return fmt::format("nobody listens at {}: a back-end that has ended left it behind", path);
      case EACCES:
        return fmt::format("you may not connect to {}", path);
      case EAGAIN:
        return fmt::format("the back-end at {} does not accept connections: it is busy with others", path);
      case EPROTOTYPE:
        return fmt::format("{} is not a stream socket, so no vhost-user back-end is there", path);
      default:
        break;
    }
  }
  return fmt::format("{}: {}", path, error.to_string());
}

std::string program_of(pid_t pid) {
  std::error_code error;
  const auto path = std::filesystem::read_symlink(fmt::format("/proc/{}/exe", pid), error);
  if (!error) return path.filename();
  std::string name;  // of another user's process we may know the first 15 characters
  std::getline(std::ifstream(fmt::format("/proc/{}/comm", pid)), name);
  return name;
}

}  // namespace

std::expected<Peer, std::string> reach(const std::string& path) {
  Result<UniqueFd> fd = user::connect_to(path);
  if (!fd) return std::unexpected(why_not(path, fd.error()));
  Peer peer{.fd = *std::move(fd)};
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(peer.fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0)
    peer.pid = credentials.pid;
  if (peer.pid > 0) peer.program = program_of(peer.pid);
  return peer;
}

}  // namespace ringway::tools
