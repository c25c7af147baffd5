#include "ringway/kernel/ioctl_server.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "ringway/base/log.h"
#include "ringway/base/notifier.h"
#include "ringway/kernel/as_errno.h"
#include "ringway/kernel/net_backend.h"
#include "ringway/kernel/ring_areas.h"
#include "ringway/kernel/user_range.h"
#include "ringway/vhost/features.h"

namespace ringway::kernel {
namespace {

using vhost::bit;

constexpr uint64_t endian = bit(vhost::VHOST_USER_PROTOCOL_F_CROSS_ENDIAN);
// What is agreed on with a device behind vhost-vdpa, and what of that it must have.
constexpr uint64_t vdpa_needs =
    bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) | bit(vhost::VHOST_USER_PROTOCOL_F_RESET_DEVICE) |
    bit(vhost::VHOST_USER_PROTOCOL_F_MQ) | bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG);
constexpr uint64_t vdpa_capabilities = vdpa_needs | endian;
constexpr uint64_t backend_features = bit(VHOST_BACKEND_F_IOTLB_MSG_V2);
constexpr uint32_t max_ring_entries = 0xffff;        // what SET_VRING_NUM and SET_VRING_BASE can say
constexpr uint64_t max_feature_words = 512;          // of one feature array: a page
constexpr unsigned long request_bits = 0xffff'ffff;  // of an ioctl's number, that the kernel looks at

Result<size_t> take_word_count(Caller& caller, uint64_t from) {
  const auto head = TRY(caller.take<vhost_features_array>(from));
  if (head.count > max_feature_words) return no(E2BIG, "too many words of features");
  return head.count;
}

}  // namespace

