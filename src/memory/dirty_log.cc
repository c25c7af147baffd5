#include "ringway/memory/dirty_log.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

namespace ringway::memory {
namespace {

Result<> check_file_covers(int fd, uint64_t end) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return os_failure("cannot examine a log file");
  if (!S_ISREG(status.st_mode)) return refused("the log is not a file");
  if (static_cast<uint64_t>(status.st_size) < end) return refused("the log ends behind its file", end);
  return {};
}

// The bits of pages [first, last] within byte `index`.
uint8_t mask_of(uint64_t index, uint64_t first, uint64_t last) {
  const uint64_t from = std::max(first, index * 8) - index * 8;
  const uint64_t to = std::min(last, index * 8 + 7) - index * 8;
  return static_cast<uint8_t>(0xffU << from & 0xffU >> (7 - to));
}

}  // namespace

Result<std::shared_ptr<const DirtyLog>> DirtyLog::open(const UniqueFd& fd, uint64_t size, uint64_t offset) {
  uint64_t end = 0;
  if (size == 0) return refused("the log is empty");
  if (__builtin_add_overflow(size, offset, &end) || end > INT64_MAX) return refused("the log wraps", offset);
  TRY(check_file_covers(fd.get(), end));
  auto log = std::make_shared<DirtyLog>();
  const uint64_t lead = offset % static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  log->mapping_ = TRY(Mapping::of_file(fd.get(), size + lead, static_cast<off_t>(offset - lead)));
  log->guard_ = FaultGuard(log->mapping_.data(), log->mapping_.size());
  log->bits_ = log->mapping_.data() + lead;
  log->pages_ = size * 8;
  return log;
}

Result<std::shared_ptr<const DirtyLog>> DirtyLog::borrow(FrontEndAddress at, uint64_t size) {
  if (size == 0) return refused("the log is empty");
  if (!at.plus(size - 1)) return refused("the log wraps", at.value);
  auto log = std::make_shared<DirtyLog>();
  log->bits_ = reinterpret_cast<std::byte*>(at.value);  // NOLINT(performance-no-int-to-ptr)
  log->guard_ = FaultGuard::of_borrowed(log->bits_, size);
  log->pages_ = size * 8;
  return log;
}

bool DirtyLog::covers(GuestAddress address, uint64_t length) const {
  const auto end = address.plus(length > 0 ? length - 1 : 0);
  return end && end->value / page_bytes < pages_;
}

bool DirtyLog::covers(const Map& map) const {
  return std::ranges::all_of(map.regions(), [this](const auto& region) {
    return covers(region->layout().guest, region->layout().size);
  });
}

bool DirtyLog::mark_slowly(uint64_t first, uint64_t last) const {
  last = std::min(last, pages_ - 1);
  bool news = false;
  for (uint64_t index = first / 8; first <= last && index <= last / 8; ++index) {
    const std::atomic_ref byte(*reinterpret_cast<uint8_t*>(bits_ + index));
    const uint8_t wanted = mask_of(index, first, last);
    if ((byte.load(std::memory_order_relaxed) & wanted) == wanted) continue;
    byte.fetch_or(wanted);
    news = true;
  }
  return news;
}

void DirtyPages::mark(const DirtyLog& log) {
  if (is_empty()) return;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  mark_behind_fence(log);
}

}  // namespace ringway::memory
