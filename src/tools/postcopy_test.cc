// A disk whose guest's memory comes while it is used already: the test plays the front-end, which sends each
// page when it is asked for it, or later. vhost-user "Migration", POSTCOPY_ADVISE.
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "ringway/tools/migration_rig_test.h"

namespace ringway::tools {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr uint64_t page = MigrationRig::page;
constexpr uint64_t capability = bit(vhost::VHOST_USER_PROTOCOL_F_PAGEFAULT);

const MigrationShape shapes[] = {
    {.name = "split"},
    {.name = "split_indirect_file", .indirect = true, .file = true},
    {.name = "split_indirect_iommu", .indirect = true, .iommu = true},
    {.name = "packed", .packed = true},
    {.name = "packed_indirect_iommu_file", .packed = true, .indirect = true, .iommu = true, .file = true},
};

// The pages of the guest as they are on the source, and those that have been sent.
class Source {
 public:
  explicit Source(MigrationRig& rig) : rig_(rig), sent_(MigrationRig::pages) {}
  ~Source() { stop(); }

  // Keeps all pages, and takes them away from the guest.
  void leave() {
    pages_ = rig_.snapshot();
    ASSERT_EQ(::fallocate(rig_.memory_fd().get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                          MigrationRig::memory_bytes),
              0);
  }
  // Answers faults from here on, each after `delay`.
  void serve(UniqueFd user_fault, const vhost::MemoryTable& table, std::chrono::milliseconds delay) {
    user_fault_ = std::move(user_fault);
    table_ = table;
    thread_ = std::thread([this, delay] { run(delay); });
  }
  void stop() {
    ending_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void withhold(const std::set<uint64_t>& pages) {
    const std::scoped_lock lock(mutex_);
    withheld_ = pages;
  }
  // Sends them now.
  void send(const std::set<uint64_t>& pages) {
    const std::scoped_lock lock(mutex_);
    for (const uint64_t number : pages) send_now(number);
  }
  void send_all() {
    const std::scoped_lock lock(mutex_);
    for (uint64_t number = 0; number < MigrationRig::pages; ++number) send_now(number);
  }
  [[nodiscard]] size_t faults() const { return faults_; }
  // The byte that the guest would find, if its page is there.
  [[nodiscard]] std::optional<uint8_t> peek(uint64_t offset) {
    const std::scoped_lock lock(mutex_);
    if (!sent_[offset / page]) return std::nullopt;
    uint8_t byte = 0;
    EXPECT_EQ(::pread(rig_.memory_fd().get(), &byte, 1, static_cast<off_t>(offset)), 1);
    return byte;
  }

 private:
  void run(std::chrono::milliseconds delay) {
    while (!ending_) {
      pollfd entry{.fd = user_fault_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&entry, 1, 10) <= 0) continue;
      uffd_msg message{};
      if (::read(user_fault_.get(), &message, sizeof message) != sizeof message) continue;
      if (message.event != UFFD_EVENT_PAGEFAULT) continue;
      ++faults_;
      std::this_thread::sleep_for(delay);
      const std::optional<uint64_t> number = page_at(message.arg.pagefault.address);
      ASSERT_TRUE(number);
      const std::scoped_lock lock(mutex_);
      if (!withheld_.contains(*number)) send_now(*number);
    }
  }
  [[nodiscard]] std::optional<uint64_t> page_at(uint64_t address) const {
    for (size_t i = 0; i < table_.regions.size(); ++i) {
      const uint64_t offset = address - table_.regions[i].front_end.value;
      if (offset < table_.regions[i].size) return (table_.regions[i].file_offset + offset) / page;
    }
    return std::nullopt;
  }
  void send_now(uint64_t number) {
    if (!sent_[number]) {
      ASSERT_EQ(::pwrite(rig_.memory_fd().get(), pages_.data() + number * page, page,
                         static_cast<off_t>(number * page)),
                static_cast<ssize_t>(page));
    }
    sent_[number] = true;
    for (const memory::RegionLayout& region : table_.regions) {
      const uint64_t offset = number * page - region.file_offset;
      if (offset >= region.size) continue;
      uffdio_range range{.start = region.front_end.value + offset, .len = page};
      ::ioctl(user_fault_.get(), UFFDIO_WAKE, &range);
    }
  }