// Of two rows the first that the family has counts.
// clang-format off: a table
const std::array<IoctlServer::Row, 50> IoctlServer::rows{{
    {VHOST_GET_FEATURES, Rule::anybody, &IoctlServer::get_features},
    {VHOST_SET_FEATURES, Rule::anybody, &IoctlServer::set_features, Family::net},
    {VHOST_SET_FEATURES, Rule::anybody, &IoctlServer::vdpa_set_features, Family::vdpa},
    {VHOST_GET_FEATURES_ARRAY, Rule::anybody, &IoctlServer::get_features_array, Family::net},
    {VHOST_SET_FEATURES_ARRAY, Rule::anybody, &IoctlServer::set_features_array, Family::net},
    {VHOST_GET_BACKEND_FEATURES, Rule::anybody, &IoctlServer::get_backend_features, Family::net},
    {VHOST_GET_BACKEND_FEATURES, Rule::anybody, &IoctlServer::vdpa_get_backend_features, Family::vdpa},
    {VHOST_SET_BACKEND_FEATURES, Rule::anybody, &IoctlServer::set_backend_features, Family::net},
    {VHOST_SET_BACKEND_FEATURES, Rule::anybody, &IoctlServer::vdpa_set_backend_features, Family::vdpa},
    {VHOST_GET_FORK_FROM_OWNER, Rule::anybody, &IoctlServer::get_fork_owner, Family::net},
    {VHOST_SET_FORK_FROM_OWNER, Rule::anybody, &IoctlServer::set_fork_owner, Family::net},
    {VHOST_SET_OWNER, Rule::anybody, &IoctlServer::set_owner},
    {VHOST_RESET_OWNER, Rule::owner, &IoctlServer::reset_owner, Family::net},
    {VHOST_SET_MEM_TABLE, Rule::owner, &IoctlServer::set_mem_table, Family::net},
    {VHOST_SET_MEM_TABLE, Rule::owner, &IoctlServer::vdpa_set_mem_table, Family::vdpa},
    {VHOST_SET_LOG_BASE, Rule::owner, &IoctlServer::set_log_base, Family::net},
    {VHOST_SET_LOG_BASE, Rule::anybody, &IoctlServer::vdpa_no_log, Family::vdpa},
    {VHOST_SET_LOG_FD, Rule::owner, &IoctlServer::set_log_fd, Family::net},
    {VHOST_SET_LOG_FD, Rule::anybody, &IoctlServer::vdpa_no_log, Family::vdpa},
    {VHOST_SET_VRING_NUM, Rule::ring, &IoctlServer::set_vring_num},
    {VHOST_SET_VRING_ADDR, Rule::ring, &IoctlServer::set_vring_addr},
    {VHOST_SET_VRING_BASE, Rule::ring, &IoctlServer::set_vring_base},
    {VHOST_GET_VRING_BASE, Rule::ring, &IoctlServer::get_vring_base},
    {VHOST_SET_VRING_ENDIAN, Rule::ring, &IoctlServer::set_vring_endian},
    {VHOST_GET_VRING_ENDIAN, Rule::ring, &IoctlServer::get_vring_endian},
    {VHOST_SET_VRING_KICK, Rule::ring, &IoctlServer::set_vring_kick},
    {VHOST_SET_VRING_CALL, Rule::ring, &IoctlServer::set_vring_call},
    {VHOST_SET_VRING_ERR, Rule::ring, &IoctlServer::set_vring_err},
    {VHOST_SET_VRING_BUSYLOOP_TIMEOUT, Rule::ring, &IoctlServer::set_busyloop_timeout},
    {VHOST_GET_VRING_BUSYLOOP_TIMEOUT, Rule::ring, &IoctlServer::get_busyloop_timeout},
    {VHOST_NET_SET_BACKEND, Rule::anybody, &IoctlServer::net_set_backend, Family::net},
    {VHOST_VDPA_GET_DEVICE_ID, Rule::anybody, &IoctlServer::vdpa_get_device_id, Family::vdpa},
    {VHOST_VDPA_GET_STATUS, Rule::anybody, &IoctlServer::vdpa_get_status, Family::vdpa},
    {VHOST_VDPA_SET_STATUS, Rule::anybody, &IoctlServer::vdpa_set_status, Family::vdpa},
    {VHOST_VDPA_GET_CONFIG, Rule::anybody, &IoctlServer::vdpa_get_config, Family::vdpa},
    {VHOST_VDPA_SET_CONFIG, Rule::anybody, &IoctlServer::vdpa_set_config, Family::vdpa},
    {VHOST_VDPA_SET_VRING_ENABLE, Rule::ring, &IoctlServer::vdpa_set_vring_enable, Family::vdpa},
    {VHOST_VDPA_GET_VRING_NUM, Rule::anybody, &IoctlServer::vdpa_get_vring_num, Family::vdpa},
    {VHOST_VDPA_SET_CONFIG_CALL, Rule::anybody, &IoctlServer::vdpa_set_config_call, Family::vdpa},
    {VHOST_VDPA_GET_IOVA_RANGE, Rule::anybody, &IoctlServer::vdpa_get_iova_range, Family::vdpa},
    {VHOST_VDPA_GET_CONFIG_SIZE, Rule::anybody, &IoctlServer::vdpa_get_config_size, Family::vdpa},
    {VHOST_VDPA_GET_VQS_COUNT, Rule::anybody, &IoctlServer::vdpa_get_vqs_count, Family::vdpa},
    {VHOST_VDPA_GET_GROUP_NUM, Rule::anybody, &IoctlServer::vdpa_get_one, Family::vdpa},
    {VHOST_VDPA_GET_AS_NUM, Rule::anybody, &IoctlServer::vdpa_get_one, Family::vdpa},
    {VHOST_VDPA_GET_VRING_GROUP, Rule::ring, &IoctlServer::vdpa_get_vring_group, Family::vdpa},
    {VHOST_VDPA_GET_VRING_DESC_GROUP, Rule::ring, &IoctlServer::vdpa_get_vring_desc_group, Family::vdpa},
    {VHOST_VDPA_GET_VRING_SIZE, Rule::ring, &IoctlServer::vdpa_get_vring_size, Family::vdpa},
    {VHOST_VDPA_SET_GROUP_ASID, Rule::ring, &IoctlServer::vdpa_set_group_asid, Family::vdpa},
    {VHOST_VDPA_SUSPEND, Rule::anybody, &IoctlServer::vdpa_suspend, Family::vdpa},
    {VHOST_VDPA_RESUME, Rule::anybody, &IoctlServer::vdpa_resume, Family::vdpa},
}};
// clang-format on

