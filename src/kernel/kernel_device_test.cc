#include "ringway/kernel/kernel_device.h"

#include <gmock/gmock.h>
#include <linux/virtio_config.h>
#include <sys/socket.h>

#include <condition_variable>
#include <mutex>

#include "ringway/kernel/fake_kernel_test.h"
#include "ringway/memory/file_test.h"
#include "ringway/vhost/recorder_test.h"

namespace ringway::kernel {
namespace {

using memory::copy_of;
using memory::layout_at;
using memory::test_file;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using vhost::bit;
using vhost::call;

constexpr uint64_t guest_base = 0x4000'0000;
constexpr uint64_t memory_size = 0x10'0000;
constexpr uint64_t front_end_base = guest_base + 0x7f00'0000'0000;  // as layout_at() has it
constexpr uint64_t bit30 = bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES);

UniqueFd packet_socket() { return UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)); }

struct Rig {
  testing::Kernel kernel;
  std::unique_ptr<KernelDevice> device;
  UniqueFd memory = test_file(memory_size);
  UniqueFd kick = std::move(make_eventfd().value());

  explicit Rig(Result<std::unique_ptr<Endpoint>> endpoint, uint64_t features = bit(VIRTIO_F_VERSION_1)) {
    kernel.features = features;
    auto opened = KernelDevice::open(std::make_unique<testing::FakeFile>(kernel), *std::move(endpoint), 4);
    EXPECT_TRUE(opened) << opened.error().to_string();
    if (opened) device = *std::move(opened);
    kernel.forget();
  }

  template <class T>
  auto ask(T request) {
    return call(*device, std::move(request));
  }

  Result<vhost::Done> share(uint64_t guest = guest_base, uint64_t size = memory_size) {
    vhost::SetMemTable table;
    table.regions.push_back({.layout = layout_at(guest, size), .fd = copy_of(memory)});
    return ask(std::move(table));
  }

  // All but the kick and the enabling.
  void describe(uint32_t ring) {
    ASSERT_TRUE(ask(vhost::SetVringNum{ring, 256}));
    ASSERT_TRUE(ask(vhost::SetVringBase{ring, 7}));
    ASSERT_TRUE(ask(addresses(ring)));
  }
  static vhost::SetVringAddr addresses(uint32_t ring, uint32_t flags = 0, uint64_t log = 0) {
    const uint64_t at = front_end_base + 0x10000 + ring * 0x10000;
    return {.ring = ring, .flags = flags, .desc = at, .used = at + 0x4000, .avail = at + 0x2000, .log = log};
  }
  Result<vhost::Done> start(uint32_t ring) {
    TRY(ask(vhost::SetVringKick{ring, copy_of(kick)}));
    return ask(vhost::SetVringEnable{ring, 1});
  }
  void run(uint32_t ring) {
    describe(ring);
    const auto started = start(ring);
    ASSERT_TRUE(started) << started.error().to_string();
  }
  bool was_kicked() {
    const auto signal = Signal::adopt(copy_of(kick));
    return signal->take();
  }
};

Result<std::unique_ptr<Endpoint>> net() { return net_endpoint(packet_socket()); }

// ---- rings

TEST(KernelDevice, ARingIsDescribedInOrderAndThenStarted) {
  Rig rig(net());
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{bit(VIRTIO_F_VERSION_1) | bit30}));
  ASSERT_TRUE(rig.share());
  rig.kernel.forget();
  rig.run(0);
  EXPECT_THAT(rig.kernel.asked,
              ElementsAre("SET_VRING_NUM 0 256", "SET_VRING_BASE 0 7", "SET_VRING_ENDIAN 0 0",
                          "SET_VRING_ADDR 0", "SET_VRING_CALL 0 none", "SET_VRING_ERR 0 none",
                          "SET_VRING_KICK 0 fd", "NET_SET_BACKEND 0 fd"));
  EXPECT_TRUE(rig.was_kicked());
}

TEST(KernelDevice, NothingStartsBeforeTheRingIsCompleteAndEnabled) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.kernel.forget();
  rig.describe(0);
  ASSERT_TRUE(rig.ask(vhost::SetVringEnable{0, 1}));
  EXPECT_THAT(rig.kernel.asked, IsEmpty());
  ASSERT_TRUE(rig.ask(vhost::SetVringEnable{0, 0}));
  ASSERT_TRUE(rig.ask(vhost::SetVringKick{0, copy_of(rig.kick)}));
  EXPECT_THAT(rig.kernel.asked, IsEmpty());
  EXPECT_FALSE(rig.was_kicked());
}

TEST(KernelDevice, WithoutProtocolFeaturesAKickStartsTheRing) {
  Rig rig(net());
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{bit(VIRTIO_F_VERSION_1)}));
  ASSERT_TRUE(rig.share());
  rig.describe(0);
  ASSERT_TRUE(rig.ask(vhost::SetVringKick{0, copy_of(rig.kick)}));
  EXPECT_THAT(rig.kernel.asked, Contains("NET_SET_BACKEND 0 fd"));
}

TEST(KernelDevice, GetVringBaseStopsTheRingAndThenReads) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.run(0);
  rig.run(1);
  rig.kernel.bases[0] = 99;
  rig.kernel.forget();
  EXPECT_EQ(rig.ask(vhost::GetVringBase{0})->value, 99U);
  EXPECT_THAT(rig.kernel.asked,
              ElementsAre("NET_SET_BACKEND 0 none", "SET_VRING_KICK 0 none", "GET_VRING_BASE 0"));
}

TEST(KernelDevice, ARingThatNeverRanHasTheBaseItWasGiven) {
  Rig rig(net());
  rig.describe(1);
  EXPECT_EQ(rig.ask(vhost::GetVringBase{1})->value, 7U);
}

