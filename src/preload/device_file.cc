#include "ringway/preload/device_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "ringway/base/quiet_write.h"
#include "ringway/loop/signals.h"

namespace ringway::preload {
namespace {

using kernel::IotlbMessages;
using kernel::OwnProcess;

ssize_t minus(const Error& error) { return -(error.os_error != 0 ? error.os_error : EINVAL); }

uint64_t address_of(const void* at) { return reinterpret_cast<uintptr_t>(at); }

size_t total(std::span<const iovec> pieces) {
  size_t sum = 0;
  for (const iovec& piece : pieces) sum += piece.iov_len;
  return sum;
}

// Walks `bytes` along the program's pieces: copy(place, part) for each.
template <class Byte, class Copy>
Result<> scatter(std::span<const iovec> pieces, std::span<Byte> bytes, Copy copy) {
  for (const iovec& piece : pieces) {
    const size_t here = std::min(piece.iov_len, bytes.size());
    TRY(copy(address_of(piece.iov_base), bytes.first(here)));
    bytes = bytes.subspan(here);
  }
  return {};
}

}  // namespace

// In a child there are no threads to end, and locks may be held for ever.
struct DeviceFile::Forget {
  void operator()(DeviceFile* file) const {
    if (!file->in_child()) delete file;  // NOLINT(cppcoreguidelines-owning-memory)
  }
};

Result<std::pair<std::shared_ptr<DeviceFile>, UniqueFd>> DeviceFile::open(
    kernel::IoctlServer::MakeDevice make_device, int flags, const kernel::IoctlServer::Options& options) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return os_failure("cannot make a pipe");
  std::shared_ptr<DeviceFile> file(new DeviceFile, Forget{});
  UniqueFd of_program(ends[0]);
  file->process_ = ::getpid();
  file->write_end_ = UniqueFd(ends[1]);
  if ((flags & O_CLOEXEC) == 0) ::fcntl(of_program.get(), F_SETFD, 0);
  if ((flags & O_NONBLOCK) != 0) ::fcntl(of_program.get(), F_SETFL, O_NONBLOCK);
  file->read_end_ = TRY(of_program.duplicate());
  struct stat status{};
  if (::fstat(of_program.get(), &status) != 0) return os_failure("cannot examine a pipe");
  file->device_ = status.st_dev;
  file->inode_ = status.st_ino;
  file->server_ = TRY(kernel::IoctlServer::open(options, std::move(make_device)));
  file->server_->on_readable([raw = file.get()](bool waiting) { raw->show(waiting); });
  return std::pair(std::move(file), std::move(of_program));
}

bool DeviceFile::is_behind(int fd) const {
  struct stat status{};
  return ::fstat(fd, &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
}

// One byte is in the pipe while a message waits, and nobody else reads or writes there.
void DeviceFile::show(bool waiting) const {
  std::byte token{};
  if (waiting) {
    quiet_write(write_end_.get(), {&token, 1});
    return;
  }
  pollfd entry{.fd = read_end_.get(), .events = POLLIN};
  if (::poll(&entry, 1, 0) == 1) (void)!::read(read_end_.get(), &token, 1);
}

bool DeviceFile::in_child() const { return ::getpid() != process_; }

long DeviceFile::ioctl(unsigned long request, uint64_t argument) {
  OwnProcess own;
  if (in_child()) return server_->ioctl_after_fork(own, request, argument);
  const loop::SignalsBlocked blocked;
  return server_->ioctl(own, request, argument);
}

ssize_t DeviceFile::read(std::span<const iovec> to, bool blocking) {
  if (in_child()) return -EPERM;
  std::array<std::byte, IotlbMessages::size> message{};
  const size_t room = std::min(total(to), message.size());
  while (true) {
    Result<size_t> taken = 0;
    {
      const loop::SignalsBlocked blocked;
      using enum kernel::IoctlServer::Reader;
      taken = server_->read(std::span(message).first(room), blocking ? waits : at_once);
    }
    if (taken) {
      OwnProcess own;
      const auto copied =
          scatter(to, std::span<const std::byte>(message).first(*taken),
                  [&](uint64_t at, std::span<const std::byte> part) { return own.copy_out(at, part); });
      return copied ? static_cast<ssize_t>(*taken) : minus(copied.error());
    }
    if (taken.error().os_error != EAGAIN || !blocking) return minus(taken.error());
    pollfd entry{.fd = read_end_.get(), .events = POLLIN};
    if (::poll(&entry, 1, -1) < 0) return -errno;
  }
}

ssize_t DeviceFile::write(std::span<const iovec> from) {
  if (in_child()) return -EPERM;
  const loop::SignalsBlocked blocked;
  OwnProcess own;
  std::array<std::byte, IotlbMessages::size> message{};
  const auto bytes = std::span(message).first(std::min(total(from), message.size()));
  const auto copied =
      scatter(from, bytes, [&](uint64_t at, std::span<std::byte> part) { return own.copy_in(part, at); });
  if (!copied) return minus(copied.error());
  const auto written = server_->write(own, bytes);
  return written ? static_cast<ssize_t>(*written) : minus(written.error());
}

}  // namespace ringway::preload
