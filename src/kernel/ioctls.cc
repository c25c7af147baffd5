#include "ringway/kernel/ioctls.h"

#include <fcntl.h>
#include <sys/ioctl.h>

namespace ringway::kernel {

Result<std::unique_ptr<Ioctls>> VhostFile::open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return os_failure("cannot open the vhost file");
  return adopt(std::move(fd));
}

std::unique_ptr<Ioctls> VhostFile::adopt(UniqueFd fd) {
  return std::unique_ptr<Ioctls>(new VhostFile(std::move(fd)));
}

Result<> VhostFile::ioctl(unsigned long request, void* argument) {
  if (::ioctl(fd_.get(), request, argument) >= 0) return {};
  const int error = errno;
  const IoctlInfo* info = find_ioctl(request);
  const Error failure = os_failure("the vhost file refuses", error).error();
  return std::unexpected(failure.about(info == nullptr ? "" : info->name));
}

Result<> VhostFile::write(std::span<const std::byte> bytes) {
  const ssize_t written = ::write(fd_.get(), bytes.data(), bytes.size());
  if (written < 0) return os_failure("the vhost file refuses an IOTLB message");
  if (static_cast<size_t>(written) != bytes.size()) return refused("the vhost file took part of a message");
  return {};
}

Result<size_t> VhostFile::read(std::span<std::byte> bytes) {
  const ssize_t got = ::read(fd_.get(), bytes.data(), bytes.size());
  if (got >= 0) return static_cast<size_t>(got);
  if (errno == EAGAIN || errno == EINTR) return size_t{0};
  return os_failure("the vhost file gives no IOTLB messages");
}

}  // namespace ringway::kernel
