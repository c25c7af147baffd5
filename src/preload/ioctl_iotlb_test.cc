// kernel::IoctlServer over a real device behind an IOMMU: misses by read, answers by write.
#include <array>
#include <atomic>

#include "ringway/preload/ioctl_rig_test.h"

namespace ringway::preload {
namespace {

class IoctlServerIotlb : public IoctlRig {
 protected:
  static constexpr uint64_t features = modern | vhost::bit(VIRTIO_F_ACCESS_PLATFORM);

  Result<size_t> write(const vhost_msg_v2& message) {
    return server_->write(caller_, std::as_bytes(std::span(&message, 1)));
  }
  static vhost_msg_v2 message(uint64_t iova, uint64_t size, uint64_t user, uint8_t type) {
    vhost_msg_v2 one{};
    one.type = VHOST_IOTLB_MSG_V2;
    one.iotlb = {.iova = iova, .size = size, .uaddr = user, .perm = VHOST_ACCESS_RW, .type = type};
    return one;
  }
  // Maps what the device has asked for, page by page.
  void answer_misses() {
    for (int i = 0; i < 100; ++i) {
      vhost_msg_v2 miss{};
      const auto got = server_->read(std::as_writable_bytes(std::span(&miss, 1)));
      if (!got) {
        ASSERT_EQ(got.error().os_error, EAGAIN);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        continue;
      }
      ASSERT_EQ(*got, sizeof miss);
      ASSERT_EQ(miss.iotlb.type, VHOST_IOTLB_MISS);
      ++misses_;
      versions_ |= 1U << static_cast<unsigned>(miss.type);
      const uint64_t page = miss.iotlb.iova / 4096 * 4096;
      ASSERT_TRUE(write(message(page, 4096, page - guest_base + address(memory_), VHOST_IOTLB_UPDATE)));
    }
  }
  // With an IOTLB rings are told by I/O virtual addresses.
  void start_behind_iommu() {
    ASSERT_EQ(call(VHOST_SET_OWNER), 0);
    ASSERT_EQ(call(VHOST_SET_FEATURES, features), 0);
    ASSERT_EQ(set_memory(), 0);
    for (const uint32_t ring : {receive, transmit}) {
      make_driver(ring, features);
      describe(ring);
      vhost_vring_addr told = addresses(ring);
      for (__u64* one : {&told.desc_user_addr, &told.used_user_addr, &told.avail_user_addr}) {
        *one = *one - address(memory_) + guest_base;
      }
      ASSERT_EQ(call(VHOST_SET_VRING_ADDR, told), 0);
      ASSERT_EQ(bind(ring), 0);
    }
  }
  unsigned misses_ = 0;
  unsigned versions_ = 0;
};

TEST_F(IoctlServerIotlb, misses_are_read_and_answers_written) {
  start_behind_iommu();
  answer_misses();
  EXPECT_GT(misses_, 0U);
  EXPECT_EQ(versions_, 1U << VHOST_IOTLB_MSG);
  add_receive_buffer();
  send("translated");
  answer_misses();
  EXPECT_EQ(received(), "translated");
}

TEST_F(IoctlServerIotlb, messages_are_of_the_version_that_was_agreed_on) {
  ASSERT_EQ(call(VHOST_SET_BACKEND_FEATURES, vhost::bit(VHOST_BACKEND_F_IOTLB_MSG_V2)), 0);
  start_behind_iommu();
  answer_misses();
  EXPECT_EQ(versions_, 1U << VHOST_IOTLB_MSG_V2);
}

TEST_F(IoctlServerIotlb, reset_owner_forgets_the_version_of_messages) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  ASSERT_EQ(call(VHOST_SET_BACKEND_FEATURES, vhost::bit(VHOST_BACKEND_F_IOTLB_MSG_V2)), 0);
  ASSERT_EQ(call(VHOST_RESET_OWNER), 0);
  start_behind_iommu();
  answer_misses();
  EXPECT_EQ(versions_, 1U << VHOST_IOTLB_MSG);
}

TEST_F(IoctlServerIotlb, an_invalidation_is_obeyed) {
  start_behind_iommu();
  answer_misses();
  ASSERT_TRUE(write(message(guest_base, memory_size, 0, VHOST_IOTLB_INVALIDATE)));
  const unsigned before = misses_;
  send("again");
  answer_misses();
  EXPECT_GT(misses_, before);
  EXPECT_TRUE(take_used(transmit));
}

TEST_F(IoctlServerIotlb, wrong_messages_have_the_kernels_errnos) {
  std::array<std::byte, kernel::IotlbMessages::size> room{};
  const auto error = [](const Result<size_t>& result) { return result ? 0 : result.error().os_error; };
  EXPECT_EQ(error(server_->read(room, kernel::IoctlServer::Reader::waits)), EBADFD);
  EXPECT_EQ(error(server_->read(room)), EAGAIN);
  EXPECT_EQ(error(write(message(0, 0, 4096, VHOST_IOTLB_UPDATE))), EINVAL);
  EXPECT_EQ(error(write(message(0, 4096, 0, VHOST_IOTLB_UPDATE))), EFAULT);
  EXPECT_EQ(server_->read(std::span(room).first(71)), size_t{0});
  ASSERT_EQ(call(VHOST_SET_FEATURES, features), 0);
  EXPECT_EQ(error(server_->read(room)), EAGAIN);
  EXPECT_EQ(error(write(message(0, 4096, 0, VHOST_IOTLB_MISS))), EFAULT);
  EXPECT_EQ(error(write(message(0, 4096, 4096, VHOST_IOTLB_UPDATE))), EFAULT);
  vhost_msg_v2 unknown = message(0, 4096, 0, VHOST_IOTLB_UPDATE);
  unknown.type = 7;
  EXPECT_EQ(error(write(unknown)), EINVAL);
  EXPECT_EQ(error(server_->write(caller_, {})), EINVAL);
  EXPECT_EQ(error(server_->write(caller_, std::span(room).first(20))), EINVAL);
}

TEST_F(IoctlServerIotlb, a_message_that_waits_is_told) {
  std::atomic<int> told = 0;
  server_->on_readable([&](bool waiting) { told = waiting ? 1 : 2; });
  start_behind_iommu();
  for (int i = 0; i < 2000 && !server_->readable(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(server_->readable());
  EXPECT_EQ(told, 1);
  answer_misses();
  EXPECT_FALSE(server_->readable());
  EXPECT_EQ(told, 2);
}

}  // namespace
}  // namespace ringway::preload