const IoctlServer::Row* IoctlServer::find(unsigned long request) const {
  const auto* found = std::ranges::find_if(rows, [&](const Row& row) {
    return row.request == (request & request_bits) && serves(options_.family, row.family);
  });
  return found == rows.end() ? nullptr : found;
}

// ---- life

Result<std::unique_ptr<IoctlServer>> IoctlServer::open(const Options& options, MakeDevice make_device) {
  std::unique_ptr<IoctlServer> server(new IoctlServer(options, std::move(make_device)));
  TRY(server->open_device());
  return server;
}

IoctlServer::IoctlServer(const Options& options, MakeDevice make_device)
    : options_(options), make_device_(std::move(make_device)), rings_(options.rings) {}

IoctlServer::~IoctlServer() { messages_->on_change(nullptr); }

Result<> IoctlServer::open_device() {
  served_ = {};
  messages_->clear();
  features_ = 0;
  owner_ = 0;
  table_.clear();
  has_table_ = false;
  has_memory_ = false;
  log_base_ = 0;
  auto served = TRY(make_device_());
  vhost::Device& device = *served.device;
  const uint64_t not_carried = bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES) |
                               bit(is_vdpa() ? unsigned{VHOST_F_LOG_ALL} : unsigned{VIRTIO_F_RING_PACKED});
  offered_ = TRY(vhost::call(device, vhost::GetFeatures{})) & ~not_carried;
  const uint64_t capabilities =
      TRY(vhost::call(device, vhost::GetProtocolFeatures{})).bits & (is_vdpa() ? vdpa_capabilities : endian);
  TRY(vhost::call(device, vhost::SetProtocolFeatures{{capabilities}}));
  TRY(vhost::call(device, vhost::SetFrontEnd{front_end()}));
  TRY(vhost::call(device, vhost::SetFeatures{0}));  // what a caller has that never says anything
  swaps_bytes_ = (capabilities & endian) != 0;
  uint64_t rings = options_.rings;
  if (is_vdpa()) {
    if ((capabilities & vdpa_needs) != vdpa_needs)
      return no(ENODEV, "this device cannot be behind vhost-vdpa");
    offered_ |= bit(VIRTIO_F_ACCESS_PLATFORM);
    rings = TRY(vhost::call(device, vhost::GetQueueNum{}));
  }
  rings_ = std::vector<Ring>(rings);
  served_ = std::move(served);
  return {};
}

std::shared_ptr<vhost::FrontEnd> IoctlServer::front_end() const {
  if (is_vdpa()) return config_call_;
  return messages_;
}

long IoctlServer::ioctl(Caller& caller, unsigned long request, uint64_t argument) {
  Call call{.caller = caller, .argument = argument};
  const std::scoped_lock lock(mutex_);
  const auto done = as_errno(dispatch(call, request), EINVAL);
  if (done) return 0;
  const IoctlInfo* info = find_ioctl(request);
  log::debug("{}: {}", info == nullptr ? "unknown ioctl" : info->name, done.error().to_string());
  return -done.error().os_error;
}

// Takes no lock: a thread that is not there may hold it.
long IoctlServer::ioctl_after_fork(Caller& caller, unsigned long request, uint64_t argument) {
  switch (request & request_bits) {
    case VHOST_GET_FEATURES:
    case VHOST_GET_FEATURES_ARRAY:
    case VHOST_GET_BACKEND_FEATURES:
    case VHOST_GET_FORK_FROM_OWNER:
      break;
    case VHOST_SET_FEATURES:
    case VHOST_SET_FEATURES_ARRAY:
    case VHOST_SET_BACKEND_FEATURES:
    case VHOST_SET_FORK_FROM_OWNER:
    case VHOST_SET_OWNER:
      return -EBUSY;
    default:
      return -EPERM;
  }
  Call call{.caller = caller, .argument = argument};
  const auto done = as_errno((this->*find(request)->serve)(call), EINVAL);
  return done ? 0 : -done.error().os_error;
}

