#include "ringway/preload/device_path.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

namespace ringway::preload {
namespace {

constexpr size_t name_at = net_path.rfind('/') + 1;

bool is_dev(int folder, const char* path) {
  struct stat there{};
  struct stat dev{};
  return ::fstatat(folder, path, &there, 0) == 0 && ::stat("/dev", &dev) == 0 && there.st_dev == dev.st_dev &&
         there.st_ino == dev.st_ino;
}

}  // namespace

bool is_net_path(int folder, std::string_view path) {
  if (path == net_path) return true;
  if (path.size() >= PathText::limit || !path.ends_with(net_path.substr(name_at))) return false;
  const size_t at = path.rfind('/') + 1;  // 0: it has no directory
  if (path.substr(at) != net_path.substr(name_at)) return false;
  std::array<char, PathText::limit> directory{'.'};
  std::ranges::copy(path.substr(0, at), directory.begin());
  return is_dev(folder, directory.data());
}

// Whole pages are there or are not: what is behind the end of one may be missing.
PathText::PathText(const char* path) {
  constexpr size_t page = 4096;
  const auto at = reinterpret_cast<uintptr_t>(path);
  const size_t here = std::min(limit, page - at % page);
  const iovec to{.iov_base = text_.data(), .iov_len = limit};
  // NOLINTBEGIN(performance-no-int-to-ptr): it need not be a pointer to anything
  const std::array<iovec, 2> from{
      {{.iov_base = reinterpret_cast<void*>(at), .iov_len = here},
       {.iov_base = reinterpret_cast<void*>(at + here), .iov_len = limit - here}}};
  // NOLINTEND(performance-no-int-to-ptr)
  const ssize_t got = ::process_vm_readv(::getpid(), &to, 1, from.data(), here == limit ? 1 : 2, 0);
  const auto* end = std::ranges::find(text_.begin(), text_.begin() + std::max<ssize_t>(got, 0), '\0');
  if (end < text_.begin() + got) size_ = static_cast<size_t>(end - text_.begin());
}

}  // namespace ringway::preload
