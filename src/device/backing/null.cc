#include "ringway/device/backing/null.h"

namespace ringway::backing {
namespace {

constexpr uint64_t no_limit = uint64_t{1} << 40;

class NullBacking final : public Backing {
 public:
  NullBacking(uint64_t size, bool read_only) {
    capacity_ = size;
    read_only_ = read_only;
    geometry_.max_discard = geometry_.max_write_zeroes = geometry_.max_secure_erase = no_limit;
    geometry_.unmapping_zeroes = true;
  }

  std::unique_ptr<Lane> open_lane(loop::Loop&) override { return std::make_unique<NullLane>(*this); }

 private:
  class NullLane final : public Lane {
   public:
    explicit NullLane(const NullBacking& backing) : backing_(backing) {}
    Outcome submit(Request& request) override { return backing_.check(request); }

   private:
    const NullBacking& backing_;
  };
};

}  // namespace

Result<std::unique_ptr<Backing>> open_null(uint64_t size, bool read_only) {
  if (size == 0 || size % sector_size != 0)
    return refused("a disk is a whole number of 512-byte sectors", size);
  return std::make_unique<NullBacking>(size, read_only);
}

}  // namespace ringway::backing