Result<> IoctlServer::dispatch(Call& call, unsigned long request) {
  if (!served_.device) return no(ENODEV, "the device could not be made again");
  const Row* row = find(request);
  const Rule rule = row == nullptr ? Rule::ring : row->rule;
  // An unknown ioctl is taken for one about a ring until the last moment: what it fails with depends on that.
  if (rule != Rule::anybody) TRY(check_owner(call));
  if (rule == Rule::ring) TRY(check_ring(call));
  if (row == nullptr) return no(ENOTTY, "no such ioctl");
  return (this->*row->serve)(call);
}

Result<> IoctlServer::check_owner(const Call& call) const {
  if (owner_ != call.caller.process()) return no(EPERM, "the caller is not the owner");
  return {};
}

Result<> IoctlServer::check_ring(Call& call) const {
  call.ring = TRY(call.caller.take<uint32_t>(call.argument));
  if (call.ring >= rings_.size()) return no(ENOBUFS, "no such ring");
  return {};
}

// ---- features, owner

Result<> IoctlServer::get_features(Call& call) {
  return call.caller.give(call.argument, offered_to(call.caller));
}

uint64_t IoctlServer::offered_to(const Caller& caller) const {
  return caller.lends_log() ? offered_ : offered_ & ~bit(VHOST_F_LOG_ALL);
}

Result<> IoctlServer::set_features(Call& call) {
  return use_features(call.caller, TRY(call.caller.take<uint64_t>(call.argument)));
}

Result<> IoctlServer::use_features(Caller& caller, uint64_t wanted) {
  if ((wanted & ~offered_to(caller)) != 0) return no(EOPNOTSUPP, "features that were not offered");
  if (wanted == features_) return {};
  if ((wanted & bit(VHOST_F_LOG_ALL)) != 0 && any_active()) (void)TRY(log_bytes(caller));
  return with_rings_stopped(caller, [&]() -> Result<> {
    TRY(as_errno(ask(vhost::SetFeatures{wanted}), EFAULT));
    features_ = wanted;
    return {};
  });
}

// Words behind the first are features from 64 on, of which there are none. The count stays as it was.
Result<> IoctlServer::get_features_array(Call& call) {
  std::vector<uint64_t> words(TRY(take_word_count(call.caller, call.argument)));
  if (!words.empty()) words.front() = offered_to(call.caller);
  return call.caller.copy_out(call.argument + sizeof(vhost_features_array), std::as_bytes(std::span(words)));
}

Result<> IoctlServer::set_features_array(Call& call) {
  std::vector<uint64_t> words(TRY(take_word_count(call.caller, call.argument)));
  TRY(call.caller.copy_in(std::as_writable_bytes(std::span(words)),
                          call.argument + sizeof(vhost_features_array)));
  words.resize(std::max(words.size(), size_t{1}));
  if (std::ranges::any_of(words.begin() + 1, words.end(), [](uint64_t word) { return word != 0; }))
    return no(EOPNOTSUPP, "features that were not offered");
  return use_features(call.caller, words.front());
}

Result<> IoctlServer::get_backend_features(Call& call) {
  return call.caller.give(call.argument, backend_features);
}

Result<> IoctlServer::set_backend_features(Call& call) {
  const auto wanted = TRY(call.caller.take<uint64_t>(call.argument));
  if ((wanted & ~backend_features) != 0) return no(EOPNOTSUPP, "features that were not offered");
  messages_->set_version(wanted != 0 ? 2 : 1);
  return {};
}

