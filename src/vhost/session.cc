#include "ringway/vhost/session.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "ringway/base/notifier.h"

namespace ringway::vhost {
namespace {

constexpr unsigned VIRTIO_NET_F_MTU = 3;  // linux/virtio_net.h is no C++

constexpr uint32_t most_queues = 256;  // ring indexes have 8 bits
constexpr uint32_t most_slots = 65536;

Result<UniqueFd> duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) return os_failure("cannot duplicate a file descriptor");
  return copy;
}

Result<MemoryRegion> to_send(const SharedRegion& region) {
  return MemoryRegion{.layout = region.layout, .fd = TRY(duplicate(region.fd))};
}

// The front-end's side of what a device may ask: two kinds of news, and nothing that could be given.
class NewsReader final : public FrontEnd {
 public:
  explicit NewsReader(DeviceEvents events) : events_(std::move(events)) {}
  Result<FrontEndReply> handle(FrontEndRequest request) override {
    return std::visit([this](const auto& one) { return answer(one); }, request);
  }

 private:
  Result<FrontEndReply> answer(const ConfigChange&) {
    if (events_.config_changed) events_.config_changed();
    return Done{};
  }
  Result<FrontEndReply> answer(const IotlbFault& fault) {
    if (events_.iotlb_fault) events_.iotlb_fault(fault.message);
    return Done{};
  }
  Result<FrontEndReply> answer(const HostNotifier&) { return refused("no host notifiers"); }
  Result<FrontEndReply> answer(const VringCall&) { return refused("no in-band notifications"); }
  Result<FrontEndReply> answer(const VringErr&) { return refused("no in-band notifications"); }
  Result<FrontEndReply> answer(const SharedObjectAdd&) { return refused("no shared objects"); }
  Result<FrontEndReply> answer(const SharedObjectRemove&) { return refused("no shared objects"); }
  Result<FrontEndReply> answer(const SharedObjectLookup&) { return SharedObject{}; }
  Result<FrontEndReply> answer(const ShmemMap&) { return refused("no shared memory regions"); }
  Result<FrontEndReply> answer(const ShmemUnmap&) { return refused("no shared memory regions"); }

  const DeviceEvents events_;
};

// Some back-ends start a ring only at its first kick. An event too many does no harm.
void kick_once(const UniqueFd& fd) {
  Result<UniqueFd> copy = fd.duplicate();
  if (!copy) return;
  const Result<Notifier> kick = Notifier::adopt(*std::move(copy));
  if (kick) kick->signal();
}

}  // namespace

// ---- agreement

Result<Agreement> Session::negotiate(const Agreement& wanted) {
  TRY(call(device_, SetOwner{}));
  const uint64_t features = TRY(call(device_, GetFeatures{})) & wanted.features;
  const uint64_t capabilities = TRY(call(device_, GetProtocolFeatures{})).bits & wanted.capabilities;
  TRY(call(device_, SetProtocolFeatures{{capabilities}}));
  TRY(call(device_, SetFeatures{features | bit(VHOST_USER_F_PROTOCOL_FEATURES)}));
  agreed_ = {.features = features, .capabilities = capabilities};
  return agreed_;
}

Result<> Session::listen(DeviceEvents events) {
  TRY(call(device_, SetFrontEnd{std::make_shared<NewsReader>(std::move(events))}));
  return {};
}

Result<uint32_t> Session::queue_count() {
  if (!agreed_.has_capability(VHOST_USER_PROTOCOL_F_MQ)) return 1;
  const uint64_t told = TRY(call(device_, GetQueueNum{}));
  return static_cast<uint32_t>(std::min<uint64_t>(told, most_queues));
}

