#include "ringway/memory/fault_guard.h"

#include <gtest/gtest.h>
#include <linux/memfd.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "ringway/base/mapping.h"
#include "ringway/memory/file_test.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::memory {
namespace {

// A mapped file that its other owner truncates.
struct Shared {
  explicit Shared(uint64_t size = 4 * test_page) : fd(test_file(size)) {
    mapping = std::move(Mapping::of_file(fd.get(), size, 0).value());
    guard = FaultGuard(mapping.data(), mapping.size());
    std::memset(mapping.data(), 0x55, size);
  }
  void truncate(uint64_t size = 0) const { EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size)), 0); }
  [[nodiscard]] uint8_t at(uint64_t offset) const { return load<uint8_t>(mapping.data() + offset); }

  UniqueFd fd;
  Mapping mapping;
  FaultGuard guard;
};

TEST(FaultGuard, a_read_behind_the_end_of_a_truncated_file_gives_zeros_and_is_noted) {
  const Shared shared;
  const uint64_t before = FaultGuard::faults();
  EXPECT_EQ(shared.at(0), 0x55);
  EXPECT_FALSE(shared.guard.broken());
  shared.truncate();
  EXPECT_EQ(shared.at(2 * test_page), 0);
  EXPECT_TRUE(shared.guard.broken());
  EXPECT_EQ(FaultGuard::faults(), before + 1);
}

TEST(FaultGuard, a_write_behind_the_end_of_a_truncated_file_goes_nowhere) {
  const Shared shared;
  shared.truncate(test_page);
  store<uint64_t>(shared.mapping.data() + 2 * test_page, 1);
  EXPECT_TRUE(shared.guard.broken());
  EXPECT_EQ(::lseek(shared.fd.get(), 0, SEEK_END), static_cast<off_t>(test_page));
}

TEST(FaultGuard, one_fault_is_enough_for_a_whole_mapping) {
  const Shared shared;
  shared.truncate();
  const uint64_t before = FaultGuard::faults();
  for (uint64_t offset = 0; offset < 4 * test_page; offset += test_page) EXPECT_EQ(shared.at(offset), 0);
  EXPECT_EQ(FaultGuard::faults(), before + 1);
}

TEST(FaultGuard, a_copy_that_runs_over_the_end_is_completed) {
  const Shared shared;
  shared.truncate(test_page);
  std::vector<std::byte> copy(2 * test_page, std::byte{0xaa});
  copy_out(copy.data(), shared.mapping.data(), copy.size());
  EXPECT_EQ(copy[2 * test_page - 1], std::byte{0});
  EXPECT_TRUE(shared.guard.broken());
}

TEST(FaultGuard, others_are_not_touched) {
  const Shared shared;
  const Shared other;
  shared.truncate();
  EXPECT_EQ(shared.at(0), 0);
  EXPECT_EQ(other.at(0), 0x55);
  EXPECT_FALSE(other.guard.broken());
}

TEST(FaultGuard, a_moved_guard_goes_on) {
  Shared shared;
  FaultGuard moved(std::move(shared.guard));
  shared.truncate();
  EXPECT_EQ(shared.at(0), 0);
  EXPECT_TRUE(moved.broken());
}

TEST(FaultGuard, a_range_that_is_guarded_again_starts_sound) {
  const Shared shared;
  shared.truncate();
  EXPECT_EQ(shared.at(0), 0);
  const Shared later;
  EXPECT_FALSE(later.guard.broken());
}

TEST(FaultGuard, faults_of_many_threads_are_absorbed) {
  const Shared shared(64 * test_page);
  shared.truncate();
  std::vector<std::jthread> threads;
  std::atomic<unsigned> zeros = 0;
  for (uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (uint64_t page = thread; page < 64; page += 4) zeros += shared.at(page * test_page) == 0 ? 1 : 0;
    });
  }
  threads.clear();
  EXPECT_EQ(zeros, 64U);
}

