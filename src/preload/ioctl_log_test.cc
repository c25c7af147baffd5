// The dirty log of kernel::IoctlServer: in the program's own memory, which takes bits away while we mark.
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <mutex>
#include <random>
#include <set>

#include "ringway/base/mapping.h"
#include "ringway/device/backing/racing_copy.h"
#include "ringway/preload/ioctl_rig_test.h"

namespace ringway::preload {
namespace {

using Pages = std::set<uint64_t>;

constexpr uint64_t page = 4096;  // VHOST_PAGE_SIZE
constexpr uint64_t log_all = vhost::bit(VHOST_F_LOG_ALL);

Pages without(const Pages& from, const Pages& what) {
  Pages left;
  std::ranges::set_difference(from, what, std::inserter(left, left.end()));
  return left;
}

class IoctlServerLog : public IoctlRig {
 protected:
  // Bits for all of the memory, and a page behind them that is not there.
  static constexpr uint64_t needed = (guest_base + memory_size) / page / 8;
  static constexpr uint64_t log_size = (needed + page - 1) / page * page;

  IoctlServerLog() { EXPECT_EQ(::mprotect(log_.data() + log_size, page, PROT_NONE), 0); }

  // Where a log ends exactly where it must.
  [[nodiscard]] uint64_t log_base() const { return address(log_.data()) + log_size - needed; }
  long set_log(uint64_t base) { return call(VHOST_SET_LOG_BASE, base); }
  long features(uint64_t features) { return call(VHOST_SET_FEATURES, features); }
  vhost_vring_addr logged(uint32_t ring) {
    vhost_vring_addr at = addresses(ring);
    at.flags = 1U << VHOST_VRING_F_LOG;
    at.log_guest_addr = guest(area(ring)) + configs_[ring].layout().device;
    return at;
  }
  // As QEMU begins a migration, and as it ends one.
  void begin(uint64_t ring_features = modern) {
    ASSERT_EQ(set_log(log_base()), 0);
    ASSERT_EQ(features(ring_features | log_all), 0);
    for (const uint32_t ring : {receive, transmit}) ASSERT_EQ(call(VHOST_SET_VRING_ADDR, logged(ring)), 0);
  }
  void end(uint64_t ring_features = modern) {
    ASSERT_EQ(features(ring_features), 0);
    for (const uint32_t ring : {receive, transmit}) ASSERT_EQ(call(VHOST_SET_VRING_ADDR, addresses(ring)), 0);
  }

  // Takes all marks away as QEMU does, word by word.
  Pages take_marks() {
    Pages pages;
    const uint64_t base = log_base();
    for (uint64_t at = (base + 7) / 8 * 8; at < base + needed; at += 8) {
      const std::atomic_ref word(*reinterpret_cast<uint64_t*>(at));  // NOLINT(performance-no-int-to-ptr)
      if (word.load() == 0) continue;
      const uint64_t taken = word.exchange(0);
      for (uint64_t bit = 0; bit < 64; ++bit)
        if ((taken >> bit & 1) != 0) pages.insert((at - base) * 8 + bit);
    }
    return pages;
  }
  [[nodiscard]] std::vector<std::byte> snapshot() const {
    std::vector<std::byte> copy(memory_size);
    backing::racing_copy(copy.data(), memory_, copy.size());
    return copy;
  }
  [[nodiscard]] Pages changed_since(const std::vector<std::byte>& before) const {
    Pages pages;
    const std::vector<std::byte> now = snapshot();
    for (uint64_t at = 0; at < memory_size; at += page) {
      if (std::memcmp(now.data() + at, before.data() + at, page) != 0) pages.insert((guest_base + at) / page);
    }
    return pages;
  }
  [[nodiscard]] uint64_t page_of_buffer(uint64_t number) const {
    return guest(buffer(receive, number)) / page;
  }
  // The page in which the driver's half of a ring writes too.
  [[nodiscard]] Pages ring_pages() const {
    return {guest(area(receive)) / page, guest(area(transmit)) / page};
  }

