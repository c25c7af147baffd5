#include "ringway/vhost/contract.h"

#include <gmock/gmock.h>
#include <linux/virtio_config.h>

#include "ringway/vhost/recorder_test.h"

namespace ringway::vhost {
namespace {

using testing::Bytes;
using testing::RecordingDevice;
using testing::some_device_request;
using testing::some_fd;
using testing::some_layout;

constexpr uint64_t protocol_bit = bit(VHOST_USER_F_PROTOCOL_FEATURES);
constexpr uint64_t packed = bit(VIRTIO_F_RING_PACKED);
constexpr uint64_t version_1 = bit(VIRTIO_F_VERSION_1);
constexpr uint64_t log_all = bit(VHOST_F_LOG_ALL);
constexpr uint64_t device_capabilities = known_protocol_features & ~transport_protocol_features;
const std::initializer_list<RingIndex> bad_rings = {4, 0xff, 0x100, 0x10000, 0xffffffff};

class ContractTest : public ::testing::Test {
 protected:
  void SetUp() override {
    device.features = version_1 | packed | log_all | bit(VIRTIO_F_ACCESS_PLATFORM);
    device.capabilities = device_capabilities;
  }
  template <class T>
  Result<typename T::Reply> ask(T request) {
    return call(contract, std::move(request));
  }
  template <class T>
  bool refuses(T request, Fault fault = Fault::violation) {
    const size_t before = device.names().size();
    const auto result = ask(std::move(request));
    EXPECT_EQ(device.names().size(), before) << "it reached the device";
    return !result && result.error().fault == fault;
  }
  void negotiate(uint64_t features, uint64_t capabilities = device_capabilities) {
    // What the contract asks by itself is asked now.
    ASSERT_TRUE(ask(SetProtocolFeatures{{capabilities}}));
    ASSERT_TRUE(ask(SetFeatures{features | protocol_bit}));
  }
  void start(RingIndex ring) {
    ASSERT_TRUE(ask(SetVringNum{ring, 128}));
    ASSERT_TRUE(ask(SetVringBase{ring, 0}));
    ASSERT_TRUE(ask(SetVringAddr{ring, 0, 0x1000, 0x2000, 0x3000, 0}));
    ASSERT_TRUE(ask(SetVringKick{ring, some_fd()}));
  }
  RecordingDevice device;
  Contract contract{device, {.queues = 4, .ring_size = 1024}};
};

// ---- negotiation

TEST_F(ContractTest, features_that_were_not_offered_are_refused) {
  ASSERT_TRUE(ask(SetFeatures{version_1}));
  EXPECT_TRUE(refuses(SetFeatures{version_1 | bit(5)}));
  EXPECT_EQ(contract.agreement().features, version_1);
}

TEST_F(ContractTest, bit_30_may_always_be_set_and_is_passed_on) {
  uint64_t given = 0;
  device.hook = [&](DeviceRequest& request) {
    if (auto* set = std::get_if<SetFeatures>(&request)) given = set->features;
  };
  EXPECT_TRUE(ask(SetFeatures{version_1 | protocol_bit}));
  EXPECT_EQ(given, version_1 | protocol_bit);
}

TEST_F(ContractTest, protocol_features_that_were_not_offered_are_refused) {
  device.capabilities = bit(VHOST_USER_PROTOCOL_F_CONFIG);
  ASSERT_TRUE(ask(SetProtocolFeatures{{bit(VHOST_USER_PROTOCOL_F_CONFIG)}}));
  EXPECT_TRUE(refuses(SetProtocolFeatures{{bit(VHOST_USER_PROTOCOL_F_STATUS)}}));
  EXPECT_TRUE(refuses(SetProtocolFeatures{{bit(40)}}));
  EXPECT_EQ(contract.agreement().capabilities, bit(VHOST_USER_PROTOCOL_F_CONFIG));
}

TEST_F(ContractTest, H053_SKIP_DRAIN_needs_both_of_the_bits_it_builds_on) {
  constexpr uint64_t skip = bit(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN);
  constexpr uint64_t base = bit(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT);
  constexpr uint64_t shmfd = bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
  EXPECT_FALSE(ask(SetProtocolFeatures{{skip}}));
  EXPECT_FALSE(ask(SetProtocolFeatures{{skip | base}}));
  EXPECT_FALSE(ask(SetProtocolFeatures{{skip | shmfd}}));
  EXPECT_TRUE(ask(SetProtocolFeatures{{skip | base | shmfd}}));
}

TEST_F(ContractTest, N027_every_message_needs_what_the_catalogue_says) {
  negotiate(0, 0);
  for (uint32_t id = 1; id <= 45; ++id) {
    const Need need = catalogue<DeviceRequest>[id - 1].need;
    if (need.kind == Need::Kind::nothing || id == 21) continue;
    SCOPED_TRACE(catalogue<DeviceRequest>[id - 1].name);
    const auto result = contract.handle(some_device_request(id));
    ASSERT_FALSE(result);
    EXPECT_STREQ(result.error().what, "was not negotiated");
  }
  const uint64_t most = device_capabilities & ~bit(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) &
                        ~bit(VHOST_USER_PROTOCOL_F_GPA_ADDRESSES);
  negotiate(version_1 | bit(VIRTIO_F_ACCESS_PLATFORM), most);
  for (uint32_t id = 1; id <= 45; ++id) {
    if (id == 2 || id == 16 || (id >= 36 && id <= 38)) continue;
    SCOPED_TRACE(catalogue<DeviceRequest>[id - 1].name);
    EXPECT_TRUE(contract.handle(some_device_request(id)));
    if (id == 34) negotiate(version_1 | bit(VIRTIO_F_ACCESS_PLATFORM), most);  // after the reset
    if (id == 12 || id == 35) {
      ASSERT_TRUE(ask(GetVringBase{1}));
    }
  }
}

TEST_F(ContractTest, a_failure_of_the_device_leaves_what_was_agreed) {
  negotiate(version_1);
  device.failure = refused("no").error();
  EXPECT_FALSE(ask(SetFeatures{version_1 | packed | protocol_bit}));
  EXPECT_FALSE(ask(SetProtocolFeatures{}));
  EXPECT_FALSE(ask(SetVringKick{0, some_fd()}));
  EXPECT_EQ(contract.agreement().features, version_1 | protocol_bit);
  EXPECT_EQ(contract.agreement().capabilities, device_capabilities);
  EXPECT_FALSE(contract.is_started(0));
}

TEST_F(ContractTest, H173_queue_number_and_memory_slots_may_be_asked_at_any_time) {
  EXPECT_TRUE(ask(GetQueueNum{}));
  negotiate(version_1);
  start(0);
  EXPECT_TRUE(ask(GetQueueNum{}));
  EXPECT_TRUE(ask(GetMaxMemSlots{}));
}

TEST_F(ContractTest, H046_SET_OWNER_may_come_twice) {
  EXPECT_TRUE(ask(SetOwner{}));
  EXPECT_TRUE(ask(SetOwner{}));
}

// ---- features and started rings

TEST_F(ContractTest, H049_only_LOG_ALL_may_change_while_a_ring_is_started) {
  negotiate(version_1);
  start(0);
  EXPECT_TRUE(ask(SetFeatures{version_1 | protocol_bit}));
  EXPECT_TRUE(ask(SetFeatures{version_1 | log_all | protocol_bit}));
  EXPECT_TRUE(ask(SetFeatures{version_1 | protocol_bit}));
  EXPECT_TRUE(refuses(SetFeatures{version_1 | packed | protocol_bit}, Fault::refused));
  EXPECT_TRUE(refuses(SetFeatures{protocol_bit}, Fault::refused));
  ASSERT_TRUE(ask(GetVringBase{0}));
  EXPECT_TRUE(ask(SetFeatures{version_1 | packed | protocol_bit}));
}

TEST_F(ContractTest, H050_bit_30_may_be_taken_back_while_rings_are_started) {
  negotiate(version_1);
  start(0);
  EXPECT_TRUE(ask(SetFeatures{version_1}));
}

// ---- ring indexes

TEST_F(ContractTest, H061_ring_indexes_beyond_the_number_of_queues_are_refused_everywhere) {
  negotiate(version_1);
  for (const RingIndex ring : bad_rings) {
    EXPECT_TRUE(refuses(SetVringNum{ring, 128}));
    EXPECT_TRUE(refuses(SetVringAddr{ring, 0, 0x1000, 0x2000, 0x3000, 0}));
    EXPECT_TRUE(refuses(SetVringBase{ring, 0}));
    EXPECT_TRUE(refuses(GetVringBase{ring}));
    EXPECT_TRUE(refuses(SetVringKick{ring, some_fd()}));
    EXPECT_TRUE(refuses(SetVringCall{ring, some_fd()}));
    EXPECT_TRUE(refuses(SetVringErr{ring, some_fd()}));
    EXPECT_TRUE(refuses(SetVringEnable{ring, 1}));
    EXPECT_TRUE(refuses(SetVringEndian{ring, 1}));
    EXPECT_TRUE(refuses(VringKick{ring}));
    EXPECT_TRUE(refuses(GetVringBaseSkipDrain{ring}));
  }
  for (RingIndex ring = 0; ring < 4; ++ring) start(ring);
}

// ---- ring parameters

TEST_F(ContractTest, H065_H067_H068_ring_sizes_out_of_range_are_refused) {
  negotiate(version_1);
  for (const uint32_t size : {0U, 1025U, 2048U, 32768U, 32769U, 65536U, 65537U, 0xffffffffU}) {
    EXPECT_TRUE(refuses(SetVringNum{0, size})) << size;
  }
  for (const uint32_t size : {1U, 2U, 128U, 1024U}) EXPECT_TRUE(ask(SetVringNum{0, size})) << size;
}

TEST_F(ContractTest, the_size_of_a_split_ring_is_a_power_of_two) {
  negotiate(version_1);
  EXPECT_TRUE(refuses(SetVringNum{0, 300}));
}

TEST_F(ContractTest, H220_the_size_of_a_packed_ring_may_be_any) {
  negotiate(version_1 | packed);
  EXPECT_TRUE(ask(SetVringNum{0, 300}));
}

TEST_F(ContractTest, before_SET_FEATURES_a_ring_may_turn_out_to_be_packed) {
  EXPECT_TRUE(ask(SetVringNum{0, 300}));
  EXPECT_TRUE(ask(SetVringBase{0, 0x80008000}));
}

TEST_F(ContractTest, H074_misaligned_areas_are_refused) {
  negotiate(version_1);
  EXPECT_TRUE(refuses(SetVringAddr{.ring = 0, .desc = 0x1008, .used = 0x2000, .avail = 0x3000}));
  EXPECT_TRUE(refuses(SetVringAddr{.ring = 0, .desc = 0x1000, .used = 0x2002, .avail = 0x3000}));
  EXPECT_TRUE(refuses(SetVringAddr{.ring = 0, .desc = 0x1000, .used = 0x2000, .avail = 0x3001}));
  EXPECT_TRUE(ask(SetVringAddr{.ring = 0, .desc = 0x1010, .used = 0x2004, .avail = 0x3002}));
}

TEST_F(ContractTest, the_driver_area_of_a_packed_ring_is_aligned_to_4) {
  negotiate(version_1 | packed);
  EXPECT_TRUE(refuses(SetVringAddr{.ring = 0, .desc = 0x1000, .used = 0x2000, .avail = 0x3002}));
  EXPECT_TRUE(ask(SetVringAddr{.ring = 0, .desc = 0x1000, .used = 0x2000, .avail = 0x3004}));
}

TEST_F(ContractTest, H080_undefined_ring_flags_are_refused) {
  EXPECT_TRUE(refuses(SetVringAddr{.ring = 0, .flags = 2, .desc = 0x1000, .used = 0x2000, .avail = 0x3000}));
  EXPECT_TRUE(ask(SetVringAddr{.ring = 0, .flags = 1, .desc = 0x1000, .used = 0x2000, .avail = 0x3000}));
}

TEST_F(ContractTest,
       the_log_address_of_a_ring_that_is_not_logged_may_be_anything_as_user_mode_linux_sends_it) {
  EXPECT_TRUE(
      ask(SetVringAddr{.ring = 0, .desc = 0x1000, .used = 0x2000, .avail = 0x3000, .log = ~uint64_t{0}}));
}

TEST_F(ContractTest, the_base_of_a_split_ring_has_16_bits) {
  negotiate(version_1);
  EXPECT_TRUE(refuses(SetVringBase{0, 0x10000}));
  EXPECT_TRUE(ask(SetVringBase{0, 0xffff}));
  negotiate(version_1 | packed);
  EXPECT_TRUE(ask(SetVringBase{0, 0x80008000}));
}

TEST_F(ContractTest, H071_addresses_may_come_before_sizes_and_memory) {
  EXPECT_TRUE(ask(SetVringAddr{.ring = 0, .desc = 0x1000, .used = 0x2000, .avail = 0x3000}));
  EXPECT_TRUE(ask(SetVringNum{0, 128}));
  EXPECT_TRUE(ask(SetMemTable{}));
}

TEST_F(ContractTest, a_started_ring_keeps_its_parameters) {
  negotiate(version_1);
  start(0);
  EXPECT_TRUE(refuses(SetVringNum{0, 256}, Fault::refused));
  EXPECT_TRUE(refuses(SetVringBase{0, 3}, Fault::refused));
  EXPECT_TRUE(refuses(SetVringAddr{0, 0, 0x9000, 0x2000, 0x3000, 0}, Fault::refused));
  EXPECT_TRUE(refuses(SetVringEndian{0, 1}, Fault::refused));
  EXPECT_TRUE(ask(SetVringNum{1, 256})) << "another ring";
  ASSERT_TRUE(ask(GetVringBase{0}));
  EXPECT_TRUE(ask(SetVringNum{0, 256}));
  EXPECT_TRUE(ask(SetVringBase{0, 3}));
  EXPECT_TRUE(ask(SetVringAddr{0, 0, 0x9000, 0x2000, 0x3000, 0}));
}

TEST_F(ContractTest, N050_the_log_of_a_started_ring_may_be_switched) {
  negotiate(version_1);
  start(0);
  EXPECT_TRUE(ask(SetVringAddr{0, 1, 0x1000, 0x2000, 0x3000, 0x5000}));
  EXPECT_TRUE(ask(SetVringAddr{0, 0, 0x1000, 0x2000, 0x3000, 0}));
}

TEST_F(ContractTest, N041_notifications_and_enable_of_a_started_ring_may_change) {
  negotiate(version_1);
  start(0);
  EXPECT_TRUE(ask(SetVringKick{0, some_fd()}));
  EXPECT_TRUE(ask(SetVringKick{0, {}}));
  EXPECT_TRUE(ask(SetVringCall{0, some_fd()}));
  EXPECT_TRUE(ask(SetVringErr{0, some_fd()}));
  EXPECT_TRUE(ask(SetVringEnable{0, 0}));
  EXPECT_TRUE(ask(SetVringEnable{0, 1}));
}

TEST_F(ContractTest, an_in_band_kick_starts_a_ring) {
  negotiate(version_1);
  ASSERT_TRUE(ask(SetVringNum{0, 128}));
  ASSERT_TRUE(ask(SetVringAddr{0, 0, 0x1000, 0x2000, 0x3000, 0}));
  ASSERT_TRUE(ask(VringKick{0}));
  EXPECT_TRUE(contract.is_started(0));
  EXPECT_TRUE(refuses(SetVringNum{0, 128}, Fault::refused));
  ASSERT_TRUE(ask(GetVringBaseSkipDrain{0}));
  EXPECT_FALSE(contract.is_started(0));
}

TEST_F(ContractTest, a_ring_may_be_kicked_before_it_is_described) {
  negotiate(version_1);
  ASSERT_TRUE(ask(SetVringKick{0, some_fd()}));
  ASSERT_TRUE(ask(SetVringNum{0, 128}));
  ASSERT_TRUE(ask(SetVringBase{0, 0}));
  EXPECT_FALSE(contract.is_started(0));
  ASSERT_TRUE(ask(SetVringAddr{0, 0, 0x1000, 0x2000, 0x3000, 0}));
  EXPECT_TRUE(contract.is_started(0));
  EXPECT_TRUE(refuses(SetVringNum{0, 256}, Fault::refused));
}

TEST_F(ContractTest, N036_a_stopped_ring_starts_again_by_a_kick_alone) {
  negotiate(version_1);
  start(0);
  ASSERT_TRUE(ask(GetVringBase{0}));
  ASSERT_TRUE(ask(SetVringKick{0, some_fd()}));
  EXPECT_TRUE(contract.is_started(0));
}

TEST_F(ContractTest, a_ring_that_never_started_may_be_stopped) { EXPECT_TRUE(ask(GetVringBase{0})); }

TEST_F(ContractTest, H055_ENABLE_without_bit_30_is_refused) {
  ASSERT_TRUE(ask(SetFeatures{version_1}));
  EXPECT_TRUE(refuses(SetVringEnable{0, 1}, Fault::refused));
}

TEST_F(ContractTest, ENABLE_of_a_front_end_that_has_negotiated_nothing_is_refused) {
  EXPECT_TRUE(refuses(SetVringEnable{0, 1}, Fault::refused));
}

TEST_F(ContractTest, QEMU_enables_the_rings_of_network_devices_before_SET_FEATURES) {
  ASSERT_TRUE(ask(SetProtocolFeatures{}));
  EXPECT_TRUE(ask(SetVringEnable{0, 1}));
}

TEST_F(ContractTest, ENABLE_is_0_or_1) {
  negotiate(version_1);
  for (const uint32_t value : {2U, 0x100U, 0xffffffffU}) EXPECT_TRUE(refuses(SetVringEnable{0, value}));
}

TEST_F(ContractTest, H155_ENDIAN_is_0_or_1) {
  negotiate(0);
  EXPECT_TRUE(refuses(SetVringEndian{0, 2}));
  EXPECT_TRUE(ask(SetVringEndian{0, 0}));
  EXPECT_TRUE(ask(SetVringEndian{0, 1}));
}

// ---- reset

TEST_F(ContractTest, RESET_DEVICE_stops_all_rings_and_forgets_the_features) {
  negotiate(version_1);
  start(0);
  ASSERT_TRUE(ask(ResetDevice{}));
  EXPECT_TRUE(ask(SetVringNum{0, 256}));
  EXPECT_TRUE(ask(SetFeatures{version_1 | packed | protocol_bit}));
  EXPECT_TRUE(ask(GetStatus{})) << "protocol features stay";
}

TEST_F(ContractTest, status_0_resets_and_others_do_not) {
  negotiate(version_1);
  start(0);
  ASSERT_TRUE(ask(SetStatus{0xf}));
  EXPECT_TRUE(contract.is_started(0));
  EXPECT_TRUE(refuses(SetStatus{0x100}));
  ASSERT_TRUE(ask(SetStatus{0}));
  EXPECT_FALSE(contract.is_started(0));
}

TEST_F(ContractTest, H058_RESET_OWNER_changes_nothing_that_was_agreed) {
  negotiate(version_1);
  start(0);
  ASSERT_TRUE(ask(ResetOwner{}));
  EXPECT_TRUE(contract.is_started(0));
  EXPECT_EQ(contract.agreement().features, version_1 | protocol_bit);
}

// ---- memory, IOTLB, config, and the rest

TEST_F(ContractTest, H106_with_GPA_ADDRESSES_a_user_address_is_the_guest_address) {
  const auto table = [](uint64_t guest, uint64_t user) {
    SetMemTable one;
    one.regions.push_back(
        {.layout = {.guest = {guest}, .size = 0x1000, .front_end = {user}}, .fd = some_fd()});
    return one;
  };
  negotiate(version_1);
  EXPECT_TRUE(ask(SetMemTable{}));
  EXPECT_TRUE(refuses(table(0x1000, 0x2000)));
  EXPECT_TRUE(refuses(AddMemReg{{.layout = some_layout(), .fd = some_fd()}}));
  EXPECT_TRUE(ask(table(0x1000, 0x1000)));
  negotiate(version_1, 0);
  EXPECT_TRUE(ask(table(0x1000, 0x2000)));
}

TEST_F(ContractTest, H158_senseless_IOTLB_updates_are_refused) {
  negotiate(version_1 | bit(VIRTIO_F_ACCESS_PLATFORM));
  const IotlbMessage good{.iova = {0x1000}, .size = 0x1000, .front_end = {0x2000}, .permission = 3};
  EXPECT_TRUE(ask(UpdateIotlb{good}));
  const auto with = [&](auto change) {
    IotlbMessage message = good;
    change(message);
    return refuses(UpdateIotlb{message});
  };
  EXPECT_TRUE(with([](auto& m) { m.size = 0; }));
  EXPECT_TRUE(with([](auto& m) { m.permission = 4; }));
  EXPECT_TRUE(with([](auto& m) { m.iova = {~uint64_t{0}}; }));
  EXPECT_TRUE(with([](auto& m) { m.front_end = {~uint64_t{0}}; }));
  EXPECT_TRUE(with([](auto& m) { m.type = IotlbType::miss; }));
  IotlbMessage no_access = good;
  no_access.permission = 0;
  EXPECT_TRUE(ask(UpdateIotlb{no_access})) << "\"0: No access\"";
  IotlbMessage last_page = good;
  last_page.iova = {~uint64_t{0xfff}};
  EXPECT_TRUE(ask(UpdateIotlb{last_page}));
}

TEST_F(ContractTest, an_IOTLB_invalidation_is_never_refused) {
  negotiate(version_1 | bit(VIRTIO_F_ACCESS_PLATFORM));
  EXPECT_TRUE(ask(UpdateIotlb{{.iova = {0}, .size = 0, .type = IotlbType::invalidate}}));
  EXPECT_TRUE(ask(UpdateIotlb{{.iova = {0x1000}, .size = ~uint64_t{0}, .type = IotlbType::invalidate}}));
}

TEST_F(ContractTest, H152_config_flags_are_0_or_1) {
  negotiate(version_1);
  EXPECT_TRUE(ask(SetConfig{{.flags = 0, .bytes = Bytes(4)}}));
  EXPECT_TRUE(ask(SetConfig{{.flags = 1, .bytes = Bytes(4)}}));
  for (const uint32_t flags : {2U, 3U, 0xffffffffU})
    EXPECT_TRUE(refuses(SetConfig{{.flags = flags, .bytes = Bytes(4)}}));
}

TEST_F(ContractTest, at_most_256_bytes_of_configuration_at_once) {
  negotiate(version_1);
  EXPECT_TRUE(ask(GetConfig{.size = 256}));
  EXPECT_TRUE(refuses(GetConfig{.size = 257}, Fault::refused));
  EXPECT_TRUE(refuses(SetConfig{{.bytes = Bytes(257)}}, Fault::refused));
}

TEST_F(ContractTest, H157_an_MTU_out_of_range_is_refused) {
  negotiate(version_1);
  for (const uint64_t mtu : {0ULL, 67ULL, 65536ULL, 1ULL << 63})
    EXPECT_TRUE(refuses(NetSetMtu{mtu}, Fault::refused));
  for (const uint64_t mtu : {68U, 1500U, 65535U}) EXPECT_TRUE(ask(NetSetMtu{mtu}));
}

TEST_F(ContractTest, H131_H133_in_flight_areas_of_other_dimensions_are_refused) {
  negotiate(version_1);
  for (const uint16_t queues : {0, 5, 0xffff}) {
    EXPECT_TRUE(refuses(GetInflightFd{queues, 128}));
    EXPECT_TRUE(refuses(SetInflightFd{{.size = 4096, .queues = queues, .queue_size = 128, .fd = some_fd()}}));
  }
  for (const uint16_t size : {0, 1025, 0xffff}) EXPECT_TRUE(refuses(GetInflightFd{4, size}));
  EXPECT_TRUE(ask(GetInflightFd{4, 1024}));
}

TEST_F(ContractTest, N060_postcopy_is_refused_with_memory_slots) {
  negotiate(version_1);
  EXPECT_TRUE(refuses(PostcopyAdvise{}, Fault::refused));
  EXPECT_TRUE(refuses(PostcopyListen{}, Fault::refused));
  negotiate(version_1, bit(VHOST_USER_PROTOCOL_F_PAGEFAULT));
  EXPECT_TRUE(ask(PostcopyAdvise{}));
}

TEST_F(ContractTest, H164_device_state_moves_in_a_defined_direction_and_only_while_stopped) {
  negotiate(version_1);
  const auto transfer = [](uint32_t direction, uint32_t phase) {
    return SetDeviceStateFd{.direction = direction, .phase = phase, .fd = some_fd()};
  };
  EXPECT_TRUE(refuses(transfer(2, 0)));
  EXPECT_TRUE(refuses(transfer(0, 1)));
  EXPECT_TRUE(ask(transfer(0, 0)));
  start(0);
  EXPECT_TRUE(refuses(transfer(0, 0), Fault::refused));
}

TEST_F(ContractTest, a_log_file_needs_LOG_SHMFD) {
  negotiate(version_1, 0);
  EXPECT_TRUE(refuses(SetLogBase{.size = 4096, .fd = some_fd()}, Fault::refused));
  negotiate(version_1, bit(VHOST_USER_PROTOCOL_F_LOG_SHMFD));
  EXPECT_TRUE(ask(SetLogBase{.size = 4096, .fd = some_fd()}));
}

TEST_F(ContractTest, files_of_refused_requests_are_closed) {
  negotiate(version_1);
  const size_t before = testing::open_fds();
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(refuses(SetVringKick{9, some_fd()}));
  EXPECT_EQ(testing::open_fds(), before);
}

// ---- orders that front-ends in the field use

TEST_F(ContractTest, the_order_of_user_mode_linux_works) {
  ASSERT_TRUE(ask(SetOwner{}));
  ASSERT_TRUE(ask(GetFeatures{}));
  ASSERT_TRUE(ask(GetProtocolFeatures{}));
  ASSERT_TRUE(ask(SetProtocolFeatures{{bit(VHOST_USER_PROTOCOL_F_CONFIG)}}));
  ASSERT_TRUE(ask(SetFeatures{version_1 | protocol_bit}));
  ASSERT_TRUE(ask(SetMemTable{}));
  for (RingIndex ring = 0; ring < 2; ++ring) {
    ASSERT_TRUE(ask(SetVringCall{ring, some_fd()}));
    ASSERT_TRUE(ask(SetVringNum{ring, 256}));
    ASSERT_TRUE(ask(SetVringBase{ring, 0}));
    ASSERT_TRUE(ask(
        SetVringAddr{.ring = ring, .desc = 0x1000, .used = 0x2000, .avail = 0x3000, .log = ~uint64_t{0}}));
  }
  for (RingIndex ring = 0; ring < 2; ++ring) {
    ASSERT_TRUE(ask(SetVringKick{ring, some_fd()}));
    ASSERT_TRUE(ask(SetVringEnable{ring, 1}));
  }
  for (RingIndex ring = 0; ring < 2; ++ring) ASSERT_TRUE(ask(GetVringBase{ring}));
}

TEST_F(ContractTest, the_order_of_DPDK_virtio_user_works) {
  ASSERT_TRUE(ask(SetOwner{}));
  ASSERT_TRUE(ask(GetFeatures{}));
  ASSERT_TRUE(ask(GetProtocolFeatures{}));
  ASSERT_TRUE(ask(SetProtocolFeatures{{bit(VHOST_USER_PROTOCOL_F_STATUS)}}));
  for (RingIndex ring = 0; ring < 2; ++ring) ASSERT_TRUE(ask(SetVringCall{ring, some_fd()}));
  ASSERT_TRUE(ask(SetFeatures{version_1 | packed | protocol_bit}));
  ASSERT_TRUE(ask(SetMemTable{}));
  for (RingIndex ring = 0; ring < 2; ++ring) {
    ASSERT_TRUE(ask(SetVringNum{ring, 256}));
    ASSERT_TRUE(ask(SetVringBase{ring, 0x80008000}));
    ASSERT_TRUE(ask(SetVringAddr{.ring = ring, .desc = 0x1000, .used = 0x2000, .avail = 0x3000}));
    ASSERT_TRUE(ask(SetVringKick{ring, some_fd()}));
  }
  ASSERT_TRUE(ask(SetVringEnable{0, 1}));
  ASSERT_TRUE(ask(SetStatus{0xf}));
}

TEST_F(ContractTest, the_order_of_QEMU_with_two_queue_pairs_works) {
  ASSERT_TRUE(ask(GetFeatures{}));
  ASSERT_TRUE(ask(GetProtocolFeatures{}));
  ASSERT_TRUE(ask(SetProtocolFeatures{{bit(VHOST_USER_PROTOCOL_F_MQ) | bit(VHOST_USER_PROTOCOL_F_CONFIG)}}));
  ASSERT_TRUE(ask(GetQueueNum{}));
  ASSERT_TRUE(ask(SetOwner{}));
  for (RingIndex ring = 0; ring < 4; ++ring) ASSERT_TRUE(ask(SetVringCall{ring, some_fd()}));
  for (RingIndex first : {0U, 2U}) {  // the second pair after the first has started
    ASSERT_TRUE(ask(SetFeatures{version_1 | protocol_bit}));
    ASSERT_TRUE(ask(SetMemTable{}));
    for (RingIndex ring : {first, first + 1}) start(ring);
    for (RingIndex ring : {first, first + 1}) ASSERT_TRUE(ask(SetVringEnable{ring, 1}));
    for (RingIndex ring : {first, first + 1}) ASSERT_TRUE(ask(SetVringCall{ring, some_fd()}));
  }
  for (RingIndex ring = 0; ring < 4; ++ring) ASSERT_TRUE(ask(GetVringBase{ring}));
  for (RingIndex ring = 0; ring < 4; ++ring) start(ring);
}

}  // namespace
}  // namespace ringway::vhost