// Below and above the one that faults, so that a mixture of theirs would contain it.
TEST(FaultGuard, guards_of_other_threads_come_and_go_while_one_faults) {
  auto whole = Mapping::anonymous(64 * test_page).value();
  std::byte* const base = whole.data();
  std::memset(base, 0x77, whole.size());
  const UniqueFd fd = test_file(test_page);
  std::byte* const victim = base + 32 * test_page;
  std::atomic<bool> stop = false;
  std::thread registrar([&] {
    while (!stop) {
      const FaultGuard low(base, test_page);
    }
  });
  std::thread other_registrar([&] {
    while (!stop) {
      const FaultGuard high(base + 63 * test_page, test_page);
    }
  });
  bool intact = true;
  for (int round = 0; round < 2'000 && intact; ++round) {
    const int flags = MAP_SHARED | MAP_FIXED;
    intact = ::ftruncate(fd.get(), 0) == 0 &&
             ::mmap(victim, test_page, PROT_READ | PROT_WRITE, flags, fd.get(), 0) == victim;
    const FaultGuard guard(victim, test_page);
    intact = intact && load<uint8_t>(victim) == 0 && load<uint8_t>(victim - 1) == 0x77 &&
             load<uint8_t>(victim + test_page) == 0x77;
  }
  stop = true;
  registrar.join();
  other_registrar.join();
  EXPECT_TRUE(intact);
}

// ---- borrowed memory: it belongs to the program that we live in

struct Borrowed {
  Borrowed() { std::memset(mapping.data(), 0x55, mapping.size()); }
  Mapping mapping = Mapping::anonymous(4 * test_page).value();
  FaultGuard guard = FaultGuard::of_borrowed(mapping.data(), mapping.size());
  [[nodiscard]] std::byte* page(size_t number) const { return mapping.data() + number * test_page; }
  [[nodiscard]] uint8_t at(size_t number) const { return load<uint8_t>(page(number)); }
};

TEST(FaultGuardBorrowed, a_page_that_was_unmapped_reads_as_zeros_and_its_neighbours_stay) {
  const Borrowed borrowed;
  const FaultGuard::Work work;
  ASSERT_EQ(::munmap(borrowed.page(1), test_page), 0);
  EXPECT_EQ(borrowed.at(1), 0);
  EXPECT_TRUE(borrowed.guard.broken());
  EXPECT_EQ(borrowed.at(0), 0x55);
  EXPECT_EQ(borrowed.at(2), 0x55);
}

TEST(FaultGuardBorrowed, a_page_that_was_protected_is_accessible_and_keeps_what_is_in_it) {
  const Borrowed borrowed;
  const FaultGuard::Work work;
  ASSERT_EQ(::mprotect(borrowed.page(0), 4 * test_page, PROT_NONE), 0);
  EXPECT_EQ(borrowed.at(1), 0x55);
  EXPECT_TRUE(borrowed.guard.broken());
}

TEST(FaultGuardBorrowed, a_file_that_is_truncated_costs_one_page) {
  const UniqueFd fd = test_file(2 * test_page);
  const auto mapping = Mapping::of_file(fd.get(), 2 * test_page, 0).value();
  const FaultGuard guard = FaultGuard::of_borrowed(mapping.data(), mapping.size());
  const FaultGuard::Work work;
  store<uint8_t>(mapping.data(), 0x44);
  ASSERT_EQ(::ftruncate(fd.get(), test_page), 0);
  EXPECT_EQ(load<uint8_t>(mapping.data() + test_page), 0);
  EXPECT_TRUE(guard.broken());
  EXPECT_EQ(load<uint8_t>(mapping.data()), 0x44);
}

// Nothing if the machine has no huge pages to give.
Mapping huge_pages(const UniqueFd& fd, size_t size) {
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return {};
  auto mapping = Mapping::of_file(fd.get(), size, 0);
  return mapping ? *std::move(mapping) : Mapping();
}

TEST(FaultGuardBorrowed, a_file_of_huge_pages_that_is_truncated_costs_one_of_them) {
  constexpr size_t huge = 2 << 20;
  const UniqueFd fd(::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB));
  const Mapping mapping = huge_pages(fd, 2 * huge);
  if (mapping.data() == nullptr) GTEST_SKIP() << "there is no pool of huge pages";
  const FaultGuard guard = FaultGuard::of_borrowed(mapping.data(), mapping.size());
  const FaultGuard::Work work;
  store<uint8_t>(mapping.data(), 0x44);
  ASSERT_EQ(::ftruncate(fd.get(), huge), 0);
  EXPECT_EQ(load<uint8_t>(mapping.data() + huge + 5 * test_page), 0);
  EXPECT_TRUE(guard.broken());
  EXPECT_EQ(load<uint8_t>(mapping.data()), 0x44);
}

