#include "ringway/user/codec.h"

#include <gmock/gmock.h>

#include <map>

#include "ringway/user/peer_test.h"

namespace ringway::user {
namespace {

using namespace testing;
using namespace vhost;
using ::testing::HasSubstr;

// Keeps the file descriptor of SET_BACKEND_REQ_FD in place of a front-end.
class FakeBackChannel final : public BackChannel {
 public:
  Result<std::shared_ptr<FrontEnd>> reach(UniqueFd) override { return std::make_shared<RecordingFrontEnd>(); }
  Result<UniqueFd> serve(std::shared_ptr<FrontEnd>) override { return some_fd(); }
};
FakeBackChannel back_channel;

Uuid uuid() {
  Uuid value;
  for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<std::byte>(i);
  return value;
}

// ---- golden bytes, written by hand from the specification for a little-endian host

template <class Request>
struct Golden {
  std::function<Request()> request;
  const char* request_bytes;
  size_t request_fds;
  std::function<ReplyOf<Request>()> reply;
  const char* reply_bytes;
  size_t reply_fds;
};

// clang-format off
const std::vector<Golden<DeviceRequest>> device_messages = {
    {[] { return GetFeatures{}; }, "01000000 01000000 00000000", 0,
     [] { return uint64_t{0x0123456789abcdef}; }, "01000000 05000000 08000000 efcdab89 67452301", 0},
    {[] { return SetFeatures{0x0123456789abcdef}; }, "02000000 01000000 08000000 efcdab89 67452301", 0,
     [] { return Done{}; }, "02000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetOwner{}; }, "03000000 01000000 00000000", 0,
     [] { return Done{}; }, "03000000 05000000 08000000 00000000 00000000", 0},
    {[] { return ResetOwner{}; }, "04000000 01000000 00000000", 0,
     [] { return Done{}; }, "04000000 05000000 08000000 00000000 00000000", 0},
    {[] {
       SetMemTable table;
       table.regions.push_back({.layout = {{0x11}, 0x22, {0x33}, 0x44}, .fd = some_fd()});
       table.regions.push_back({.layout = {{0x55}, 0x66, {0x77}, 0x88}, .fd = some_fd()});
       return table;
     },
     "05000000 01000000 48000000 02000000 00000000"
     "11000000 00000000 22000000 00000000 33000000 00000000 44000000 00000000"
     "55000000 00000000 66000000 00000000 77000000 00000000 88000000 00000000", 2,
     [] { return Done{}; }, "05000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetLogBase{.size = 0x1000, .offset = 0x2000, .fd = some_fd()}; },
     "06000000 01000000 10000000 00100000 00000000 00200000 00000000", 1,
     [] { return Done{}; }, "06000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetLogFd{some_fd()}; }, "07000000 01000000 00000000", 1,
     [] { return Done{}; }, "07000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetVringNum{3, 0x100}; }, "08000000 01000000 08000000 03000000 00010000", 0,
     [] { return Done{}; }, "08000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetVringAddr{.ring = 3, .flags = 1, .desc = 0x10, .used = 0x20, .avail = 0x30, .log = 0x40}; },
     "09000000 01000000 28000000 03000000 01000000"
     "10000000 00000000 20000000 00000000 30000000 00000000 40000000 00000000", 0,
     [] { return Done{}; }, "09000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetVringBase{3, 0x80018002}; }, "0a000000 01000000 08000000 03000000 02800180", 0,
     [] { return Done{}; }, "0a000000 05000000 08000000 00000000 00000000", 0},
    {[] { return GetVringBase{3}; }, "0b000000 01000000 08000000 03000000 00000000", 0,
     [] { return RingState{3, 0x1234}; }, "0b000000 05000000 08000000 03000000 34120000", 0},
    {[] { return SetVringKick{.ring = 3, .fd = some_fd()}; }, "0c000000 01000000 08000000 03000000 00000000", 1,
     [] { return Done{}; }, "0c000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetVringCall{.ring = 3, .fd = {}}; }, "0d000000 01000000 08000000 03010000 00000000", 0,
     [] { return Done{}; }, "0d000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetVringErr{.ring = 255, .fd = some_fd()}; }, "0e000000 01000000 08000000 ff000000 00000000", 1,
     [] { return Done{}; }, "0e000000 05000000 08000000 00000000 00000000", 0},
    {[] { return GetProtocolFeatures{}; }, "0f000000 01000000 00000000", 0,
     [] { return Capabilities{0x9}; }, "0f000000 05000000 08000000 09000000 00000000", 0},
    {[] { return SetProtocolFeatures{{0x1}}; }, "10000000 01000000 08000000 01000000 00000000", 0,
     [] { return Done{}; }, "10000000 05000000 08000000 00000000 00000000", 0},
    {[] { return GetQueueNum{}; }, "11000000 01000000 00000000", 0,
     [] { return uint64_t{16}; }, "11000000 05000000 08000000 10000000 00000000", 0},
    {[] { return SetVringEnable{3, 1}; }, "12000000 01000000 08000000 03000000 01000000", 0,
     [] { return Done{}; }, "12000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SendRarp{0x060504030201}; }, "13000000 01000000 08000000 01020304 05060000", 0,
     [] { return Done{}; }, "13000000 05000000 08000000 00000000 00000000", 0},
    {[] { return NetSetMtu{1500}; }, "14000000 01000000 08000000 dc050000 00000000", 0,
     [] { return Done{}; }, "14000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetFrontEnd{std::make_shared<RecordingFrontEnd>()}; }, "15000000 01000000 00000000", 1,
     [] { return Done{}; }, "15000000 05000000 08000000 00000000 00000000", 0},
    {[] { return UpdateIotlb{{{0x1000}, 0x2000, {0x3000}, 3, IotlbType::update}}; },
     "16000000 01000000 20000000 00100000 00000000 00200000 00000000 00300000 00000000 03020000 00000000", 0,
     [] { return Done{}; }, "16000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetVringEndian{3, 1}; }, "17000000 01000000 08000000 03000000 01000000", 0,
     [] { return Done{}; }, "17000000 05000000 08000000 00000000 00000000", 0},
    {[] { return GetConfig{.offset = 4, .size = 3, .flags = 0}; },
     "18000000 01000000 0f000000 04000000 03000000 00000000 000000", 0,
     [] { return ConfigBytes{.offset = 4, .flags = 0, .bytes = from_hex("aabbcc")}; },
     "18000000 05000000 0f000000 04000000 03000000 00000000 aabbcc", 0},
    {[] { return SetConfig{{.offset = 4, .flags = 1, .bytes = from_hex("aabbcc")}}; },
     "19000000 01000000 0f000000 04000000 03000000 01000000 aabbcc", 0,
     [] { return Done{}; }, "19000000 05000000 08000000 00000000 00000000", 0},
    {[] { return CreateCryptoSession{{from_hex("0102030405060708 090a")}}; },
     "1a000000 01000000 0a000000 01020304 05060708 090a", 0,
     [] { return CryptoSession{from_hex("0102030405060708 090b")}; },
     "1a000000 05000000 0a000000 01020304 05060708 090b", 0},
    {[] { return CloseCryptoSession{0x1122}; }, "1b000000 01000000 08000000 22110000 00000000", 0,
     [] { return Done{}; }, "1b000000 05000000 08000000 00000000 00000000", 0},
    {[] { return PostcopyAdvise{}; }, "1c000000 01000000 00000000", 0,
     [] { return some_fd(); }, "1c000000 05000000 00000000", 1},
    {[] { return PostcopyListen{}; }, "1d000000 01000000 00000000", 0,
     [] { return Done{}; }, "1d000000 05000000 08000000 00000000 00000000", 0},
    {[] { return PostcopyEnd{}; }, "1e000000 01000000 00000000", 0,
     [] { return Done{}; }, "1e000000 05000000 08000000 00000000 00000000", 0},
    {[] { return GetInflightFd{2, 0x80}; },
     "1f000000 01000000 18000000 00000000 00000000 00000000 00000000 02008000 00000000", 0,
     [] { return InflightArea{0x1000, 0x2000, 2, 0x80, some_fd()}; },
     "1f000000 05000000 18000000 00100000 00000000 00200000 00000000 02008000 00000000", 1},
    {[] { return SetInflightFd{{0x1000, 0x2000, 2, 0x80, some_fd()}}; },
     "20000000 01000000 18000000 00100000 00000000 00200000 00000000 02008000 00000000", 1,
     [] { return Done{}; }, "20000000 05000000 08000000 00000000 00000000", 0},
    {[] { return GpuSetSocket{some_fd()}; }, "21000000 01000000 00000000", 1,
     [] { return Done{}; }, "21000000 05000000 08000000 00000000 00000000", 0},
    {[] { return ResetDevice{}; }, "22000000 01000000 00000000", 0,
     [] { return Done{}; }, "22000000 05000000 08000000 00000000 00000000", 0},
    {[] { return VringKick{3}; }, "23000000 01000000 08000000 03000000 00000000", 0,
     [] { return Done{}; }, "23000000 05000000 08000000 00000000 00000000", 0},
    {[] { return GetMaxMemSlots{}; }, "24000000 01000000 00000000", 0,
     [] { return uint64_t{509}; }, "24000000 05000000 08000000 fd010000 00000000", 0},
    {[] { return AddMemReg{{.layout = {{0x11}, 0x22, {0x33}, 0x44}, .fd = some_fd()}}; },
     "25000000 01000000 28000000 00000000 00000000"
     "11000000 00000000 22000000 00000000 33000000 00000000 44000000 00000000", 1,
     [] { return Done{}; }, "25000000 05000000 08000000 00000000 00000000", 0},
    {[] { return RemMemReg{{{0x11}, 0x22, {0x33}, 0x44}}; },
     "26000000 01000000 28000000 00000000 00000000"
     "11000000 00000000 22000000 00000000 33000000 00000000 44000000 00000000", 0,
     [] { return Done{}; }, "26000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SetStatus{0xf}; }, "27000000 01000000 08000000 0f000000 00000000", 0,
     [] { return Done{}; }, "27000000 05000000 08000000 00000000 00000000", 0},
    {[] { return GetStatus{}; }, "28000000 01000000 00000000", 0,
     [] { return uint64_t{0xf}; }, "28000000 05000000 08000000 0f000000 00000000", 0},
    {[] { return GetSharedObject{uuid()}; }, "29000000 01000000 10000000 00010203 04050607 08090a0b 0c0d0e0f", 0,
     [] { return SharedObject{some_fd()}; }, "29000000 05000000 00000000", 1},
    {[] { return SetDeviceStateFd{.direction = 1, .phase = 0, .fd = some_fd()}; },
     "2a000000 01000000 08000000 01000000 00000000", 1,
     [] { return StateChannel{}; }, "2a000000 05000000 08000000 00010000 00000000", 0},
    {[] { return CheckDeviceState{}; }, "2b000000 01000000 00000000", 0,
     [] { return uint64_t{0}; }, "2b000000 05000000 08000000 00000000 00000000", 0},
    {[] { return GetShmemConfig{}; }, "2c000000 01000000 00000000", 0, nullptr, nullptr, 0},
    {[] { return GetVringBaseSkipDrain{3}; }, "2d000000 01000000 08000000 03000000 00000000", 0,
     [] { return RingState{3, 0x1234}; }, "2d000000 05000000 08000000 03000000 34120000", 0},
};

const std::vector<Golden<FrontEndRequest>> front_end_messages = {
    {[] { return IotlbFault{{{0x1000}, 0, {0}, 2, IotlbType::miss}}; },
     "01000000 01000000 20000000 00100000 00000000 00000000 00000000 00000000 00000000 02010000 00000000", 0,
     [] { return Done{}; }, "01000000 05000000 08000000 00000000 00000000", 0},
    {[] { return ConfigChange{}; }, "02000000 01000000 00000000", 0,
     [] { return Done{}; }, "02000000 05000000 08000000 00000000 00000000", 0},
    {[] { return HostNotifier{.ring = 3, .size = 0x1000, .offset = 0x2000, .fd = some_fd()}; },
     "03000000 01000000 18000000 03000000 00000000 00100000 00000000 00200000 00000000", 1,
     [] { return Done{}; }, "03000000 05000000 08000000 00000000 00000000", 0},
    {[] { return VringCall{3}; }, "04000000 01000000 08000000 03000000 00000000", 0,
     [] { return Done{}; }, "04000000 05000000 08000000 00000000 00000000", 0},
    {[] { return VringErr{3}; }, "05000000 01000000 08000000 03000000 00000000", 0,
     [] { return Done{}; }, "05000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SharedObjectAdd{uuid()}; }, "06000000 01000000 10000000 00010203 04050607 08090a0b 0c0d0e0f", 0,
     [] { return Done{}; }, "06000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SharedObjectRemove{uuid()}; }, "07000000 01000000 10000000 00010203 04050607 08090a0b 0c0d0e0f", 0,
     [] { return Done{}; }, "07000000 05000000 08000000 00000000 00000000", 0},
    {[] { return SharedObjectLookup{uuid()}; }, "08000000 01000000 10000000 00010203 04050607 08090a0b 0c0d0e0f", 0,
     [] { return SharedObject{some_fd()}; }, "08000000 05000000 08000000 00000000 00000000", 1},
    {[] { return ShmemMap{.range = {7, 0x10, 0x20, 0x30, 1}, .fd = some_fd()}; },
     "09000000 01000000 28000000 07000000 00000000"
     "10000000 00000000 20000000 00000000 30000000 00000000 01000000 00000000", 1,
     [] { return Done{}; }, "09000000 05000000 08000000 00000000 00000000", 0},
    {[] { return ShmemUnmap{.range = {7, 0x10, 0x20, 0x30, 0}}; },
     "0a000000 01000000 28000000 07000000 00000000"
     "10000000 00000000 20000000 00000000 30000000 00000000 00000000 00000000", 0,
     [] { return Done{}; }, "0a000000 05000000 08000000 00000000 00000000", 0},
};

// clang-format on

template <class Request>
void check_request(const Golden<Request>& golden) {
  const Bytes expected = from_hex(golden.request_bytes);
  Result<Frame> frame = encode<Request>(golden.request(), &back_channel);
  ASSERT_TRUE(frame) << frame.error().to_string();
  EXPECT_EQ(to_hex(bytes_of(*frame)), to_hex(expected));
  EXPECT_EQ(frame->fds.size(), golden.request_fds);

  Result<Request> decoded = decode<Request>(frame_of(expected, some_fds(golden.request_fds)), &back_channel);
  ASSERT_TRUE(decoded) << decoded.error().to_string();
  EXPECT_EQ(decoded->index(), golden.request().index());
  Result<Frame> again = encode<Request>(*std::move(decoded), &back_channel);
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(to_hex(bytes_of(*again)), to_hex(expected));
  EXPECT_EQ(again->fds.size(), golden.request_fds);
}

template <class Request>
void check_reply(const Golden<Request>& golden) {
  const Request request = golden.request();
  const Message& message = messages<Request>[request.index()];
  const Bytes expected = from_hex(golden.reply_bytes);
  Result<Frame> frame = encode_reply<Request>(message, golden.reply());
  ASSERT_TRUE(frame) << frame.error().to_string();
  EXPECT_EQ(to_hex(bytes_of(*frame)), to_hex(expected));
  EXPECT_EQ(frame->fds.size(), golden.reply_fds);

  auto decoded =
      decode_reply<Request>(message, asked(request), frame_of(expected, some_fds(golden.reply_fds)));
  ASSERT_TRUE(decoded) << decoded.error().to_string();
  EXPECT_EQ(decoded->index(), golden.reply().index());
  Result<Frame> again = encode_reply<Request>(message, *std::move(decoded));
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(to_hex(bytes_of(*again)), to_hex(expected));
  EXPECT_EQ(again->fds.size(), golden.reply_fds);
}

template <class Request>
void check_all(const std::vector<Golden<Request>>& all) {
  ASSERT_EQ(all.size(), std::variant_size_v<Request>);
  for (size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(catalogue<Request>[i].name);
    ASSERT_EQ(all[i].request().index(), i);
    check_request(all[i]);
    if (all[i].reply) check_reply(all[i]);
  }
}

TEST(Codec, every_front_end_message_has_exactly_the_bytes_of_the_specification) {
  check_all(device_messages);
}
TEST(Codec, every_back_end_message_has_exactly_the_bytes_of_the_specification) {
  check_all(front_end_messages);
}

TEST(Codec, a_shmem_config_reply_has_256_sizes) {
  const Message& message = *find_message<DeviceRequest>(44);
  ShmemConfig config{.regions = 2};
  config.sizes[0] = 0x1000;
  config.sizes[255] = 0x2000;
  Result<Frame> frame = encode_reply<DeviceRequest>(message, config);
  ASSERT_TRUE(frame);
  ASSERT_EQ(frame->payload.size(), 2056U);
  EXPECT_EQ(to_hex(std::span(frame->payload).first(16)), "02000000 00000000 00100000 00000000");
  EXPECT_EQ(to_hex(std::span(frame->payload).last(8)), "00200000 00000000");
  auto decoded = decode_reply<DeviceRequest>(message, {}, *std::move(frame));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(std::get<ShmemConfig>(*decoded).sizes, config.sizes);
  EXPECT_EQ(std::get<ShmemConfig>(*decoded).regions, 2U);
}

TEST(Codec, fields_of_a_decoded_message_are_those_of_the_bytes) {
  auto decoded = decode<DeviceRequest>(
      frame_of(from_hex("09000000 01000000 28000000 03000000 01000000"
                        "10000000 00000000 20000000 00000000 30000000 00000000 40000000 00000000")));
  ASSERT_TRUE(decoded);
  const auto& address = std::get<SetVringAddr>(*decoded);
  EXPECT_EQ(address.ring, 3U);
  EXPECT_EQ(address.flags, 1U);
  EXPECT_EQ(address.desc, 0x10U);
  EXPECT_EQ(address.used, 0x20U);
  EXPECT_EQ(address.avail, 0x30U);
  EXPECT_EQ(address.log, 0x40U);
}

// ---- other forms of the same messages

TEST(Codec, a_log_base_without_LOG_SHMFD_is_one_number) {
  auto decoded = decode<DeviceRequest>(frame_of(from_hex("06000000 01000000 08000000 00200000 00000000")));
  ASSERT_TRUE(decoded);
  const auto& log = std::get<SetLogBase>(*decoded);
  EXPECT_EQ(log.offset, 0x2000U);
  EXPECT_EQ(log.size, 0U);
  EXPECT_FALSE(log.fd);
  auto again = encode<DeviceRequest>(SetLogBase{.offset = 0x2000});
  ASSERT_TRUE(again);
  EXPECT_EQ(to_hex(again->payload), "00200000 00000000");
}

TEST(Codec, a_log_base_of_16_bytes_without_a_file_is_accepted_as_QEMU_sends_it) {
  auto decoded = decode<DeviceRequest>(
      frame_of(from_hex("06000000 01000000 10000000 00100000 00000000 00200000 00000000")));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(std::get<SetLogBase>(*decoded).size, 0x1000U);
}

TEST(Codec, a_log_of_this_process_cannot_be_sent) {
  EXPECT_FALSE(encode<DeviceRequest>(
      SetLogBase{.size = 0x1000, .origin = MemoryRegion::Origin::own_process, .front_end = {0x2000}}));
}

TEST(Codec, a_log_base_reply_may_be_empty_as_DPDK_sends_it) {
  EXPECT_TRUE(decode_reply<DeviceRequest>(*find_message<DeviceRequest>(6), {},
                                          frame_of(from_hex("06000000 05000000 00000000"))));
}

TEST(Codec, H095_an_empty_memory_table_is_accepted) {
  auto decoded = decode<DeviceRequest>(frame_of(from_hex("05000000 01000000 08000000 00000000 00000000")));
  ASSERT_TRUE(decoded);
  EXPECT_TRUE(std::get<SetMemTable>(*decoded).regions.empty());
}

TEST(Codec, a_memory_table_with_room_to_spare_is_accepted_as_user_mode_linux_sends_it) {
  Frame frame = empty_frame(5);
  frame.payload.resize(8 + 2 * 32);
  frame.payload[0] = std::byte{1};
  frame.fds = some_fds(1);
  auto decoded = decode<DeviceRequest>(std::move(frame));
  ASSERT_TRUE(decoded) << decoded.error().to_string();
  EXPECT_EQ(std::get<SetMemTable>(*decoded).regions.size(), 1U);
}

TEST(Codec, H097_a_memory_table_that_is_shorter_than_its_number_of_regions_is_refused) {
  for (const uint8_t count : {2, 8, 9, 255}) {
    Frame frame = empty_frame(5);
    frame.payload.resize(8 + 32);
    frame.payload[0] = std::byte{count};
    frame.fds = some_fds(2);
    auto decoded = decode<DeviceRequest>(std::move(frame));
    ASSERT_FALSE(decoded);
    EXPECT_THAT(decoded.error().to_string(),
                HasSubstr("SET_MEM_TABLE: payload is too short for its number of regions"));
  }
}

TEST(Codec, N014_nine_regions_are_refused) {
  Frame frame = empty_frame(5);
  frame.payload.resize(8 + 9 * 32);
  frame.payload[0] = std::byte{9};
  frame.fds = some_fds(8);
  auto decoded = decode<DeviceRequest>(std::move(frame));
  ASSERT_FALSE(decoded);
  EXPECT_THAT(decoded.error().to_string(), HasSubstr("at most 8 regions (296"));
}

TEST(Codec, N092_regions_and_files_keep_their_order) {
  SetMemTable table;
  std::vector<int> numbers;
  for (uint64_t i = 1; i <= 8; ++i) {
    table.regions.push_back({.layout = some_layout(i), .fd = some_fd()});
    numbers.push_back(table.regions.back().fd.get());
  }
  auto frame = encode<DeviceRequest>(std::move(table));
  ASSERT_TRUE(frame);
  auto decoded = decode<DeviceRequest>(*std::move(frame));
  ASSERT_TRUE(decoded);
  const auto& regions = std::get<SetMemTable>(*decoded).regions;
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(regions[i].fd.get(), numbers[i]);
    EXPECT_EQ(regions[i].layout, some_layout(i + 1));
  }
}

TEST(Codec, H119_a_region_with_the_fields_of_XEN_MMAP_is_a_size_mismatch) {
  Frame frame = empty_frame(37);
  frame.payload.resize(48);
  frame.fds = some_fds(1);
  auto decoded = decode<DeviceRequest>(std::move(frame));
  ASSERT_FALSE(decoded);
  EXPECT_THAT(decoded.error().to_string(), HasSubstr("ADD_MEM_REG: payload must be 40 bytes (48"));
}

TEST(Codec, N008_a_ring_address_with_the_size_field_of_the_older_text_is_refused) {
  for (const size_t size : {44, 48}) {
    Frame frame = empty_frame(9);
    frame.payload.resize(size);
    EXPECT_FALSE(decode<DeviceRequest>(std::move(frame)));
  }
}

TEST(Codec, H062_undefined_bits_beside_a_ring_index_are_refused) {
  for (const uint32_t id : {12, 13, 14}) {
    for (const uint64_t value : {0x200ULL, 0x10000ULL, 0xffffffffULL, 1ULL << 63}) {
      Frame frame = u64_frame(id, version, value);
      frame.fds = some_fds(1);
      auto decoded = decode<DeviceRequest>(std::move(frame));
      ASSERT_FALSE(decoded) << id << " " << value;
      EXPECT_THAT(decoded.error().to_string(), HasSubstr("undefined bits are set"));
    }
  }
}

TEST(Codec, H064_a_kick_without_a_file_and_without_bit_8_is_refused) {
  for (const uint32_t id : {12, 13, 14}) {
    auto decoded = decode<DeviceRequest>(u64_frame(id, version, 1));
    ASSERT_FALSE(decoded);
    EXPECT_THAT(decoded.error().to_string(), HasSubstr("a file descriptor is missing"));
  }
}

TEST(Codec, a_kick_with_a_file_and_with_bit_8_is_refused) {
  const size_t before = open_fds();
  Frame frame = u64_frame(12, version, 0x101);
  frame.fds = some_fds(1);
  auto decoded = decode<DeviceRequest>(std::move(frame));
  ASSERT_FALSE(decoded);
  EXPECT_THAT(decoded.error().to_string(),
              HasSubstr("SET_VRING_KICK: more file descriptors came than it takes"));
  EXPECT_EQ(open_fds(), before);
}

TEST(Codec, H112_one_file_with_REM_MEM_REG_is_closed_unused_and_two_are_refused) {
  const size_t before = open_fds();
  for (const size_t count : {0, 1, 2}) {
    Frame frame = empty_frame(38);
    frame.payload.resize(40);
    frame.fds = some_fds(count);
    EXPECT_EQ(decode<DeviceRequest>(std::move(frame)).has_value(), count < 2);
    EXPECT_EQ(open_fds(), before);
  }
}

TEST(Codec, H113_padding_of_a_region_is_not_looked_at) {
  Frame frame = empty_frame(37);
  frame.payload.resize(40, std::byte{0xff});
  frame.fds = some_fds(1);
  EXPECT_TRUE(decode<DeviceRequest>(std::move(frame)));
}

TEST(Codec, H085_the_reserved_number_of_GET_VRING_BASE_is_not_looked_at) {
  EXPECT_TRUE(decode<DeviceRequest>(state_frame(11, version, 0, 1)));
}

TEST(Codec, H148_a_config_size_that_disagrees_with_the_payload_is_refused) {
  for (const uint32_t id : {24, 25}) {
    for (const uint32_t size : {0U, 3U, 5U, 256U, 0xffffffffU}) {
      Frame frame = empty_frame(id);
      frame.payload.resize(16);
      std::memcpy(frame.payload.data() + 4, &size, sizeof size);
      auto decoded = decode<DeviceRequest>(std::move(frame));
      ASSERT_FALSE(decoded);
      EXPECT_THAT(decoded.error().to_string(), HasSubstr("size field does not match the payload"));
    }
  }
}

TEST(Codec, H158_IOTLB_types_of_the_other_direction_and_unknown_ones_are_refused) {
  for (const uint8_t type : {0, 1, 2, 3, 4, 5, 255}) {
    Frame update = empty_frame(22);
    update.payload.resize(32);
    update.payload[25] = std::byte{type};
    EXPECT_EQ(decode<DeviceRequest>(std::move(update)).has_value(), type == 2 || type == 3);
    Frame miss = empty_frame(1);
    miss.payload.resize(32);
    miss.payload[25] = std::byte{type};
    EXPECT_EQ(decode<FrontEndRequest>(std::move(miss)).has_value(), type == 1 || type == 4);
  }
}

TEST(Codec, SET_BACKEND_REQ_FD_is_refused_where_there_is_no_back_end_channel) {
  const size_t before = open_fds();
  Frame frame = empty_frame(21);
  frame.fds = some_fds(1);
  EXPECT_FALSE(decode<DeviceRequest>(std::move(frame), nullptr));
  EXPECT_EQ(open_fds(), before);
}

// ---- every size, every number of files

template <class Request>
void check_sizes() {
  for (const Message& message : messages<Request>) {
    const char* const name = message_name<Request>(message.id);
    const SizeRule rule = size_rule(message.request);
    for (size_t size = 0; size <= rule.max + 40; ++size) {
      if (rule.allows(size)) continue;
      Frame frame = empty_frame(message.id);
      frame.payload.resize(size);
      frame.fds = some_fds(fd_rule(message.fds).min);
      auto decoded = decode<Request>(std::move(frame), &back_channel);
      ASSERT_FALSE(decoded) << name << " accepted " << size;
      EXPECT_EQ(decoded.error().fault, Fault::violation);
      EXPECT_THAT(decoded.error().to_string(), HasSubstr(fmt::format("{}: payload must be", name)));
      EXPECT_EQ(decoded.error().value, size);
    }
  }
}

TEST(Codec, H007_H008_every_wrong_payload_size_is_an_error_with_name_and_reason) {
  const size_t before = open_fds();
  check_sizes<DeviceRequest>();
  check_sizes<FrontEndRequest>();
  EXPECT_EQ(open_fds(), before);
}

template <class Request>
void check_fd_counts(const std::vector<Golden<Request>>& all) {
  for (const Golden<Request>& golden : all) {
    const Bytes bytes = from_hex(golden.request_bytes);
    const Message& message = messages<Request>[golden.request().index()];
    for (size_t count = 0; count <= max_fds; ++count) {
      const bool good = count == golden.request_fds || (message.fds == Fds::stray && count == 1) ||
                        (message.fds == Fds::log && count == 0);
      const size_t before = open_fds();
      {
        auto decoded = decode<Request>(frame_of(bytes, some_fds(count)), &back_channel);
        ASSERT_EQ(decoded.has_value(), good) << message_name<Request>(message.id) << " with " << count;
        if (decoded) continue;
        EXPECT_EQ(decoded.error().fault, Fault::violation);
        EXPECT_THAT(decoded.error().to_string(), HasSubstr("file descriptor"));
        EXPECT_STREQ(decoded.error().subject, message_name<Request>(message.id));
      }
      EXPECT_EQ(open_fds(), before);
    }
  }
}

TEST(Codec, H020_H022_every_wrong_number_of_files_is_refused_and_all_are_closed) {
  check_fd_counts(device_messages);
  check_fd_counts(front_end_messages);
}

TEST(Codec, H013_unknown_message_numbers_are_refused) {
  for (const uint32_t id : {0U, 46U, 1000U, 0x7fffffffU, 0xffffffffU}) {
    auto decoded = decode<DeviceRequest>(empty_frame(id));
    ASSERT_FALSE(decoded);
    EXPECT_EQ(decoded.error().fault, Fault::violation);
  }
  for (const uint32_t id : {0U, 11U, 1002U, 0xffffffffU})
    EXPECT_FALSE(decode<FrontEndRequest>(empty_frame(id)));
}

// ---- what cannot be sent

TEST(Codec, what_the_protocol_cannot_carry_is_refused_before_it_is_sent) {
  SetMemTable table;
  for (uint64_t i = 1; i <= 9; ++i) table.regions.push_back({.layout = some_layout(i), .fd = some_fd()});
  EXPECT_FALSE(encode<DeviceRequest>(std::move(table)));
  EXPECT_FALSE(encode<DeviceRequest>(SetVringKick{.ring = 256, .fd = some_fd()}));
  EXPECT_FALSE(encode<DeviceRequest>(SetConfig{{.bytes = Bytes(257)}}));
  EXPECT_FALSE(encode<DeviceRequest>(GetConfig{.size = 257}));
  EXPECT_FALSE(encode<DeviceRequest>(GetConfig{.size = 0xffffffff}));
  EXPECT_FALSE(encode<DeviceRequest>(CreateCryptoSession{{.bytes = Bytes(max_payload + 1)}}));
  EXPECT_FALSE(encode<DeviceRequest>(SetLogFd{}));
  EXPECT_FALSE(encode<DeviceRequest>(SetFrontEnd{}));
}

// ---- refusals and hostile replies

template <class Request>
std::string refusal_of(uint32_t id) {
  const std::optional<Frame> frame = encode_refusal<Request>(*find_message<Request>(id));
  if (!frame) return "close";
  EXPECT_TRUE(frame->fds.empty());
  EXPECT_EQ(frame->header,
            (Header{.request = id, .flags = version | reply_flag, .size = uint32_t(frame->payload.size())}));
  return to_hex(frame->payload);
}

TEST(Codec, every_message_has_a_refusal_or_closes) {
  const std::string no = "01000000 00000000";
  const std::map<uint32_t, std::string> own = {
      {1, "close"},
      {11, "close"},
      {15, "close"},
      {17, "close"},
      {26, "close"},
      {36, "close"},
      {40, "close"},
      {44, "close"},
      {45, "close"},
      {24, ""},                                                       // GET_CONFIG: nothing
      {28, ""},                                                       // POSTCOPY_ADVISE: no file
      {31, "00000000 00000000 00000000 00000000 00000000 00000000"},  // GET_INFLIGHT_FD: no file, size 0
      {41, ""},                                                       // GET_SHARED_OBJECT: no file
      {42, "01010000 00000000"},  // SET_DEVICE_STATE_FD: an error, and no file
      {43, no},
  };
  for (uint32_t id = 1; id <= 45; ++id) {
    EXPECT_EQ(refusal_of<DeviceRequest>(id), own.contains(id) ? own.at(id) : no)
        << message_name<DeviceRequest>(id);
  }
  for (uint32_t id = 1; id <= 10; ++id) EXPECT_EQ(refusal_of<FrontEndRequest>(id), no);
}

template <class Request>
void check_refusals_are_understood() {
  for (const Message& message : messages<Request>) {
    std::optional<Frame> frame = encode_refusal<Request>(message);
    if (!frame || message.id == 42 || message.id == 43) continue;  // whose values say it
    auto reply = decode_reply<Request>(message, {.config_size = 4}, *std::move(frame));
    if (std::is_same_v<Request, DeviceRequest> ? message.id == 41 : message.id == 8) {
      ASSERT_TRUE(reply);  // no object is an answer
      continue;
    }
    ASSERT_FALSE(reply) << message_name<Request>(message.id);
    EXPECT_EQ(reply.error().fault, Fault::refused);
    EXPECT_STREQ(reply.error().subject, message_name<Request>(message.id));
  }
}

TEST(Codec, every_refusal_is_understood_by_the_asker) {
  check_refusals_are_understood<DeviceRequest>();
  check_refusals_are_understood<FrontEndRequest>();
}

template <class Request>
void check_reply_sizes() {
  for (const Message& message : messages<Request>) {
    const SizeRule rule = size_rule(message.reply_payload);
    for (size_t size = 0; size <= rule.max + 16; ++size) {
      if (rule.allows(size)) continue;
      Frame frame = empty_frame(message.id, version | reply_flag);
      frame.payload.resize(size);
      auto reply = decode_reply<Request>(message, {}, std::move(frame));
      ASSERT_FALSE(reply) << message_name<Request>(message.id) << " accepted a reply of " << size;
      EXPECT_EQ(reply.error().fault, Fault::violation);
    }
  }
}

TEST(Codec, H329_replies_of_every_wrong_size_are_violations) {
  check_reply_sizes<DeviceRequest>();
  check_reply_sizes<FrontEndRequest>();
}

TEST(Codec, H331_files_with_replies_that_carry_none_are_violations_and_closed) {
  const size_t before = open_fds();
  for (const Message& message : messages<DeviceRequest>) {
    Frame frame = empty_frame(message.id, version | reply_flag);
    frame.payload.resize(size_rule(message.reply_payload).min);
    frame.fds = some_fds(message.reply_fd ? 2 : 1);
    EXPECT_FALSE(decode_reply<DeviceRequest>(message, {}, std::move(frame)));
  }
  EXPECT_EQ(open_fds(), before);
}

TEST(Codec, H335_a_config_reply_must_be_what_was_asked_for) {
  const Message& message = *find_message<DeviceRequest>(24);
  const Asked asked_for{.config_offset = 4, .config_size = 8};
  const auto answer = [&](uint32_t offset, size_t size) {
    auto frame = encode_reply<DeviceRequest>(message, ConfigBytes{.offset = offset, .bytes = Bytes(size)});
    return decode_reply<DeviceRequest>(message, asked_for, *std::move(frame));
  };
  EXPECT_TRUE(answer(4, 8));
  EXPECT_EQ(answer(4, 9).error().fault, Fault::violation);
  EXPECT_EQ(answer(4, 7).error().fault, Fault::violation);
  EXPECT_EQ(answer(0, 8).error().fault, Fault::violation);
}

TEST(Codec, a_ring_state_of_another_ring_is_a_violation) {
  const Message& message = *find_message<DeviceRequest>(11);
  EXPECT_TRUE(decode_reply<DeviceRequest>(message, {.ring = 1}, state_frame(11, 5, 1, 7)));
  EXPECT_FALSE(decode_reply<DeviceRequest>(message, {.ring = 1}, state_frame(11, 5, 2, 7)));
}

TEST(Codec, a_state_channel_reply_with_an_error_and_a_file_is_a_violation) {
  const Message& message = *find_message<DeviceRequest>(42);
  const auto answer = [&](uint64_t value, size_t fds) {
    Frame frame = u64_frame(42, 5, value);
    frame.fds = some_fds(fds);
    return decode_reply<DeviceRequest>(message, {}, std::move(frame));
  };
  EXPECT_TRUE(answer(0x100, 0));
  EXPECT_TRUE(answer(0, 1));
  EXPECT_TRUE(answer(0x101, 0));
  EXPECT_FALSE(answer(0, 0));      // promises a file
  EXPECT_FALSE(answer(1, 1));      // error and file
  EXPECT_FALSE(answer(0x100, 1));  // a file after all
}

TEST(Codec, in_postcopy_memory_is_answered_by_the_back_ends_addresses) {
  const Message& table_message = *find_message<DeviceRequest>(5);
  auto table = encode_reply<DeviceRequest>(table_message, MemoryTable{{{{0x11}, 0x22, {0x33}, 0x44}}});
  ASSERT_TRUE(table);
  EXPECT_EQ(to_hex(bytes_of(*table)),
            "05000000 05000000 28000000 01000000 00000000 11000000 00000000 22000000 00000000 33000000 "
            "00000000 44000000 00000000");
  auto decoded = decode_reply<DeviceRequest>(table_message, {}, *std::move(table));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(std::get<MemoryTable>(*decoded).regions.at(0).front_end.value, 0x33U);

  const Message& region_message = *find_message<DeviceRequest>(37);
  auto region = encode_reply<DeviceRequest>(region_message, MemoryTable{{{{0x11}, 0x22, {0x33}, 0x44}}});
  ASSERT_TRUE(region);
  EXPECT_EQ(region->payload.size(), 40U);
  auto one = decode_reply<DeviceRequest>(region_message, {}, *std::move(region));
  ASSERT_TRUE(one);
  EXPECT_EQ(std::get<MemoryTable>(*one).regions.at(0).file_offset, 0x44U);

  Frame lies = empty_frame(5, 5);
  lies.payload.resize(40);
  lies.payload[0] = std::byte{2};
  EXPECT_FALSE(decode_reply<DeviceRequest>(table_message, {}, std::move(lies)));
}

}  // namespace
}  // namespace ringway::user