bool IoctlServer::is_packed() const { return (features_ & bit(VIRTIO_F_RING_PACKED)) != 0; }

bool IoctlServer::has_iotlb() const { return !is_vdpa() && (features_ & bit(VIRTIO_F_ACCESS_PLATFORM)) != 0; }

Result<> IoctlServer::get_fork_owner(Call& call) {
  return call.caller.give(call.argument, options_.fork_owner);
}

Result<> IoctlServer::set_fork_owner(Call& call) {
  if (owner_ != 0) return no(EBUSY, "the device has an owner");
  if (TRY(call.caller.take<uint8_t>(call.argument)) != options_.fork_owner)
    return no(EINVAL, "the workers are not such threads");
  return {};
}

Result<> IoctlServer::set_owner(Call& call) {
  if (owner_ != 0) return no(EBUSY, "the device has an owner");
  TRY(ask(vhost::SetOwner{}));
  owner_ = call.caller.process();
  return {};
}

Result<> IoctlServer::reset_owner(Call&) { return as_errno(open_device(), ENOMEM); }

// ---- memory

Result<> IoctlServer::set_mem_table(Call& call) {
  auto told = TRY(take_table(call));
  // Addresses that are no user's matter to the kernel only when a ring uses the table.
  const bool usable = std::ranges::all_of(told, [](const vhost_memory_region& region) {
    return is_user_range(region.userspace_addr, region.memory_size);
  });
  if (!usable && any_active()) return no(EFAULT, "memory region is no user's");
  if (!usable) told.clear();
  TRY(move_to(call.caller, std::move(told)));
  has_table_ = usable;
  return {};
}

Result<IoctlServer::Table> IoctlServer::take_table(Call& call) {
  const auto head = TRY(call.caller.take<MemoryTableHead>(call.argument));
  if (head.padding != 0) return no(EOPNOTSUPP, "memory table is padded");
  if (head.nregions > options_.max_regions) return no(E2BIG, "too many memory regions");
  Table told(head.nregions);
  TRY(call.caller.copy_in(std::as_writable_bytes(std::span(told)), call.argument + sizeof head));
  for (const vhost_memory_region& region : told) {
    const memory::GuestAddress guest{region.guest_phys_addr};
    if (region.memory_size == 0 || !guest.plus(region.memory_size - 1))
      return no(EFAULT, "memory region wraps");
  }
  return told;
}

// Rings move along. Where one cannot, all stay with the table of before.
Result<> IoctlServer::move_to(Caller& caller, Table told) {
  auto request = TRY(share(caller, told));
  const auto running = TRY(stop_all());
  const auto set = use(std::move(request));
  if (set) table_.swap(told);
  auto moved = set;
  if (const auto started = start_all(caller, running); set && !started) {
    limited_.warning("memory table does not hold the rings: {}", started.error().to_string());
    moved = no(EFAULT, "a ring cannot be in the memory table");
    TRY(stop_all());
    table_.swap(told);
    TRY(use(TRY(share(caller, table_))));
    TRY(start_all(caller, running));
  }
  return moved;
}

Result<vhost::SetMemTable> IoctlServer::share(Caller& caller, const Table& told) {
  vhost::SetMemTable request;
  for (const vhost_memory_region& region : told) {
    const memory::RegionLayout layout{
        .guest = {region.guest_phys_addr}, .size = region.memory_size, .front_end = {region.userspace_addr}};
    TRY(as_errno(caller.share(layout, request.regions), EFAULT));
  }
  return request;
}

Result<> IoctlServer::use(vhost::SetMemTable request) {
  const bool empty = request.regions.empty();
  if (auto set = as_errno(ask(std::move(request)), EFAULT); !set) {
    limited_.warning("memory table is refused: {}", set.error().to_string());
    return std::unexpected(set.error());
  }
  has_memory_ = !empty;
  return {};
}

// ---- rings

