// DeviceFiles: which descriptors of the program are ours, and the files behind them. One for the process;
// lives for ever. Any thread, and between fork() and exec.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "ringway/engine/workers.h"
#include "ringway/preload/device_file.h"
#include "ringway/preload/settings.h"

namespace ringway::preload {

class DeviceFiles {
 public:
  static constexpr int limit = 1 << 16;  // descriptors of ours are below

  static DeviceFiles& instance();

  // Whether we serve that device.
  [[nodiscard]] bool serves_net();
  // A new descriptor of the program's, or minus an errno.
  int open(const char* path, int flags);

  // False for nearly all that are not ours. Async-signal-safe.
  [[nodiscard]] static bool may_hold(int fd) {
    if (fd < 0 || fd >= limit) return false;
    return (bits()[static_cast<size_t>(fd) / 64].load(std::memory_order_relaxed) >> (fd % 64) & 1) != 0;
  }
  // Whether any was ever ours. Async-signal-safe.
  [[nodiscard]] static bool has_held() { return held().load(std::memory_order_relaxed); }
  // None: this number is somebody else's by now. It may have become another of our files' since it was
  // added.
  std::shared_ptr<DeviceFile> find(int fd);
  // `fd` is a new descriptor of the same file.
  void add(int fd, std::shared_ptr<DeviceFile> file);
  // `fd` has been closed or replaced, and was `file`'s; what has been added meanwhile stays. Until then an
  // ioctl of another thread finds the file as it would find the kernel's. The device ends with the last
  // descriptor.
  void remove(int fd, const std::shared_ptr<DeviceFile>& file);
  struct Entry {
    int fd = -1;
    std::shared_ptr<DeviceFile> file;
  };
  // Those of [first, last].
  std::vector<Entry> entries(unsigned first, unsigned last);

  // At exit: every device ends while its threads can still be joined.
  void end();

 private:
  using Bits = std::array<std::atomic<uint64_t>, limit / 64>;
  static Bits& bits();
  static std::atomic<bool>& held();

  DeviceFiles();
  void mark(int fd, bool ours);
  // False between vfork() and exec: memory is the parent's, and descriptors are not.
  [[nodiscard]] bool may_change() const;
  Result<engine::Workers*> workers();

  std::mutex mutex_;  // guards what follows
  std::unordered_map<int, std::shared_ptr<DeviceFile>> files_;
  pid_t process_ = 0;
  bool configured_ = false;
  Settings settings_;
  engine::Workers* workers_ = nullptr;  // for ever: devices may end after everything else
};

}  // namespace ringway::preload