TEST(KernelDevice, ADisabledRingGoesOnWhereItWas) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.run(0);
  rig.kernel.bases[0] = 40;
  ASSERT_TRUE(rig.ask(vhost::SetVringEnable{0, 0}));
  EXPECT_THAT(rig.kernel.asked, Contains("NET_SET_BACKEND 0 none"));
  rig.kernel.forget();
  ASSERT_TRUE(rig.ask(vhost::SetVringEnable{0, 1}));
  EXPECT_THAT(rig.kernel.asked, Contains("SET_VRING_BASE 0 40"));
}

// vhost-user "Ring states": what is transmitted on a disabled ring is processed and discarded.
TEST(KernelDevice, ADisabledTransmitRingRunsIntoNowhere) {
  UniqueFd socket = packet_socket();
  struct stat status{};
  ASSERT_EQ(::fstat(socket.get(), &status), 0);
  const ino_t real = status.st_ino;
  Rig rig(net_endpoint(std::move(socket)));
  if (!rig.device->shape().discarding[1]) GTEST_SKIP() << "packet sockets are not allowed here";
  ASSERT_TRUE(rig.share());
  rig.describe(1);
  ASSERT_TRUE(rig.ask(vhost::SetVringKick{1, copy_of(rig.kick)}));
  EXPECT_NE(rig.kernel.backends[1], 0U);
  EXPECT_NE(rig.kernel.backends[1], real);
  ASSERT_TRUE(rig.ask(vhost::SetVringEnable{1, 1}));
  EXPECT_EQ(rig.kernel.backends[1], real);
  rig.kernel.forget();
  ASSERT_TRUE(rig.ask(vhost::SetVringEnable{1, 0}));
  EXPECT_NE(rig.kernel.backends[1], real);
  EXPECT_THAT(rig.kernel.asked, ElementsAre("NET_SET_BACKEND 1 fd")) << "and goes on";
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{bit(VIRTIO_F_VERSION_1)}));
  EXPECT_EQ(rig.kernel.backends[1], real) << "without bit 30 all rings are enabled";
  ASSERT_TRUE(rig.ask(vhost::GetVringBase{1}));
  EXPECT_EQ(rig.kernel.backends[1], 0U);
}

TEST(KernelDevice, AStartThatFailsIsTakenBackAndMayBeTriedAgain) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.describe(0);
  rig.kernel.failures[VHOST_NET_SET_BACKEND] = EBADFD;
  const auto failed = rig.start(0);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().os_error, EBADFD);
  EXPECT_EQ(rig.kernel.asked.back(), "SET_VRING_KICK 0 none");
  EXPECT_FALSE(rig.was_kicked());
  rig.kernel.failures.clear();
  EXPECT_TRUE(rig.start(0));
}

TEST(KernelDevice, ARingOutsideTheMemoryTableIsRefused) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.describe(0);
  auto outside = Rig::addresses(0);
  outside.used = front_end_base + memory_size - 0x10;
  ASSERT_TRUE(rig.ask(vhost::SetVringAddr(outside)));
  EXPECT_FALSE(rig.start(0));
  EXPECT_THAT(rig.kernel.asked, Not(Contains("NET_SET_BACKEND 0 fd")));
}

TEST(KernelDevice, KicksAreEventfdsAndNothingElse) {
  Rig rig(net());
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const UniqueFd writing(ends[1]);
  EXPECT_FALSE(rig.ask(vhost::SetVringKick{0, UniqueFd(ends[0])}));
}

TEST(KernelDevice, ARingWithoutAKickIsKickedFromHere) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.describe(0);
  ASSERT_TRUE(rig.ask(vhost::SetVringKick{.ring = 0}));
  ASSERT_TRUE(rig.ask(vhost::SetVringEnable{0, 1}));
  EXPECT_THAT(rig.kernel.asked, Contains("SET_VRING_KICK 0 fd"));
  EXPECT_EQ(rig.kernel.asked.back(), "NET_SET_BACKEND 0 fd");
}

TEST(KernelDevice, CallsAreToldAtOnceSoThatAWrongOneIsKnown) {
  Rig rig(net());
  ASSERT_TRUE(rig.ask(vhost::SetVringCall{0, vhost::testing::some_fd()}));
  EXPECT_THAT(rig.kernel.asked, ElementsAre("SET_VRING_CALL 0 fd"));
  rig.kernel.failures[VHOST_SET_VRING_CALL] = EINVAL;
  EXPECT_FALSE(rig.ask(vhost::SetVringCall{0, vhost::testing::some_fd()}));
}

TEST(KernelDevice, EverythingIsStoppedAtTheEnd) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.run(0);
  rig.kernel.forget();
  rig.device.reset();
  EXPECT_THAT(rig.kernel.asked, Contains("NET_SET_BACKEND 0 none"));
}

TEST(KernelDevice, AResetForgetsTheRings) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.run(0);
  ASSERT_TRUE(rig.ask(vhost::ResetDevice{}));
  EXPECT_THAT(rig.kernel.asked, Contains("NET_SET_BACKEND 0 none"));
  rig.kernel.forget();
  ASSERT_TRUE(rig.start(0));
  EXPECT_THAT(rig.kernel.asked, IsEmpty());
}

// ---- memory

