#include "ringway/tools/findings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include <bit>
#include <string_view>

#include "ringway/tools/blk_disk.h"
#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

using vhost::bit;
using namespace vhost;  // NOLINT(google-build-using-namespace): the names of its bits

constexpr unsigned vhost_user_regions = 8;  // of SET_MEM_TABLE

class Critic {
 public:
  explicit Critic(const Findings& findings) : found_(findings) {}

  std::vector<std::string> judge() {
    judge_features();
    if (found_.protocol) judge_protocol();
    judge_answers();
    if (is_blk()) judge_blk();
    return std::move(said_);
  }

 private:
  template <class... Args>
  void say(fmt::format_string<Args...> format, Args&&... args) {
    said_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  [[nodiscard]] bool has(unsigned feature) const { return (found_.features & bit(feature)) != 0; }
  [[nodiscard]] bool can(unsigned capability) const {
    return (found_.protocol.value_or(0) & bit(capability)) != 0;
  }
  [[nodiscard]] bool is_blk() const {
    return found_.type() != nullptr && found_.type()->id == VIRTIO_ID_BLOCK;
  }

  void judge_features() {
    if (!found_.protocol) {
      say("it knows no protocol features: nothing can be configured, acknowledged or asked beyond the "
          "basics");
    }
    if (!has(VIRTIO_F_VERSION_1)) say("VERSION_1 is missing: only legacy drivers can use it");
    if (!has(VIRTIO_F_RING_PACKED)) say("RING_PACKED is missing: split rings only");
    if (!has(VIRTIO_RING_F_EVENT_IDX)) say("EVENT_IDX is missing: more kicks and interrupts than necessary");
    if (!has(VIRTIO_RING_F_INDIRECT_DESC)) say("INDIRECT_DESC is missing: fewer requests fit into a ring");
    if (has(VIRTIO_F_ACCESS_PLATFORM) && !can(VHOST_USER_PROTOCOL_F_BACKEND_REQ)) {
      say("ACCESS_PLATFORM without BACKEND_REQ: it cannot tell a front-end of IOTLB misses");
    }
    if (has(VHOST_F_LOG_ALL) != can(VHOST_USER_PROTOCOL_F_LOG_SHMFD)) {
      say("{}: a virtual machine that uses it cannot be migrated",
          has(VHOST_F_LOG_ALL) ? "LOG_ALL without LOG_SHMFD" : "LOG_SHMFD without LOG_ALL");
    }
    uint64_t known = common_feature_mask();
    for (const DeviceType& type : device_types()) known |= type.feature_mask();
    if (found_.type() != nullptr) known = common_feature_mask() | found_.type()->feature_mask();
    say_unknown("feature", found_.features & ~known);
  }

  void say_unknown(std::string_view what, uint64_t bits) {
    std::vector<unsigned> numbers;
    for (; bits != 0; bits &= bits - 1) numbers.push_back(static_cast<unsigned>(std::countr_zero(bits)));
    if (!numbers.empty()) say("it offers {} bits that have no name here: {}", what, fmt::join(numbers, ", "));
  }

  void judge_protocol() {
    struct Rule {
      unsigned offered;
      unsigned needed;
    };
    static constexpr Rule rules[] = {
        {VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD, VHOST_USER_PROTOCOL_F_BACKEND_REQ},
        {VHOST_USER_PROTOCOL_F_HOST_NOTIFIER, VHOST_USER_PROTOCOL_F_BACKEND_REQ},
        {VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS, VHOST_USER_PROTOCOL_F_BACKEND_REQ},
        {VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS, VHOST_USER_PROTOCOL_F_REPLY_ACK},
        {VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD},
        {VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN, VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT},
        {VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD},
    };
    for (const Rule& rule : rules) {
      if (!can(rule.offered) || can(rule.needed)) continue;
      say("{} without {}, which it needs", protocol_feature_name(rule.offered),
          protocol_feature_name(rule.needed));
    }
    if (!can(VHOST_USER_PROTOCOL_F_REPLY_ACK)) {
      say("REPLY_ACK is missing: a front-end cannot know whether its requests succeeded");
    }
    if (!can(VHOST_USER_PROTOCOL_F_MQ)) say("MQ is missing: how many queues it has cannot be asked");
    if (!can(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
      say("CONFIGURE_MEM_SLOTS is missing: at most {} memory regions, all replaced at every change",
          vhost_user_regions);
    }
    if (found_.takes_bit_21_for_shmem) {
      say("it takes bit 21 for SHMEM, as the vhost crate of rust-vmm did before 0.17: a front-end that knows "
          "bit 21 as "
          "GPA_ADDRESSES will give it addresses that it does not understand");
    }
    uint64_t unnamed = 0;
    for (unsigned number = 0; number < 64; ++number) {
      if (can(number) && protocol_feature_name(number).empty()) unnamed |= bit(number);
    }
    say_unknown("protocol feature", unnamed);
  }

  void judge_answers() {
    for (const std::string& failure : found_.failures) say("{}", failure);
    if (found_.queues == 0) say("it says that it has no queues");
    if (found_.memory_slots && *found_.memory_slots <= vhost_user_regions) {
      say("it has only {} memory slots: a virtual machine cannot grow its memory far", *found_.memory_slots);
    }
    if (found_.config_failed) say("CONFIG is offered, but GET_CONFIG fails for every size");
    for (const std::string& request : found_.wrongly_acknowledged) say("it answers success to {}", request);
    if (!found_.wrongly_acknowledged.empty()) {
      say("its acknowledgements prove nothing, the largest queue size included");
    }
  }

  void judge_blk() {
    if (!can(VHOST_USER_PROTOCOL_F_CONFIG)) {
      say("CONFIG is missing, so a front-end cannot know the size of this disk");
      return;
    }
    if (found_.config.empty()) return;
    if (found_.config.size() < blk_config_bytes(found_.features)) {
      say("its configuration space has {} bytes; its features speak of {}", found_.config.size(),
          blk_config_bytes(found_.features));
    }
    const Result<BlkDisk> disk = BlkDisk::from(found_.features, found_.config);
    if (!disk) {
      say("{}", disk.error().to_string());
      return;
    }
    if (has(VIRTIO_BLK_F_SIZE_MAX) && disk->max_piece == 0)
      say("SIZE_MAX is offered with a limit of 0 bytes");
    if (disk->capacity == 0) say("the disk has no capacity");
    if (disk->capacity % disk->block_bytes != 0) {
      say("the capacity of {} bytes is not a multiple of the block size of {}", disk->capacity,
          disk->block_bytes);
    }
    if (!has(VIRTIO_BLK_F_FLUSH) && !disk->read_only)
      say("FLUSH is missing: a driver takes every write for stable");
    if (has(VIRTIO_BLK_F_CONFIG_WCE) && !has(VIRTIO_BLK_F_FLUSH)) say("CONFIG_WCE without FLUSH");
    if (!has(VIRTIO_BLK_F_SEG_MAX)) say("SEG_MAX is missing: a driver may use only one buffer in a request");
    if (found_.queues && disk->queues > *found_.queues) {
      say("its configuration space has {} queues, GET_QUEUE_NUM {}", disk->queues, *found_.queues);
    }
  }

  const Findings& found_;
  std::vector<std::string> said_;
};

}  // namespace

std::vector<std::string> oddities(const Findings& findings) { return Critic(findings).judge(); }

}  // namespace ringway::tools
