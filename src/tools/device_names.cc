#include "ringway/tools/device_names.h"

#include <fmt/format.h>
#include <linux/virtio_ids.h>

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <tuple>

#include "ringway/vhost/features.h"

namespace ringway::tools {
namespace {

using vhost::bit;

constexpr auto common = std::to_array<BitName>({
    {24, "NOTIFY_ON_EMPTY"},
    {26, "LOG_ALL"},
    {27, "ANY_LAYOUT"},
    {28, "INDIRECT_DESC"},
    {29, "EVENT_IDX"},
    {30, "PROTOCOL_FEATURES"},
    {32, "VERSION_1"},
    {33, "ACCESS_PLATFORM"},
    {34, "RING_PACKED"},
    {35, "IN_ORDER"},
    {36, "ORDER_PLATFORM"},
    {37, "SR_IOV"},
    {38, "NOTIFICATION_DATA"},
    {39, "NOTIF_CONFIG_DATA"},
    {40, "RING_RESET"},
    {41, "ADMIN_VQ"},
});
constexpr auto net = std::to_array<BitName>({
    {0, "CSUM"},
    {1, "GUEST_CSUM"},
    {2, "CTRL_GUEST_OFFLOADS"},
    {3, "MTU"},
    {5, "MAC"},
    {6, "GSO"},
    {7, "GUEST_TSO4"},
    {8, "GUEST_TSO6"},
    {9, "GUEST_ECN"},
    {10, "GUEST_UFO"},
    {11, "HOST_TSO4"},
    {12, "HOST_TSO6"},
    {13, "HOST_ECN"},
    {14, "HOST_UFO"},
    {15, "MRG_RXBUF"},
    {16, "STATUS"},
    {17, "CTRL_VQ"},
    {18, "CTRL_RX"},
    {19, "CTRL_VLAN"},
    {20, "CTRL_RX_EXTRA"},
    {21, "GUEST_ANNOUNCE"},
    {22, "MQ"},
    {23, "CTRL_MAC_ADDR"},
    {50, "DEVICE_STATS"},
    {51, "HASH_TUNNEL"},
    {52, "VQ_NOTF_COAL"},
    {53, "NOTF_COAL"},
    {54, "GUEST_USO4"},
    {55, "GUEST_USO6"},
    {56, "HOST_USO"},
    {57, "HASH_REPORT"},
    {59, "GUEST_HDRLEN"},
    {60, "RSS"},
    {61, "RSC_EXT"},
    {62, "STANDBY"},
    {63, "SPEED_DUPLEX"},
});
constexpr auto blk = std::to_array<BitName>({
    {0, "BARRIER"},
    {1, "SIZE_MAX"},
    {2, "SEG_MAX"},
    {4, "GEOMETRY"},
    {5, "RO"},
    {6, "BLK_SIZE"},
    {7, "SCSI"},
    {9, "FLUSH"},
    {10, "TOPOLOGY"},
    {11, "CONFIG_WCE"},
    {12, "MQ"},
    {13, "DISCARD"},
    {14, "WRITE_ZEROES"},
    {15, "LIFETIME"},
    {16, "SECURE_ERASE"},
    {17, "ZONED"},
});
constexpr auto console = std::to_array<BitName>({{0, "SIZE"}, {1, "MULTIPORT"}, {2, "EMERG_WRITE"}});
constexpr auto scsi = std::to_array<BitName>({{0, "INOUT"}, {1, "HOTPLUG"}, {2, "CHANGE"}, {3, "T10_PI"}});
constexpr auto gpu = std::to_array<BitName>(
    {{0, "VIRGL"}, {1, "EDID"}, {2, "RESOURCE_UUID"}, {3, "RESOURCE_BLOB"}, {4, "CONTEXT_INIT"}});
constexpr auto vsock = std::to_array<BitName>({{0, "STREAM"}, {1, "SEQPACKET"}, {2, "NO_IMPLIED_STREAM"}});
constexpr auto crypto = std::to_array<BitName>({{0, "REVISION_1"},
                                                {1, "CIPHER_STATELESS_MODE"},
                                                {2, "HASH_STATELESS_MODE"},
                                                {3, "MAC_STATELESS_MODE"},
                                                {4, "AEAD_STATELESS_MODE"},
                                                {5, "AKCIPHER_STATELESS_MODE"}});
constexpr auto sound = std::to_array<BitName>({{0, "CTLS"}});
constexpr auto fs = std::to_array<BitName>({{0, "NOTIFICATION"}});
constexpr auto scmi = std::to_array<BitName>({{0, "P2A_CHANNELS"}, {1, "SHARED_MEMORY"}});
constexpr auto i2c = std::to_array<BitName>({{0, "ZERO_LENGTH_REQUEST"}});
constexpr auto gpio = std::to_array<BitName>({{0, "IRQ"}});

constexpr auto types = std::to_array<DeviceType>({
    {VIRTIO_ID_NET, "net", net, bit(0) | bit(1) | bit(15) | bit(17) | bit(22)},
    {VIRTIO_ID_BLOCK, "blk", blk, bit(2) | bit(6) | bit(9) | bit(12)},
    {VIRTIO_ID_CONSOLE, "console", console, bit(0) | bit(1)},
    {VIRTIO_ID_SCSI, "scsi", scsi, bit(0) | bit(1) | bit(2)},
    {VIRTIO_ID_GPU, "gpu", gpu, bit(0) | bit(1) | bit(3)},
    {VIRTIO_ID_VSOCK, "vsock", vsock, bit(1)},
    {VIRTIO_ID_CRYPTO, "crypto", crypto, bit(0)},
    {VIRTIO_ID_SOUND, "sound", sound, bit(0)},
    {VIRTIO_ID_FS, "fs", fs, bit(0)},
    {VIRTIO_ID_SCMI, "scmi", scmi, bit(0)},
    {VIRTIO_ID_I2C_ADAPTER, "i2c", i2c, bit(0)},
    {VIRTIO_ID_GPIO, "gpio", gpio, bit(0)},
});

uint64_t mask_of(std::span<const BitName> names) {
  uint64_t mask = 0;
  for (const BitName& name : names) mask |= bit(name.bit);
  return mask;
}

std::string_view find(std::span<const BitName> names, unsigned number) {
  const auto found = std::ranges::find(names, number, &BitName::bit);
  return found == names.end() ? std::string_view{} : found->name;
}

}  // namespace

uint64_t DeviceType::feature_mask() const { return mask_of(features); }
std::span<const DeviceType> device_types() { return types; }
std::span<const BitName> common_features() { return common; }
uint64_t common_feature_mask() { return mask_of(common); }

const DeviceType* find_device_type(std::string_view name) {
  const auto found = std::ranges::find(types, name, &DeviceType::name);
  return found == types.end() ? nullptr : &*found;
}

std::string feature_name(const DeviceType* type, unsigned number) {
  std::string_view name = find(common, number);
  if (name.empty() && type != nullptr) name = find(type->features, number);
  return name.empty() ? fmt::format("bit {}", number) : std::string(name);
}

std::vector<const DeviceType*> possible_types(uint64_t features, uint64_t protocol) {
  if ((protocol & bit(vhost::VHOST_USER_PROTOCOL_F_CRYPTO_SESSION)) != 0) return {find_device_type("crypto")};
  const uint64_t own = features & ~common_feature_mask();
  struct Fit {
    double share;  // of what is typical
    int present;   // typical features
    const DeviceType* type;
  };
  std::vector<Fit> fits;
  for (const DeviceType& type : types) {
    const int present = std::popcount(own & type.typical);
    if (present == 0 || (own & ~type.feature_mask()) != 0) continue;
    fits.push_back({static_cast<double>(present) / std::popcount(type.typical), present, &type});
  }
  std::ranges::sort(fits, std::greater<>(), [](const Fit& fit) {
    return std::tuple(fit.share, fit.present, -static_cast<int64_t>(fit.type->id));
  });
  std::vector<const DeviceType*> possible;
  for (const Fit& fit : fits) {
    if (fit.share * 2 > fits.front().share) possible.push_back(fit.type);
  }
  return possible;
}

}  // namespace ringway::tools