TEST(KernelDevice, TheKernelIsGivenOurOwnPointers) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.run(0);
  ASSERT_EQ(rig.kernel.memory.size(), 1U);
  EXPECT_EQ(rig.kernel.memory[0].guest_phys_addr, guest_base);
  EXPECT_EQ(rig.kernel.memory[0].memory_size, memory_size);
  const uint64_t ours = rig.kernel.memory[0].userspace_addr;
  EXPECT_NE(ours, front_end_base);
  EXPECT_EQ(rig.kernel.addresses[0].desc_user_addr, ours + 0x10000);
  EXPECT_EQ(rig.kernel.addresses[0].avail_user_addr, ours + 0x12000);
  EXPECT_EQ(rig.kernel.addresses[0].used_user_addr, ours + 0x14000);
  // And they are the front-end's memory.
  const char word[] = "through the file";
  ASSERT_EQ(::pwrite(rig.memory.get(), word, sizeof word, 0x10000), static_cast<ssize_t>(sizeof word));
  EXPECT_STREQ(reinterpret_cast<const char*>(ours + 0x10000), word);
}

TEST(KernelDevice, MemoryOfOurOwnProcessIsNotMappedAgain) {
  Rig rig(net());
  const Mapping own = *Mapping::anonymous(memory_size);
  vhost::MemoryRegion region{.layout = layout_at(guest_base, memory_size),
                             .origin = vhost::MemoryRegion::Origin::own_process};
  region.layout.front_end = {reinterpret_cast<uintptr_t>(own.data())};
  ASSERT_TRUE(rig.ask(vhost::AddMemReg{std::move(region)}));
  EXPECT_EQ(rig.kernel.memory.at(0).userspace_addr, reinterpret_cast<uintptr_t>(own.data()));
}

TEST(KernelDevice, ANewMemoryTableUnderARingStopsItAndStartsItThere) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.run(0);
  const uint64_t before = rig.kernel.memory[0].userspace_addr;
  rig.kernel.bases[0] = 50;
  rig.kernel.forget();
  ASSERT_TRUE(rig.share());
  EXPECT_THAT(rig.kernel.asked,
              ElementsAre("NET_SET_BACKEND 0 none", "SET_VRING_KICK 0 none", "GET_VRING_BASE 0",
                          "SET_MEM_TABLE", "SET_VRING_NUM 0 256", "SET_VRING_BASE 0 50",
                          "SET_VRING_ENDIAN 0 0", "SET_VRING_ADDR 0", "SET_VRING_CALL 0 none",
                          "SET_VRING_ERR 0 none", "SET_VRING_KICK 0 fd", "NET_SET_BACKEND 0 fd"));
  EXPECT_NE(rig.kernel.memory[0].userspace_addr, before);
  EXPECT_EQ(rig.kernel.addresses[0].desc_user_addr, rig.kernel.memory[0].userspace_addr + 0x10000);
}