Result<> IoctlServer::set_vring_num(Call& call) {
  Ring& ring = rings_[call.ring];
  if (ring.active) return no(EBUSY, "the ring is active");
  const auto state = TRY(call.caller.take<vhost_vring_state>(call.argument));
  if (!std::has_single_bit(state.num) || state.num > options_.max_size) return no(EINVAL, "ring size");
  ring.size = state.num;
  return {};
}

Result<> IoctlServer::set_vring_addr(Call& call) {
  const auto told = TRY(call.caller.take<vhost_vring_addr>(call.argument));
  if ((told.flags & ~(1U << VHOST_VRING_F_LOG)) != 0) return no(EOPNOTSUPP, "undefined ring flags");
  if (told.avail_user_addr % VRING_AVAIL_ALIGN_SIZE != 0 ||
      told.used_user_addr % VRING_USED_ALIGN_SIZE != 0 || told.log_guest_addr % VRING_USED_ALIGN_SIZE != 0) {
    return no(EINVAL, "ring is not aligned");
  }
  Ring& ring = rings_[call.ring];
  const bool was_active = ring.active;
  const auto before = ring.addresses;
  const vhost::SetVringAddr fresh{.ring = call.ring,
                                  .flags = told.flags,
                                  .desc = told.desc_user_addr,
                                  .used = told.used_user_addr,
                                  .avail = told.avail_user_addr,
                                  .log = told.log_guest_addr};
  if (was_active) TRY(stop(call.ring));
  ring.addresses = fresh;
  if (!was_active) return {};
  const auto started = start(call.caller, call.ring);
  if (started) return {};
  ring.addresses = before;
  TRY(start(call.caller, call.ring));
  return no(EINVAL, "the ring cannot be there");
}

Result<> IoctlServer::set_vring_base(Call& call) {
  Ring& ring = rings_[call.ring];
  if (ring.active) return no(EBUSY, "the ring is active");
  const auto state = TRY(call.caller.take<vhost_vring_state>(call.argument));
  if (!is_packed() && state.num > max_ring_entries) return no(EINVAL, "ring base");
  ring.base = state.num;
  return {};
}

Result<> IoctlServer::get_vring_base(Call& call) {
  Ring& ring = rings_[call.ring];
  if (ring.active) {
    TRY(stop(call.ring));
    // Where it cannot go on, its memory has gone; the base is still what it was.
    if (!start(call.caller, call.ring)) limited_.warning("ring {} has ended", call.ring);
  }
  return call.caller.give(call.argument, vhost_vring_state{.index = call.ring, .num = ring.base});
}

Result<> IoctlServer::set_vring_endian(Call& call) {
  if (!swaps_bytes_) return no(ENOTTY, "no other byte order is served");
  Ring& ring = rings_[call.ring];
  if (ring.active) return no(EBUSY, "the ring is active");
  const auto state = TRY(call.caller.take<vhost_vring_state>(call.argument));
  if (state.num > VHOST_VRING_BIG_ENDIAN) return no(EINVAL, "byte order");
  ring.big_endian = state.num;
  return {};
}

Result<> IoctlServer::get_vring_endian(Call& call) {
  if (!swaps_bytes_) return no(ENOTTY, "no other byte order is served");
  return call.caller.give(call.argument,
                          vhost_vring_state{.index = call.ring, .num = rings_[call.ring].big_endian});
}

Result<> IoctlServer::set_busyloop_timeout(Call& call) {
  rings_[call.ring].busyloop_timeout = TRY(call.caller.take<vhost_vring_state>(call.argument)).num;
  return {};
}

Result<> IoctlServer::get_busyloop_timeout(Call& call) {
  return call.caller.give(call.argument,
                          vhost_vring_state{.index = call.ring, .num = rings_[call.ring].busyloop_timeout});
}

// No descriptor: unbind.
Result<UniqueFd> IoctlServer::take_eventfd(Call& call) {
  return eventfd_of(call.caller, TRY(call.caller.take<vhost_vring_file>(call.argument)).fd);
}

