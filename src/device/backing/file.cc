#include "ringway/device/backing/file.h"

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

 private:
  const std::unique_ptr<SharedFile> shared_;
};

}  // namespace

Result<std::unique_ptr<Backing>> open_file(const std::string& path, FileOptions options) {
  auto backing =
      std::make_unique<FileBacking>(TRY(SharedFile::open(TRY(DiskFile::open(path, options)), options.lanes)));
  TRY(backing->refresh());
  return backing;
}

}  // namespace ringway::backing