TEST(KernelDevice, AddedMemoryDoesNotStopRings) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.run(0);
  rig.kernel.forget();
  ASSERT_TRUE(rig.ask(vhost::AddMemReg{{layout_at(0x8000'0000, 0x1000), test_file(0x1000)}}));
  EXPECT_THAT(rig.kernel.asked, ElementsAre("SET_MEM_TABLE"));
  EXPECT_EQ(rig.kernel.memory.size(), 2U);
}

TEST(KernelDevice, ATableThatTheKernelRefusesLeavesTheOldOne) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.run(0);
  rig.kernel.failures[VHOST_SET_MEM_TABLE] = EFAULT;
  rig.kernel.forget();
  EXPECT_FALSE(rig.share());
  EXPECT_EQ(rig.kernel.asked.back(), "NET_SET_BACKEND 0 fd");
  EXPECT_EQ(rig.kernel.addresses[0].desc_user_addr, rig.kernel.memory[0].userspace_addr + 0x10000);
}

TEST(KernelDevice, NoMoreRegionsThanTheKernelTakes) {
  Rig rig(net());
  EXPECT_EQ(*rig.ask(vhost::GetMaxMemSlots{}), 4U);
  for (uint64_t i = 1; i <= 5; ++i) {
    const auto added = rig.ask(vhost::AddMemReg{{layout_at(i << 32, 0x1000), test_file(0x1000)}});
    EXPECT_EQ(added.has_value(), i <= 4) << i;
  }
}

// ---- log

vhost::SetLogBase log_of(uint64_t bytes) { return {.size = bytes, .fd = test_file(bytes)}; }

// 0x40100 pages of 4096 bytes lie below the end of the memory.
constexpr uint64_t log_bytes_needed = (guest_base + memory_size) / 4096 / 8;

TEST(KernelDevice, ALogThatDoesNotCoverTheMemoryIsRefused) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  EXPECT_FALSE(rig.ask(vhost::SetFeatures{bit(VHOST_F_LOG_ALL) | bit30}));
  ASSERT_TRUE(rig.ask(log_of(log_bytes_needed - 1)));
  EXPECT_FALSE(rig.ask(vhost::SetFeatures{bit(VHOST_F_LOG_ALL) | bit30}));
  ASSERT_TRUE(rig.ask(log_of(log_bytes_needed)));
  EXPECT_TRUE(rig.ask(vhost::SetFeatures{bit(VHOST_F_LOG_ALL) | bit30}));
  EXPECT_NE(rig.kernel.log_base, 0U);
}

TEST(KernelDevice, ALogOfOurOwnProcessIsNotMappedAgain) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  const Mapping own = *Mapping::anonymous(log_bytes_needed);
  const uint64_t at = reinterpret_cast<uintptr_t>(own.data());
  ASSERT_TRUE(rig.ask(vhost::SetLogBase{
      .size = log_bytes_needed, .origin = vhost::MemoryRegion::Origin::own_process, .front_end = {at}}));
  EXPECT_EQ(rig.kernel.log_base, at);
  EXPECT_TRUE(rig.ask(vhost::SetFeatures{bit(VHOST_F_LOG_ALL) | bit30}));
}

TEST(KernelDevice, WhileLoggingNeitherLogNorMemoryMayOutgrowTheOther) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  ASSERT_TRUE(rig.ask(log_of(log_bytes_needed)));
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{bit(VHOST_F_LOG_ALL) | bit30}));
  EXPECT_FALSE(rig.ask(log_of(log_bytes_needed - 1)));
  rig.kernel.forget();
  EXPECT_FALSE(rig.share(guest_base + 0x1000'0000));
  EXPECT_FALSE(rig.ask(vhost::AddMemReg{{layout_at(0x8000'0000, 0x1000), test_file(0x1000)}}));
  EXPECT_THAT(rig.kernel.asked, IsEmpty());
}

TEST(KernelDevice, TheLogOfARingLiesInTheLog) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  rig.run(0);
  const uint32_t logged = 1U << VHOST_VRING_F_LOG;
  const uint64_t used_bytes = 6 + 8 * 256;
  EXPECT_FALSE(rig.ask(Rig::addresses(0, logged, 0x1000)));
  ASSERT_TRUE(rig.ask(log_of(log_bytes_needed)));
  EXPECT_TRUE(rig.ask(Rig::addresses(0, logged, guest_base + memory_size - used_bytes)));
  EXPECT_EQ(rig.kernel.addresses[0].log_guest_addr, guest_base + memory_size - used_bytes);
  EXPECT_FALSE(rig.ask(Rig::addresses(0, logged, guest_base + memory_size - used_bytes + 1)));
  EXPECT_FALSE(rig.ask(Rig::addresses(0, logged, UINT64_MAX)));
  EXPECT_TRUE(rig.ask(Rig::addresses(0, 0, UINT64_MAX)));
}

TEST(KernelDevice, AResetTakesLogAllBackFromTheKernelBeforeMemoryMayOutgrowTheLog) {
  Rig rig(net());
  ASSERT_TRUE(rig.share());
  ASSERT_TRUE(rig.ask(log_of(log_bytes_needed)));
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{bit(VHOST_F_LOG_ALL) | bit30}));
  rig.kernel.failures[VHOST_SET_FEATURES] = EFAULT;
  EXPECT_FALSE(rig.ask(vhost::ResetDevice{}));
  EXPECT_FALSE(rig.share(guest_base + 0x1000'0000));
  rig.kernel.failures.clear();
  ASSERT_TRUE(rig.ask(vhost::ResetDevice{}));
  EXPECT_EQ(rig.kernel.set_features & bit(VHOST_F_LOG_ALL), 0U);
  EXPECT_TRUE(rig.share(guest_base + 0x1000'0000));
}

// ---- features

TEST(KernelDevice, Bit27IsNotOfferedAndAsksForHeadersOfASocketWithoutThem) {
  Rig rig(net(), bit(VIRTIO_F_VERSION_1) | bit(VHOST_NET_F_VIRTIO_NET_HDR));
  EXPECT_EQ(*rig.ask(vhost::GetFeatures{}), bit(VIRTIO_F_VERSION_1));
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{bit(VIRTIO_F_VERSION_1) | bit30}));
  EXPECT_EQ(rig.kernel.set_features, bit(VIRTIO_F_VERSION_1) | bit(VHOST_NET_F_VIRTIO_NET_HDR));
}

TEST(KernelDevice, OffersWhatItServes) {
  Rig rig(net());
  const uint64_t offered = rig.ask(vhost::GetProtocolFeatures{})->bits;
  EXPECT_EQ(offered, bit(vhost::VHOST_USER_PROTOCOL_F_MQ) | bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD) |
                         bit(vhost::VHOST_USER_PROTOCOL_F_CROSS_ENDIAN) |
                         bit(vhost::VHOST_USER_PROTOCOL_F_RESET_DEVICE) |
                         bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS));
  EXPECT_FALSE(rig.ask(vhost::GetConfig{.size = 1}));
  EXPECT_FALSE(rig.ask(vhost::GetStatus{}));
  EXPECT_FALSE(rig.ask(vhost::SetStatus{0}));
  EXPECT_EQ(*rig.ask(vhost::GetQueueNum{}), 2U);
}

TEST(KernelDevice, AKernelWithoutLegacyEndianIsNotAskedForIt) {
  testing::Kernel kernel;
  kernel.failures[VHOST_SET_VRING_ENDIAN] = EFAULT;
  auto device = KernelDevice::open(std::make_unique<testing::FakeFile>(kernel), *net(), 4);
  ASSERT_TRUE(device);
  const uint64_t offered = call(**device, vhost::GetProtocolFeatures{})->bits;
  EXPECT_EQ(offered & bit(vhost::VHOST_USER_PROTOCOL_F_CROSS_ENDIAN), 0U);
  EXPECT_FALSE(call(**device, vhost::SetVringEndian{0, 1}));
}

TEST(KernelDevice, AFileThatHasAnOwnerIsRefused) {
  testing::Kernel kernel;
  kernel.failures[VHOST_SET_OWNER] = EBUSY;
  const auto device = KernelDevice::open(std::make_unique<testing::FakeFile>(kernel), *net(), 4);
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().os_error, EBUSY);
}

// ---- IOTLB

constexpr uint64_t behind_iommu = bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_ACCESS_PLATFORM);

vhost_msg_v2 as_v2(const std::vector<std::byte>& bytes) {
  vhost_msg_v2 message{};
  EXPECT_EQ(bytes.size(), sizeof message);
  std::memcpy(&message, bytes.data(), sizeof message);
  return message;
}

vhost::UpdateIotlb update_at(uint64_t iova, uint64_t size, uint64_t front_end) {
  return {{.iova = {iova}, .size = size, .front_end = {front_end}, .permission = 3}};
}

TEST(KernelDevice, IotlbUpdatesCarryOurOwnPointers) {
  Rig rig(net(), behind_iommu);
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{behind_iommu | bit30}));
  ASSERT_TRUE(rig.share());
  rig.kernel.forget();
  ASSERT_TRUE(rig.ask(update_at(0x5000, 0x2000, front_end_base + 0x3000)));
  ASSERT_EQ(rig.kernel.written.size(), 1U);
  const vhost_msg_v2 message = as_v2(rig.kernel.written[0]);
  EXPECT_EQ(message.type, static_cast<unsigned>(VHOST_IOTLB_MSG_V2));
  EXPECT_EQ(message.iotlb.type, VHOST_IOTLB_UPDATE);
  EXPECT_EQ(message.iotlb.iova, 0x5000U);
  EXPECT_EQ(message.iotlb.size, 0x2000U);
  EXPECT_EQ(message.iotlb.uaddr, rig.kernel.memory[0].userspace_addr + 0x3000);
  EXPECT_EQ(message.iotlb.perm, VHOST_ACCESS_RW);
  EXPECT_FALSE(rig.ask(update_at(0x5000, 0x2000, front_end_base + memory_size - 0x1000)));
}

