// Frames on their way out. The numbers are those of docs/robustness.md.
#include "ringway/device/net/rig_test.h"

namespace ringway::net {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification
using namespace test;  // NOLINT(google-build-using-namespace)

constexpr uint64_t all_offloads = transmit_offloads;

class NetTransmit : public NetTest {
 protected:
  // Sends a frame of 1000 bytes with this header. True if it left.
  bool leaves(const Header& header, uint32_t length = 1000) {
    const size_t before = port_->sent_.size();
    transmit(plain(header) + frame_of(length));
    return port_->sent_.size() == before + 1;
  }
  // A header with a good checksum offload and segmentation of this type.
  static Header segmented(uint8_t type) {
    Header header;
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.gso_type = type;
    header.hdr_len = 54;
    header.gso_size = 400;
    header.csum_start = 34;
    header.csum_offset = 16;
    return header;
  }
};

TEST_F(NetTransmit, a_frame_leaves_without_its_header_and_the_chain_comes_back) {
  for (const bool packed : {false, true}) {
    open(modern, 1, packed);
    const Bytes frame = frame_of(1514);
    transmit(plain() + frame);
    ASSERT_EQ(port_->sent_.size(), 1U);
    EXPECT_EQ(port_->sent_[0].bytes, frame);
    EXPECT_EQ(port_->sent_[0].offload, Offload{});
    EXPECT_GE(port_->flushed_, 1);
  }
}

TEST_F(NetTransmit, H224_header_and_frame_may_be_cut_and_joined_anywhere) {
  open();
  for (const uint32_t cut : {1U, 5U, 11U, 12U, 13U, 26U, 27U, 60U}) {
    const Bytes frame = frame_of(48, static_cast<uint8_t>(cut));
    transmit(plain() + frame, cut);
    EXPECT_EQ(port_->sent_.back().bytes, frame) << cut;
  }
  EXPECT_EQ(port_->sent_.size(), 8U);
}

TEST_F(NetTransmit, H223_a_chain_that_ends_in_its_header_or_behind_it_is_dropped) {
  open();
  for (size_t length = 1; length < plain_header + min_frame; ++length) {
    transmit(Bytes(length));
    transmit(Bytes(length), 1);
  }
  EXPECT_TRUE(port_->sent_.empty());
  EXPECT_EQ(dropped(Drop::runt), 2 * (plain_header + min_frame - 1));
}

TEST_F(NetTransmit, H230_frames_shorter_or_longer_than_any_may_be_are_dropped) {
  open();
  for (const size_t length : {0U, 13U, max_frame + 1, 100'000U, 1U << 20}) {
    transmit(plain() + Bytes(length));
    EXPECT_TRUE(port_->sent_.empty()) << length;
  }
  EXPECT_EQ(dropped(Drop::runt), 2U);
  EXPECT_EQ(dropped(Drop::giant), 3U);
  for (const size_t length : {min_frame, max_frame}) transmit(plain() + Bytes(length));
  EXPECT_EQ(port_->sent_.size(), 2U);
}

TEST_F(NetTransmit, frames_longer_than_the_MTU_are_dropped_unless_they_are_to_be_segmented) {
  mtu_ = 1500;
  open(modern | bit(VIRTIO_NET_F_MTU) | all_offloads);
  EXPECT_TRUE(leaves({}, 1514));
  EXPECT_TRUE(leaves({}, 1522)) << "two VLAN tags";
  EXPECT_FALSE(leaves({}, 1523));
  EXPECT_TRUE(leaves(segmented(VIRTIO_NET_HDR_GSO_TCPV4), 9000));
  EXPECT_EQ(dropped(Drop::giant), 1U);
  open(modern);
  EXPECT_TRUE(leaves({}, 9000)) << "without the feature there is no limit";
}

TEST_F(NetTransmit, an_MTU_that_the_front_end_sets_holds_for_a_queue_that_runs) {
  open(modern | bit(VIRTIO_NET_F_MTU));
  EXPECT_TRUE(leaves({}, 9000)) << "nobody has set one";
  ASSERT_TRUE(net_->set_mtu(1500));
  EXPECT_FALSE(leaves({}, 1523));
  ASSERT_TRUE(net_->set_mtu(9000));
  EXPECT_TRUE(leaves({}, 9022));
  EXPECT_FALSE(leaves({}, 9023));
  ASSERT_TRUE(net_->set_mtu(68));
  EXPECT_FALSE(leaves({}, 91));
  EXPECT_EQ(dropped(Drop::giant), 3U);
  EXPECT_EQ(config().mtu, 68U);
}

TEST_F(NetTransmit, H227_a_checksum_that_does_not_lie_within_the_frame_is_dropped) {
  open(modern | bit(VIRTIO_NET_F_CSUM));
  Header header;
  header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  struct Place {
    uint16_t start, offset;
    bool good;
  };
  for (const Place& place : {Place{34, 16, true},
                             {998, 0, true},
                             {14, 984, true},
                             {999, 0, false},
                             {1000, 0, false},
                             {998, 1, false},
                             {34, 965, false},
                             {34, 0xffff, false},
                             {0xffff, 0, false},
                             {0xffff, 0xffff, false},
                             {13, 2, false},
                             {0, 2, false}}) {
    header.csum_start = place.start;
    header.csum_offset = place.offset;
    EXPECT_EQ(leaves(header), place.good) << place.start << " " << place.offset;
  }
  EXPECT_EQ(port_->sent_[0].offload.csum_start, 34U);
  EXPECT_EQ(port_->sent_[0].offload.csum_offset, 16U);
  EXPECT_EQ(dropped(Drop::malformed), 9U);
}

TEST_F(NetTransmit, work_that_was_not_negotiated_is_dropped) {
  open(modern);
  Header header;
  header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.csum_start = 34;
  header.csum_offset = 16;
  EXPECT_FALSE(leaves(header));
  struct Needs {
    uint8_t type;
    uint64_t features;
  };
  for (const Needs& needs : {Needs{VIRTIO_NET_HDR_GSO_TCPV4, bit(VIRTIO_NET_F_HOST_TSO4)},
                             {VIRTIO_NET_HDR_GSO_TCPV6, bit(VIRTIO_NET_F_HOST_TSO6)},
                             {VIRTIO_NET_HDR_GSO_UDP, bit(VIRTIO_NET_F_HOST_UFO)},
                             {VIRTIO_NET_HDR_GSO_UDP_L4, bit(VIRTIO_NET_F_HOST_USO)},
                             {VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN,
                              bit(VIRTIO_NET_F_HOST_TSO4) | bit(VIRTIO_NET_F_HOST_ECN)}}) {
    open(modern | bit(VIRTIO_NET_F_CSUM) | needs.features);
    EXPECT_TRUE(leaves(segmented(needs.type))) << int{needs.type};
    EXPECT_EQ(port_->sent_.back().offload.gso_type, needs.type);
    open(modern | (all_offloads & ~needs.features) | bit(VIRTIO_NET_F_CSUM));
    EXPECT_FALSE(leaves(segmented(needs.type))) << int{needs.type};
  }
}

TEST_F(NetTransmit, H229_types_of_segmentation_that_do_not_exist_are_dropped) {
  open(modern | all_offloads);
  for (unsigned type = 0; type < 256; ++type) {
    const unsigned base = type & ~unsigned{VIRTIO_NET_HDR_GSO_ECN};
    const bool ecn = base != type;
    const bool exists = (type == 0 || base == 1 || base == 4 || (!ecn && (base == 3 || base == 5)));
    EXPECT_EQ(leaves(segmented(static_cast<uint8_t>(type))), exists) << type;
  }
  Header header = segmented(VIRTIO_NET_HDR_GSO_TCPV4);
  header.gso_size = 0;
  EXPECT_FALSE(leaves(header));
}

TEST_F(NetTransmit, fields_that_mean_nothing_do_not_leave_and_hints_are_bounded) {
  open(modern | all_offloads);
  Header header;
  header.flags = 0xfe;  // all but NEEDS_CSUM
  header.hdr_len = header.gso_size = header.csum_start = header.csum_offset = 0xffff;
  header.num_buffers = 77;
  EXPECT_TRUE(leaves(header));
  EXPECT_EQ(port_->sent_.back().offload, Offload{});
  Header hint = segmented(VIRTIO_NET_HDR_GSO_TCPV4);
  hint.hdr_len = 0xffff;
  EXPECT_TRUE(leaves(hint));
  EXPECT_EQ(port_->sent_.back().offload.hdr_len, 1000U);
  EXPECT_EQ(port_->sent_.back().offload.gso_size, 400U);
}

TEST_F(NetTransmit, a_legacy_header_is_shorter_and_in_the_byte_order_of_its_driver) {
  for (const bool big_endian : {false, true}) {
    big_endian_ = big_endian;
    open(bit(VIRTIO_NET_F_CSUM));
    Header header;
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.csum_start = big_endian ? std::byteswap(uint16_t{34}) : uint16_t{34};
    header.csum_offset = big_endian ? std::byteswap(uint16_t{6}) : uint16_t{6};
    Bytes bytes = as_bytes(header);
    bytes.resize(legacy_header);
    transmit(bytes + frame_of(100));
    ASSERT_EQ(port_->sent_.size(), 1U);
    EXPECT_EQ(port_->sent_[0].bytes, frame_of(100));
    EXPECT_EQ(port_->sent_[0].offload.csum_start, 34U);
    EXPECT_EQ(port_->sent_[0].offload.csum_offset, 6U);
  }
}

TEST_F(NetTransmit, CVE_2023_6693_a_header_with_room_for_a_hash_is_taken_whole) {
  open(modern | bit(VIRTIO_NET_F_HASH_REPORT));
  transmit(as_bytes(Header()) + frame_of(100));
  ASSERT_EQ(port_->sent_.size(), 1U);
  EXPECT_EQ(port_->sent_[0].bytes, frame_of(100));
}

TEST_F(NetTransmit, a_port_gets_a_copy_of_the_first_bytes_if_it_wants_to_decide_on_them) {
  prepare_ = [](TestPort& port) { port.abilities_.head = 18; };
  open();
  for (const size_t length : {14U, 17U, 18U, 19U, 500U}) {
    transmit(plain() + frame_of(length), 19);
    EXPECT_EQ(port_->sent_.back().bytes, frame_of(length));
    EXPECT_EQ(port_->sent_.back().head, std::min<size_t>(length, 18));
  }
}

TEST_F(NetTransmit, a_port_gets_batches_without_what_is_dropped) {
  open();
  ASSERT_TRUE(transmitter().add_readable_unseen(plain() + frame_of(60)));
  ASSERT_TRUE(transmitter().add_readable_unseen(plain() + frame_of(5)));
  for (uint8_t i = 0; i < 50; ++i) ASSERT_TRUE(transmitter().add_readable_unseen(plain() + frame_of(100, i)));
  transmitter().process();
  EXPECT_EQ(port_->sent_.size(), 51U);
  EXPECT_EQ(port_->batches_, (std::vector<size_t>{31, 20}));
  EXPECT_EQ(port_->sent_.back().bytes, frame_of(100, 49));
}

TEST_F(NetTransmit, a_frame_that_the_port_keeps_comes_back_when_the_port_is_done) {
  prepare_ = [](TestPort& port) { port.hold_ = true; };
  open();
  for (int i = 0; i < 3; ++i) transmitter().add_readable(plain() + frame_of(100));
  EXPECT_FALSE(transmitter().take());
  EXPECT_EQ(transmitter().in_flight(), 3U);
  loops_[0]->run([&] { port_->finish_all(); });
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(transmitter().take());
  EXPECT_EQ(transmitter().in_flight(), 0U);
  transmitter().add_readable(plain() + frame_of(100));
  loops_[0]->run([&] { transmitter().queue().drain(); });
  EXPECT_TRUE(transmitter().take()) << "a queue that is to stop does not wait for its port";
}

// A front-end that tracks nothing can only tell a successor where the used index was.
TEST_F(NetTransmit, frames_come_back_in_order_whatever_the_port_ends_first) {
  for (const bool packed : {false, true}) {
    open(modern, 1, packed);
    port_->hold_ = true;
    for (uint8_t i = 0; i < 2; ++i) transmitter().add_readable(plain() + frame_of(100, i));
    port_->hold_ = false;
    transmitter().add_readable(plain() + frame_of(100, 2));
    transmitter().add_readable(plain());  // dropped
    EXPECT_EQ(port_->sent_.size(), 3U);
    EXPECT_FALSE(transmitter().take()) << "the first is still under way";
    const auto end = [&](size_t which) {
      loops_[0]->run([&] {
        Frame* const frame = port_->held_[which];
        port_->held_.erase(port_->held_.begin() + static_cast<ptrdiff_t>(which));
        frame->done(*frame);
      });
    };
    end(1);
    EXPECT_FALSE(transmitter().take());
    end(0);
    for (uint16_t i = 0; i < 4; ++i) EXPECT_EQ(transmitter().take_token(), transmitter().token_of(i)) << i;
    transmit(plain() + frame_of(100, 5));
    EXPECT_EQ(transmitter().in_flight(), 0U);
  }
}

TEST_F(NetTransmit, a_batch_of_which_the_port_keeps_some_comes_back_in_order) {
  for (const bool packed : {false, true}) {
    open(modern, 1, packed);
    port_->hold_ = true;
    port_->hold_every_ = 3;
    for (uint8_t i = 0; i < 20; ++i)
      ASSERT_TRUE(transmitter().add_readable_unseen(plain() + frame_of(i == 6 ? 5 : 100, i)));
    transmitter().process();
    EXPECT_EQ(port_->held_.size(), 7U);
    EXPECT_FALSE(transmitter().take_token());
    loops_[0]->run([&] { port_->finish_all(); });
    for (uint16_t i = 0; i < 20; ++i) EXPECT_EQ(transmitter().take_token(), transmitter().token_of(i)) << i;
    EXPECT_EQ(transmitter().in_flight(), 0U);
  }
}

TEST_F(NetTransmit, H091_a_disabled_ring_is_used_and_nothing_leaves) {
  open();
  EXPECT_TRUE(net_->runs_disabled(1));
  EXPECT_FALSE(net_->runs_disabled(0));
  transmitter().stop();
  transmitter().enabled_ = false;
  transmitter().start(*net_);
  transmit(plain() + frame_of(100));
  EXPECT_TRUE(port_->sent_.empty());
  EXPECT_EQ(dropped(Drop::disabled), 1U);
}

TEST_F(NetTransmit, H202_what_the_driver_writes_into_a_header_later_is_not_seen) {
  prepare_ = [](TestPort& port) { port.hold_ = true; };
  open(modern | bit(VIRTIO_NET_F_CSUM));
  Header header;
  header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.csum_start = 34;
  header.csum_offset = 16;
  transmitter().add_readable(plain(header) + frame_of(100));
  ASSERT_EQ(port_->held_.size(), 1U);
  std::memset(guest_.data(), 0xff, 64);
  EXPECT_EQ(port_->held_[0]->offload.csum_start, 34U);
  loops_[0]->run([&] { port_->finish_all(); });
}

TEST_F(NetTransmit, a_station_is_announced_by_a_RARP_frame) {
  open();
  const Mac mac = own;
  ASSERT_TRUE(net_->announce(mac));
  ASSERT_EQ(port_->sent_.size(), 1U);
  const Bytes& frame = port_->sent_[0].bytes;
  ASSERT_EQ(frame.size(), 60U);
  EXPECT_EQ(Bytes(frame.begin(), frame.begin() + 6), Bytes(6, std::byte{0xff}));
  EXPECT_EQ(Bytes(frame.begin() + 6, frame.begin() + 12), Bytes(mac.begin(), mac.end()));
  EXPECT_EQ(Bytes(frame.begin() + 12, frame.begin() + 22),
            bytes_of(std::string_view("\x80\x35\0\1\x08\0\6\4\0\3", 10)));
  EXPECT_EQ(Bytes(frame.begin() + 22, frame.begin() + 28), Bytes(mac.begin(), mac.end()));
  EXPECT_EQ(Bytes(frame.begin() + 32, frame.begin() + 38), Bytes(mac.begin(), mac.end()));
  transmitter().stop();
  EXPECT_FALSE(net_->announce(mac)) << "nobody can send it";
}

TEST_F(NetTransmit, while_an_announcement_is_under_way_there_is_no_second) {
  prepare_ = [](TestPort& port) { port.hold_ = true; };
  open();
  EXPECT_TRUE(net_->announce(own));
  EXPECT_TRUE(net_->announce(own));
  EXPECT_EQ(port_->sent_.size(), 1U);
  loops_[0]->run([&] { port_->finish_all(); });
  EXPECT_TRUE(net_->announce(own));
  EXPECT_EQ(port_->sent_.size(), 2U);
  loops_[0]->run([&] { port_->finish_all(); });
}

}  // namespace
}  // namespace ringway::net