Result<UniqueFd> IoctlServer::eventfd_of(Caller& caller, int number) {
  if (number == VHOST_FILE_UNBIND) return UniqueFd();
  UniqueFd fd = TRY(caller.descriptor(number));
  const auto kind = notify_kind(fd.get());
  if (!kind || *kind != NotifyKind::eventfd) return no(EINVAL, "not an eventfd");
  return fd;
}

Result<> IoctlServer::set_vring_kick(Call& call) {
  UniqueFd fd = TRY(take_eventfd(call));
  // For a device none means polling; for the kernel that nobody kicks.
  if (!fd) fd = TRY(make_eventfd());
  Ring& ring = rings_[call.ring];
  ring.kick = std::move(fd);
  if (ring.active) TRY(ask(vhost::SetVringKick{call.ring, TRY(ring.kick.duplicate())}));
  return {};
}

Result<> IoctlServer::set_vring_call(Call& call) {
  TRY(ask(vhost::SetVringCall{call.ring, TRY(take_eventfd(call))}));
  return {};
}

Result<> IoctlServer::set_vring_err(Call& call) {
  TRY(ask(vhost::SetVringErr{call.ring, TRY(take_eventfd(call))}));
  return {};
}

// ---- start and stop

Result<> IoctlServer::net_set_backend(Call& call) {
  const auto file = TRY(call.caller.take<vhost_vring_file>(call.argument));
  TRY(check_owner(call));
  call.ring = file.index;
  if (call.ring >= rings_.size()) return no(ENOBUFS, "no such ring");
  if (!has_table_) return no(EFAULT, "there is no memory table");
  UniqueFd backend;
  if (file.fd != VHOST_FILE_UNBIND) {
    auto fd = call.caller.descriptor(file.fd);
    if (!fd || !is_net_backend(fd->get())) return no(ENOTSOCK, "neither a tap nor a packet socket");
    backend = *std::move(fd);
  }
  return bind(call, std::move(backend));
}

// Another backend under a running ring: that stops, and goes on with it.
Result<> IoctlServer::bind(Call& call, UniqueFd backend) {
  TRY(unbind(call.ring));
  if (!backend) return {};
  TRY(hand_over(call.ring, backend));
  if (auto started = start(call.caller, call.ring); !started) {
    TRY(hand_over(call.ring, {}));
    return started;
  }
  rings_[call.ring].backend = std::move(backend);
  return {};
}

Result<> IoctlServer::unbind(uint32_t index) {
  TRY(stop(index));
  if (!rings_[index].backend) return {};
  rings_[index].backend.reset();
  return hand_over(index, {});
}

Result<> IoctlServer::hand_over(uint32_t index, const UniqueFd& backend) {
  if (!served_.set_backend) return {};
  return as_errno(served_.set_backend(index, backend ? TRY(backend.duplicate()) : UniqueFd()), EINVAL);
}

Result<> IoctlServer::start(Caller& caller, uint32_t index) {
  Ring& ring = rings_[index];
  if (ring.size == 0 || !ring.addresses || !has_memory_) return no(EFAULT, "the ring is not described");
  vhost::SetVringAddr addresses = TRY(place(caller, *ring.addresses, ring.size));
  if (logs())
    TRY(lend_log(caller, &ring));
  else
    addresses.flags = 0;
  if (!ring.kick) ring.kick = TRY(make_eventfd());
  TRY(as_errno(ask(vhost::SetVringNum{index, ring.size}), EINVAL));
  TRY(as_errno(ask(vhost::SetVringAddr{addresses}), EFAULT));
  TRY(as_errno(ask(vhost::SetVringBase{index, ring.base}), EINVAL));
  if (swaps_bytes_) TRY(as_errno(ask(vhost::SetVringEndian{index, ring.big_endian}), EINVAL));
  auto started = as_errno(ask(vhost::SetVringKick{index, TRY(ring.kick.duplicate())}), EFAULT);
  if (!started) {
    limited_.warning("ring {} cannot start: {}", index, started.error().to_string());
    return std::unexpected(started.error());
  }
  ring.active = true;
  return {};
}

