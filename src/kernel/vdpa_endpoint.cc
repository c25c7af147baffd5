// linux/vhost.h VHOST_VDPA_*; VIRTIO "Device Initialization". The device sees guest addresses as I/O virtual
// ones: the memory table is its mapping, and ACCESS_PLATFORM is agreed upon with it and not with the
// front-end.
#include <linux/virtio_config.h>

#include <algorithm>
#include <cstring>

#include "ringway/base/log.h"
#include "ringway/kernel/endpoint.h"
#include "ringway/vhost/features.h"

namespace ringway::kernel {
namespace {

using vhost::bit;

constexpr uint8_t driver_found = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
constexpr uint8_t features_agreed = driver_found | VIRTIO_CONFIG_S_FEATURES_OK;
constexpr uint8_t driver_runs = features_agreed | VIRTIO_CONFIG_S_DRIVER_OK;
constexpr auto read_write = static_cast<uint8_t>(memory::Access::read_write);

class VdpaEndpoint final : public Endpoint {
 public:
  Result<Shape> open(Ioctls& file, IotlbChannel& iotlb) override {
    iotlb_ = &iotlb;
    range_ = TRY(get<vhost_vdpa_iova_range>(file, VHOST_VDPA_GET_IOVA_RANGE));
    shape_ = {.rings = TRY(get<__u32>(file, VHOST_VDPA_GET_VQS_COUNT)),
              .ring_size = TRY(get<__u16>(file, VHOST_VDPA_GET_VRING_NUM)),
              .config_bytes = TRY(get<__u32>(file, VHOST_VDPA_GET_CONFIG_SIZE)),
              .has_status = true,
              .can_log = false,
              .starts_together = true,
              .rings_by_guest_address = true};
    if (shape_.rings == 0 || shape_.rings > max_rings)
      return refused("the vDPA device has no or too many rings", shape_.rings);
    TRY(reset(file));
    return shape_;
  }

  [[nodiscard]] uint64_t offered(uint64_t features) const override {
    return features & ~(bit(VIRTIO_F_ACCESS_PLATFORM) | bit(VHOST_F_LOG_ALL));
  }

  // They are told to the device when it starts: it takes no others once they are agreed upon.
  Result<> set_features(Ioctls&, uint64_t) override { return {}; }

  Result<> set_memory(Ioctls&, const memory::Map& now) override {
    const auto wanted = now.regions();
    for (const auto& region : wanted) {
      const memory::RegionLayout& layout = region->layout();
      if (layout.guest.value < range_.first || layout.guest.value + (layout.size - 1) > range_.last)
        return refused("memory region lies outside what the device can address", layout.guest.value);
    }
    const auto before = mapped_;
    auto replaced = replace(wanted);
    if (!replaced) {
      // The old table stays, and so must its mapping.
      if (const auto back = replace(before); !back) log::error("{}", back.error().to_string());
    }
    return replaced;
  }

  // A device takes its features once in its life, and a reset may forget its mappings.
  Result<> prepare(Ioctls& file, uint64_t features) override {
    TRY(reset(file));
    for (const auto& region : mapped_) {
      TRY(iotlb_->invalidate(region->layout().guest.value, region->layout().size));
      TRY(map(*region));
    }
    TRY(set<__u8>(file, VHOST_VDPA_SET_STATUS, driver_found));
    const uint64_t platform = TRY(get<__u64>(file, VHOST_GET_FEATURES)) & bit(VIRTIO_F_ACCESS_PLATFORM);
    TRY(set<__u64>(file, VHOST_SET_FEATURES, features | platform));
    TRY(set<__u8>(file, VHOST_VDPA_SET_STATUS, features_agreed));
    const auto now = TRY(get<__u8>(file, VHOST_VDPA_GET_STATUS));
    if ((now & VIRTIO_CONFIG_S_FEATURES_OK) == 0)
      return refused("the vDPA device refuses the features", features);
    return {};
  }