  Mapping log_ = *Mapping::anonymous(log_size + page);
};

TEST_F(IoctlServerLog, the_pages_that_are_marked_are_those_that_changed) {
  constexpr uint64_t merged = modern | vhost::bit(VIRTIO_NET_F_MRG_RXBUF);
  start(merged);
  begin(merged);
  std::mt19937 random(26);  // NOLINT(cert-msc51-cpp): the same every time
  size_t most = 0;
  for (uint32_t round = 0; round < 200; ++round) {
    ASSERT_EQ(unbind(transmit), 0);
    const uint32_t frames = random() % 4;
    uint64_t buffers = 0;
    for (uint32_t i = 0; i < frames; ++i) {
      const size_t length = 1 + random() % (3 * page - header);
      send(std::string(length, static_cast<char>('a' + round % 26)));
      buffers += (length + header + page - 1) / page;
    }
    for (uint64_t i = 0; i < buffers; ++i) {
      std::memset(buffer(receive, next_receive_), '-', page);
      add_receive_buffer(page);
    }
    (void)base(receive);  // the ring has been stopped and started: it has seen them
    take_marks();
    const std::vector<std::byte> before = snapshot();
    ASSERT_EQ(bind(transmit), 0);
    for (uint32_t i = 0; i < frames; ++i) ASSERT_TRUE(take_used(transmit));
    for (uint64_t i = 0; i < buffers; ++i) ASSERT_TRUE(take_used(receive));
    for (const uint32_t ring : {receive, transmit}) (void)base(ring);  // all is published and marked
    const Pages changed = changed_since(before);
    const Pages marked = take_marks();
    ASSERT_EQ(without(changed, marked), Pages()) << "changed and not marked, round " << round;
    ASSERT_EQ(without(without(marked, changed), ring_pages()), Pages())
        << "marked and not changed, " << round;
    most = std::max(most, marked.size());
  }
  EXPECT_GT(most, 8U);
}

TEST_F(IoctlServerLog, marks_are_not_lost_while_the_program_takes_them_away) {
  start();
  begin();
  std::atomic<bool> done = false;
  std::mutex mutex;
  Pages marked;
  std::thread program([&] {
    while (!done) {
      const std::scoped_lock lock(mutex);
      marked.merge(take_marks());
    }
  });
  for (int round = 0; round < 100; ++round) {
    std::vector<std::byte> before;
    {
      const std::scoped_lock lock(mutex);
      take_marks();
      marked.clear();
      before = snapshot();
    }
    for (int i = 0; i < 8; ++i) echoes("round " + std::to_string(round));
    for (const uint32_t ring : {receive, transmit}) (void)base(ring);
    const std::scoped_lock lock(mutex);
    marked.merge(take_marks());
    Pages changed = changed_since(before);
    for (uint64_t number = 0; number < ring_size; ++number)
      changed.erase(guest(buffer(transmit, number)) / page);  // the driver's
    ASSERT_EQ(without(changed, marked), Pages()) << round;
    ASSERT_GE(changed.size(), 8U);
  }
  done = true;
  program.join();
}

TEST_F(IoctlServerLog, it_is_switched_on_and_off_under_traffic) {
  start();
  std::atomic<bool> done = false;
  std::thread guest([&] {
    for (int i = 0; i < 400 && !HasFailure(); ++i) echoes("frame " + std::to_string(i));
    done = true;
  });
  while (!done) {
    begin();
    end();
  }
  guest.join();
  take_marks();
  echoes("nobody marks this");
  EXPECT_EQ(take_marks(), Pages());
  begin();
  const Pages expected{page_of_buffer(next_receive_)};
  echoes("and this is marked");
  (void)base(receive);
  EXPECT_EQ(without(expected, take_marks()), Pages());
}

// It would be anybody's memory by then.
TEST_F(IoctlServerLog, after_it_was_switched_off_and_after_the_rings_have_stopped_nothing_is_written_there) {
  start();
  begin();
  echoes("marked");
  end();
  take_marks();
  for (int i = 0; i < 50; ++i) echoes("not marked");
  EXPECT_EQ(take_marks(), Pages());
  begin();
  echoes("marked");
  for (const uint32_t ring : {receive, transmit}) ASSERT_EQ(unbind(ring), 0);
  EXPECT_GT(take_marks().size(), 1U);
  end();
  for (const uint32_t ring : {receive, transmit}) ASSERT_EQ(bind(ring), 0);
  echoes("goes on without");
  EXPECT_EQ(take_marks(), Pages());
}

TEST_F(IoctlServerLog, another_log_takes_over_and_the_first_is_left_alone) {
  start();
  begin();
  echoes("marked in the first");
  Mapping first = std::exchange(log_, *Mapping::anonymous(log_size));
  ASSERT_EQ(set_log(log_base()), 0);
  std::ranges::fill(first.bytes().first(log_size), std::byte{0});
  const uint64_t expected = page_of_buffer(next_receive_);
  for (int i = 0; i < 20; ++i) echoes("marked in the second");
  (void)base(receive);
  EXPECT_TRUE(take_marks().contains(expected));
  EXPECT_TRUE(
      std::ranges::all_of(first.bytes().first(log_size), [](std::byte b) { return b == std::byte{0}; }));
}

TEST_F(IoctlServerLog, used_rings_are_marked_where_the_program_says_and_only_if_it_says_so) {
  start();
  begin();
  vhost_vring_addr elsewhere = logged(receive);
  elsewhere.log_guest_addr = 7 * page;
  ASSERT_EQ(call(VHOST_SET_VRING_ADDR, elsewhere), 0);
  ASSERT_EQ(call(VHOST_SET_VRING_ADDR, addresses(transmit)), 0);
  (void)base(transmit);
  take_marks();
  const uint64_t expected = page_of_buffer(next_receive_);
  add_receive_buffer(page);
  send("frame");
  EXPECT_EQ(received(), "frame");
  (void)base(receive);
  EXPECT_EQ(take_marks(), (Pages{7, expected}));
}

TEST_F(IoctlServerLog, an_eventfd_tells_of_marks_until_it_is_taken_back) {
  start();
  const UniqueFd news = *make_eventfd();
  ASSERT_EQ(call(VHOST_SET_LOG_FD, news.get()), 0);
  begin();
  eventfd_t count = 0;
  (void)::eventfd_read(news.get(), &count);
  take_marks();
  echoes("frame");
  EXPECT_TRUE(signalled(news));
  ASSERT_EQ(call(VHOST_SET_LOG_FD, -1), 0);
  (void)::eventfd_read(news.get(), &count);
  take_marks();
  echoes("frame");
  (void)base(receive);
  EXPECT_FALSE(take_marks().empty());
  EXPECT_FALSE(signalled(news, 0));
}

TEST_F(IoctlServerLog, is_not_offered_to_who_cannot_lend_his_memory) {
  uint64_t offered = 0;
  ASSERT_EQ(call(VHOST_GET_FEATURES, offered), 0);
  EXPECT_NE(offered & log_all, 0U);
  caller_.lends_log_ = false;
  ASSERT_EQ(call(VHOST_GET_FEATURES, offered), 0);
  EXPECT_EQ(offered & log_all, 0U);
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  EXPECT_EQ(features(modern | log_all), -EOPNOTSUPP);
}

// ---- what nobody should do

class IoctlServerBadLog : public IoctlServerLog {
 protected:
  // A log whose first byte that is needed lies there.
  static uint64_t used_from(const void* at) { return address(at) - guest_base / page / 8; }
  // Logs that lack a part, or all, of what is needed.
  std::vector<uint64_t> bad_logs() {
    return {0,
            1,
            page,
            log_base() + 1,  // its last byte is in the page that is not there
            used_from(log_.data() + log_size),
            (uint64_t{1} << 47U) - page,
            (uint64_t{1} << 47U) - needed,
            uint64_t{1} << 62U,
            UINT64_MAX,
            UINT64_MAX - needed,
            used_from(read_only_.data()),
            used_from(reinterpret_cast<const void*>(&::getpid))};
  }
  IoctlServerBadLog() { EXPECT_EQ(::mprotect(read_only_.data(), read_only_.size(), PROT_READ), 0); }
  Mapping read_only_ = *Mapping::anonymous(log_size);
};

TEST_F(IoctlServerBadLog, is_taken_while_nobody_uses_it_and_refused_when_a_ring_would_start_with_it) {
  set_up();
  ASSERT_EQ(features(modern | log_all), 0);
  EXPECT_EQ(bind(receive), -EFAULT);  // there is none
  for (const uint64_t bad : bad_logs()) {
    ASSERT_EQ(set_log(bad), 0) << bad;
    EXPECT_EQ(bind(receive), -EFAULT) << bad;
  }
  ASSERT_EQ(set_log(log_base()), 0);
  for (const uint32_t ring : {receive, transmit}) EXPECT_EQ(bind(ring), 0);
  echoes("frame");
  EXPECT_FALSE(take_marks().empty());
}

TEST_F(IoctlServerBadLog, is_refused_under_running_rings_which_go_on) {
  start();
  EXPECT_EQ(features(modern | log_all), -EFAULT);  // there is none
  for (const uint64_t bad : bad_logs()) {
    ASSERT_EQ(set_log(bad), 0) << bad;
    EXPECT_EQ(features(modern | log_all), -EFAULT) << bad;
    echoes("not logged");
  }
  begin();
  for (const uint64_t bad : bad_logs()) {
    EXPECT_EQ(set_log(bad), -EFAULT) << bad;
    take_marks();
    echoes("logged where it was");
    (void)base(receive);
    EXPECT_GT(take_marks().size(), 1U);
  }
}

TEST_F(IoctlServerBadLog, that_ends_before_a_used_ring_is_refused) {
  start();
  begin();
  for (const uint64_t outside : {guest_base + memory_size, uint64_t{1} << 62U, UINT64_MAX - 3}) {
    vhost_vring_addr bad = logged(receive);
    bad.log_guest_addr = outside;
    EXPECT_EQ(call(VHOST_SET_VRING_ADDR, bad), -EINVAL) << outside;
    echoes("the ring is where it was");
    ASSERT_EQ(unbind(receive), 0);
    ASSERT_EQ(call(VHOST_SET_VRING_ADDR, bad), 0);
    EXPECT_EQ(bind(receive), -EFAULT) << outside;
    ASSERT_EQ(call(VHOST_SET_VRING_ADDR, logged(receive)), 0);
    ASSERT_EQ(bind(receive), 0);
  }
  vhost_vring_addr unaligned = logged(receive);
  unaligned.log_guest_addr += 2;
  EXPECT_EQ(call(VHOST_SET_VRING_ADDR, unaligned), -EINVAL);
  echoes("and goes on");
}

TEST_F(IoctlServerBadLog, that_ends_before_a_new_memory_table_keeps_the_table_of_before) {
  start();
  begin();
  struct {
    kernel::MemoryTableHead head;
    std::array<vhost_memory_region, 2> regions;
  } table{};
  table.head.nregions = 2;
  const Mapping more = *Mapping::anonymous(page);
  table.regions[0] = {
      .guest_phys_addr = guest_base, .memory_size = memory_size, .userspace_addr = address(memory_)};
  for (const uint64_t high : {uint64_t{1} << 60U, guest_base + memory_size + 8 * page}) {
    table.regions[1] = {.guest_phys_addr = high, .memory_size = page, .userspace_addr = address(more.data())};
    EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), -EFAULT) << high;
    echoes("as before");
  }
  end();
  EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), 0);
  echoes("and nothing is logged");
}

