// For tests: the system calls of the kernel's client, on a file that we serve: both ends of the kernel's
// interface in one process.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/uio.h>

#include <memory>
#include <tuple>

#include "ringway/engine/workers.h"
#include "ringway/kernel/ioctls.h"
#include "ringway/preload/device_file.h"
#include "ringway/preload/devices.h"

namespace ringway::preload {

class ServedFile final : public kernel::Ioctls {
 public:
  explicit ServedFile(engine::Workers& workers)
      : ServedFile([&workers] { return make_device("loopback", workers); }, {}) {}
  ServedFile(kernel::IoctlServer::MakeDevice make_device, const kernel::IoctlServer::Options& options) {
    auto opened = DeviceFile::open(std::move(make_device), O_CLOEXEC, options);
    EXPECT_TRUE(opened) << opened.error().to_string();
    std::tie(file_, fd_) = *std::move(opened);
  }
  Result<> ioctl(unsigned long request, void* argument) override {
    const long result = file_->ioctl(request, reinterpret_cast<uintptr_t>(argument));
    if (result < 0) return os_failure("ioctl", static_cast<int>(-result));
    return {};
  }
  Result<> write(std::span<const std::byte> bytes) override {
    const iovec piece{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};  // NOLINT
    const ssize_t result = file_->write({&piece, 1});
    if (result < 0) return os_failure("write", static_cast<int>(-result));
    return {};
  }
  Result<size_t> read(std::span<std::byte> bytes) override {
    const iovec piece{.iov_base = bytes.data(), .iov_len = bytes.size()};
    const ssize_t result = file_->read({&piece, 1}, false);
    if (result == -EAGAIN) return size_t{0};
    if (result < 0) return os_failure("read", static_cast<int>(-result));
    return static_cast<size_t>(result);
  }
  [[nodiscard]] int fd() const override { return fd_.get(); }

 private:
  std::shared_ptr<DeviceFile> file_;
  UniqueFd fd_;
};

}  // namespace ringway::preload
