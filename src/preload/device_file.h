// DeviceFile: one open file of a device that we serve: an IoctlServer, and the pipe whose read end the
// program holds in its place. Any thread. Descriptors of the program share it, as they share an open file.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>

#include "ringway/kernel/ioctl_server.h"

namespace ringway::preload {

class DeviceFile {
 public:
  // `flags`: O_CLOEXEC and O_NONBLOCK of open(). The descriptor is for the program.
  static Result<std::pair<std::shared_ptr<DeviceFile>, UniqueFd>> open(
      kernel::IoctlServer::MakeDevice make_device, int flags,
      const kernel::IoctlServer::Options& options = {});

  // What the system calls return, or minus an errno. They may be called in a child of the process that has
  // opened the file: see IoctlServer::ioctl_after_fork(), and EPERM for messages.
  long ioctl(unsigned long request, uint64_t argument);
  // `blocking`: waits for a message, as long as no signal comes.
  ssize_t read(std::span<const iovec> to, bool blocking);
  ssize_t write(std::span<const iovec> from);

  // Whether `fd` is still an end of this file's pipe.
  [[nodiscard]] bool is_behind(int fd) const;

 private:
  struct Forget;
  DeviceFile() = default;
  void show(bool waiting) const;
  [[nodiscard]] bool in_child() const;

  pid_t process_ = 0;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  UniqueFd read_end_;
  UniqueFd write_end_;
  std::unique_ptr<kernel::IoctlServer> server_;
};

}  // namespace ringway::preload
