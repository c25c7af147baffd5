#include "ringway/device/backing/file.h"

#include <unistd.h>

#include "ringway/base/log.h"
#include "ringway/device/backing/disk_file.h"
#include "ringway/device/backing/file_lane.h"

namespace ringway::backing {
namespace {

class FileBacking final : public Backing {
 public:
  explicit FileBacking(std::unique_ptr<SharedFile> shared) : shared_(std::move(shared)) {
    geometry_ = shared_->file.geometry;
    read_only_ = shared_->file.options.read_only;
  }

  std::unique_ptr<Lane> open_lane(loop::Loop& loop) override {
    return std::make_unique<FileLane>(*this, *shared_, loop);
  }

  Result<bool> refresh() override {
    const uint64_t size = TRY(shared_->file.size());
    const uint64_t capacity = size - size % sector_size;
    return capacity_.exchange(capacity) != capacity;
  }

  Result<> flush_now() override {
    if (::fdatasync(shared_->file.fd.get()) == 0) return {};
    shared_->failed = true;
    return os_failure("cannot write the disk back");
  }

  Result<> resume() override {
    if (!shared_->file.options.lock_while_running) return {};
    TRY(shared_->file.lock());
    TRY(refresh());
    return {};
  }

  // The next one may be on another machine, which sees what is on the medium.
  void suspend() override {
    if (!shared_->file.options.lock_while_running) return;
    if (!read_only_) {
      if (auto flushed = flush_now(); !flushed) log::warning("{}", flushed.error().to_string());
    }
    shared_->file.unlock();
  }

  [[nodiscard]] Result<UniqueFd> hand_over() const override {
    if (shared_->failed) return refused("a flush of this disk has failed, which must not be forgotten");
    return shared_->file.fd.duplicate();
  }

 private:
  const std::unique_ptr<SharedFile> shared_;
};

}  // namespace

Result<std::unique_ptr<Backing>> open_file(const std::string& path, FileOptions options, UniqueFd inherited) {
  auto file = TRY(DiskFile::open(path, options, std::move(inherited)));
  auto backing = std::make_unique<FileBacking>(TRY(SharedFile::open(std::move(file), options.lanes)));
  TRY(backing->refresh());
  return backing;
}

}  // namespace ringway::backing