  Result<> start(Ioctls& file, const RingSet& rings) override {
    TRY(enable(file, rings, 1));
    return set<__u8>(file, VHOST_VDPA_SET_STATUS, driver_runs);
  }

  Result<> stop(Ioctls& file, const RingSet& rings) override {
    if (iotlb_->has(VHOST_BACKEND_F_SUSPEND)) return file.ioctl(VHOST_VDPA_SUSPEND, nullptr);
    return enable(file, rings, 0);
  }

  Result<std::vector<std::byte>> read_config(Ioctls& file, uint32_t offset, uint32_t size) override {
    auto message = TRY(config_message(offset, size));
    TRY(file.ioctl(VHOST_VDPA_GET_CONFIG, message.data()));
    message.erase(message.begin(), message.begin() + sizeof(vhost_vdpa_config));
    return message;
  }

  Result<> write_config(Ioctls& file, uint32_t offset, std::span<const std::byte> bytes) override {
    auto message = TRY(config_message(offset, static_cast<uint32_t>(bytes.size())));
    std::ranges::copy(bytes, message.begin() + sizeof(vhost_vdpa_config));
    return file.ioctl(VHOST_VDPA_SET_CONFIG, message.data());
  }

  Result<uint64_t> status(Ioctls& file) override { return TRY(get<__u8>(file, VHOST_VDPA_GET_STATUS)); }
  Result<> set_config_call(Ioctls& file, int fd) override {
    return set<int>(file, VHOST_VDPA_SET_CONFIG_CALL, fd);
  }
  Result<> reset(Ioctls& file) override { return set<__u8>(file, VHOST_VDPA_SET_STATUS, 0); }

 private:
  using Regions = std::span<const std::shared_ptr<const memory::Region>>;

  // The device maps `wanted` afterwards; what it maps already is left alone.
  Result<> replace(Regions wanted) {
    const auto is_in = [](const auto& list, const auto& one) {
      return std::ranges::find(list, one) != list.end();
    };
    while (!mapped_.empty()) {
      const auto gone = std::ranges::find_if(mapped_, [&](const auto& one) { return !is_in(wanted, one); });
      if (gone == mapped_.end()) break;
      TRY(iotlb_->invalidate((*gone)->layout().guest.value, (*gone)->layout().size));
      mapped_.erase(gone);
    }
    for (const auto& region : wanted) {
      if (is_in(mapped_, region)) continue;
      TRY(map(*region));
      mapped_.push_back(region);
    }
    return {};
  }

  Result<> map(const memory::Region& region) {
    return iotlb_->update(region.layout().guest.value, region.layout().size, region.data(), read_write);
  }

  static Result<> enable(Ioctls& file, const RingSet& rings, unsigned on) {
    for (unsigned ring = 0; ring < rings.size(); ++ring) {
      if (rings[ring])
        TRY(set(file, VHOST_VDPA_SET_VRING_ENABLE, vhost_vring_state{.index = ring, .num = on}));
    }
    return {};
  }

  [[nodiscard]] Result<std::vector<std::byte>> config_message(uint32_t offset, uint32_t size) const {
    if (offset > shape_.config_bytes || size > shape_.config_bytes - offset || size == 0)
      return refused("outside the configuration space", offset);
    std::vector<std::byte> bytes(sizeof(vhost_vdpa_config) + size);
    const struct {
      __u32 off;
      __u32 len;
    } head{.off = offset, .len = size};
    std::memcpy(bytes.data(), &head, sizeof head);
    return bytes;
  }

  IotlbChannel* iotlb_ = nullptr;
  Shape shape_;
  vhost_vdpa_iova_range range_{};
  std::vector<std::shared_ptr<const memory::Region>> mapped_;
};

}  // namespace

std::unique_ptr<Endpoint> vdpa_endpoint() { return std::make_unique<VdpaEndpoint>(); }

}  // namespace ringway::kernel
