#include "ringway/preload/as_vhost_net.h"

#include <gtest/gtest.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "ringway/vhost/recorder_test.h"

namespace ringway::preload {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification

constexpr uint64_t offered = bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4) | bit(VIRTIO_NET_F_MAC) |
                             bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_MRG_RXBUF) |
                             bit(VIRTIO_F_ANY_LAYOUT) | bit(VIRTIO_RING_F_EVENT_IDX) |
                             bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_NET_F_HASH_REPORT);

// Offers these, and keeps what is agreed on.
class Behind final : public vhost::Device {
 public:
  explicit Behind(uint64_t& agreed) : agreed_(agreed) {}
  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override {
    if (std::holds_alternative<vhost::GetFeatures>(request)) return vhost::DeviceReply(offered);
    if (const auto* set = std::get_if<vhost::SetFeatures>(&request)) agreed_ = set->features;
    return vhost::DeviceReply(vhost::Done{});
  }

 private:
  uint64_t& agreed_;
};

class AsVhostNetTest : public testing::Test {
 protected:
  uint64_t agreed_ = 0;
  AsVhostNet device_{std::make_unique<Behind>(agreed_)};
};

TEST_F(AsVhostNetTest, what_is_shown_is_what_linux_has) {
  EXPECT_EQ(vhost::call(device_, vhost::GetFeatures{}),
            bit(VIRTIO_NET_F_MRG_RXBUF) | bit(VIRTIO_F_ANY_LAYOUT) | bit(VIRTIO_RING_F_EVENT_IDX) |
                bit(VIRTIO_F_VERSION_1));
}

TEST_F(AsVhostNetTest, every_offload_that_there_is_is_agreed_on_and_nothing_else) {
  ASSERT_TRUE(vhost::call(device_, vhost::SetFeatures{bit(VIRTIO_F_VERSION_1)}));
  EXPECT_EQ(agreed_, bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4));
  ASSERT_TRUE(vhost::call(device_, vhost::SetFeatures{0}));
  EXPECT_EQ(agreed_, bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4));
}

}  // namespace
}  // namespace ringway::preload
