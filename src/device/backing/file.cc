#include "ringway/device/backing/file.h"

#include <unistd.h>

#include "ringway/base/log.h"
#include "ringway/device/backing/disk_file.h"
#include "ringway/device/backing/file_lane.h"

namespace ringway::backing {
namespace {

class FileBacking final : public Backing {
 public:
  explicit FileBacking(DiskFile file) : file_(std::move(file)) {
    geometry_ = file_.geometry;
    read_only_ = file_.options.read_only;
  }

  std::unique_ptr<Lane> open_lane(loop::Loop& loop) override {
    return std::make_unique<FileLane>(*this, file_, failed_, loop);
  }

  Result<bool> refresh() override {
    const uint64_t size = TRY(file_.size());
    const uint64_t capacity = size - size % sector_size;
    return capacity_.exchange(capacity) != capacity;
  }

  Result<> flush_now() override {
    if (::fdatasync(file_.fd.get()) == 0) return {};
    failed_ = true;
    return os_failure("cannot write the disk back");
  }

  Result<> resume() override {
    if (!file_.options.lock_while_running) return {};
    TRY(file_.lock());
    TRY(refresh());
    return {};
  }

  // The next one may be on another machine, which sees what is on the medium.
  void suspend() override {
    if (!file_.options.lock_while_running) return;
    if (!read_only_) {
      if (auto flushed = flush_now(); !flushed) log::warning("{}", flushed.error().to_string());
    }
    file_.unlock();
  }

 private:
  const DiskFile file_;
  std::atomic<bool> failed_ = false;
};

}  // namespace

Result<std::unique_ptr<Backing>> open_file(const std::string& path, FileOptions options) {
  auto backing = std::make_unique<FileBacking>(TRY(DiskFile::open(path, options)));
  TRY(backing->refresh());
  return backing;
}

}  // namespace ringway::backing