TEST(KernelDevice, AnOlderKernelGetsIotlbMessagesOfVersionOne) {
  testing::Kernel kernel;
  kernel.features = behind_iommu;
  kernel.failures[VHOST_GET_BACKEND_FEATURES] = EFAULT;
  auto device = *KernelDevice::open(std::make_unique<testing::FakeFile>(kernel), *net(), 4);
  ASSERT_TRUE(call(*device, vhost::SetFeatures{behind_iommu | bit30}));
  kernel.forget();
  ASSERT_TRUE(call(
      *device, vhost::UpdateIotlb{{.iova = {0x1000}, .size = 0x1000, .type = vhost::IotlbType::invalidate}}));
  vhost_msg message{};
  ASSERT_EQ(kernel.written.at(0).size(), sizeof message);
  std::memcpy(&message, kernel.written[0].data(), sizeof message);
  EXPECT_EQ(message.type, VHOST_IOTLB_MSG);
  EXPECT_EQ(message.iotlb.type, VHOST_IOTLB_INVALIDATE);
  EXPECT_EQ(message.iotlb.size, 0x1000U);
}

TEST(KernelDevice, AnInvalidationOfNoBytesIsOfEverything) {
  Rig rig(net(), behind_iommu);
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{behind_iommu | bit30}));
  rig.kernel.forget();
  ASSERT_TRUE(
      rig.ask(vhost::UpdateIotlb{{.iova = {0x1000}, .size = 0, .type = vhost::IotlbType::invalidate}}));
  const vhost_msg_v2 message = as_v2(rig.kernel.written.at(0));
  EXPECT_EQ(message.iotlb.iova, 0U);
  EXPECT_EQ(message.iotlb.size, UINT64_MAX);
}

// What the last entries say, from the last invalidation of everything on.
std::vector<vhost_iotlb_msg> entries_of(const testing::Kernel& kernel) {
  std::vector<vhost_iotlb_msg> entries;
  for (const auto& bytes : kernel.written) {
    const vhost_iotlb_msg message = as_v2(bytes).iotlb;
    if (message.type == VHOST_IOTLB_UPDATE) entries.push_back(message);
    if (message.type == VHOST_IOTLB_INVALIDATE && message.size == UINT64_MAX) entries.clear();
  }
  return entries;
}

TEST(KernelDevice, ANewMemoryTableFillsTheIotlbAnew) {
  Rig rig(net(), behind_iommu);
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{behind_iommu | bit30}));
  ASSERT_TRUE(rig.share());
  ASSERT_TRUE(rig.ask(update_at(0x5000, 0x1000, front_end_base + 0x3000)));
  rig.kernel.forget();
  ASSERT_TRUE(rig.share());
  EXPECT_EQ(as_v2(rig.kernel.written.at(0)).iotlb.type, VHOST_IOTLB_INVALIDATE);
  const auto entries = entries_of(rig.kernel);
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].uaddr, rig.kernel.memory[0].userspace_addr + 0x3000);
}

