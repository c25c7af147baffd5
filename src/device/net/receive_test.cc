// Frames on their way in. The numbers are those of docs/robustness.md.
#include "ringway/device/net/rig_test.h"

namespace ringway::net {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification
using namespace test;  // NOLINT(google-build-using-namespace)

constexpr uint64_t mergeable = bit(VIRTIO_NET_F_MRG_RXBUF);

class NetReceive : public NetTest {
 protected:
  // The next used chain, which must hold a header and something more.
  Header header_of(const Bytes& used, size_t length = plain_header) {
    Header header;
    EXPECT_GE(used.size(), length);
    if (used.size() >= length) std::memcpy(static_cast<void*>(&header), used.data(), length);
    return header;
  }
  static Bytes behind_header(const Bytes& used, size_t length = plain_header) {
    return {used.begin() + static_cast<ptrdiff_t>(std::min(length, used.size())), used.end()};
  }
  // A frame that is read straight into the driver's buffers, as much as `bytes` are reserved for.
  bool read_in(const Bytes& frame, uint32_t bytes, const Offload& offload = {}) {
    bool taken = false;
    loops_[0]->run([&] {
      Receiver& to = *port_->receivers_.at(0);
      size_t done = 0;
      for (const iovec& place : to.reserve(bytes)) {
        const size_t here = std::min(place.iov_len, frame.size() - done);
        std::memcpy(place.iov_base, frame.data() + done, here);
        done += here;
      }
      taken = to.commit(offload, static_cast<uint32_t>(done), std::span(frame).subspan(done));
    });
    return taken;
  }
  size_t reserved(uint32_t bytes) {
    size_t total = 0;
    loops_[0]->run([&] {
      for (const iovec& place : port_->receivers_.at(0)->reserve(bytes)) total += place.iov_len;
    });
    return total;
  }
};

TEST_F(NetReceive, a_frame_arrives_with_a_header_that_counts_one_buffer) {
  for (const bool packed : {false, true}) {
    for (const uint64_t features : {modern, modern | mergeable}) {
      open(features, 1, packed);
      receiver().add_writable({12, 1514});
      ASSERT_TRUE(deliver(frame_of(1514)));
      const auto used = receiver().take();
      ASSERT_TRUE(used);
      EXPECT_EQ(behind_header(*used), frame_of(1514));
      EXPECT_EQ(header_of(*used).num_buffers, 1U);
      EXPECT_EQ(header_of(*used).flags, 0U);
    }
  }
}

TEST_F(NetReceive, buffers_may_be_cut_anywhere) {
  open();
  for (const uint32_t cut : {1U, 3U, 11U, 12U, 13U, 31U}) {
    receiver().add_writable(std::vector<uint32_t>(52 / cut + 1, cut));
    ASSERT_TRUE(deliver(frame_of(40)));
    EXPECT_EQ(behind_header(receiver().take().value()), frame_of(40)) << cut;
  }
}

TEST_F(NetReceive, H226_a_merged_frame_says_in_how_many_buffers_it_lies) {
  open(modern | mergeable);
  for (int i = 0; i < 4; ++i) receiver().add_writable({500});
  ASSERT_TRUE(deliver(frame_of(1300)));
  Bytes all = receiver().take().value();
  EXPECT_EQ(all.size(), 500U);
  EXPECT_EQ(header_of(all).num_buffers, 3U);
  const Bytes second = receiver().take().value();
  EXPECT_EQ(second.size(), 500U);
  const Bytes third = receiver().take().value();
  EXPECT_EQ(third.size(), 312U);
  EXPECT_EQ(behind_header(all + second + third), frame_of(1300));
  EXPECT_FALSE(receiver().take()) << "the fourth waits for the next frame";
}

TEST_F(NetReceive, H226_with_too_few_buffers_nothing_is_used_and_the_port_is_told_when_there_are_more) {
  open(modern | mergeable);
  EXPECT_FALSE(deliver(frame_of(600)));
  receiver().add_writable({500});
  EXPECT_EQ(port_->resumed_[0], 1);
  EXPECT_FALSE(deliver(frame_of(600)));
  EXPECT_FALSE(receiver().take());
  receiver().add_writable({500});
  EXPECT_EQ(port_->resumed_[0], 2);
  ASSERT_TRUE(deliver(frame_of(600)));
  EXPECT_EQ(header_of(receiver().take().value()).num_buffers, 2U);
  receiver().add_writable({500});
  EXPECT_EQ(port_->resumed_[0], 2) << "nobody waits";
}

TEST_F(NetReceive, of_a_batch_is_told_how_much_of_it_found_buffers) {
  open();
  std::vector<Bytes> bytes;
  for (uint8_t i = 0; i < 5; ++i) bytes.push_back(frame_of(60U + i, i));
  std::vector<Frame> frames;
  for (const Bytes& one : bytes) frames.push_back({.length = static_cast<uint32_t>(one.size()), .head = one});
  std::vector<const Frame*> batch;
  for (const Frame& frame : frames) batch.push_back(&frame);
  const auto deliver_from = [&](size_t first) {
    size_t count = 0;
    loops_[0]->run([&] { count = port_->receivers_.at(0)->deliver_batch(std::span(batch).subspan(first)); });
    return count;
  };
  for (int i = 0; i < 3; ++i) receiver().add_writable({1526});
  EXPECT_EQ(deliver_from(0), 3U);
  EXPECT_EQ(deliver_from(3), 0U);
  for (int i = 0; i < 3; ++i) receiver().add_writable({1526});
  EXPECT_EQ(port_->resumed_[0], 1);
  EXPECT_EQ(deliver_from(3), 2U);
  for (const Bytes& one : bytes) EXPECT_EQ(behind_header(receiver().take().value_or(Bytes{})), one);
}

TEST_F(NetReceive, more_frames_may_be_expected_than_there_are_buffers_and_than_come) {
  open();
  const auto expect = [&](size_t frames) {
    loops_[0]->run([&] { port_->receivers_.at(0)->expect(frames); });
  };
  expect(3);
  receiver().add_writable({1526});
  receiver().add_writable({1526});
  expect(100);
  ASSERT_TRUE(deliver(frame_of(60)));
  loops_[0]->run([&] { receiver().queue().drain(); });
  expect(2);
  receiver().add_writable({1526});
  expect(1);
  ASSERT_TRUE(deliver(frame_of(61)));
  EXPECT_EQ(behind_header(receiver().take().value_or(Bytes{})), frame_of(60));
  EXPECT_EQ(behind_header(receiver().take().value_or(Bytes{})), frame_of(61));
}

TEST_F(NetReceive, a_frame_that_no_buffer_of_the_driver_can_hold_is_dropped) {
  open();
  receiver().add_writable({12 + 100});
  EXPECT_TRUE(deliver(frame_of(101)));
  EXPECT_EQ(dropped(Drop::never_fits), 1U);
  EXPECT_TRUE(deliver(frame_of(100)));
  EXPECT_EQ(behind_header(receiver().take().value()), frame_of(100)) << "the buffer is still there";

  open(modern | mergeable);
  for (uint32_t i = 0; i < TestQueue::size; ++i) receiver().add_writable({100});
  EXPECT_TRUE(deliver(frame_of(TestQueue::size * 100)));
  EXPECT_EQ(dropped(Drop::never_fits), 1U);
  EXPECT_FALSE(receiver().take());
  EXPECT_TRUE(deliver(frame_of(TestQueue::size * 100 - 12))) << "the whole ring";
  EXPECT_EQ(header_of(receiver().take().value()).num_buffers, TestQueue::size);
}

TEST_F(NetReceive, a_buffer_without_room_comes_back_empty_and_is_not_in_the_way) {
  for (const uint64_t features : {modern, modern | mergeable}) {
    open(features);
    const uint32_t least = features == modern ? 12 + 14 : 12;
    for (const uint32_t room : {1U, 11U, least - 1}) receiver().add_writable({room});
    receiver().add_writable({200});
    ASSERT_TRUE(deliver(frame_of(100)));
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(receiver().take().value().empty());
    EXPECT_EQ(behind_header(receiver().take().value()), frame_of(100));
    EXPECT_EQ(dropped(Drop::short_buffer), 3U);
  }
}

TEST_F(NetReceive, work_reaches_only_a_driver_that_accepts_it) {
  open(modern | bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4));
  const Offload checksum{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
  Offload tso = checksum;
  tso.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
  tso.gso_size = 1448;
  tso.hdr_len = 54;
  for (const Offload& offload : {checksum, tso}) {
    receiver().add_writable({4000});
    ASSERT_TRUE(deliver(frame_of(3000), offload));
    const Header header = header_of(receiver().take().value());
    EXPECT_EQ(to_offload(header), offload);
  }
  Offload tso6 = tso;
  tso6.gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
  Offload ecn = tso;
  ecn.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
  receiver().add_writable({4000});
  for (const Offload& offload : {tso6, ecn}) EXPECT_TRUE(deliver(frame_of(3000), offload));
  EXPECT_EQ(dropped(Drop::unfinished), 2U);
  EXPECT_FALSE(receiver().take());

  open(modern);
  receiver().add_writable({4000});
  EXPECT_TRUE(deliver(frame_of(100), checksum));
  EXPECT_EQ(dropped(Drop::unfinished), 1U);
  EXPECT_TRUE(deliver(frame_of(100), {.flags = VIRTIO_NET_HDR_F_DATA_VALID}));
  EXPECT_EQ(header_of(receiver().take().value()).flags, 0U) << "a driver that does not know of checksums";
}

TEST_F(NetReceive, a_frame_may_be_read_straight_into_the_buffers) {
  for (const uint64_t features : {modern, modern | mergeable}) {
    open(features);
    receiver().add_writable({5, 20, 1600});
    EXPECT_EQ(reserved(2000), 13U + 1600);
    EXPECT_EQ(reserved(100), 100U) << "what was reserved and not used is still there";
    ASSERT_TRUE(read_in(frame_of(100), 2000, {.flags = VIRTIO_NET_HDR_F_DATA_VALID}));
    const Bytes used = receiver().take().value();
    EXPECT_EQ(behind_header(used), frame_of(100));
    EXPECT_EQ(header_of(used).num_buffers, 1U);
  }
}

TEST_F(NetReceive, the_rest_of_a_frame_that_was_longer_than_expected_is_copied) {
  open(modern | mergeable);
  for (int i = 0; i < 5; ++i) receiver().add_writable({300});
  EXPECT_EQ(reserved(1000), 1000U);
  EXPECT_EQ(reserved(9000), 5U * 300 - 12);
  ASSERT_TRUE(read_in(frame_of(1100), 200));
  Bytes all;
  for (int i = 0; i < 4; ++i) all = all + receiver().take().value();
  EXPECT_EQ(behind_header(all), frame_of(1100));
  EXPECT_EQ(header_of(all).num_buffers, 4U);
  EXPECT_FALSE(read_in(frame_of(289), 200)) << "one buffer is left";
  EXPECT_FALSE(receiver().take());
  EXPECT_TRUE(read_in(frame_of(288), 200));
}

TEST_F(NetReceive, buffers_stay_in_the_ring_until_they_are_wanted) {
  for (const bool packed : {false, true}) {
    open(modern, 1, packed);
    for (uint32_t i = 0; i < TestQueue::size; ++i) receiver().add_writable({12 + 100});
    EXPECT_LT(receiver().in_flight(), TestQueue::size);
    for (uint32_t i = 0; i < TestQueue::size; ++i) {
      ASSERT_TRUE(deliver(frame_of(100, static_cast<uint8_t>(i))));
      const auto used = receiver().take();
      ASSERT_TRUE(used);
      EXPECT_EQ(behind_header(*used), frame_of(100, static_cast<uint8_t>(i)));
    }
    EXPECT_FALSE(deliver(frame_of(100)));
  }
}

TEST_F(NetReceive, a_long_frame_takes_as_many_buffers_as_it_needs) {
  for (const bool reads : {false, true}) {
    open(modern | mergeable);
    for (uint32_t i = 0; i < TestQueue::size; ++i) receiver().add_writable({512});
    const Bytes frame = frame_of(512 * (TestQueue::size - 1));
    ASSERT_TRUE(reads ? read_in(frame, max_frame) : deliver(frame));
    auto used = receiver().take();
    ASSERT_TRUE(used);
    EXPECT_EQ(header_of(*used).num_buffers, TestQueue::size);
    Bytes whole = behind_header(*used);
    while ((used = receiver().take())) whole = whole + *used;
    EXPECT_EQ(whole, frame);
  }
}

TEST_F(NetReceive, a_port_that_waits_is_told_of_buffers_that_another_frame_has_brought) {
  open(modern);
  ASSERT_FALSE(deliver(frame_of(100)));
  for (int i = 0; i < 100; ++i) receiver().add_writable_unseen({12 + 100});
  ASSERT_TRUE(deliver(frame_of(100)));  // by another way, before the queue's turn
  EXPECT_EQ(port_->resumed_[0], 0);
  receiver().process();
  EXPECT_EQ(port_->resumed_[0], 1);
}

TEST_F(NetReceive, a_port_that_waits_with_many_buffers_still_wants_more) {
  open(modern | mergeable);
  for (int i = 0; i < 80; ++i) receiver().add_writable({600});
  const Bytes frame = frame_of(600 * 100);
  ASSERT_FALSE(deliver(frame));
  EXPECT_GT(receiver().queue().appetite(), 0U);
  for (int i = 0; i < 30; ++i) receiver().add_writable({600});
  EXPECT_GE(port_->resumed_[0], 1);
  EXPECT_TRUE(deliver(frame));
}

TEST_F(NetReceive, useless_buffers_do_not_count_as_buffers) {
  open(modern);
  for (int i = 0; i < 100; ++i) receiver().add_writable_unseen({13});
  EXPECT_EQ(reserved(1514), 0U);
  EXPECT_FALSE(deliver(frame_of(100)));
  receiver().add_writable({12 + 100});
  EXPECT_TRUE(deliver(frame_of(100)));
}

TEST_F(NetReceive, nothing_can_be_reserved_without_buffers_and_the_port_is_told_later) {
  open();
  EXPECT_EQ(reserved(2000), 0U);
  receiver().add_writable({100});
  EXPECT_EQ(port_->resumed_[0], 1);
  EXPECT_EQ(reserved(2000), 88U);
}

TEST_F(NetReceive, buffers_that_wait_are_given_back_when_the_queue_is_to_stop) {
  open();
  for (int i = 0; i < 5; ++i) receiver().add_writable({100});
  ASSERT_TRUE(deliver(frame_of(50)));
  loops_[0]->run([&] { receiver().queue().drain(); });
  EXPECT_EQ(receiver().in_flight(), 0U);
  EXPECT_TRUE(receiver().take());
  EXPECT_FALSE(receiver().take());
  receiver().process();
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(deliver(frame_of(50)));
    EXPECT_TRUE(receiver().take());
  }
  EXPECT_FALSE(deliver(frame_of(50)));
}

