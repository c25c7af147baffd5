#include "ringway/device/backing/memory.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "ringway/base/mapping.h"
#include "ringway/device/backing/racing_copy.h"

namespace ringway::backing {
namespace {

// Requests end inside submit, so their size bounds how long a queue holds up its worker: these take about a
// millisecond.
constexpr uint64_t max_discard = uint64_t{16} << 20;
constexpr uint64_t max_fill = uint64_t{4} << 20;

size_t page_size() {
  static const auto size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

// The whole pages inside a range.
std::span<std::byte> whole_pages(std::span<std::byte> range) {
  const auto begin = reinterpret_cast<uintptr_t>(range.data());
  const uintptr_t first = (begin + page_size() - 1) / page_size() * page_size();
  const uintptr_t end = (begin + range.size()) / page_size() * page_size();
  if (end <= first) return {};
  return range.subspan(first - begin, end - first);
}

// The pages read as zeros from now on, and cost nothing.
void give_back(std::span<std::byte> pages, bool shared) {
  if (pages.empty()) return;
  const int advice = shared ? MADV_REMOVE : MADV_DONTNEED;
  if (::madvise(pages.data(), pages.size(), advice) != 0) racing_zero(pages.data(), pages.size());
}

class MemoryLane final : public Lane {
 public:
  MemoryLane(const Backing& backing, std::byte* data, bool shared)
      : backing_(backing), data_(data), shared_(shared) {}

  Outcome submit(Request& request) override {
    if (const int error = backing_.check(request); error != 0) return error;
    const std::span range(data_ + request.offset, request.length);
    switch (request.operation) {
      case Operation::read:
        transfer(request, [](std::byte* own, void* peers, size_t n) { racing_copy(peers, own, n); });
        break;
      case Operation::write:
        transfer(request, [](std::byte* own, void* peers, size_t n) { racing_copy(own, peers, n); });
        break;
      case Operation::flush:
        break;
      case Operation::discard:
        give_back(whole_pages(range), shared_);
        break;
      case Operation::write_zeroes:
        zero(range, request.may_unmap);
        break;
      case Operation::secure_erase:
        racing_zero(range.data(), range.size());
        give_back(whole_pages(range), shared_);
        break;
    }
    return 0;
  }
  // The first lines: the processor sees by itself that more of them follow. A request of 4 KiB at random
  // waited for them for a quarter of its time.
  void expect(const Request& request) override {
    constexpr uint64_t first = 512;  // bytes
    constexpr uint64_t line = 64;
    const bool copies = request.operation == Operation::read || request.operation == Operation::write;
    if (!copies || request.offset >= backing_.capacity()) return;
    const std::byte* const at = data_ + request.offset;
    for (uint64_t i = 0; i < std::min(request.length, first); i += line) __builtin_prefetch(at + i);
  }

 private:
  template <class Copy>
  void transfer(const Request& request, Copy copy) {
    std::byte* own = data_ + request.offset;
    uint64_t left = request.length;
    for (const iovec& piece : request.pieces) {
      const size_t length = std::min<uint64_t>(piece.iov_len, left);
      copy(own, piece.iov_base, length);
      own += length;
      left -= length;
    }
  }

  void zero(std::span<std::byte> range, bool may_unmap) const {
    const std::span pages = may_unmap ? whole_pages(range) : range.first(0);
    const size_t before = pages.empty() ? range.size() : static_cast<size_t>(pages.data() - range.data());
    racing_zero(range.data(), before);
    give_back(pages, shared_);
    const std::span after = range.subspan(before + pages.size());
    racing_zero(after.data(), after.size());
  }

  const Backing& backing_;
  std::byte* const data_;
  const bool shared_;
};

class MemoryBacking final : public Backing {
 public:
  // `file`: of shared memory; none: it is private.
  MemoryBacking(Mapping memory, bool read_only, UniqueFd file = {})
      : memory_(std::move(memory)), file_(std::move(file)) {
    capacity_ = memory_.size();
    read_only_ = read_only;
    geometry_.physical_block_size = static_cast<uint32_t>(page_size());
    geometry_.discard_granularity = static_cast<uint32_t>(page_size());
    geometry_.max_discard = max_discard;
    geometry_.max_write_zeroes = geometry_.max_secure_erase = max_fill;
    geometry_.unmapping_zeroes = true;
  }

  std::unique_ptr<Lane> open_lane(loop::Loop&) override {
    return std::make_unique<MemoryLane>(*this, memory_.data(), static_cast<bool>(file_));
  }
  [[nodiscard]] Result<UniqueFd> hand_over() const override {
    if (!file_) return refused("is private memory of this process, not shared memory");
    return file_.duplicate();
  }

 private:
  const Mapping memory_;
  const UniqueFd file_;
};

}  // namespace

Result<std::unique_ptr<Backing>> open_memory(uint64_t size, bool read_only) {
  if (size == 0 || size % sector_size != 0)
    return refused("a disk is a whole number of 512-byte sectors", size);
  Mapping memory = TRY(Mapping::anonymous(size));
  // A random request of 4 KiB spends a quarter of its time on the TLB otherwise.
  ::madvise(memory.data(), memory.size(), MADV_HUGEPAGE);
  return std::make_unique<MemoryBacking>(std::move(memory), read_only);
}

Result<std::unique_ptr<Backing>> open_shared_memory(uint64_t size, bool read_only, UniqueFd inherited) {
  if (size == 0 || size % sector_size != 0)
    return refused("a disk is a whole number of 512-byte sectors", size);
  UniqueFd file = std::move(inherited);
  if (!file) {
    file.reset(::memfd_create("disk", MFD_CLOEXEC));
    if (!file || ::ftruncate(file.get(), static_cast<off_t>(size)) != 0)
      return os_failure("cannot make shared memory");
  }
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return os_failure("cannot examine shared memory");
  if (static_cast<uint64_t>(status.st_size) != size)
    return refused("has another size than the memory that is served now",
                   static_cast<uint64_t>(status.st_size));
  Mapping memory = TRY(Mapping::of_file(file.get(), size, 0));
  ::madvise(memory.data(), memory.size(), MADV_HUGEPAGE);
  return std::make_unique<MemoryBacking>(std::move(memory), read_only, std::move(file));
}

}  // namespace ringway::backing
