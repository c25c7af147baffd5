#include "ringway/tools/net_frames.h"

#include <gtest/gtest.h>

#include <cstring>

namespace ringway::tools {
namespace {

const FlowOptions plain{.source = {std::byte{2}, {}, {}, {}, {}, std::byte{1}},
                        .destination = {std::byte{2}, {}, {}, {}, {}, std::byte{2}},
                        .run = 0x1122'3344'5566'7788,
                        .flow = 5};

FlowOptions of_size(uint32_t bytes, bool segmented = false) {
  FlowOptions options{
      .source = plain.source, .destination = plain.destination, .run = plain.run, .flow = plain.flow};
  options.sizes = FrameSizes::all(bytes);
  options.segmented = segmented;
  return options;
}

// Header and frame as they are written.
struct Written {
  Written(const Flow& flow, uint64_t sequence) : all(net_header_bytes + flow.bytes(sequence)) {
    EXPECT_EQ(flow.write(sequence, all), all.size());
    std::memcpy(static_cast<void*>(&header), all.data(), net_header_bytes);
  }
  [[nodiscard]] std::span<const std::byte> frame() const { return std::span(all).subspan(net_header_bytes); }
  [[nodiscard]] unsigned byte(size_t at) const { return std::to_integer<unsigned>(frame()[at]); }
  [[nodiscard]] unsigned word(size_t at) const { return byte(at) << 8 | byte(at + 1); }
  std::vector<std::byte> all;
  port::Header header;
};

unsigned checksum(std::span<const std::byte> bytes, unsigned total = 0) {
  for (size_t i = 0; i < bytes.size(); ++i)
    total += std::to_integer<unsigned>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  while (total > 0xffff) total = (total & 0xffff) + (total >> 16);
  return total;
}

TEST(NetFrames, sizes_are_numbers_or_imix) {
  EXPECT_EQ(FrameSizes::parse("64k")->largest(), 65536U);
  const FrameSizes imix = *FrameSizes::parse("imix");
  unsigned small = 0;
  unsigned sum = 0;
  for (uint64_t sequence = 12; sequence < 24; ++sequence) {
    small += imix.of(sequence) == 64 ? 1 : 0;
    sum += imix.of(sequence);
  }
  EXPECT_EQ(small, 7U);
  EXPECT_EQ(sum, 7 * 64 + 4 * 576 + 1500U);
  for (const char* wrong : {"59", "65537", "", "large"}) EXPECT_FALSE(FrameSizes::parse(wrong)) << wrong;
}

TEST(NetFrames, a_frame_says_which_it_is) {
  for (const uint32_t bytes : {least_frame, 64U, 1514U}) {
    const Flow flow(of_size(bytes));
    const Written written(flow, 77);
    ASSERT_EQ(written.frame().size(), bytes);
    const auto tag = read_tag(written.frame());
    ASSERT_TRUE(tag);
    EXPECT_EQ(tag->run, plain.run);
    EXPECT_EQ(tag->flow, plain.flow);
    EXPECT_EQ(tag->sequence, 77U);
    uint16_t port = 0;
    std::memcpy(&port, written.frame().data() + flow_at, sizeof port);
    EXPECT_EQ(flow_of_port(port), plain.flow);
    EXPECT_TRUE(flow.matches(*tag, written.frame()));
  }
}

TEST(NetFrames, every_changed_byte_is_found_and_so_is_a_missing_end) {
  const Flow flow(of_size(128));
  const Written written(flow, 3);
  std::vector<std::byte> frame(written.frame().begin(), written.frame().end());
  const FrameTag tag = *read_tag(frame);
  for (std::byte& each : frame) {
    each ^= std::byte{0x10};
    EXPECT_FALSE(flow.matches(tag, frame));
    each ^= std::byte{0x10};
  }
  EXPECT_TRUE(flow.matches(tag, frame));
  EXPECT_FALSE(flow.matches(tag, std::span(frame).first(127)));
}

TEST(NetFrames, what_is_too_short_for_a_tag_has_none) {
  const Written written(Flow(of_size(64)), 3);
  EXPECT_FALSE(read_tag(written.frame().first(least_frame - 1)));
  EXPECT_FALSE(read_tag({}));
}

TEST(NetFrames, the_ip_header_is_right) {
  const Written written(Flow(of_size(200)), 3);
  EXPECT_EQ(written.word(12), 0x0800U);
  EXPECT_EQ(written.word(16), 200U - ethernet_bytes);
  EXPECT_EQ(checksum(written.frame().subspan(ethernet_bytes, 20)), 0xffffU);
  EXPECT_EQ(written.header.flags, 0);
  EXPECT_EQ(written.header.gso_type, 0);
}

TEST(NetFrames, a_long_frame_is_left_to_the_device_to_segment_and_to_checksum) {
  const Flow flow(of_size(65536, true));
  Written written(flow, 9);
  EXPECT_EQ(written.header.flags, port::VIRTIO_NET_HDR_F_NEEDS_CSUM);
  EXPECT_EQ(written.header.gso_type, port::VIRTIO_NET_HDR_GSO_TCPV4);
  EXPECT_EQ(written.header.hdr_len, 54);
  EXPECT_EQ(written.header.gso_size, 1460);
  EXPECT_EQ(written.header.csum_start, 34);
  EXPECT_EQ(written.header.csum_offset, 16);
  // Completed, as a device does it, the checksum is right over the pseudo-header and everything behind.
  const auto segment = written.frame().subspan(34);
  const unsigned completed = 0xffff ^ checksum(segment);
  written.all[net_header_bytes + 50] = std::byte(completed >> 8);
  written.all[net_header_bytes + 51] = std::byte(completed & 0xff);
  const unsigned pseudo =
      checksum(written.frame().subspan(26, 8)) + 6 + static_cast<unsigned>(segment.size());
  EXPECT_EQ(checksum(segment, pseudo), 0xffffU);
  // Which is no change of the frame.
  EXPECT_TRUE(flow.matches(*read_tag(written.frame()), written.frame()));
}

TEST(NetFrames, a_greeting_goes_to_everybody) {
  std::vector<std::byte> bytes(greeting_bytes, std::byte{7});
  write_greeting(plain.source, bytes);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(bytes[net_header_bytes + i], std::byte{0xff});
  EXPECT_EQ(std::memcmp(bytes.data() + net_header_bytes + 6, plain.source.data(), 6), 0);
  EXPECT_EQ(bytes[0], std::byte{0});
}

}  // namespace
}  // namespace ringway::tools