  MigrationRig& rig_;
  std::vector<std::byte> pages_;
  std::mutex mutex_;
  std::vector<bool> sent_;
  std::set<uint64_t> withheld_;
  vhost::MemoryTable table_;
  UniqueFd user_fault_;
  std::atomic<size_t> faults_ = 0;
  std::atomic<bool> ending_ = false;
  std::thread thread_;
};

class PostcopyOf : public testing::TestWithParam<MigrationShape> {
 protected:
  // The guest has prepared its requests; the source has all of its memory, the destination none.
  void leave() {
    rig_.negotiate(capability);
    rig_.make_driver();
    rig_.add_batch();
    std::visit([](auto& driver) { static_cast<void>(driver.publish()); }, rig_.driver());
    statuses_ = rig_.status_offsets();
    source_.leave();
  }
  // Until the front-end has told the device's addresses to whom they concern.
  void listen() {
    auto advised = rig_.ask(vhost::PostcopyAdvise{});
    ASSERT_TRUE(advised) << advised.error().to_string();
    user_fault_ = std::move(*advised);
    rig_.must(vhost::PostcopyListen{});
    const auto reply = rig_.device().handle(rig_.table(rig_.memory_fd()));
    ASSERT_TRUE(reply);
    ASSERT_TRUE(std::holds_alternative<vhost::MemoryTable>(*reply));
    table_ = std::get<vhost::MemoryTable>(*reply);
    ASSERT_EQ(table_.regions.size(), 2U);
  }
  void acknowledge() { rig_.must(vhost::SetMemTable{}); }
  void start_ring() {
    if (GetParam().iommu) rig_.map_iotlb();
    rig_.describe_ring(ring::RingBase{}.to_wire(GetParam().packed));
  }
  [[nodiscard]] size_t done() {
    return static_cast<size_t>(
        std::ranges::count_if(statuses_, [&](uint64_t at) { return source_.peek(at) == uint8_t{0}; }));
  }
  [[nodiscard]] bool soon_done(size_t count) {
    const auto end = Clock::now() + 20s;
    while (done() < count && Clock::now() < end) std::this_thread::sleep_for(1ms);
    return done() >= count;
  }
  void end() {
    source_.send_all();
    rig_.must(vhost::PostcopyEnd{});
    source_.stop();
  }
  MigrationRig rig_{GetParam(), 5, {.offer_postcopy = true}};
  Source source_{rig_};
  UniqueFd user_fault_;
  vhost::MemoryTable table_;
  std::vector<uint64_t> statuses_;
};

TEST_P(PostcopyOf, N059_N093_N111_N113_requests_are_served_from_memory_that_comes_late) {
  leave();
  listen();
  source_.serve(std::move(user_fault_), table_, 1ms);
  acknowledge();
  start_ring();
  EXPECT_TRUE(soon_done(MigrationRig::slots));
  EXPECT_GT(source_.faults(), 20U);
  end();
  ASSERT_TRUE(rig_.finish());
  rig_.add_batch();
  rig_.publish();
  EXPECT_TRUE(rig_.finish());
}

TEST_P(PostcopyOf, N059_N093_nothing_is_touched_before_the_front_end_has_acknowledged_the_addresses) {
  leave();
  listen();
  source_.serve(std::move(user_fault_), table_, 0ms);
  start_ring();
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(source_.faults(), 0U);
  EXPECT_EQ(done(), 0U);
  acknowledge();
  EXPECT_TRUE(soon_done(MigrationRig::slots));
  EXPECT_GT(source_.faults(), 0U);
  end();
  EXPECT_TRUE(rig_.finish());
}

TEST_P(PostcopyOf, a_page_that_is_late_holds_up_its_request_and_neither_the_worker_nor_the_others) {
  leave();
  size_t late = 0;
  while (rig_.data_pages(late).empty()) ++late;
  std::set<uint64_t> pages = rig_.data_pages(late);
  for (size_t i = 0; i < statuses_.size(); ++i) {
    if (i == late) continue;
    pages.erase(statuses_[i] / page);
    for (const uint64_t number : rig_.data_pages(i)) pages.erase(number);
  }
  source_.withhold(pages);
  listen();
  source_.serve(std::move(user_fault_), table_, 0ms);
  acknowledge();
  start_ring();
  EXPECT_TRUE(soon_done(MigrationRig::slots - 1));
  const auto before = Clock::now();
  rig_.workers().worker(0).run([] {});
  EXPECT_LT(Clock::now() - before, 1s);
  EXPECT_EQ(done(), MigrationRig::slots - 1);
  EXPECT_NE(source_.peek(statuses_[late]), uint8_t{0});
  source_.withhold({});
  source_.send(pages);
  EXPECT_TRUE(soon_done(MigrationRig::slots));
  end();
  EXPECT_TRUE(rig_.finish());
}

TEST_P(PostcopyOf, a_ring_that_is_stopped_waits_for_the_pages_of_what_it_has_taken) {
  leave();
  listen();
  source_.serve(std::move(user_fault_), table_, 5ms);
  acknowledge();
  start_ring();
  EXPECT_TRUE(soon_done(1));
  const auto base = rig_.ask(vhost::GetVringBase{0});
  ASSERT_TRUE(base);
  rig_.describe_ring(base->value);
  EXPECT_TRUE(soon_done(MigrationRig::slots));
  end();
  EXPECT_TRUE(rig_.finish());
}

TEST_P(PostcopyOf, a_front_end_that_leaves_with_pages_unsent_holds_up_nobody) {
  leave();
  listen();
  std::set<uint64_t> all;
  for (uint64_t number = 0; number < MigrationRig::pages; ++number) all.insert(number);
  source_.withhold(all);
  source_.serve(std::move(user_fault_), table_, 0ms);
  acknowledge();
  start_ring();
  const auto end = Clock::now() + 20s;
  while (source_.faults() == 0 && Clock::now() < end) std::this_thread::sleep_for(1ms);
  EXPECT_GT(source_.faults(), 0U);
  const auto before = Clock::now();
  rig_.device().disconnect();
  EXPECT_LT(Clock::now() - before, 2s);
}

INSTANTIATE_TEST_SUITE_P(shapes, PostcopyOf, testing::ValuesIn(shapes),
                         [](const auto& shape) { return std::string(shape.param.name); });

TEST(PostcopyRules, H163_messages_out_of_order_are_refused) {
  MigrationRig rig({.name = "split"}, 1, {.offer_postcopy = true});
  rig.negotiate(capability);
  EXPECT_FALSE(rig.ask(vhost::PostcopyListen{}));
  EXPECT_FALSE(rig.ask(vhost::PostcopyEnd{}));
  ASSERT_TRUE(rig.ask(vhost::PostcopyAdvise{}));
  EXPECT_FALSE(rig.ask(vhost::PostcopyAdvise{}));
  rig.must(vhost::PostcopyListen{});
  EXPECT_FALSE(rig.ask(vhost::PostcopyListen{}));
  rig.must(vhost::PostcopyEnd{});
  EXPECT_FALSE(rig.ask(vhost::PostcopyEnd{}));
  EXPECT_TRUE(rig.ask(vhost::PostcopyAdvise{}));  // the next migration
}

TEST(PostcopyRules, N060_postcopy_and_memory_slots_are_never_offered_together) {
  for (const bool postcopy : {false, true}) {
    MigrationRig rig({.name = "split"}, 1, {.offer_postcopy = postcopy});
    const uint64_t offered = rig.ask(vhost::GetProtocolFeatures{})->bits;
    EXPECT_EQ((offered & bit(vhost::VHOST_USER_PROTOCOL_F_PAGEFAULT)) != 0, postcopy);
    EXPECT_EQ((offered & bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) != 0, !postcopy);
  }
}

}  // namespace
}  // namespace ringway::tools
