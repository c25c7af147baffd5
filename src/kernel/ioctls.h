// Ioctls: the system calls on one file of the kernel's vhost, as a seam; VhostFile makes them. Any thread:
// the kernel serialises. linux/vhost.h.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"
#include "ringway/kernel/ioctl_table.h"

namespace ringway::kernel {

class Ioctls {
 public:
  virtual ~Ioctls() = default;
  // `argument` points at what the table says of `request`, or is null. An error's subject is the ioctl's
  // name.
  virtual Result<> ioctl(unsigned long request, void* argument) = 0;
  // IOTLB messages. read() does not block: no bytes if there is nothing.
  virtual Result<> write(std::span<const std::byte> bytes) = 0;
  virtual Result<size_t> read(std::span<std::byte> bytes) = 0;
  [[nodiscard]] virtual int fd() const = 0;  // to poll
};

class VhostFile final : public Ioctls {
 public:
  static Result<std::unique_ptr<Ioctls>> open(const std::string& path);
  // Whatever answers vhost's ioctls.
  static std::unique_ptr<Ioctls> adopt(UniqueFd fd);

  Result<> ioctl(unsigned long request, void* argument) override;
  Result<> write(std::span<const std::byte> bytes) override;
  Result<size_t> read(std::span<std::byte> bytes) override;
  [[nodiscard]] int fd() const override { return fd_.get(); }

 private:
  explicit VhostFile(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

// A value that the kernel tells; `value` is what it is asked with.
template <class T>
Result<T> get(Ioctls& file, unsigned long request, T value = {}) {
  TRY(file.ioctl(request, &value));
  return value;
}

template <class T>
Result<> set(Ioctls& file, unsigned long request, T value) {
  return file.ioctl(request, &value);
}

}  // namespace ringway::kernel
