#include "ringway/memory/fault_guard.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <mutex>
#include <utility>

namespace ringway::memory {

struct FaultGuard::Range {
  struct Bounds {
    uintptr_t begin = 0;
    uintptr_t end = 0;
    bool borrowed = false;
  };

  std::atomic<uint64_t> version = 0;  // changes with begin and end, and is odd while they do
  std::atomic<uintptr_t> begin = 0;
  std::atomic<uintptr_t> end = 0;  // 0: free for reuse
  std::atomic<bool> borrowed = false;
  std::atomic<bool> broken = false;

  void set(const Bounds& bounds) {
    version.fetch_add(1);
    begin.store(bounds.begin);
    end.store(bounds.end);
    borrowed.store(bounds.borrowed);
    version.fetch_add(1);
  }
  // False while it changes, or if the address is not in it. A range that changes meanwhile is not the one:
  // that is held by whoever has just touched it.
  bool holds(uintptr_t address, Bounds& bounds) const {
    const uint64_t before = version.load();
    bounds = {.begin = begin.load(), .end = end.load(), .borrowed = borrowed.load()};
    if (before % 2 != 0 || version.load() != before) return false;
    return address >= bounds.begin && address < bounds.end;
  }
  Range* next = nullptr;  // set before the range is published; ranges are never freed
};

namespace {

// The static TLS block: a signal handler must not be the first to touch it.
[[gnu::tls_model("initial-exec")]] constinit thread_local unsigned works_here = 0;

std::atomic<FaultGuard::Range*> ranges = nullptr;
std::atomic<uint64_t> fault_count = 0;
uintptr_t page_size = 0;
std::mutex registration;
struct sigaction previous_bus;
struct sigaction previous_segv;

using Bounds = FaultGuard::Range::Bounds;

bool place_zeros(uintptr_t begin, uintptr_t end, int flags) {
  flags |= MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* at = reinterpret_cast<void*>(begin);  // NOLINT(performance-no-int-to-ptr)
  return ::mmap(at, end - begin, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED;
}

// Where mmap() has failed with ENOMEM: Linux 6.1 says so of a part of a huge page too, mprotect() tells it
// from a shortage. What is there cannot be accessed anyway.
bool is_part_of_huge_page(uintptr_t page) {
  void* at = reinterpret_cast<void*>(page);  // NOLINT(performance-no-int-to-ptr)
  return ::mprotect(at, page_size, PROT_NONE) != 0 && errno == EINVAL;
}

// Huge pages change as a whole: change(begin, end) is tried again on what it takes them to.
template <class Change>
bool change_pages(uintptr_t begin, uintptr_t end, Change change) {
  if (change(begin, end)) return true;
  for (const uintptr_t size : {uintptr_t{2} << 20U, uintptr_t{1} << 30U}) {
    if (errno != EINVAL && (errno != ENOMEM || !is_part_of_huge_page(begin))) return false;
    if (change(begin / size * size, (end + size - 1) / size * size)) return true;
  }
  return false;
}

bool replace_by_zeros(uintptr_t begin, uintptr_t end) {
  return change_pages(begin, end,
                      [](uintptr_t from, uintptr_t to) { return place_zeros(from, to, MAP_FIXED); });
}

bool make_accessible(uintptr_t begin, uintptr_t end) {
  return change_pages(begin, end, [](uintptr_t from, uintptr_t to) {
    void* at = reinterpret_cast<void*>(from);  // NOLINT(performance-no-int-to-ptr)
    return ::mprotect(at, to - from, PROT_READ | PROT_WRITE) == 0;
  });
}

// In the program's memory only the page that was touched changes.
bool repair_page(uintptr_t address, int number, int code) {
  const uintptr_t page = address - address % page_size;
  if (number == SIGBUS) return code == BUS_ADRERR && replace_by_zeros(page, page + page_size);
  if (code == SEGV_ACCERR) return make_accessible(page, page + page_size);
  // Where somebody maps something at this very moment, the access is simply tried again.
  return code == SEGV_MAPERR && (place_zeros(page, page + page_size, MAP_FIXED_NOREPLACE) || errno == EEXIST);
}

void note(FaultGuard::Range& range) {
  range.broken.store(true, std::memory_order_release);
  fault_count.fetch_add(1, std::memory_order_release);
}

bool absorb(uintptr_t address, int number, int code) {
  bool repaired = false;
  for (auto* range = ranges.load(std::memory_order_acquire); range != nullptr; range = range->next) {
    Bounds bounds;
    if (!range->holds(address, bounds)) continue;
    if (!bounds.borrowed) {
      if (number != SIGBUS || !replace_by_zeros(bounds.begin, bounds.end)) return false;
      note(*range);
      return true;
    }
    // Several devices may have borrowed the same memory: each is told.
    if (works_here == 0) continue;
    if (!repaired && !repair_page(address, number, code)) return false;
    repaired = true;
    note(*range);
  }
  return repaired;
}

// As the program would have had it without us. Positive codes are the kernel's: a fault, not somebody's
// kill().
void pass_on(const struct sigaction& previous, int number, siginfo_t* info, void* context) {
  const bool is_fault = info->si_code > 0;
  const bool has_handler = previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN;
  if (has_handler && (previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(number, info, context);
  } else if (has_handler) {
    previous.sa_handler(number);
  } else if (is_fault) {
    ::sigaction(number, &previous, nullptr);  // the access faults again under it
  } else if (previous.sa_handler == SIG_DFL) {
    ::sigaction(number, &previous, nullptr);
    ::syscall(SYS_tgkill, ::getpid(), ::gettid(), number);
  }
}

void on_fault(int number, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const bool absorbed =
      info->si_code > 0 && absorb(reinterpret_cast<uintptr_t>(info->si_addr), number, info->si_code);
  errno = saved_errno;
  if (!absorbed) pass_on(number == SIGBUS ? previous_bus : previous_segv, number, info, context);
}

bool install(int number, struct sigaction& previous) {
  page_size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action{};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  ::sigemptyset(&action.sa_mask);
  return ::sigaction(number, &action, &previous) == 0;
}

// A child of fork() has no other thread that could give the lock back.
bool hold_over_fork() {
  return ::pthread_atfork([] { registration.lock(); }, [] { registration.unlock(); },
                          [] { registration.unlock(); }) == 0;
}

void install_once(bool borrowed) {
  static const bool bus = install(SIGBUS, previous_bus) && hold_over_fork();
  if (!borrowed) return;
  static const bool segv = install(SIGSEGV, previous_segv);
  (void)bus;
  (void)segv;
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

FaultGuard::FaultGuard(std::byte* base, size_t size) : FaultGuard(base, size, Owner::us) {}

FaultGuard FaultGuard::of_borrowed(std::byte* base, size_t size) {
  return FaultGuard(base, size, Owner::program);
}

FaultGuard::FaultGuard(std::byte* base, size_t size, Owner owner) {
  const bool borrowed = owner == Owner::program;
  install_once(borrowed);
  const std::scoped_lock lock(registration);
  range_ = free_range();
  const auto begin = reinterpret_cast<uintptr_t>(base);
  range_->broken.store(false);
  range_->set({.begin = begin, .end = begin + size, .borrowed = borrowed});
}

FaultGuard::FaultGuard(FaultGuard&& other) noexcept : range_(std::exchange(other.range_, nullptr)) {}

FaultGuard& FaultGuard::operator=(FaultGuard&& other) noexcept {
  std::swap(range_, other.range_);
  return *this;
}

FaultGuard::~FaultGuard() {
  if (range_ == nullptr) return;
  const std::scoped_lock lock(registration);
  range_->set({});
}

bool FaultGuard::broken() const {
  return range_ != nullptr && range_->broken.load(std::memory_order_acquire);
}

uint64_t FaultGuard::faults() { return fault_count.load(std::memory_order_acquire); }

FaultGuard::Work::Work() { ++works_here; }
FaultGuard::Work::~Work() { --works_here; }

void FaultGuard::work_on_this_thread() { works_here |= 1U << 31U; }

}  // namespace ringway::memory