TEST_F(IoctlServerBadLog, which_is_unmapped_protected_or_truncated_later_harms_nobody) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer takes the mapping of a page that has gone for a write to it";
#endif
  start();
  begin();
  echoes("before");
  ASSERT_EQ(::mprotect(log_.data(), log_size, PROT_NONE), 0);
  for (int i = 0; i < 20; ++i) echoes("protected");
  // Unmapped once and not again, when it may be somebody else's.
  void* gone = ::mmap(nullptr, log_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(gone, MAP_FAILED);
  ASSERT_EQ(set_log(address(gone)), 0);
  ASSERT_EQ(::munmap(gone, log_size), 0);
  for (int i = 0; i < 20; ++i) echoes("unmapped");
  const UniqueFd file(::memfd_create("log", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), log_size), 0);
  const Mapping shared = *Mapping::of_file(file.get(), log_size, 0);
  ASSERT_EQ(set_log(address(shared.data())), 0);
  echoes("of a file");
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  for (int i = 0; i < 20; ++i) echoes("truncated");
}

TEST_F(IoctlServerBadLog, in_the_middle_of_the_memory_that_is_logged_is_marked_like_another) {
  start();
  const uint64_t inside = address(buffer(receive, ring_size)) - 2 * buffer_size - guest_base / page / 8;
  ASSERT_EQ(set_log(inside), 0);
  ASSERT_EQ(features(modern | log_all), 0);
  for (int i = 0; i < 10; ++i) echoes("x");
}

}  // namespace
}  // namespace ringway::preload
