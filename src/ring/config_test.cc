#include "ringway/ring/config.h"

#include <gtest/gtest.h>
#include <linux/virtio_config.h>

#include "ringway/ring/rig_test.h"

namespace ringway::ring {
namespace {

using test::Guest;
using test::Layout;
using test::Shape;

TEST(RingBase, a_split_base_is_one_index) {
  const RingBase base = RingBase::from_wire(0xfffe, false);
  EXPECT_EQ(base.avail, 0xfffe);
  EXPECT_EQ(base.used, 0xfffe);
  EXPECT_EQ(base.to_wire(false), 0xfffeU);
}

TEST(RingBase, a_packed_base_is_two_indices_with_their_wrap_counters) {
  const RingBase base = RingBase::from_wire(0x0003'8005, true);
  EXPECT_EQ(base, (RingBase{.avail = 5, .used = 3, .avail_wrap = true, .used_wrap = false}));
  for (const uint32_t wire : {0U, 0x8000'8000U, 0x0003'8005U, 0xffff'ffffU, 0x7fff'0001U}) {
    EXPECT_EQ(RingBase::from_wire(wire, true).to_wire(true), wire);
  }
}

TEST(RingBase, a_packed_base_whose_used_half_was_not_sent_has_nothing_in_flight) {
  EXPECT_EQ(RingBase::from_wire(0x8000, true), (RingBase{.avail = 0, .used = 0}));
  EXPECT_EQ(RingBase::from_wire(0x8007, true), (RingBase{.avail = 7, .used = 7}));
}

TEST(RingFormat, follows_the_features) {
  EXPECT_FALSE(Format::of(0, false).packed);
  const auto bit = [](unsigned number) { return uint64_t{1} << number; };
  EXPECT_TRUE(Format::of(bit(VIRTIO_F_RING_PACKED), false).packed);
  EXPECT_TRUE(Format::of(bit(VIRTIO_RING_F_INDIRECT_DESC), false).indirect);
  EXPECT_TRUE(Format::of(bit(VIRTIO_RING_F_EVENT_IDX), false).event_idx);
  EXPECT_TRUE(Format::of(bit(VIRTIO_F_IN_ORDER), false).in_order);
  EXPECT_TRUE(Format::of(0, true).big_endian);
  const Format none = Format::of(~(bit(34) | bit(28) | bit(29) | bit(35)), false);
  EXPECT_FALSE(none.packed || none.indirect || none.event_idx || none.in_order);
}

class RingStart : public testing::Test {
 protected:
  std::string reason(RingConfig config) {
    const Result<Ring> ring = start(std::move(config), guest.view());
    return ring ? "started" : ring.error().to_string();
  }
  RingConfig config(const Shape& shape) { return Layout(guest, shape).ring_config(); }
  Guest guest{uint64_t{8} << 20};
};

TEST_F(RingStart, sizes_are_powers_of_two_in_split_rings_and_1_to_32768_in_all) {
  for (const bool packed : {false, true}) {
    const Format format{.packed = packed};
    for (const uint32_t size : {1U, 2U, 256U, 32768U})
      EXPECT_EQ(reason(config({size, format})), "started") << size;
    for (const uint32_t size : {3U, 300U, 32767U})
      EXPECT_EQ(reason(config({size, format})) == "started", packed) << size;
    for (const uint32_t size : {0U, 32769U, 65536U, 0xffff'ffffU}) {
      RingConfig wrong = config({4, format});
      wrong.size = size;
      EXPECT_TRUE(reason(std::move(wrong)).starts_with("ring size is not between 1 and 32768")) << size;
    }
  }
}

TEST_F(RingStart, H070_a_size_that_grew_after_the_areas_were_mapped_is_refused) {
  for (const bool packed : {false, true}) {
    RingConfig grown = config({4, {.packed = packed}});
    grown.size = 8;
    EXPECT_TRUE(
        reason(std::move(grown)).starts_with("descriptor area: ring area is too small for the ring size"));
  }
  RingConfig event = config({4, {}});
  event.format.event_idx = true;
  EXPECT_TRUE(reason(std::move(event)).starts_with("driver area: ring area is too small"));
}

TEST_F(RingStart, H083_a_packed_base_outside_the_ring_is_refused) {
  const Format format{.packed = true};
  for (const uint16_t index : {4, 5, 0x7fff}) {
    Shape shape{4, format};
    shape.base = {.avail = index, .used = 0};
    EXPECT_TRUE(reason(config(shape)).starts_with("packed available index is not in the ring"));
    shape.base = {.avail = 0, .used = index};
    EXPECT_TRUE(reason(config(shape)).starts_with("packed used index is not in the ring"));
  }
  Shape ahead{4, format};
  ahead.base = {.avail = 1, .used = 2};
  EXPECT_TRUE(reason(config(ahead)).starts_with("packed used index is ahead of the available index"));
}

TEST_F(RingStart, areas_must_be_aligned_for_us) {
  Guest shifted(uint64_t{1} << 20);
  const auto area = [&](uint64_t offset) { return shifted.window(Guest::base + offset, 4096); };
  for (const bool packed : {false, true}) {
    const auto with = [&](uint64_t desc, uint64_t driver, uint64_t device) {
      RingConfig config{.size = 4, .format = {.packed = packed}};
      config.desc = area(desc);
      config.driver = area(4096 + driver);
      config.device = area(8192 + device);
      return reason(std::move(config));
    };
    EXPECT_EQ(with(0, 0, 0), "started");
    EXPECT_EQ(with(16, packed ? 4 : 2, 4), "started");
    EXPECT_TRUE(with(8, 0, 0).starts_with("descriptor area: ring area is misaligned"));
    EXPECT_TRUE(with(0, 1, 0).starts_with("driver area: ring area is misaligned"));
    EXPECT_TRUE(with(0, 0, 2).starts_with("device area: ring area is misaligned"));
  }
}

TEST_F(RingStart, a_split_ring_may_go_on_at_its_used_index) {
  const Layout split(guest, {.size = 4});
  reinterpret_cast<vring_used*>(guest.at(split.device))->idx = 7;
  RingConfig lost = split.ring_config();
  lost.resume_at_used_index();
  EXPECT_EQ(lost.base.avail, 7);
  RingConfig told = split.ring_config();
  told.base.avail = 5;
  told.resume_at_used_index();
  EXPECT_EQ(told.base.avail, 7);
  RingConfig packed = Layout(guest, {.size = 4, .format = {.packed = true}}).ring_config();
  const RingBase before = packed.base;
  packed.resume_at_used_index();
  EXPECT_EQ(packed.base, before);
}

TEST_F(RingStart, an_area_that_was_never_set_is_refused) {
  RingConfig half = config({4, {}});
  half.device = {};
  EXPECT_EQ(reason(std::move(half)), "device area: ring area has no address");
}

TEST_F(RingStart, a_packed_ring_is_never_big_endian) {
  EXPECT_EQ(reason(config({4, {.packed = true, .big_endian = true}})), "packed rings are little-endian");
}

TEST_F(RingStart, a_stopped_ring_gives_its_configuration_back) {
  Shape shape{4, {.packed = true, .indirect = true}};
  shape.base = {.avail = 3, .used = 3, .avail_wrap = false, .used_wrap = false};
  Ring ring = test::must(start(config(shape), guest.view()));
  RingConfig back = std::get<PackedRing>(std::move(ring)).stop();
  EXPECT_EQ(back.size, 4U);
  EXPECT_EQ(back.base, shape.base);
  EXPECT_EQ(reason(std::move(back)), "started");
}

}  // namespace
}  // namespace ringway::ring