TEST_F(NetReceive, the_link_is_told_and_its_change_announced) {
  open(modern | bit(VIRTIO_NET_F_STATUS));
  int changes = 0;
  net_->on_config_change([&] { ++changes; });
  EXPECT_EQ(config().status, VIRTIO_NET_S_LINK_UP);
  port_->change_link(false);
  EXPECT_EQ(changes, 1);
  EXPECT_EQ(config().status, 0U);
}

TEST_F(NetReceive, the_configuration_says_what_the_device_is) {
  prepare_ = [](TestPort& port) { port.link_.speed_mbps = 10'000; };
  mtu_ = 9000;
  open(modern, 4);
  const Config config = this->config();
  EXPECT_EQ(config.mac, own);
  EXPECT_EQ(config.max_virtqueue_pairs, 4U);
  EXPECT_EQ(config.mtu, 9000U);
  EXPECT_EQ(config.speed, 10'000U);
  EXPECT_EQ(config.duplex, 1U);
  EXPECT_NE(net_->features() & bit(VIRTIO_NET_F_SPEED_DUPLEX), 0U);
  EXPECT_TRUE(net_->set_mtu(1400));
  EXPECT_EQ(this->config().mtu, 1400U);
}

TEST_F(NetReceive, only_a_legacy_driver_or_a_migrating_front_end_writes_the_address) {
  const Bytes other = frame_of(6, 0x20);
  open(modern);
  EXPECT_FALSE(net_->write_config(0, other, false));
  EXPECT_EQ(config().mac, own);
  EXPECT_TRUE(net_->write_config(0, other + Bytes(sizeof(Config) - 6, std::byte{0xff}), true));
  EXPECT_EQ(std::memcmp(config().mac.data(), other.data(), 6), 0);
  EXPECT_EQ(config().max_virtqueue_pairs, 1U);
  net_->reset();
  EXPECT_EQ(config().mac, own);
  open(0);
  EXPECT_TRUE(net_->write_config(2, std::span(other).first(4), false));
  EXPECT_EQ(std::memcmp(config().mac.data() + 2, other.data(), 4), 0);
  EXPECT_FALSE(net_->write_config(4, std::span(other).first(4), false)) << "behind the address";
}

}  // namespace
}  // namespace ringway::net
