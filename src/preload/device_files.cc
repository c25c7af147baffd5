#include "ringway/preload/device_files.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "ringway/base/log.h"
#include "ringway/loop/signals.h"
#include "ringway/preload/devices.h"

namespace ringway::preload {
DeviceFiles& DeviceFiles::instance() {
  static auto* files = new DeviceFiles;  // NOLINT(cppcoreguidelines-owning-memory): hooks outlive destructors
  return *files;
}

DeviceFiles::Bits& DeviceFiles::bits() {
  static constinit Bits bits{};
  return bits;
}

std::atomic<bool>& DeviceFiles::held() {
  static constinit std::atomic<bool> held = false;
  return held;
}

DeviceFiles::DeviceFiles() : process_(::getpid()) {
  ::pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                   [] {
                     // Threads are gone: what belongs to them is left where it is.
                     instance().process_ = ::getpid();
                     instance().workers_ = nullptr;
                     instance().mutex_.unlock();
                   });
}

bool DeviceFiles::may_change() const { return ::getpid() == process_; }

void DeviceFiles::mark(int fd, bool ours) {
  const uint64_t bit = uint64_t{1} << (fd % 64);
  auto& word = bits()[static_cast<size_t>(fd) / 64];
  if (ours)
    word.fetch_or(bit);
  else
    word.fetch_and(~bit);
}

bool DeviceFiles::serves_net() {
  const loop::SignalsBlocked blocked;
  const std::scoped_lock lock(mutex_);
  if (!std::exchange(configured_, true)) {
    const char* text = std::getenv("RINGWAY_VHOST");
    auto settings = Settings::parse(text == nullptr ? "" : text);
    if (settings) {
      settings_ = *std::move(settings);
    } else {
      log::error("RINGWAY_VHOST: {}; there will be no devices", settings.error().to_string());
      settings_.net = "none";
    }
    log::set_level(settings_.level);
  }
  return settings_.net != "none";
}

Result<engine::Workers*> DeviceFiles::workers() {
  if (workers_ == nullptr) {
    auto started = TRY(engine::Workers::start(
        {.count = settings_.workers, .cpus = {}, .polling = settings_.polling, .use_io_uring = false}));
    workers_ = started.release();
  }
  return workers_;
}

int DeviceFiles::open(const char* path, int flags) {
  if ((flags & O_CREAT) != 0 && (flags & O_EXCL) != 0) return -EEXIST;
  if ((flags & O_DIRECTORY) != 0) return -ENOTDIR;
  const loop::SignalsBlocked blocked;
  engine::Workers* workers = nullptr;
  std::string name;
  {
    const std::scoped_lock lock(mutex_);
    if (!may_change()) return -EAGAIN;
    const auto started = this->workers();
    if (!started) return -(started.error().os_error != 0 ? started.error().os_error : EAGAIN);
    workers = *started;
    name = settings_.net;
  }
  auto opened = DeviceFile::open([workers, name] { return make_device(name, *workers); }, flags);
  if (!opened) {
    log::error("{}: {}", path, opened.error().to_string());
    return -(opened.error().os_error != 0 ? opened.error().os_error : ENOMEM);
  }
  auto& [file, fd] = *opened;
  if (fd.get() >= limit) return -EMFILE;
  add(fd.get(), std::move(file));
  return fd.release();
}

std::shared_ptr<DeviceFile> DeviceFiles::find(int fd) {
  const loop::SignalsBlocked blocked;
  const std::scoped_lock lock(mutex_);
  const auto found = files_.find(fd);
  if (found == files_.end()) return nullptr;
  if (found->second->is_behind(fd)) return found->second;
  // Between dup2() and add() of another thread.
  const auto now = std::ranges::find_if(files_, [fd](const auto& one) { return one.second->is_behind(fd); });
  return now == files_.end() ? nullptr : now->second;
}

void DeviceFiles::add(int fd, std::shared_ptr<DeviceFile> file) {
  if (fd < 0 || fd >= limit) return;
  const loop::SignalsBlocked blocked;
  std::shared_ptr<DeviceFile> before;  // ends without the lock
  const std::scoped_lock lock(mutex_);
  if (!may_change()) return;
  before = std::exchange(files_[fd], std::move(file));
  mark(fd, true);
  held().store(true);
}

void DeviceFiles::remove(int fd, const std::shared_ptr<DeviceFile>& file) {
  const loop::SignalsBlocked blocked;
  const std::scoped_lock lock(mutex_);
  const auto found = files_.find(fd);
  if (found == files_.end() || found->second != file || !may_change()) return;
  files_.erase(found);  // the caller still holds it: it ends without the lock
  mark(fd, false);
}

std::vector<DeviceFiles::Entry> DeviceFiles::entries(unsigned first, unsigned last) {
  const loop::SignalsBlocked blocked;
  const std::scoped_lock lock(mutex_);
  std::vector<Entry> all;
  for (const auto& [fd, file] : files_) {
    if (static_cast<unsigned>(fd) >= first && static_cast<unsigned>(fd) <= last) all.push_back({fd, file});
  }
  return all;
}

void DeviceFiles::end() {
  std::unordered_map<int, std::shared_ptr<DeviceFile>> files;
  {
    const std::scoped_lock lock(mutex_);
    if (!may_change()) return;
    files.swap(files_);
    for (const auto& [fd, file] : files) mark(fd, false);
  }
  files.clear();
}

}  // namespace ringway::preload
