#include "ringway/tools/trace_fd.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

namespace ringway::tools {
namespace {

// What /proc says a file descriptor is: a path, or "anon_inode:[eventfd]" and the like.
std::string link_of(int fd) {
  std::error_code error;
  return std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", fd), error).string();
}

uint64_t eventfd_id(int fd) {
  std::ifstream info(fmt::format("/proc/self/fdinfo/{}", fd));
  std::string word;
  uint64_t id = 0;
  while (info >> word) {
    if (word == "eventfd-id:" && info >> id) return id;
  }
  return 0;
}

int socket_option(int fd, int option) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

std::string socket_type(int fd) {
  const int domain = socket_option(fd, SO_DOMAIN);
  const int type = socket_option(fd, SO_TYPE);
  return fmt::format("{} {}", domain == AF_UNIX ? "unix" : fmt::format("domain {}", domain),
                     type == SOCK_STREAM      ? "stream"
                     : type == SOCK_DGRAM     ? "datagram"
                     : type == SOCK_SEQPACKET ? "seqpacket"
                                              : fmt::format("type {}", type));
}

FdInfo describe_regular(const struct stat& status, std::string_view link) {
  constexpr std::string_view memfd = "/memfd:";
  constexpr std::string_view deleted = " (deleted)";
  FdInfo info{.kind = FdKind::file, .id = status.st_ino, .bytes = static_cast<uint64_t>(status.st_size)};
  if (link.starts_with(memfd)) {
    info.kind = FdKind::memfd;
    link.remove_prefix(memfd.size());
    if (link.ends_with(deleted)) link.remove_suffix(deleted.size());
  }
  info.name = link;
  return info;
}

FdInfo describe_anonymous(int fd, std::string_view link) {
  if (link == "anon_inode:[eventfd]")
    return {.kind = FdKind::eventfd, .name = {}, .id = eventfd_id(fd), .bytes = {}};
  if (link == "anon_inode:[userfaultfd]") return {.kind = FdKind::userfaultfd, .name = {}, .bytes = {}};
  return {.kind = FdKind::other, .name = std::string(link), .bytes = {}};
}

}  // namespace

std::string_view fd_kind_name(FdKind kind) {
  static constexpr auto names = std::to_array<std::string_view>(
      {"eventfd", "memfd", "file", "device", "socket", "pipe", "userfaultfd", "directory", "other"});
  return names.at(static_cast<size_t>(kind));
}

FdInfo describe_fd(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return {};
  const std::string link = link_of(fd);
  switch (status.st_mode & S_IFMT) {
    case S_IFREG:
      return describe_regular(status, link);
    case S_IFSOCK:
      return {.kind = FdKind::socket, .name = socket_type(fd), .id = status.st_ino, .bytes = {}};
    case S_IFIFO:
      return {.kind = FdKind::pipe, .name = {}, .id = status.st_ino, .bytes = {}};
    case S_IFDIR:
      return {.kind = FdKind::directory, .name = link, .id = status.st_ino, .bytes = {}};
    case S_IFCHR:
    case S_IFBLK:
      return {.kind = FdKind::device, .name = link, .id = status.st_ino, .bytes = {}};
    default:
      return describe_anonymous(fd, link);
  }
}

}  // namespace ringway::tools