TEST(FaultGuardBorrowed, all_who_have_borrowed_it_are_told) {
  const Borrowed borrowed;
  const FaultGuard other = FaultGuard::of_borrowed(borrowed.page(1), test_page);
  const FaultGuard elsewhere = FaultGuard::of_borrowed(borrowed.page(2), test_page);
  const FaultGuard::Work work;
  ASSERT_EQ(::munmap(borrowed.page(1), test_page), 0);
  EXPECT_EQ(borrowed.at(1), 0);
  EXPECT_TRUE(borrowed.guard.broken());
  EXPECT_TRUE(other.broken());
  EXPECT_FALSE(elsewhere.broken());
}

class FaultGuardDeathTest : public testing::Test {
 protected:
  FaultGuardDeathTest() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

TEST_F(FaultGuardDeathTest, a_fault_in_memory_that_nobody_guards_ends_the_process) {
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, SIG_DFL);  // whatever a sanitizer has installed
        const Shared guarded;
        const UniqueFd fd = test_file(test_page);
        const auto bare = Mapping::of_file(fd.get(), test_page, 0);
        if (::ftruncate(fd.get(), 0) == 0) (void)load<uint8_t>(bare->data());
      },
      testing::KilledBySignal(SIGBUS), "");
}

TEST_F(FaultGuardDeathTest, a_fault_after_the_guard_has_ended_ends_the_process) {
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, SIG_DFL);
        Shared shared;
        shared.guard = FaultGuard();
        shared.truncate();
        (void)shared.at(0);
      },
      testing::KilledBySignal(SIGBUS), "");
}

TEST_F(FaultGuardDeathTest, the_programs_own_threads_fault_in_borrowed_memory_as_ever) {
  EXPECT_EXIT(
      {
        struct sigaction action{};
        action.sa_sigaction = [](int, siginfo_t*, void*) { ::_exit(35); };
        action.sa_flags = SA_SIGINFO;
        ::sigaction(SIGSEGV, &action, nullptr);
        const Borrowed borrowed;
        ::munmap(borrowed.page(0), test_page);
        (void)borrowed.at(0);
      },
      testing::ExitedWithCode(35), "");
}

TEST_F(FaultGuardDeathTest, a_handler_that_was_there_before_gets_what_is_not_guarded) {
  EXPECT_EXIT(
      {
        struct sigaction action{};
        action.sa_sigaction = [](int, siginfo_t*, void*) { ::_exit(33); };
        action.sa_flags = SA_SIGINFO;
        ::sigaction(SIGBUS, &action, nullptr);
        const Shared guarded;
        ::raise(SIGBUS);
      },
      testing::ExitedWithCode(33), "");
}

TEST_F(FaultGuardDeathTest, a_signal_that_was_sent_ends_the_process_as_it_would_without_us) {
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, SIG_DFL);
        const Shared guarded;
        ::raise(SIGBUS);
      },
      testing::KilledBySignal(SIGBUS), "");
}

TEST_F(FaultGuardDeathTest, a_signal_that_was_sent_and_is_ignored_leaves_the_guard) {
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, SIG_IGN);
        const Shared shared;
        ::raise(SIGBUS);
        shared.truncate();
        ::_exit(shared.at(0) == 0 ? 36 : 1);
      },
      testing::ExitedWithCode(36), "");
}

TEST_F(FaultGuardDeathTest, a_plain_handler_that_was_there_before_gets_what_is_not_guarded) {
  EXPECT_EXIT(
      {
        ::signal(SIGBUS, [](int) { ::_exit(34); });
        const Shared guarded;
        const UniqueFd fd = test_file(test_page);
        const auto bare = Mapping::of_file(fd.get(), test_page, 0);
        if (::ftruncate(fd.get(), 0) == 0) (void)load<uint8_t>(bare->data());
      },
      testing::ExitedWithCode(34), "");
}

// It waited for ever for a lock that a thread had which was not there any more.
TEST(FaultGuard, a_child_that_is_forked_while_others_register_can_register) {
  std::vector<std::byte> memory(test_page);
  const FaultGuard first(memory.data(), memory.size());
  std::atomic<bool> done = false;
  std::thread registers([&] {
    while (!done) const FaultGuard one(memory.data(), memory.size());
  });
  for (int i = 0; i < 200; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::alarm(10);
      {
        const FaultGuard own(memory.data(), memory.size());
      }
      ::_exit(0);
    }
    int status = -1;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << i;
  }
  done = true;
  registers.join();
}

}  // namespace
}  // namespace ringway::memory