// The kernel keeps its IOTLB when ACCESS_PLATFORM is taken back, and looks up all that it is told.
TEST(KernelDevice, AnIotlbThatOutlivesAccessPlatformHasMemoryByGuestAddress) {
  Rig rig(net(), behind_iommu);
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{behind_iommu | bit30}));
  ASSERT_TRUE(rig.share());
  ASSERT_TRUE(rig.ask(update_at(0x5000, 0x1000, front_end_base)));
  ASSERT_TRUE(rig.ask(update_at(Rig::addresses(0).used, 0x1000, front_end_base)));
  rig.run(0);
  EXPECT_EQ(rig.kernel.asked.back(), "NET_SET_BACKEND 0 fd");
  EXPECT_EQ(rig.kernel.addresses[0].desc_user_addr, Rig::addresses(0).desc);
  rig.kernel.forget();
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{bit(VIRTIO_F_VERSION_1) | bit30}));
  EXPECT_EQ(rig.kernel.asked.front(), "NET_SET_BACKEND 0 none");
  EXPECT_EQ(rig.kernel.asked.back(), "NET_SET_BACKEND 0 fd");
  EXPECT_EQ(rig.kernel.addresses[0].desc_user_addr, guest_base + 0x10000);
  auto entries = entries_of(rig.kernel);
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].iova, guest_base);
  EXPECT_EQ(entries[0].uaddr, rig.kernel.memory[0].userspace_addr);
  // And it follows the memory table.
  rig.kernel.forget();
  ASSERT_TRUE(rig.share());
  ASSERT_TRUE(rig.ask(vhost::AddMemReg{{layout_at(0x8000'0000, 0x1000), test_file(0x1000)}}));
  entries = entries_of(rig.kernel);
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].uaddr, rig.kernel.memory[0].userspace_addr);
  EXPECT_EQ(entries[1].iova, 0x8000'0000U);
  EXPECT_EQ(entries[1].uaddr, rig.kernel.memory[1].userspace_addr);
}

TEST(KernelDevice, MemoryLeavesTheIotlbBeforeItLeavesTheTable) {
  Rig rig(net(), behind_iommu);
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{behind_iommu | bit30}));
  ASSERT_TRUE(rig.share());
  ASSERT_TRUE(rig.ask(update_at(0x5000, 0x1000, front_end_base)));
  ASSERT_TRUE(rig.ask(vhost::ResetDevice{}));
  EXPECT_EQ(entries_of(rig.kernel).at(0).iova, guest_base);
  rig.kernel.forget();
  ASSERT_TRUE(rig.ask(vhost::SetMemTable{}));
  ASSERT_FALSE(rig.kernel.written.empty());
  EXPECT_EQ(as_v2(rig.kernel.written[0]).iotlb.type, VHOST_IOTLB_INVALIDATE);
  EXPECT_EQ(as_v2(rig.kernel.written[0]).iotlb.size, UINT64_MAX);
  EXPECT_THAT(entries_of(rig.kernel), IsEmpty());
}

class Listening final : public vhost::FrontEnd {
 public:
  Result<vhost::FrontEndReply> handle(vhost::FrontEndRequest request) override {
    const std::scoped_lock lock(mutex_);
    if (const auto* fault = std::get_if<vhost::IotlbFault>(&request)) {
      last_ = fault->message;
      ++count_;
    }
    told_.notify_all();
    return vhost::Done{};
  }
  std::optional<vhost::IotlbMessage> wait() {
    std::unique_lock lock(mutex_);
    told_.wait_for(lock, std::chrono::seconds(10), [this] { return last_.has_value(); });
    return last_;
  }
  bool wait_for_misses(unsigned count) {
    std::unique_lock lock(mutex_);
    return told_.wait_for(lock, std::chrono::seconds(10), [&] { return count_ == count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable told_;
  std::optional<vhost::IotlbMessage> last_;
  unsigned count_ = 0;
};

TEST(KernelDevice, MissesOfTheKernelAreToldToTheFrontEnd) {
  Rig rig(net(), behind_iommu);
  vhost_msg_v2 miss{};
  miss.type = VHOST_IOTLB_MSG_V2;
  miss.iotlb = {.iova = 0xabc000, .perm = VHOST_ACCESS_WO, .type = VHOST_IOTLB_MISS};
  const auto bytes = std::as_bytes(std::span(&miss, 1));
  rig.kernel.to_read.emplace_back(bytes.begin(), bytes.end());
  const auto front_end = std::make_shared<Listening>();
  ASSERT_TRUE(rig.ask(vhost::SetFrontEnd{front_end}));
  const uint64_t one = 1;
  ASSERT_EQ(::write(rig.kernel.readable.get(), &one, sizeof one), 8);
  const auto told = front_end->wait();
  ASSERT_TRUE(told);
  EXPECT_EQ(told->type, vhost::IotlbType::miss);
  EXPECT_EQ(told->iova.value, 0xabc000U);
  EXPECT_EQ(told->permission, VHOST_ACCESS_WO);
}

// The kernel would call the ring broken.
TEST(KernelDevice, BehindAnIommuARingStartsWhenItsUsedAreaIsMapped) {
  Rig rig(net(), behind_iommu);
  const auto front_end = std::make_shared<Listening>();
  ASSERT_TRUE(rig.ask(vhost::SetFrontEnd{front_end}));
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{behind_iommu | bit30}));
  ASSERT_TRUE(rig.share());
  rig.run(0);
  EXPECT_THAT(rig.kernel.asked, Not(Contains("NET_SET_BACKEND 0 fd")));
  const uint64_t used = Rig::addresses(0).used;
  const auto told = front_end->wait();
  ASSERT_TRUE(told);
  EXPECT_EQ(told->iova.value, used);
  rig.kernel.forget();
  // 2054 bytes in two pieces: it is not enough to have one.
  ASSERT_TRUE(rig.ask(update_at(used, 0x800, front_end_base)));
  EXPECT_THAT(rig.kernel.asked, IsEmpty());
  ASSERT_TRUE(rig.ask(update_at(used + 0x800, 0x800, front_end_base + 0x8000)));
  EXPECT_EQ(rig.kernel.asked.back(), "NET_SET_BACKEND 0 fd");
  EXPECT_EQ(rig.kernel.addresses[0].desc_user_addr, Rig::addresses(0).desc);
  EXPECT_TRUE(rig.was_kicked());
}

TEST(KernelDevice, WhatWasInvalidatedIsAskedForAgain) {
  Rig rig(net(), behind_iommu);
  const auto front_end = std::make_shared<Listening>();
  ASSERT_TRUE(rig.ask(vhost::SetFrontEnd{front_end}));
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{behind_iommu | bit30}));
  ASSERT_TRUE(rig.share());
  rig.run(0);
  ASSERT_TRUE(front_end->wait_for_misses(1));
  const uint64_t used = Rig::addresses(0).used;
  ASSERT_TRUE(
      rig.ask(vhost::UpdateIotlb{{.iova = {used}, .size = 0x1000, .type = vhost::IotlbType::invalidate}}));
  ASSERT_TRUE(rig.ask(update_at(used + 0x10'0000, 0x1000, front_end_base)));
  EXPECT_TRUE(front_end->wait_for_misses(2));
}

TEST(KernelDevice, AReadOnlyUsedAreaDoesNotStartTheRing) {
  Rig rig(net(), behind_iommu);
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{behind_iommu | bit30}));
  ASSERT_TRUE(rig.share());
  rig.run(0);
  auto update = update_at(Rig::addresses(0).used, 0x1000, front_end_base);
  update.message.permission = 1;
  ASSERT_TRUE(rig.ask(vhost::UpdateIotlb(update)));
  EXPECT_THAT(rig.kernel.asked, Not(Contains("NET_SET_BACKEND 0 fd")));
}

// ---- vhost-scsi

Result<std::unique_ptr<Endpoint>> scsi() { return scsi_endpoint("naa.5001405000000001", 1); }

TEST(KernelDevice, ScsiRingsStartTogetherEachTimeThatThereIsOneMore) {
  Rig rig(scsi());
  EXPECT_EQ(*rig.ask(vhost::GetQueueNum{}), 3U);
  ASSERT_TRUE(rig.share());
  rig.run(0);
  EXPECT_EQ(rig.kernel.asked.back(), "SCSI_SET_ENDPOINT");
  rig.kernel.bases[0] = 12;
  rig.describe(2);
  rig.kernel.forget();
  ASSERT_TRUE(rig.start(2));
  EXPECT_EQ(rig.kernel.asked.front(), "SCSI_CLEAR_ENDPOINT");
  EXPECT_THAT(rig.kernel.asked, Contains("SET_VRING_BASE 0 12"));
  EXPECT_THAT(rig.kernel.asked, Contains("SET_VRING_KICK 2 fd"));
  EXPECT_EQ(rig.kernel.asked.back(), "SCSI_SET_ENDPOINT");
}

TEST(KernelDevice, OneScsiRingStopsAndTheOthersGoOn) {
  Rig rig(scsi());
  ASSERT_TRUE(rig.share());
  rig.run(0);
  rig.run(2);
  rig.kernel.bases = {{0, 5}, {2, 6}};
  rig.kernel.forget();
  EXPECT_EQ(rig.ask(vhost::GetVringBase{2})->value, 6U);
  EXPECT_EQ(rig.kernel.asked.front(), "SCSI_CLEAR_ENDPOINT");
  EXPECT_THAT(rig.kernel.asked, Contains("SET_VRING_BASE 0 5"));
  EXPECT_THAT(rig.kernel.asked, Not(Contains("SET_VRING_KICK 2 fd")));
  EXPECT_EQ(rig.kernel.asked.back(), "SCSI_SET_ENDPOINT");
  rig.kernel.forget();
  EXPECT_EQ(rig.ask(vhost::GetVringBase{0})->value, 5U);
  EXPECT_EQ(rig.kernel.asked.back(), "GET_VRING_BASE 0");
}

// The kernel offers it and does not mark what it writes.
TEST(KernelDevice, OnlyVhostNetOffersALog) {
  const auto logs = [](Result<std::unique_ptr<Endpoint>> endpoint) {
    Rig rig(std::move(endpoint), bit(VHOST_F_LOG_ALL) | bit(VIRTIO_F_VERSION_1));
    const bool feature = (*rig.ask(vhost::GetFeatures{}) & bit(VHOST_F_LOG_ALL)) != 0;
    const bool capability =
        (rig.ask(vhost::GetProtocolFeatures{})->bits & bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD)) != 0;
    EXPECT_EQ(feature, capability);
    return feature;
  };
  EXPECT_TRUE(logs(net()));
  EXPECT_FALSE(logs(scsi()));
  EXPECT_FALSE(logs(vsock_endpoint(42)));
}

