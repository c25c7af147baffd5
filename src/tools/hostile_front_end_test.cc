// Front-ends that break the rules, against a whole back-end over its socket. The numbers are those of
// docs/robustness.md.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "ringway/tools/hostile_rig_test.h"

namespace ringway::tools {
namespace {

constexpr uint64_t no_fd = 0x100;  // of SET_VRING_KICK and its like

// ---- bytes and file descriptors
// ---------------------------------------------------------------------------------------

TEST_F(HostileFrontEnd, H017_ten_thousand_requests_whose_replies_are_not_read_hold_up_nobody_else) {
  hostile_->hello();
  hostile_->barrier();
  const Bytes one = user::testing::bytes_of(FrontEnd::frame(get_features, {}));
  ASSERT_EQ(::fcntl(hostile_->peer().fd(), F_SETFL, O_NONBLOCK), 0);
  size_t sent = 0;
  for (int i = 0; i < 10'000; ++i) {
    const ssize_t got = ::send(hostile_->peer().fd(), one.data(), one.size(), MSG_NOSIGNAL);
    if (got == static_cast<ssize_t>(one.size())) ++sent;
  }
  EXPECT_GT(sent, 100U);
  EXPECT_TRUE(neighbour_->works());
}

TEST_F(HostileFrontEnd, H020_H022_H023_N023_surplus_file_descriptors_are_closed_whatever_they_come_with) {
  hostile_->hello();
  hostile_->barrier();
  const size_t before = open_fds();
  for (const size_t count : {1U, 8U, 9U, 253U}) {
    for (const uint32_t id : {set_vring_num, set_vring_enable, reset_owner, set_vring_kick, add_mem_reg}) {
      const bool takes_one = id == set_vring_kick || id == add_mem_reg;
      if (takes_one && count == 1) continue;
      Bytes bytes = payload(uint32_t{0}, uint32_t{0});
      if (id == reset_owner) bytes.clear();
      if (id == add_mem_reg) bytes = payload(uint64_t{0}, FrontEnd::whole());
      EXPECT_NE(hostile_->ack(id, bytes, hostile_->copies(count)), 0U) << id << " with " << count;
    }
  }
  EXPECT_EQ(open_fds(), before);
}

TEST_F(HostileFrontEnd, H028_H032_what_cannot_be_a_notification_is_refused) {
  hostile_->set_up();
  std::vector<UniqueFd> wrong;
  wrong.push_back(hostile_->copy());
  wrong.emplace_back(::open("/", O_RDONLY | O_DIRECTORY));
  wrong.emplace_back(::open("/dev/zero", O_RDWR));
  wrong.emplace_back(::epoll_create1(0));
  wrong.emplace_back(::socket(AF_INET, SOCK_STREAM, 0));
  wrong.emplace_back(::socket(AF_UNIX, SOCK_STREAM, 0));
  for (const UniqueFd& fd : wrong) {
    for (const uint32_t id : {set_vring_kick, set_vring_call, set_vring_err}) {
      EXPECT_NE(hostile_->ack(id, payload(uint64_t{0}), FrontEnd::one(std::move(fd.duplicate().value()))),
                0U);
    }
  }
  hostile_->stop(0);
}

TEST_F(HostileFrontEnd, a_kick_pipe_whose_writers_have_left_costs_no_time) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  hostile_->set_up();
  ASSERT_EQ(hostile_->ack(set_vring_kick, payload(uint64_t{0}), FrontEnd::one(std::move(reader))), 0U);
  writer.reset();
  std::this_thread::sleep_for(50ms);
  rusage before{};
  rusage after{};
  ::getrusage(RUSAGE_SELF, &before);
  std::this_thread::sleep_for(300ms);
  ::getrusage(RUSAGE_SELF, &after);
  const auto used = std::chrono::seconds(after.ru_utime.tv_sec - before.ru_utime.tv_sec) +
                    std::chrono::microseconds(after.ru_utime.tv_usec - before.ru_utime.tv_usec) +
                    std::chrono::seconds(after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
                    std::chrono::microseconds(after.ru_stime.tv_usec - before.ru_stime.tv_usec);
  EXPECT_LT(used, 100ms);
}

TEST_F(HostileFrontEnd, H035_one_file_descriptor_may_be_the_kick_of_two_rings_and_the_call_as_well) {
  hostile_->set_up(modern, usual_protocol, 2);
  const engine::Event both;
  for (const uint64_t index : {0U, 1U}) {
    ASSERT_EQ(hostile_->ack(set_vring_kick, payload(index), FrontEnd::one(both.copy())), 0U);
    ASSERT_EQ(hostile_->ack(set_vring_call, payload(index), FrontEnd::one(both.copy())), 0U);
  }
  for (int i = 0; i < 100; ++i) {
    for (const uint32_t index : {0U, 1U}) {
      hostile_->add("ping", index, false);
      both.signal();
      ASSERT_TRUE(hostile_->take(index)) << i;
    }
  }
}

TEST_F(HostileFrontEnd, H037_what_cannot_be_a_back_end_channel_is_refused_and_one_that_ends_is_left) {
  hostile_->set_up();
  constexpr uint32_t set_backend_req_fd = 21;
  EXPECT_NE(hostile_->ack(set_backend_req_fd, {}, FrontEnd::one(hostile_->copy())), 0U);
  EXPECT_NE(hostile_->ack(set_backend_req_fd, {}, FrontEnd::one(UniqueFd(::socket(AF_UNIX, SOCK_DGRAM, 0)))),
            0U);
  auto pair = user::socket_pair().value();
  EXPECT_EQ(hostile_->ack(set_backend_req_fd, {}, FrontEnd::one(std::move(pair[0]))), 0U);
  pair[1].reset();
  echo_.announce_change();
  EXPECT_TRUE(hostile_->works());
}

// ---- negotiation
// ------------------------------------------------------------------------------------------------------

TEST_F(HostileFrontEnd, H049_features_do_not_change_under_a_started_ring) {
  hostile_->set_up();
  EXPECT_NE(hostile_->ack(set_features, payload(modern | bit(VIRTIO_F_RING_PACKED))), 0U);
  EXPECT_NE(hostile_->ack(set_features, payload(modern | bit(VIRTIO_F_ACCESS_PLATFORM))), 0U);
  EXPECT_EQ(hostile_->ack(set_features, payload(modern)), 0U);
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H050_N040_taking_bit_30_back_enables_all_rings_at_once) {
  hostile_->hello();
  ASSERT_EQ(hostile_->share({FrontEnd::whole()}), 0U);
  hostile_->make_driver(0);
  hostile_->describe(0);
  ASSERT_EQ(hostile_->kick_fd(0), 0U);
  hostile_->add("early");
  EXPECT_TRUE(hostile_->stays_silent());
  hostile_->send(set_features, payload(bit(VIRTIO_F_VERSION_1)));
  EXPECT_TRUE(hostile_->take());
}

TEST_F(HostileFrontEnd, H055_N101_a_ring_cannot_be_enabled_without_bit_30) {
  hostile_->hello(bit(VIRTIO_F_VERSION_1));
  hostile_->send(set_vring_enable, payload(uint32_t{0}, uint32_t{1}));
  hostile_->barrier();
}

TEST_F(HostileFrontEnd, H058_N091_RESET_OWNER_disables_the_rings_and_keeps_everything_else) {
  hostile_->set_up();
  EXPECT_EQ(hostile_->ack(reset_owner), 0U);
  hostile_->add("meanwhile");
  EXPECT_TRUE(hostile_->stays_silent());
  EXPECT_EQ(hostile_->enable(0), 0U);
  EXPECT_TRUE(hostile_->take());
}

TEST_F(HostileFrontEnd, H059_N117_RESET_DEVICE_waits_for_requests_in_flight_and_writes_nothing_afterwards) {
  hostile_->set_up();
  echo_.holding_ = true;
  hostile_->add("held");
  ASSERT_TRUE(soon([&] { return echo_.held_ == 1; }));
  user::Frame reset = FrontEnd::frame(reset_device, {});
  reset.header.flags |= user::need_reply_flag;
  hostile_->peer().send(reset);
  EXPECT_FALSE(hostile_->peer().readable(100ms));
  echo_.holding_ = false;
  workers_->worker(0).post([&] { echo_.release_(); });
  workers_->worker(1).post([] {});
  EXPECT_EQ(user::testing::u64_of(hostile_->peer().receive()), 0U);
  EXPECT_TRUE(hostile_->take());
  hostile_->add("after the reset");
  EXPECT_TRUE(hostile_->stays_silent());
  // Set up again without a new owner.
  hostile_->send(set_features, payload(modern));
  hostile_->start(1);
  EXPECT_TRUE(hostile_->works(1));
}

TEST_F(HostileFrontEnd, N027_what_was_not_negotiated_is_refused) {
  hostile_->hello(modern, bit(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK));
  EXPECT_NE(hostile_->add_region(FrontEnd::whole()), 0U);
  EXPECT_NE(hostile_->ack(set_config, payload(uint32_t{0}, uint32_t{1}, uint32_t{0}, uint8_t{0})), 0U);
  EXPECT_NE(hostile_->ack(reset_device), 0U);
  EXPECT_NE(hostile_->ack(vring_kick, payload(uint32_t{0}, uint32_t{0})), 0U);
  EXPECT_NE(hostile_->ack(set_status, payload(uint64_t{15})), 0U);
  EXPECT_NE(hostile_->ack(set_vring_endian, payload(uint32_t{0}, uint32_t{1})), 0U);
}

// ---- rings
// ------------------------------------------------------------------------------------------------------------

TEST_F(HostileFrontEnd, H061_ring_indexes_that_do_not_exist_are_refused) {
  hostile_->set_up();
  for (const uint32_t index : {4U, 0xffU, 0x100U, 0x10000U, 0xffffffffU}) {
    EXPECT_NE(hostile_->ack(set_vring_num, payload(index, uint32_t{16})), 0U);
    EXPECT_NE(hostile_->ack(set_vring_base, payload(index, uint32_t{0})), 0U);
    EXPECT_NE(hostile_->ack(set_vring_enable, payload(index, uint32_t{1})), 0U);
    EXPECT_NE(hostile_->ack(set_vring_endian, payload(index, uint32_t{1})), 0U);
    EXPECT_NE(hostile_->ack(set_vring_addr, payload(index, std::array<uint64_t, 4>{}, uint32_t{0})), 0U);
    if (index == no_fd) continue;  // not an index there, but the bit itself
    for (const uint32_t id : {set_vring_kick, set_vring_call, set_vring_err}) {
      EXPECT_NE(hostile_->ack(id, payload(uint64_t{index} | no_fd)), 0U);
    }
  }
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H061_stopping_a_ring_that_does_not_exist_ends_the_connection_and_nothing_else) {
  hostile_->hello();
  hostile_->send(get_vring_base, payload(uint32_t{4}, uint32_t{0}));
  EXPECT_TRUE(hostile_->peer().closed());
}

TEST_F(HostileFrontEnd, H065_H067_H068_ring_sizes_that_are_not_served_are_refused_at_once) {
  hostile_->set_up();
  for (const uint32_t size : {0U, 3U, 2048U, 32768U, 32769U, 65536U, 0x10010U, 0xffffffffU}) {
    EXPECT_NE(hostile_->ack(set_vring_num, payload(uint32_t{1}, size)), 0U) << size;
  }
}

TEST_F(HostileFrontEnd, H070_a_ring_that_has_grown_out_of_its_region_does_not_start) {
  hostile_->hello();
  // The region ends right behind a ring of 16 entries.
  hostile_->make_driver(0, 16);
  const uint64_t end = (hostile_->layout(0).bytes + 4095) / 4096 * 4096;
  ASSERT_EQ(hostile_->share({{FrontEnd::guest_base, end, FrontEnd::user_base, 0},
                             {FrontEnd::guest_base + FrontEnd::data, FrontEnd::size - FrontEnd::data,
                              FrontEnd::user_base + FrontEnd::data, FrontEnd::data}}),
            0U);
  hostile_->start(0);
  ASSERT_TRUE(hostile_->works());
  hostile_->stop(0);
  ASSERT_EQ(hostile_->ack(set_vring_num, payload(uint32_t{0}, uint32_t{1024})), 0U);
  EXPECT_NE(hostile_->kick_fd(0), 0U);
  // Nothing is kept of the attempt.
  ASSERT_EQ(hostile_->ack(set_vring_num, payload(uint32_t{0}, uint32_t{16})), 0U);
  EXPECT_EQ(hostile_->kick_fd(0), 0U);
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H070_the_parameters_of_a_started_ring_do_not_change) {
  hostile_->set_up();
  EXPECT_NE(hostile_->ack(set_vring_num, payload(uint32_t{0}, uint32_t{1024})), 0U);
  EXPECT_NE(hostile_->ack(set_vring_base, payload(uint32_t{0}, uint32_t{7})), 0U);
  EXPECT_NE(hostile_->ack(set_vring_endian, payload(uint32_t{0}, uint32_t{1})), 0U);
  Bytes other = hostile_->address(0);
  other[9] ^= std::byte{0x10};
  EXPECT_NE(hostile_->ack(set_vring_addr, other), 0U);
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H071_a_ring_may_be_described_before_there_is_memory) {
  hostile_->hello();
  hostile_->make_driver(0);
  ASSERT_EQ(hostile_->ack(set_vring_addr, hostile_->address(0)), 0U);
  ASSERT_EQ(hostile_->ack(set_vring_base, payload(uint32_t{0}, uint32_t{0})), 0U);
  ASSERT_EQ(hostile_->ack(set_vring_num, payload(uint32_t{0}, uint32_t{16})), 0U);
  ASSERT_EQ(hostile_->enable(0), 0U);
  ASSERT_EQ(hostile_->share({FrontEnd::whole()}), 0U);
  ASSERT_EQ(hostile_->kick_fd(0), 0U);
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H073_a_ring_that_spans_two_regions_is_refused_or_served_and_never_read_beyond_them) {
  hostile_->hello();
  hostile_->make_driver(0, 1024);  // 16 KiB of descriptors
  const uint64_t cut = 8192;
  ASSERT_EQ(
      hostile_->share({{FrontEnd::guest_base, cut, FrontEnd::user_base, 0},
                       {FrontEnd::guest_base + cut, FrontEnd::size - cut, FrontEnd::user_base + cut, cut}}),
      0U);
  hostile_->describe(0);
  ASSERT_EQ(hostile_->enable(0), 0U);
  if (hostile_->kick_fd(0) == 0) {
    EXPECT_TRUE(hostile_->works());
  }
  hostile_->stop(0);
  // Half of it in no region at all.
  ASSERT_EQ(hostile_->share({{FrontEnd::guest_base, cut, FrontEnd::user_base, 0}}), 0U);
  EXPECT_NE(hostile_->kick_fd(0), 0U);
}

TEST_F(HostileFrontEnd, H074_misaligned_areas_are_refused) {
  hostile_->set_up();
  const uint64_t good = FrontEnd::user_base + 2 * FrontEnd::ring_area;
  const auto ask = [&](uint64_t desc, uint64_t used, uint64_t avail) {
    return hostile_->ack(set_vring_addr, payload(uint32_t{1}, uint32_t{0}, desc, used, avail, uint64_t{0}));
  };
  EXPECT_EQ(ask(good, good, good), 0U);
  EXPECT_NE(ask(good + 8, good, good), 0U);
  EXPECT_NE(ask(good, good + 2, good), 0U);
  EXPECT_NE(ask(good, good, good + 1), 0U);
}

TEST_F(HostileFrontEnd, H076_H203_rings_that_overlap_each_other_hurt_nobody_else) {
  hostile_->set_up(modern, usual_protocol, 2);
  hostile_->stop(0);
  hostile_->stop(1);
  // Used ring on the descriptors, and all of it on the other ring.
  const uint64_t at = FrontEnd::user_base;
  for (const uint32_t index : {0U, 1U}) {
    ASSERT_EQ(hostile_->ack(set_vring_addr, payload(index, uint32_t{0}, at, at, at + 256, uint64_t{0})), 0U);
    ASSERT_EQ(hostile_->kick_fd(index), 0U);
  }
  for (int i = 0; i < 200; ++i) {
    for (uint64_t offset = 0; offset < 512; ++offset) {
      hostile_->memory()[offset] = static_cast<std::byte>(offset * 7 + static_cast<uint64_t>(i) * 13);
    }
    for (const uint32_t index : {0U, 1U}) hostile_->ring_at(index).kick.signal();
  }
  EXPECT_TRUE(neighbour_->works());
  hostile_->stop(0);
  hostile_->stop(1);
}

TEST_F(HostileFrontEnd, H080_undefined_ring_flags_are_refused) {
  hostile_->set_up();
  Bytes address = hostile_->address(1);
  for (const uint8_t flag : {2, 4, 0x80}) {
    address[4] = std::byte{flag};
    EXPECT_NE(hostile_->ack(set_vring_addr, address), 0U);
  }
}

TEST_F(HostileFrontEnd, H082_a_base_that_is_not_where_the_ring_is_does_not_start_it) {
  hostile_->hello();
  ASSERT_EQ(hostile_->share({FrontEnd::whole()}), 0U);
  hostile_->make_driver(0, 16, 0);
  hostile_->describe(0);
  ASSERT_EQ(hostile_->ack(set_vring_base, payload(uint32_t{0}, uint32_t{100})), 0U);
  ASSERT_EQ(hostile_->enable(0), 0U);
  EXPECT_NE(hostile_->kick_fd(0), 0U);
  EXPECT_EQ(hostile_->stop(0), 100U);
  hostile_->start(0);
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H083_a_packed_base_outside_the_ring_is_refused_when_it_starts) {
  hostile_->hello(modern | bit(VIRTIO_F_RING_PACKED));
  ASSERT_EQ(hostile_->share({FrontEnd::whole()}), 0U);
  hostile_->make_driver(0, 10, 0x80008000);
  hostile_->describe(0);
  ASSERT_EQ(hostile_->enable(0), 0U);
  for (const uint32_t base : {0x8000800aU, 0x800a8000U, 0xffffffffU}) {
    ASSERT_EQ(hostile_->ack(set_vring_base, payload(uint32_t{0}, base)), 0U);
    EXPECT_NE(hostile_->kick_fd(0), 0U) << base;
  }
  ASSERT_EQ(hostile_->ack(set_vring_base, payload(uint32_t{0}, 0x80008000U)), 0U);
  EXPECT_EQ(hostile_->kick_fd(0), 0U);
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H086_a_ring_that_cannot_be_drained_holds_up_its_own_connection_only) {
  hostile_->set_up();
  echo_.holding_ = true;
  for (int i = 0; i < 8; ++i) hostile_->add("held");
  ASSERT_TRUE(soon([&] { return echo_.held_ == 8; }));
  hostile_->send(get_vring_base, payload(uint32_t{0}, uint32_t{0}));
  EXPECT_FALSE(hostile_->peer().readable(100ms));
  EXPECT_TRUE(neighbour_->works());
  echo_.holding_ = false;
  workers_->worker(0).post([&] { echo_.release_(); });
  EXPECT_TRUE(hostile_->peer().readable(2s));
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(hostile_->take());
}

TEST_F(HostileFrontEnd, H088_N029_a_kick_after_the_stop_is_ignored) {
  hostile_->set_up();
  const uint32_t base = hostile_->stop(0);
  hostile_->add("after the stop");
  EXPECT_TRUE(hostile_->stays_silent());
  ASSERT_EQ(hostile_->ack(set_vring_base, payload(uint32_t{0}, base)), 0U);
  EXPECT_EQ(hostile_->kick_fd(0), 0U);
  EXPECT_TRUE(hostile_->take());
}

TEST_F(HostileFrontEnd, H089_N030_enabling_a_stopped_ring_counts_when_it_starts) {
  hostile_->set_up();
  EXPECT_EQ(hostile_->enable(0, 0), 0U);
  hostile_->stop(0);
  EXPECT_EQ(hostile_->kick_fd(0), 0U);
  hostile_->add("disabled");
  EXPECT_TRUE(hostile_->stays_silent());
  hostile_->stop(0);
  EXPECT_EQ(hostile_->enable(0), 0U);
  EXPECT_EQ(hostile_->kick_fd(0), 0U);
  EXPECT_TRUE(hostile_->take());
}

TEST_F(HostileFrontEnd, N039_N041_everything_that_may_change_changes_under_load_and_no_request_is_lost) {
  hostile_->set_up();
  FrontEnd::Ring& ring = hostile_->ring_at(0);
  const WireRegion more{0x4000'0000, 4096, 0x7100'0000'0000, 0};
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 8; ++i) hostile_->add(fmt::format("{} of {}", i, round));
    ASSERT_EQ(hostile_->ack(set_vring_call, payload(uint64_t{0}), FrontEnd::one(ring.call.copy())), 0U);
    ASSERT_EQ(hostile_->kick_fd(0), 0U);
    ASSERT_EQ(hostile_->add_region(more), 0U);
    ASSERT_EQ(hostile_->enable(0, 0), 0U);
    ASSERT_EQ(hostile_->ack(set_vring_err, payload(no_fd)), 0U);
    ASSERT_EQ(hostile_->enable(0, 1), 0U);
    ASSERT_EQ(hostile_->remove_region(more), 0U);
    ASSERT_EQ(hostile_->ack(set_vring_err, payload(uint64_t{0}), FrontEnd::one(ring.err.copy())), 0U);
    for (int i = 0; i < 8; ++i) ASSERT_TRUE(hostile_->take()) << round;
  }
}

TEST_F(HostileFrontEnd, N042_N043_N045_a_suspended_device_is_silent_and_answers) {
  hostile_->set_up();
  ASSERT_TRUE(hostile_->works());
  const uint32_t base = hostile_->stop(0);
  while (hostile_->ring_at(0).call.arrived(0ms)) continue;
  hostile_->add("not now");
  const std::vector<std::byte> before(hostile_->memory(), hostile_->memory() + FrontEnd::size);
  hostile_->ring_at(0).kick.signal();
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(std::memcmp(before.data(), hostile_->memory(), FrontEnd::size), 0);
  EXPECT_FALSE(hostile_->ring_at(0).call.arrived(0ms));
  hostile_->barrier();
  EXPECT_EQ(hostile_->get(get_queue_num), 4U);
  ASSERT_EQ(hostile_->ack(set_vring_base, payload(uint32_t{0}, base)), 0U);
  EXPECT_EQ(hostile_->kick_fd(0), 0U);
  EXPECT_TRUE(hostile_->take());
}

TEST_F(HostileFrontEnd, N097_N098_N099_a_ring_needs_no_file_descriptors_at_all) {
  hostile_->hello();
  ASSERT_EQ(hostile_->share({FrontEnd::whole()}), 0U);
  hostile_->make_driver(0);
  hostile_->describe(0);
  for (const uint32_t id : {set_vring_call, set_vring_err, set_vring_kick}) {
    EXPECT_EQ(hostile_->ack(id, payload(no_fd)), 0U);
  }
  EXPECT_EQ(hostile_->enable(0), 0U);
  hostile_->add("polled", 0, false);
  EXPECT_TRUE(hostile_->take());
  while (hostile_->ring_at(0).call.arrived(0ms)) continue;
  hostile_->add("polled", 0, false);
  EXPECT_TRUE(hostile_->take());
  EXPECT_FALSE(hostile_->ring_at(0).call.arrived(10ms));
}

TEST_F(HostileFrontEnd, N006_the_base_of_a_split_ring_has_16_bits_and_counts_what_was_taken) {
  hostile_->set_up();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(hostile_->works());
  EXPECT_EQ(hostile_->stop(0), 3U);
}

TEST_F(HostileFrontEnd, N007_the_base_of_a_packed_ring_has_both_places_and_wrap_counters) {
  hostile_->hello(modern | bit(VIRTIO_F_RING_PACKED));
  ASSERT_EQ(hostile_->share({FrontEnd::whole()}), 0U);
  hostile_->start(0, 7);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(hostile_->works());  // two descriptors each: 10 of 7
  EXPECT_EQ(hostile_->stop(0), 0x00030003U);
}

// ---- memory
// -----------------------------------------------------------------------------------------------------------

TEST_F(HostileFrontEnd, H077_memory_that_cannot_be_written_is_refused) {
  hostile_->set_up();
  const UniqueFd read_only(
      ::open(fmt::format("/proc/self/fd/{}", hostile_->file().get()).c_str(), O_RDONLY | O_CLOEXEC));
  const WireRegion more{0x4000'0000, 4096, 0x7100'0000'0000, 0};
  EXPECT_NE(hostile_->ack(add_mem_reg, payload(uint64_t{0}, more),
                          FrontEnd::one(std::move(read_only.duplicate().value()))),
            0U);
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H095_without_regions_no_ring_runs_and_with_them_they_run_again) {
  hostile_->set_up();
  EXPECT_EQ(hostile_->share({}), 0U);
  hostile_->add("no memory");
  EXPECT_TRUE(hostile_->stays_silent());
  EXPECT_EQ(mappings(), mappings_before_ + 1) << "the test's own";
  ASSERT_EQ(hostile_->share({FrontEnd::whole()}), 0U);
  const uint32_t base = hostile_->stop(0);
  ASSERT_EQ(hostile_->ack(set_vring_base, payload(uint32_t{0}, base)), 0U);
  ASSERT_EQ(hostile_->kick_fd(0), 0U);
  EXPECT_TRUE(hostile_->take());
}

TEST_F(HostileFrontEnd, H098_H100_regions_that_are_empty_or_wrap_are_refused_and_the_table_stays) {
  hostile_->set_up();
  const uint64_t top = ~uint64_t{0};
  for (const WireRegion& bad :
       {WireRegion{0x4000'0000, 0, 0x4000'0000, 0}, WireRegion{top - 4095, 8192, 0x4000'0000, 0},
        WireRegion{0x4000'0000, 8192, top - 4095, 0}, WireRegion{0x4000'0000, 8192, 0x4000'0000, top - 4095},
        WireRegion{0x4000'0000, top, 0x4000'0000, 0},
        WireRegion{0x4000'0000, FrontEnd::size + 1, 0x4000'0000, 0},
        WireRegion{0x4000'0000, 4096, 0x4000'0000, FrontEnd::size}}) {
    EXPECT_NE(hostile_->add_region(bad), 0U) << bad.guest << ' ' << bad.size;
    EXPECT_NE(hostile_->share({bad}), 0U);
    EXPECT_NE(hostile_->share({FrontEnd::whole(), bad}), 0U);
  }
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H101_a_region_may_begin_anywhere_in_its_file) {
  hostile_->hello();
  // The file's bytes from 1040 on, at the addresses that the driver uses for them.
  constexpr uint64_t lead = 1040;
  ASSERT_EQ(hostile_->share(
                {{FrontEnd::guest_base + lead, FrontEnd::size - lead, FrontEnd::user_base + lead, lead}}),
            0U);
  hostile_->start(1);
  EXPECT_TRUE(hostile_->works(1));
}

TEST_F(HostileFrontEnd, H103_H110_overlapping_regions_are_refused_and_the_table_stays) {
  hostile_->set_up();
  EXPECT_NE(hostile_->add_region(FrontEnd::whole()), 0U);
  EXPECT_NE(hostile_->add_region({FrontEnd::guest_base + FrontEnd::size - 1, 4096, 0x4000'0000, 0}), 0U);
  EXPECT_NE(hostile_->add_region({0x4000'0000, 4096, FrontEnd::user_base + FrontEnd::size - 1, 0}), 0U);
  EXPECT_NE(hostile_->share({FrontEnd::whole(), {FrontEnd::guest_base, 4096, 0x4000'0000, 0}}), 0U);
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H104_two_regions_may_share_a_part_of_a_file) {
  hostile_->set_up();
  EXPECT_EQ(hostile_->add_region({0x4000'0000, FrontEnd::size, 0x7100'0000'0000, 0}), 0U);
  EXPECT_TRUE(hostile_->works());
}

TEST_F(HostileFrontEnd, H107_N092_memory_that_moves_is_followed) {
  hostile_->set_up();
  ASSERT_TRUE(hostile_->works());
  // The same addresses, from another file with the same content.
  const std::vector<std::byte> content(hostile_->memory(), hostile_->memory() + FrontEnd::size);
  UniqueFd other(::memfd_create("hostile", MFD_CLOEXEC));
  ASSERT_EQ(::pwrite(other.get(), content.data(), content.size(), 0), static_cast<ssize_t>(content.size()));
  ASSERT_EQ(hostile_->ack(set_mem_table, payload(uint32_t{1}, uint32_t{0}, FrontEnd::whole()),
                          FrontEnd::one(std::move(other.duplicate().value()))),
            0U);
  hostile_->add("into the old file");
  EXPECT_TRUE(hostile_->stays_silent());
}

TEST_F(HostileFrontEnd, H109_N119_as_many_slots_as_are_told_can_be_used_and_no_more) {
  hostile_->hello();
  const uint64_t slots = hostile_->get(get_max_mem_slots);
  ASSERT_EQ(slots, 32U);
  for (uint64_t i = 0; i < slots; ++i) {
    ASSERT_EQ(hostile_->add_region({i << 20, 4096, i << 20, 0}), 0U) << i;
  }
  EXPECT_NE(hostile_->add_region({slots << 20, 4096, slots << 20, 0}), 0U);
  EXPECT_EQ(hostile_->remove_region({5 << 20, 4096, 5 << 20, 0}), 0U);
  EXPECT_EQ(hostile_->add_region({slots << 20, 4096, slots << 20, 0}), 0U);
}

TEST_F(HostileFrontEnd, H112_N121_a_region_is_removed_by_addresses_and_size_and_one_file_may_come_along) {
  hostile_->set_up();
  const WireRegion more{0x4000'0000, 4096, 0x7100'0000'0000, 0};
  ASSERT_EQ(hostile_->add_region(more), 0U);
  EXPECT_NE(hostile_->remove_region({0x4000'0000, 8192, 0x7100'0000'0000, 0}), 0U);
  EXPECT_NE(hostile_->remove_region({0x4000'0000, 4096, 0x7200'0000'0000, 0}), 0U);
  const Bytes wrong_offset = payload(uint64_t{0}, WireRegion{0x4000'0000, 4096, 0x7100'0000'0000, 12288});
  EXPECT_NE(hostile_->ack(rem_mem_reg, wrong_offset, hostile_->copies(2)), 0U);
  EXPECT_EQ(hostile_->ack(rem_mem_reg, wrong_offset, hostile_->copies(1)), 0U);
  EXPECT_NE(hostile_->remove_region(more), 0U);
}

TEST_F(HostileFrontEnd, H113_padding_of_a_region_is_ignored) {
  hostile_->hello();
  EXPECT_EQ(hostile_->add_region(FrontEnd::whole(), ~uint64_t{0}), 0U);
}

TEST_F(HostileFrontEnd, H115_a_hole_punched_under_a_ring_breaks_it) {
  hostile_->set_up();
  ASSERT_TRUE(hostile_->works());
  ASSERT_EQ(
      ::fallocate(hostile_->file().get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, FrontEnd::ring_area),
      0);
  hostile_->ring_at(0).kick.signal();
  EXPECT_TRUE(hostile_->broke());
}

TEST_F(HostileFrontEnd, N009_rings_are_found_by_user_addresses_and_buffers_by_guest_addresses) {
  hostile_->hello();
  // Guest addresses as everywhere in these tests, user addresses swapped between two regions.
  constexpr uint64_t half = FrontEnd::size / 2;
  ASSERT_EQ(hostile_->share({{FrontEnd::guest_base, half, FrontEnd::user_base + half, 0},
                             {FrontEnd::guest_base + half, half, FrontEnd::user_base, half}}),
            0U);
  hostile_->make_driver(0);
  const ring::DriverLayout at = hostile_->layout(0);
  const uint64_t base = FrontEnd::user_base + half;
  ASSERT_EQ(hostile_->ack(set_vring_num, payload(uint32_t{0}, uint32_t{16})), 0U);
  ASSERT_EQ(hostile_->ack(set_vring_addr, payload(uint32_t{0}, uint32_t{0}, base + at.desc, base + at.device,
                                                  base + at.driver, uint64_t{0})),
            0U);
  ASSERT_EQ(hostile_->enable(0), 0U);
  ASSERT_EQ(hostile_->kick_fd(0), 0U);
  EXPECT_TRUE(hostile_->works());
}

// ---- configuration, status, IOTLB
// ---------------------------------------------------------------------------------------

TEST_F(HostileFrontEnd,
       H149_N107_every_part_of_the_configuration_is_answered_in_the_size_that_was_asked_for) {
  hostile_->hello();
  for (const auto& [offset, size] : {std::pair{0U, 8U}, {3U, 5U}, {0U, 256U}, {7U, 1U}, {8U, 100U}}) {
    Bytes ask = payload(offset, size, uint32_t{0});
    ask.resize(ask.size() + size);
    const user::Frame reply = hostile_->peer().ask(FrontEnd::frame(get_config, ask));
    EXPECT_EQ(reply.payload.size(), ask.size());
  }
}

TEST_F(HostileFrontEnd, H118_a_log_that_lies_over_the_ring_itself_harms_only_that_ring) {
  hostile_->hello(modern, usual_protocol | bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD));
  ASSERT_EQ(hostile_->share({FrontEnd::whole()}), 0U);
  hostile_->start(0);
  ASSERT_TRUE(hostile_->works());
  constexpr uint64_t bytes = (FrontEnd::guest_base + FrontEnd::size) / 4096 / 8;
  ASSERT_EQ(hostile_->ack(set_log_base, payload(bytes, uint64_t{0}), FrontEnd::one(hostile_->copy())), 0U);
  ASSERT_EQ(hostile_->ack(set_features, payload(modern | bit(VHOST_F_LOG_ALL))), 0U);
  for (int i = 0; i < 6; ++i) hostile_->add("marked where descriptors are");
  EXPECT_TRUE(neighbour_->works());
  hostile_->stop(0);
}

TEST_F(HostileFrontEnd, H151_H152_a_write_to_the_configuration_must_fit_and_its_flags_be_known) {
  hostile_->hello();
  const auto write = [&](uint32_t offset, uint32_t size, uint32_t flags) {
    Bytes bytes = payload(offset, size, flags);
    bytes.resize(bytes.size() + size);
    return hostile_->ack(set_config, bytes);
  };
  EXPECT_EQ(write(0, 8, 0), 0U);
  EXPECT_EQ(write(3, 3, 0), 0U);
  EXPECT_NE(write(4, 5, 0), 0U);
  EXPECT_NE(write(0xffffffff, 1, 0), 0U);
  for (const uint32_t flags : {2U, 3U, 0xffffffffU}) EXPECT_NE(write(0, 8, flags), 0U);
}

TEST_F(HostileFrontEnd, H154_N122_status_is_kept_and_nothing_is_served_before_DRIVER_OK) {
  hostile_->set_up(modern, usual_protocol | bit(vhost::VHOST_USER_PROTOCOL_F_STATUS));
  hostile_->add("too early");
  EXPECT_TRUE(hostile_->stays_silent());
  EXPECT_EQ(hostile_->ack(set_status, payload(uint64_t{0xf})), 0U);
  EXPECT_TRUE(hostile_->take());
  EXPECT_EQ(hostile_->get(get_status), 0xfU);
}

TEST_F(HostileFrontEnd, H155_N106_the_byte_order_of_a_ring_is_0_or_1_and_set_before_it_starts) {
  hostile_->hello();
  EXPECT_NE(hostile_->ack(set_vring_endian, payload(uint32_t{0}, uint32_t{2})), 0U);
  EXPECT_EQ(hostile_->ack(set_vring_endian, payload(uint32_t{0}, uint32_t{0})), 0U);
}

TEST_F(HostileFrontEnd, H158_N070_N071_IOTLB_updates_that_make_no_sense_are_answered_by_a_failure) {
  hostile_->hello(modern | bit(VIRTIO_F_ACCESS_PLATFORM));
  ASSERT_EQ(hostile_->share({FrontEnd::whole()}), 0U);
  const auto update = [&](uint64_t iova, uint64_t size, uint64_t user, uint8_t permission, uint8_t type) {
    hostile_->send(iotlb_msg, payload(iova, size, user, permission, type, std::array<uint8_t, 6>{}));
    return user::testing::u64_of(hostile_->peer().receive());
  };
  EXPECT_EQ(update(0, 4096, FrontEnd::user_base, 3, 2), 0U);
  EXPECT_NE(update(0, 4096, FrontEnd::user_base - 1, 3, 2), 0U);
  EXPECT_NE(update(0, FrontEnd::size + 1, FrontEnd::user_base, 3, 2), 0U);
  EXPECT_NE(update(0, 0, FrontEnd::user_base, 3, 2), 0U);
  EXPECT_NE(update(~uint64_t{0} - 100, 4096, FrontEnd::user_base, 3, 2), 0U);
  EXPECT_NE(update(0, 4096, FrontEnd::user_base, 4, 2), 0U);
  EXPECT_EQ(update(0, 4096, FrontEnd::user_base, 0, 2), 0U) << "no access is an answer";
  for (const uint8_t type : {0, 1, 4, 5, 255}) EXPECT_NE(update(0, 4096, FrontEnd::user_base, 3, type), 0U);
  EXPECT_EQ(update(0, ~uint64_t{0}, 0, 0, 3), 0U);
}

TEST_F(HostileFrontEnd, N087_H052_in_band_notifications_alone_close_the_connection) {
  hostile_->send(set_protocol_features, payload(bit(vhost::VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)));
  EXPECT_TRUE(hostile_->peer().closed());
}

TEST_F(HostileFrontEnd, in_band_kicks_of_a_ring_that_is_not_described_start_nothing) {
  hostile_->hello(modern, usual_protocol | bit(vhost::VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS));
  EXPECT_EQ(hostile_->ack(vring_kick, payload(uint32_t{3}, uint32_t{0})), 0U);
  EXPECT_NE(hostile_->ack(vring_kick, payload(uint32_t{4}, uint32_t{0})), 0U);
}

}  // namespace
}  // namespace ringway::tools
