// The dirty log of a whole device: what is marked is what was written. vhost-user "Migration".
#include <atomic>
#include <thread>

#include "ringway/tools/migration_rig_test.h"

namespace ringway::tools {
namespace {

using Pages = std::set<uint64_t>;

Pages without(const Pages& from, const Pages& what) {
  Pages left;
  std::ranges::set_difference(from, what, std::inserter(left, left.end()));
  return left;
}

const MigrationShape shapes[] = {
    {.name = "split", .event_idx = false},
    {.name = "split_event_index"},
    {.name = "split_indirect", .indirect = true},
    {.name = "split_file", .indirect = true, .file = true},
    {.name = "split_iommu", .iommu = true},
    {.name = "split_indirect_iommu_file", .indirect = true, .iommu = true, .file = true},
    {.name = "packed", .packed = true, .event_idx = false},
    {.name = "packed_event_index", .packed = true},
    {.name = "packed_indirect", .packed = true, .indirect = true},
    {.name = "packed_file", .packed = true, .file = true},
    {.name = "packed_iommu", .packed = true, .iommu = true},
    {.name = "packed_indirect_iommu_file", .packed = true, .indirect = true, .iommu = true, .file = true},
};

class DirtyLogOf : public testing::TestWithParam<MigrationShape> {
 protected:
  // One batch, and what it has changed and marked. The ring runs all the time.
  void batch() {
    std::vector<std::byte> before;
    rig_.while_idle([&] {
      rig_.add_batch();
      rig_.publish();
      before = rig_.snapshot();
    });
    ASSERT_TRUE(rig_.finish());
    rig_.while_idle([&] {
      changed_ = rig_.changed_since(before);
      marked_ = rig_.take_marks();
    });
  }
  MigrationRig rig_{GetParam(), 7};
  Pages changed_;
  Pages marked_;
};

TEST_P(DirtyLogOf, N051_N052_the_pages_that_are_marked_are_those_that_changed) {
  rig_.start();
  rig_.set_log(3 * 4096 + 8);
  rig_.log_all(true);
  rig_.log_ring(true);
  size_t most = 0;
  for (int round = 0; round < 100; ++round) {
    rig_.while_idle([&] { rig_.take_marks(); });
    batch();
    ASSERT_EQ(without(changed_, marked_), Pages()) << "changed and not marked, round " << round;
    ASSERT_EQ(without(without(marked_, changed_), rig_.ring_pages()), Pages())
        << "marked and not changed, round " << round;
    most = std::max(most, changed_.size());
  }
  EXPECT_GT(most, 20U);
}

TEST_P(DirtyLogOf, N050_nothing_is_marked_before_the_log_is_switched_on_and_after_it_is_switched_off) {
  rig_.start();
  rig_.set_log();
  batch();
  EXPECT_EQ(marked_, Pages());
  for (int round = 0; round < 5; ++round) {
    rig_.log_all(true);
    batch();
    EXPECT_EQ(without(marked_, changed_), Pages());
    EXPECT_EQ(without(without(changed_, rig_.ring_pages()), marked_), Pages());
    EXPECT_GT(marked_.size(), 10U);
    rig_.log_all(false);
    rig_.while_idle([&] { rig_.take_marks(); });
    batch();
    EXPECT_EQ(marked_, Pages());
  }
}

TEST_P(DirtyLogOf, what_was_in_flight_when_the_log_was_switched_on_is_not_lost) {
  rig_.start();
  rig_.set_log();
  for (int round = 0; round < 30; ++round) {
    rig_.add_batch();
    rig_.publish();
    rig_.log_all(true);
    std::vector<std::byte> before;
    rig_.while_idle([&] { before = rig_.snapshot(); });
    ASSERT_TRUE(rig_.finish());
    rig_.while_idle([&] {
      changed_ = rig_.changed_since(before);
      marked_ = rig_.take_marks();
    });
    ASSERT_EQ(without(without(changed_, rig_.ring_pages()), marked_), Pages());
    rig_.log_all(false);
    rig_.while_idle([&] { rig_.take_marks(); });
  }
}

TEST_P(DirtyLogOf, H124_the_log_is_replaced_and_switched_under_requests_and_nothing_is_harmed) {
  rig_.start();
  rig_.set_log();
  std::atomic<bool> done = false;
  // Requests go on all the time; the control thread is this one.
  std::thread guest([&] {
    for (int round = 0; round < 150 && !testing::Test::HasFailure(); ++round) {
      rig_.add_batch();
      rig_.publish();
      if (!rig_.finish()) break;
    }
    done = true;
  });
  while (!done) {
    rig_.log_all(true);
    rig_.log_ring(true);
    rig_.set_log(4096);  // the one before is unmapped here, and closed
    rig_.log_ring(false);
    rig_.set_log(0);
    rig_.log_all(false);
  }
  guest.join();
}

TEST_P(DirtyLogOf, H320_a_migration_that_is_given_up_leaves_a_ring_that_goes_on_where_it_was) {
  rig_.start();
  rig_.set_log();
  rig_.log_all(true);
  rig_.log_ring(true);
  batch();
  const auto base = rig_.ask(vhost::GetVringBase{0});
  ASSERT_TRUE(base);
  rig_.log_all(false);
  rig_.describe_ring(base->value);
  rig_.while_idle([&] { rig_.take_marks(); });
  batch();
  EXPECT_EQ(marked_, Pages());
  EXPECT_GT(changed_.size(), 10U);
}

TEST_P(DirtyLogOf, a_ring_that_starts_while_the_log_is_on_is_logged_from_its_first_request) {
  rig_.negotiate(bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD));
  rig_.must(rig_.table(rig_.memory_fd()));
  rig_.make_driver();
  if (rig_.shape().iommu) rig_.map_iotlb();
  rig_.log_all(true);
  rig_.set_log();
  rig_.add_batch();
  std::visit([](auto& driver) { static_cast<void>(driver.publish()); }, rig_.driver());
  const std::vector<std::byte> before = rig_.snapshot();
  rig_.describe_ring(ring::RingBase{}.to_wire(rig_.shape().packed), true);
  ASSERT_TRUE(rig_.finish());
  rig_.while_idle([&] {
    changed_ = rig_.changed_since(before);
    marked_ = rig_.take_marks();
  });
  EXPECT_EQ(without(changed_, marked_), Pages());
  EXPECT_EQ(without(without(marked_, changed_), rig_.ring_pages()), Pages());
}

INSTANTIATE_TEST_SUITE_P(shapes, DirtyLogOf, testing::ValuesIn(shapes),
                         [](const auto& shape) { return std::string(shape.param.name); });

// ---- what is refused

class DirtyLogRules : public testing::Test {
 protected:
  static UniqueFd file_of(uint64_t bytes) {
    UniqueFd file(::memfd_create("log", MFD_CLOEXEC));
    EXPECT_EQ(::ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
    return file;
  }
  bool sets(uint64_t size, uint64_t offset, uint64_t file) {
    return rig_.ask(vhost::SetLogBase{.size = size, .offset = offset, .fd = file_of(file)}).has_value();
  }
  MigrationRig rig_{{.name = "split"}};
};

TEST_F(DirtyLogRules,
       H121_H127_a_log_that_is_too_small_or_ends_behind_its_file_is_refused_and_the_old_one_stays) {
  rig_.start();
  rig_.set_log();
  rig_.log_all(true);
  constexpr uint64_t needed = MigrationRig::log_bytes;
  EXPECT_FALSE(sets(needed - 1, 0, needed));
  EXPECT_FALSE(sets(needed, 1, needed));
  EXPECT_FALSE(sets(needed, UINT64_MAX, needed));
  EXPECT_FALSE(sets(UINT64_MAX, needed, needed));
  EXPECT_FALSE(rig_.ask(vhost::SetLogBase{.size = needed}));
  rig_.add_batch();
  rig_.publish();
  ASSERT_TRUE(rig_.finish());
  EXPECT_FALSE(rig_.take_marks().empty());
  EXPECT_TRUE(sets(needed, 1, needed + 1));
}

TEST_F(DirtyLogRules, H125_LOG_ALL_without_a_log_logs_nothing) {
  rig_.start();
  rig_.log_all(true);
  rig_.log_ring(true);
  rig_.add_batch();
  rig_.publish();
  EXPECT_TRUE(rig_.finish());
}

TEST_F(DirtyLogRules, H079_N056_a_used_ring_may_be_logged_outside_of_all_regions_and_not_outside_of_the_log) {
  rig_.start();
  rig_.set_log();
  vhost::SetVringAddr at = rig_.addresses(true);
  at.log = MigrationRig::high - 2 * MigrationRig::page;  // no region, but a bit
  EXPECT_TRUE(rig_.ask(at));
  const uint64_t end = MigrationRig::log_bytes * 8 * MigrationRig::page;
  at.log = end - 100;
  EXPECT_FALSE(rig_.ask(at));
  at.log = UINT64_MAX - 1;
  EXPECT_FALSE(rig_.ask(at));
}

TEST_F(DirtyLogRules, N057_an_eventfd_is_told_of_pages_that_were_not_marked) {
  rig_.start();
  rig_.set_log();
  const engine::Event news;
  rig_.must(vhost::SetLogFd{news.copy()});
  rig_.log_all(true);
  rig_.add(0, MigrationRig::Kind::read);
  rig_.publish();
  ASSERT_TRUE(rig_.finish());
  EXPECT_TRUE(news.arrived());
}

}  // namespace
}  // namespace ringway::tools