TEST(KernelDevice, ATargetThatIsNotThereIsSaidAtOnce) {
  for (const int error : {ENODEV, EEXIST}) {
    testing::Kernel kernel;
    kernel.failures[VHOST_SCSI_SET_ENDPOINT] = error;
    const auto device = KernelDevice::open(std::make_unique<testing::FakeFile>(kernel), *scsi(), 4);
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().fault, Fault::refused);
  }
}

TEST(KernelDevice, NamesAndNumbersThatATargetCannotHaveAreRefused) {
  EXPECT_FALSE(scsi_endpoint("", 1));
  EXPECT_FALSE(scsi_endpoint(std::string(224, 'x'), 1));
  EXPECT_FALSE(scsi_endpoint("naa.5001405000000001", 255));
}

// ---- vhost-vsock

TEST(KernelDevice, VsockRunsWithBothRingsAndNotWithOne) {
  Rig rig(vsock_endpoint(42));
  ASSERT_TRUE(rig.share());
  rig.run(0);
  EXPECT_THAT(rig.kernel.asked, Not(Contains("VSOCK_SET_RUNNING 1")));
  rig.run(1);
  EXPECT_EQ(rig.kernel.asked.back(), "VSOCK_SET_RUNNING 1");
  rig.kernel.forget();
  ASSERT_TRUE(rig.ask(vhost::GetVringBase{0}));
  EXPECT_EQ(rig.kernel.asked.front(), "VSOCK_SET_RUNNING 0");
  EXPECT_THAT(rig.kernel.asked, Not(Contains("VSOCK_SET_RUNNING 1")));
}

TEST(KernelDevice, TheConfigurationOfVsockIsItsAddress) {
  Rig rig(vsock_endpoint(0x01020304));
  const auto config = rig.ask(vhost::GetConfig{.offset = 0, .size = 8});
  ASSERT_TRUE(config);
  EXPECT_THAT(config->bytes, ElementsAre(std::byte{4}, std::byte{3}, std::byte{2}, std::byte{1}, std::byte{0},
                                         std::byte{0}, std::byte{0}, std::byte{0}));
  EXPECT_FALSE(rig.ask(vhost::GetConfig{.offset = 4, .size = 8}));
  EXPECT_FALSE(rig.ask(vhost::GetConfig{.offset = 9, .size = 0}));
  EXPECT_FALSE(rig.ask(vhost::SetConfig{}));
}