Result<uint32_t> Session::max_memory_slots() {
  if (!agreed_.has_capability(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) return min_memory_slots;
  const uint64_t told = TRY(call(device_, GetMaxMemSlots{}));
  return static_cast<uint32_t>(std::min<uint64_t>(told, most_slots));
}

// ---- memory

Result<> Session::map_memory(std::span<const SharedRegion> regions) {
  if (agreed_.has_capability(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
    TRY(change_slots(regions));
  } else {
    TRY(set_table(regions));
  }
  return barrier();
}

Result<> Session::set_table(std::span<const SharedRegion> regions) {
  SetMemTable table;
  for (const SharedRegion& region : regions) {
    MemoryRegion one = TRY(to_send(region));
    table.regions.push_back(std::move(one));
  }
  TRY(call(device_, std::move(table)));
  return {};
}

// Regions go before others come: a table never overlaps itself.
Result<> Session::change_slots(std::span<const SharedRegion> regions) {
  const auto is_wanted = [&](const memory::RegionLayout& layout) {
    return std::any_of(regions.begin(), regions.end(),
                       [&](const SharedRegion& one) { return one.layout == layout; });
  };
  for (size_t i = slots_.size(); i-- > 0;) {
    if (is_wanted(slots_[i])) continue;
    TRY(call(device_, RemMemReg{slots_[i]}));
    slots_.erase(slots_.begin() + static_cast<ptrdiff_t>(i));
  }
  for (const SharedRegion& region : regions) {
    if (std::find(slots_.begin(), slots_.end(), region.layout) != slots_.end()) continue;
    MemoryRegion one = TRY(to_send(region));
    TRY(call(device_, AddMemReg{std::move(one)}));
    slots_.push_back(region.layout);
  }
  return {};
}

// Without REPLY_ACK a request is only known to be done when a later one has been answered.
Result<> Session::barrier() {
  TRY(call(device_, GetFeatures{}));
  return {};
}

Result<> Session::map_iotlb(const IotlbMessage& entry) {
  TRY(call(device_, UpdateIotlb{entry}));
  return {};
}

Result<> Session::unmap_iotlb(GuestAddress iova, uint64_t size) {
  TRY(call(device_, UpdateIotlb{{.iova = iova, .size = size, .type = IotlbType::invalidate}}));
  return {};
}

// ---- queues

Result<> Session::log_writes(UniqueFd log, uint64_t bytes) {
  TRY(call(device_, SetLogBase{.size = bytes, .offset = 0, .fd = std::move(log)}));
  return {};
}

Result<> Session::start_queue(QueueSetup setup) {
  const RingIndex ring = setup.ring;
  UniqueFd kick;
  if (setup.kick) kick = TRY(setup.kick.duplicate());
  TRY(call(device_, SetVringNum{.ring = ring, .size = setup.size}));
  TRY(call(device_, SetVringBase{.ring = ring, .base = setup.base}));
  TRY(call(device_, SetVringAddr{.ring = ring,
                                 .flags = setup.log ? 1U << VHOST_VRING_F_LOG : 0,
                                 .desc = setup.desc,
                                 .used = setup.device,
                                 .avail = setup.driver,
                                 .log = setup.log.value_or(0)}));
  TRY(call(device_, SetVringCall{.ring = ring, .fd = std::move(setup.call)}));
  if (setup.err) TRY(call(device_, SetVringErr{.ring = ring, .fd = std::move(setup.err)}));
  TRY(call(device_, SetVringKick{.ring = ring, .fd = std::move(setup.kick)}));
  TRY(call(device_, SetVringEnable{.ring = ring, .enable = 1}));
  if (kick) kick_once(kick);
  return {};
}

Result<InflightArea> Session::new_inflight(uint16_t queues, uint16_t queue_size) {
  InflightArea area = TRY(call(device_, GetInflightFd{.queues = queues, .queue_size = queue_size}));
  struct stat status{};
  if (!area.fd || ::fstat(area.fd.get(), &status) != 0) return refused("the device gave no in-flight area");
  const auto file = static_cast<uint64_t>(status.st_size);
  if (area.size == 0 || area.offset > file || area.size > file - area.offset)
    return refused("the device gave an in-flight area that its file does not hold", area.size);
  if (area.queues != queues || area.queue_size != queue_size)
    return refused("the device gave an in-flight area for other queues", area.queues);
  return area;
}

Result<> Session::use_inflight(const InflightArea& area) {
  TRY(call(device_, SetInflightFd{{.size = area.size,
                                   .offset = area.offset,
                                   .queues = area.queues,
                                   .queue_size = area.queue_size,
                                   .fd = TRY(area.fd.duplicate())}}));
  return {};
}

Result<uint32_t> Session::stop_queue(RingIndex ring) { return TRY(call(device_, GetVringBase{ring})).value; }

// ---- configuration, status

Result<std::vector<std::byte>> Session::read_config(uint32_t offset, uint32_t size) {
  ConfigBytes config = TRY(call(device_, GetConfig{.offset = offset, .size = size}));
  if (config.bytes.size() != size)
    return refused("the device gave another size of configuration", config.bytes.size());
  return std::move(config.bytes);
}

Result<> Session::write_config(uint32_t offset, std::span<const std::byte> bytes) {
  TRY(call(
      device_,
      SetConfig{{.offset = offset, .flags = VHOST_CONFIG_WRITABLE, .bytes = {bytes.begin(), bytes.end()}}}));
  return {};
}

Result<> Session::set_mtu(uint16_t mtu) {
  if (!agreed_.has_feature(VIRTIO_NET_F_MTU) || !agreed_.has_capability(VHOST_USER_PROTOCOL_F_MTU))
    return refused("the device takes no MTU");
  TRY(call(device_, NetSetMtu{mtu}));
  return {};
}

Result<uint8_t> Session::status() { return static_cast<uint8_t>(TRY(call(device_, GetStatus{}))); }

Result<> Session::set_status(uint8_t status) {
  TRY(call(device_, SetStatus{status}));
  return {};
}

Result<> Session::reset() {
  if (agreed_.has_capability(VHOST_USER_PROTOCOL_F_RESET_DEVICE)) {
    TRY(call(device_, ResetDevice{}));
    return {};
  }
  if (agreed_.has_capability(VHOST_USER_PROTOCOL_F_STATUS)) return set_status(0);
  return refused("the device cannot be reset");
}

}  // namespace ringway::vhost