Result<> IoctlServer::stop(uint32_t index) {
  Ring& ring = rings_[index];
  if (!ring.active) return {};
  ring.active = false;
  ring.base = TRY(ask(vhost::GetVringBase{index})).value;
  return {};
}

bool IoctlServer::any_active() const {
  return std::ranges::any_of(rings_, [](const Ring& ring) { return ring.active; });
}

Result<std::vector<uint32_t>> IoctlServer::stop_all() {
  std::vector<uint32_t> running;
  for (uint32_t index = 0; index < rings_.size(); ++index) {
    if (!rings_[index].active) continue;
    running.push_back(index);
    TRY(stop(index));
  }
  return running;
}

Result<> IoctlServer::start_all(Caller& caller, const std::vector<uint32_t>& rings) {
  Result<> first;
  for (const uint32_t index : rings) {
    if (auto started = start(caller, index); !started && first) first = started;
  }
  return first;
}

template <class Change>
Result<> IoctlServer::with_rings_stopped(Caller& caller, Change change) {
  const auto running = TRY(stop_all());
  const auto changed = change();
  TRY(start_all(caller, running));
  return changed;
}

Result<vhost::SetVringAddr> IoctlServer::place(Caller& caller, vhost::SetVringAddr at, uint32_t size) const {
  if (is_vdpa()) {
    at.desc = TRY(as_errno(mapped_.front_end(at.desc, desc_bytes(size)), EINVAL));
    at.avail = TRY(as_errno(mapped_.front_end(at.avail, avail_bytes(size, is_packed())), EINVAL));
    at.used = TRY(as_errno(mapped_.front_end(at.used, used_bytes(size, is_packed())), EINVAL));
  } else if (!has_iotlb()) {
    TRY(check_areas(caller, at, size));
  }
  return at;
}

Result<> IoctlServer::check_areas(Caller& caller, const vhost::SetVringAddr& at, uint32_t size) {
  using enum memory::Access;
  TRY(caller.probe(at.desc, size * sizeof(vring_desc), read));
  TRY(caller.probe(at.avail, sizeof(vring_avail) + size * sizeof(__virtio16), read));
  return caller.probe(at.used, sizeof(vring_used) + size * sizeof(vring_used_elem), read_write);
}

// ---- IOTLB

Result<size_t> IoctlServer::read(std::span<std::byte> to, Reader reader) {
  if (is_vdpa()) return no(EINVAL, "vhost-vdpa has nothing to read");
  auto result = messages_->read(to);
  if (result || result.error().os_error != EAGAIN || reader == Reader::at_once) return result;
  const std::scoped_lock lock(mutex_);
  if (!has_iotlb()) return no(EBADFD, "there is no IOTLB");
  return result;
}

// Whatever is wrong with a message of that form, the kernel has one answer.
Result<size_t> IoctlServer::write(Caller& caller, std::span<const std::byte> from) {
  const vhost::IotlbMessage message = TRY(IotlbMessages::decode(from));
  if (message.type == vhost::IotlbType::update && message.size == 0)
    return no(EINVAL, "an update of no bytes");
  const std::scoped_lock lock(mutex_);
  if (!served_.device) return no(EFAULT, "the device could not be made again");
  if (const auto done = is_vdpa() ? vdpa_write(caller, message) : net_write(message); !done) {
    log::debug("IOTLB message: {}", done.error().to_string());
    return no(EFAULT, done.error().what);
  }
  return IotlbMessages::size;
}

Result<> IoctlServer::net_write(const vhost::IotlbMessage& message) {
  const bool known = message.type == vhost::IotlbType::update || message.type == vhost::IotlbType::invalidate;
  if (!has_iotlb() || !known) return refused("no IOTLB takes this message");
  TRY(ask(vhost::UpdateIotlb{message}));
  return {};
}

}  // namespace ringway::kernel
