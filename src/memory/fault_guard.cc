#include "ringway/memory/fault_guard.h"

#include <signal.h>
#include <sys/mman.h>

#include <mutex>
#include <utility>

namespace ringway::memory {

struct FaultGuard::Range {
  std::atomic<uint64_t> version = 0;  // changes with begin and end, and is odd while they do
  std::atomic<uintptr_t> begin = 0;
  std::atomic<uintptr_t> end = 0;  // 0: free for reuse
  std::atomic<bool> broken = false;

  void set(uintptr_t from, uintptr_t to) {
    version.fetch_add(1);
    begin.store(from);
    end.store(to);
    version.fetch_add(1);
  }
  Range* next = nullptr;  // set before the range is published; ranges are never freed
};

namespace {

std::atomic<FaultGuard::Range*> ranges = nullptr;
std::atomic<uint64_t> fault_count = 0;
std::mutex registration;
struct sigaction previous_action;

bool absorb(uintptr_t address) {
  for (auto* range = ranges.load(std::memory_order_acquire); range != nullptr; range = range->next) {
    // A range that changes meanwhile is not the one: that is held by whoever has just touched it.
    const uint64_t version = range->version.load();
    const uintptr_t begin = range->begin.load();
    const uintptr_t end = range->end.load();
    if (version % 2 != 0 || range->version.load() != version) continue;
    if (address < begin || address >= end) continue;
    void* at = reinterpret_cast<void*>(begin);  // NOLINT
    const int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (::mmap(at, end - begin, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) return false;
    range->broken.store(true, std::memory_order_release);
    fault_count.fetch_add(1, std::memory_order_release);
    return true;
  }
  return false;
}

void on_sigbus(int number, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const bool absorbed = absorb(reinterpret_cast<uintptr_t>(info->si_addr));
  errno = saved_errno;
  if (absorbed) return;
  if ((previous_action.sa_flags & SA_SIGINFO) != 0 && previous_action.sa_sigaction != nullptr) {
    previous_action.sa_sigaction(number, info, context);
    return;
  }
  // Not ours: the access faults again under the previous disposition.
  ::sigaction(SIGBUS, &previous_action, nullptr);
}

void install_handler_once() {
  static const bool installed = [] {
    struct sigaction action{};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    ::sigemptyset(&action.sa_mask);
    return ::sigaction(SIGBUS, &action, &previous_action) == 0;
  }();
  (void)installed;
}

FaultGuard::Range* free_range() {
  for (auto* range = ranges.load(); range != nullptr; range = range->next) {
    if (range->end.load() == 0) return range;
  }
  auto* created = new FaultGuard::Range;
  created->next = ranges.load();
  ranges.store(created, std::memory_order_release);
  return created;
}

}  // namespace

FaultGuard::FaultGuard(std::byte* base, size_t size) {
  install_handler_once();
  const std::scoped_lock lock(registration);
  range_ = free_range();
  const auto begin = reinterpret_cast<uintptr_t>(base);
  range_->broken.store(false);
  range_->set(begin, begin + size);
}

FaultGuard::FaultGuard(FaultGuard&& other) noexcept : range_(std::exchange(other.range_, nullptr)) {}

FaultGuard& FaultGuard::operator=(FaultGuard&& other) noexcept {
  std::swap(range_, other.range_);
  return *this;
}

FaultGuard::~FaultGuard() {
  if (range_ == nullptr) return;
  const std::scoped_lock lock(registration);
  range_->set(0, 0);
}

bool FaultGuard::broken() const {
  return range_ != nullptr && range_->broken.load(std::memory_order_acquire);
}

uint64_t FaultGuard::faults() { return fault_count.load(std::memory_order_acquire); }

}  // namespace ringway::memory
