// linux/if_tun.h, "VIRTIO Network Device".
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_config.h>
#define class class_  // linux/virtio_net.h has a member of that name
#include <linux/virtio_net.h>
#undef class
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "ringway/kernel/endpoint.h"
#include "ringway/vhost/features.h"

namespace ringway::kernel {
namespace {

using vhost::bit;

constexpr int header_bytes_legacy = 10;  // virtio_net_hdr
constexpr int header_bytes = 12;         // virtio_net_hdr_v1

struct Offload {
  unsigned feature;
  unsigned flag;
};
// What the driver may be given by a tap that has headers.
constexpr Offload from_tap[] = {{VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM},
                                {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
                                {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
                                {VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN}};
// What it may give to one.
constexpr uint64_t to_tap = bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4) |
                            bit(VIRTIO_NET_F_HOST_TSO6) | bit(VIRTIO_NET_F_HOST_ECN);

class NetEndpoint final : public Endpoint {
 public:
  NetEndpoint(UniqueFd backend, bool has_headers) : backend_(std::move(backend)), has_headers_(has_headers) {}

  Result<Shape> open(Ioctls&, IotlbChannel&) override {
    Shape shape{.rings = 2};
    if (nowhere_) shape.discarding.set(transmit);
    return shape;
  }

  // Bit 27 is ANY_LAYOUT to a driver and VHOST_NET_F_VIRTIO_NET_HDR to vhost-net: it is ours.
  [[nodiscard]] uint64_t offered(uint64_t features) const override {
    features &= ~bit(VHOST_NET_F_VIRTIO_NET_HDR);
    return has_headers_ ? features | offloads() : features;
  }

  Result<> set_features(Ioctls& file, uint64_t features) override {
    if (has_headers_) TRY(set_headers(features));
    const uint64_t header = has_headers_ ? 0 : bit(VHOST_NET_F_VIRTIO_NET_HDR);
    return set<__u64>(file, VHOST_SET_FEATURES, (features & ~offloads()) | header);
  }

  Result<> start(Ioctls& file, const RingSet& rings) override { return attach(file, rings, backend_.get()); }
  Result<> discard(Ioctls& file, const RingSet& rings) override {
    return attach(file, rings, nowhere_.get());
  }
  Result<> stop(Ioctls& file, const RingSet& rings) override {
    return attach(file, rings, VHOST_FILE_UNBIND);
  }

 private:
  static uint64_t offloads() {
    uint64_t bits = to_tap;
    for (const Offload& one : from_tap) bits |= bit(one.feature);
    return bits;
  }

  static Result<> attach(Ioctls& file, const RingSet& rings, int fd) {
    for (unsigned ring = 0; ring < 2; ++ring) {
      if (rings[ring]) TRY(set(file, VHOST_NET_SET_BACKEND, vhost_vring_file{.index = ring, .fd = fd}));
    }
    return {};
  }

  // The tap writes and reads the header itself, in the size that the driver expects.
  Result<> set_headers(uint64_t features) const {
    const bool modern = (features & (bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_NET_F_MRG_RXBUF))) != 0;
    int size = modern ? header_bytes : header_bytes_legacy;
    if (::ioctl(backend_.get(), TUNSETVNETHDRSZ, &size) != 0)
      return os_failure("the tap refuses the size of headers");
    unsigned long flags = 0;
    for (const Offload& one : from_tap) {
      if ((features & bit(one.feature)) != 0) flags |= one.flag;
    }
    if (::ioctl(backend_.get(), TUNSETOFFLOAD, flags) != 0) return os_failure("the tap refuses offloads");
    return {};
  }

  static constexpr unsigned transmit = 1;
  const UniqueFd backend_;
  const bool has_headers_;
  // A packet socket on no interface: it sends nothing, and vhost-net goes on with the next frame. None
  // without the right to have one.
  const UniqueFd nowhere_{::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)};
};

}  // namespace

// A packet socket does not know TUNGETIFF, and has no headers.
Result<std::unique_ptr<Endpoint>> net_endpoint(UniqueFd backend) {
  if (!backend) return refused("a network device needs a tap or a packet socket");
  ifreq request{};
  const bool is_tap = ::ioctl(backend.get(), TUNGETIFF, &request) == 0;
  if (is_tap && (request.ifr_flags & IFF_TAP) == 0)
    return refused("this is a tun, not a tap: it has no Ethernet frames");
  const bool has_headers = is_tap && (request.ifr_flags & IFF_VNET_HDR) != 0;
  return std::make_unique<NetEndpoint>(std::move(backend), has_headers);
}

Result<UniqueFd> open_tap(const std::string& name) {
  ifreq request{};
  if (name.empty() || name.size() >= sizeof request.ifr_name)
    return refused("a tap's name has 1 to 15 characters");
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return os_failure("cannot open /dev/net/tun");
  std::memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return os_failure("cannot attach to the tap");
  return fd;
}

}  // namespace ringway::kernel
