// DeviceFiles: which descriptors of the program are ours, and the files behind them. One for the process;
// lives for ever. Any thread, and between fork() and exec.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "ringway/engine/workers.h"
#include "ringway/preload/device_file.h"
#include "ringway/preload/settings.h"

namespace ringway::preload {

class DeviceFiles {
 public:
  static constexpr int limit = 1 << 16;  // descriptors of ours are below

  static DeviceFiles& instance();

  // Whether this path is a device that we serve.
  [[nodiscard]] bool serves(const char* path);
  // A new descriptor of the program's, or minus an errno.
  int open(const char* path, int flags);

  // False for nearly all that are not ours. Async-signal-safe.
  [[nodiscard]] static bool may_hold(int fd) {
    if (fd < 0 || fd >= limit) return false;
    return (bits()[static_cast<size_t>(fd) / 64].load(std::memory_order_relaxed) >> (fd % 64) & 1) != 0;
  }
  // None: this number is somebody else's by now.
  std::shared_ptr<DeviceFile> find(int fd);
  // `fd` is a new descriptor of the same file.
  void add(int fd, std::shared_ptr<DeviceFile> file);
  // `fd` is about to be closed or replaced. The device ends with the last descriptor, when what is returned
  // ends.
  std::shared_ptr<DeviceFile> remove(int fd);
  // [first, last], as remove().
  void remove_range(unsigned first, unsigned last);

  // At exit: every device ends while its threads can still be joined.
  void end();

 private:
  using Bits = std::array<std::atomic<uint64_t>, limit / 64>;
  static Bits& bits();

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