TEST(KernelDevice, ReservedCidsAreRefused) {
  for (const uint64_t cid : {uint64_t{0}, uint64_t{2}, uint64_t{0xffff'ffff}, uint64_t{1} << 32})
    EXPECT_FALSE(vsock_endpoint(cid)) << cid;
}

// ---- vhost-vdpa

constexpr uint64_t of_vdpa =
    bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_ACCESS_PLATFORM) | bit(VIRTIO_F_RING_PACKED);

TEST(KernelDevice, AVdpaDeviceIsInitialisedAsADriverWould) {
  Rig rig(vdpa_endpoint(), of_vdpa);
  EXPECT_EQ(*rig.ask(vhost::GetFeatures{}), bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_RING_PACKED));
  ASSERT_TRUE(rig.ask(vhost::SetFeatures{bit(VIRTIO_F_VERSION_1) | bit30}));
  ASSERT_TRUE(rig.share());
  rig.kernel.forget();
  rig.run(0);
  EXPECT_THAT(
      rig.kernel.asked,
      ElementsAre("VDPA_SET_STATUS 0", "VDPA_SET_STATUS 3", "GET_FEATURES", "SET_FEATURES",
                  "VDPA_SET_STATUS 11", "VDPA_GET_STATUS", "SET_VRING_NUM 0 256", "SET_VRING_BASE 0 7",
                  "SET_VRING_ENDIAN 0 0", "SET_VRING_ADDR 0", "SET_VRING_CALL 0 none", "SET_VRING_ERR 0 none",
                  "SET_VRING_KICK 0 fd", "VDPA_SET_VRING_ENABLE 0 1", "VDPA_SET_STATUS 15"));
  EXPECT_EQ(rig.kernel.set_features, bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_ACCESS_PLATFORM));
  EXPECT_EQ(rig.kernel.addresses[0].desc_user_addr, guest_base + 0x10000);
}

TEST(KernelDevice, TheMemoryTableIsTheMappingOfAVdpaDevice) {
  Rig rig(vdpa_endpoint(), of_vdpa);
  ASSERT_TRUE(rig.share());
  ASSERT_EQ(rig.kernel.written.size(), 1U);
  const vhost_msg_v2 mapped = as_v2(rig.kernel.written[0]);
  EXPECT_EQ(mapped.iotlb.type, VHOST_IOTLB_UPDATE);
  EXPECT_EQ(mapped.iotlb.iova, guest_base);
  EXPECT_EQ(mapped.iotlb.size, memory_size);
  rig.kernel.forget();
  ASSERT_TRUE(rig.ask(vhost::SetMemTable{}));
  ASSERT_EQ(rig.kernel.written.size(), 1U);
  EXPECT_EQ(as_v2(rig.kernel.written[0]).iotlb.type, VHOST_IOTLB_INVALIDATE);
}

TEST(KernelDevice, ATableThatAVdpaDeviceCannotMapLeavesTheOldOneMapped) {
  Rig rig(vdpa_endpoint(), of_vdpa);
  ASSERT_TRUE(rig.share());
  const uint64_t ours = as_v2(rig.kernel.written.at(0)).iotlb.uaddr;
  rig.kernel.forget();
  rig.kernel.writes_that_succeed = 1;  // the invalidation
  EXPECT_FALSE(rig.share());
  ASSERT_EQ(rig.kernel.written.size(), 2U);
  EXPECT_EQ(as_v2(rig.kernel.written[0]).iotlb.type, VHOST_IOTLB_INVALIDATE);
  EXPECT_EQ(as_v2(rig.kernel.written[1]).iotlb.type, VHOST_IOTLB_UPDATE);
  EXPECT_EQ(as_v2(rig.kernel.written[1]).iotlb.uaddr, ours);
}

TEST(KernelDevice, AVdpaDeviceIsSuspendedWhereItCanBe) {
  for (const bool can_suspend : {false, true}) {
    testing::Kernel kernel;
    if (can_suspend) kernel.backend_features |= bit(VHOST_BACKEND_F_SUSPEND);
    kernel.features = of_vdpa;
    Rig rig(net());  // its memory and its kick
    rig.device = *KernelDevice::open(std::make_unique<testing::FakeFile>(kernel), vdpa_endpoint(), 4);
    ASSERT_TRUE(rig.share());
    rig.run(0);
    kernel.forget();
    ASSERT_TRUE(rig.ask(vhost::GetVringBase{0}));
    EXPECT_EQ(kernel.asked.front(), can_suspend ? "VDPA_SUSPEND" : "VDPA_SET_VRING_ENABLE 0 0");
    rig.device.reset();
  }
}

TEST(KernelDevice, AVdpaDeviceHasConfigurationAndStatus) {
  Rig rig(vdpa_endpoint(), of_vdpa);
  const auto config = rig.ask(vhost::GetConfig{.offset = 2, .size = 3});
  ASSERT_TRUE(config);
  EXPECT_THAT(config->bytes, ElementsAre(std::byte{2}, std::byte{3}, std::byte{4}));
  EXPECT_FALSE(rig.ask(vhost::GetConfig{.offset = 6, .size = 3}));
  ASSERT_TRUE(rig.ask(vhost::SetStatus{3}));
  EXPECT_EQ(*rig.ask(vhost::GetStatus{}), 3U);
  ASSERT_TRUE(rig.ask(vhost::SetStatus{0}));
  EXPECT_EQ(*rig.ask(vhost::GetStatus{}), 0U);
}

}  // namespace
}  // namespace ringway::kernel
