#include "ringway/device/backing/file.h"

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

  [[nodiscard]] Result<UniqueFd> hand_over() const override {
    if (failed_) return refused("a flush of this disk has failed, which must not be forgotten");
    return file_.fd.duplicate();
  }

 private:
  const DiskFile file_;
  std::atomic<bool> failed_ = false;
};

}  // namespace

Result<std::unique_ptr<Backing>> open_file(const std::string& path, FileOptions options, UniqueFd inherited) {
  auto backing = std::make_unique<FileBacking>(TRY(DiskFile::open(path, options, std::move(inherited))));
  TRY(backing->refresh());
  return backing;
}

}  // namespace ringway::backing
