#include "ringway/engine/local_device.h"

#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "ringway/base/log.h"
#include "ringway/engine/kick_waiter.h"
#include "ringway/ring/inflight.h"
#include "ringway/ring/predecessor.h"
#include "ringway/vhost/features.h"

namespace ringway::engine {
namespace {

using vhost::bit;
using vhost::Done;

constexpr uint64_t ring_features = bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_RING_PACKED) |
                                   bit(VIRTIO_RING_F_INDIRECT_DESC) | bit(VIRTIO_RING_F_EVENT_IDX) |
                                   bit(VIRTIO_F_IN_ORDER) | bit(VIRTIO_F_ANY_LAYOUT) |
                                   bit(VIRTIO_F_ACCESS_PLATFORM) | bit(VHOST_F_LOG_ALL);

// Of no concern to a device.
constexpr uint64_t vhost_features = bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES) | bit(VHOST_F_LOG_ALL);

constexpr uint32_t max_config_size = 256;  // vhost-user "Virtio device config space"

Result<std::shared_ptr<const memory::Region>> open_region(vhost::MemoryRegion& region) {
  if (region.origin == vhost::MemoryRegion::Origin::own_process) return memory::Region::borrow(region.layout);
  return memory::Region::open(region.layout, std::move(region.fd));
}

// A file that nobody can make shorter or longer: a front-end keeps it and maps it, as we do.
Result<UniqueFd> make_sealed_file(uint64_t bytes) {
  UniqueFd file(::memfd_create("in-flight area", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return os_failure("cannot make an in-flight area");
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0)
    return os_failure("cannot make an in-flight area");
  if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return os_failure("cannot seal an in-flight area");
  return file;
}

// Without an in-flight area nobody knows what is between the requests that were taken and those that were
// answered: they would never be done, or be done twice.
Result<> check_nothing_between(const ring::RingConfig& config) {
  const ring::RingBase& base = config.base;
  if (config.format.packed) {
    if (base.avail == base.used && base.avail_wrap == base.used_wrap) return {};
    return refused("ring has requests in flight that no in-flight area tells of", base.avail);
  }
  const ring::ByteOrder order(config.format.big_endian);
  const auto used = order.load<uint16_t>(config.device.data() + ring::index_at);
  if (used == base.avail) return {};
  return refused("ring begins elsewhere than at its used index, and no in-flight area tells why", used);
}

std::unexpected<Error> not_offered() { return refused("not offered by this device"); }

}  // namespace

LocalDevice::LocalDevice(Model& model, Workers& workers, Options options)
    : model_(model),
      workers_(workers),
      options_(options),
      first_worker_(workers.next_start()),
      vrings_(model.queue_count()) {
  model_.on_config_change([this] { config_changed(); });
}

LocalDevice::~LocalDevice() {
  model_.on_config_change(nullptr);
  disconnect();
}

Result<vhost::DeviceReply> LocalDevice::handle(vhost::DeviceRequest request) {
  const memory::FaultGuard::Work work;
  const std::scoped_lock lock(mutex_);
  return std::visit(
      [this](auto& alternative) -> Result<vhost::DeviceReply> {
        return vhost::DeviceReply(TRY(on(alternative)));
      },
      request);
}

void LocalDevice::disconnect() {
  front_end_.disconnect();
  expect_no_more_pages();
  const memory::FaultGuard::Work work;
  const std::scoped_lock lock(mutex_);
  reset_device();
  end_postcopy();
  vrings_ = std::vector<Vring>(model_.queue_count());
  features_ = 0;
  model_.set_features(0);
  capabilities_ = {};
  map_ = memory::Map::empty();
  inflight_ = {};
  iotlb_ = memory::IotlbTable::empty();
  log_.reset();
  log_news_.reset();
  questions_.clear();
}

// ---- features
// --------------------------------------------------------------------------------------------------------

Result<uint64_t> LocalDevice::on(const vhost::GetFeatures&) { return model_.features() | ring_features; }

Result<Done> LocalDevice::on(const vhost::SetFeatures& request) {
  const uint64_t before = std::exchange(features_, request.features);
  model_.set_features(features_ & ~vhost_features);
  if (((before ^ features_) & bit(VHOST_F_LOG_ALL)) != 0) TRY(set_logs());
  if (!has(vhost::VHOST_USER_F_PROTOCOL_FEATURES)) {
    for (Vring& vring : vrings_) {
      if (!std::exchange(vring.enabled, true)) stop(vring);
    }
    TRY(start_all());
  }
  return Done{};
}

Result<vhost::Capabilities> LocalDevice::on(const vhost::GetProtocolFeatures&) {
  uint64_t bits = bit(vhost::VHOST_USER_PROTOCOL_F_MQ) | bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD) |
                  bit(vhost::VHOST_USER_PROTOCOL_F_CROSS_ENDIAN) |
                  bit(vhost::VHOST_USER_PROTOCOL_F_RESET_DEVICE) | bit(vhost::VHOST_USER_PROTOCOL_F_STATUS) |
                  bit(vhost::VHOST_USER_PROTOCOL_F_DEVICE_STATE) |
                  bit(vhost::VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) |
                  bit(vhost::VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT) |
                  bit(vhost::VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN);
  // One excludes the other.
  if (options_.offer_postcopy)
    bits |= bit(vhost::VHOST_USER_PROTOCOL_F_PAGEFAULT);
  else if (model_.has_one_memory_table())
    bits |= bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
  if (model_.config_size() > 0) bits |= bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG);
  if (model_.takes_mtu()) bits |= bit(vhost::VHOST_USER_PROTOCOL_F_MTU);
  if (model_.announces()) bits |= bit(vhost::VHOST_USER_PROTOCOL_F_RARP);
  if (options_.offer_inband_notifications) bits |= bit(vhost::VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS);
  return vhost::Capabilities{bits};
}

Result<Done> LocalDevice::on(const vhost::SetProtocolFeatures& request) {
  capabilities_ = request.capabilities;
  return Done{};
}

Result<Done> LocalDevice::on(const vhost::SetOwner&) { return Done{}; }

Result<Done> LocalDevice::on(const vhost::ResetOwner&) {
  for (Vring& vring : vrings_) {
    stop(vring);
    vring.enabled = false;
  }
  return Done{};
}

Result<uint64_t> LocalDevice::on(const vhost::GetQueueNum&) { return vrings_.size(); }

// ---- memory
// ----------------------------------------------------------------------------------------------------------

Result<vhost::DeviceReply> LocalDevice::on(vhost::SetMemTable& request) {
  std::vector<std::shared_ptr<const memory::Region>> regions;
  for (vhost::MemoryRegion& region : request.regions) {
    regions.push_back(TRY(open_region(region)));
  }
  auto map = TRY(memory::Map::of(std::move(regions)));
  if (postcopy_ && postcopy_->listening()) return promise_memory(map);
  TRY(replace_map(std::move(map)));
  return vhost::DeviceReply(Done{});
}

Result<uint64_t> LocalDevice::on(const vhost::GetMaxMemSlots&) { return options_.max_mem_slots; }

Result<Done> LocalDevice::on(vhost::AddMemReg& request) {
  if (map_->regions().size() >= options_.max_mem_slots)
    return refused("all memory slots are taken", options_.max_mem_slots);
  auto region = TRY(open_region(request.region));
  map_ = TRY(map_->with(std::move(region)));
  set_views(false);
  start_all_or_report();
  return Done{};
}

Result<Done> LocalDevice::on(const vhost::RemMemReg& request) {
  TRY(replace_map(TRY(map_->without(request.layout))));
  return Done{};
}

Result<> LocalDevice::replace_map(std::shared_ptr<const memory::Map> map) {
  map_ = std::move(map);
  restart_running();
  start_all_or_report();
  return {};
}

memory::View LocalDevice::view() const {
  memory::View view(map_, has(VIRTIO_F_ACCESS_PLATFORM) ? iotlb_ : nullptr);
  view.let_pages_lack(postcopy_ && postcopy_->listening());
  return view;
}

void LocalDevice::set_views(bool drain) {
  for (Vring& vring : vrings_) {
    if (vring.queue) vring.queue->set_view(view(), drain);
  }
}

// ---- IOTLB
// -----------------------------------------------------------------------------------------------------------

Result<Done> LocalDevice::on(const vhost::UpdateIotlb& request) {
  vhost::IotlbMessage message = request.message;
  if (message.type == vhost::IotlbType::invalidate && message.size == 0) {
    message.iova = {};  // 2^64 bytes, whose size has no number: everything
    message.size = UINT64_MAX;
  }
  const bool revokes = iotlb_->overlaps(message.iova, message.size);
  if (message.type == vhost::IotlbType::invalidate) {
    iotlb_ = iotlb_->without(message.iova, message.size);
  } else {
    iotlb_ = TRY(iotlb_->with(TRY(checked_entry(message))));
    questions_.close(message.iova, message.size);
  }
  if (revokes) {
    revoke(message.iova, message.size);
  } else {
    set_views(false);
  }
  start_all_or_report();
  return Done{};
}

Result<memory::IotlbEntry> LocalDevice::checked_entry(const vhost::IotlbMessage& message) const {
  std::array<iovec, 512> storage;
  memory::Segments pieces{std::span(storage)};
  if (!map_->translate(message.front_end, message.size, pieces)) {
    return refused("IOTLB update maps outside the memory table", message.front_end.value);
  }
  return memory::IotlbEntry{.iova = message.iova,
                            .size = message.size,
                            .front_end = message.front_end,
                            .access = static_cast<memory::Access>(message.permission)};
}

// When this returns nothing uses the revoked range: chains are drained, and rings that lie in it are stopped
// until the front-end tells where they are.
void LocalDevice::revoke(vhost::GuestAddress iova, uint64_t size) {
  for (size_t index = 0; index < vrings_.size(); ++index) {
    Vring& vring = vrings_[index];
    end_suspended(vring);
    if (!vring.queue) continue;
    if (lies_in(vring, iova, size))
      stop(vring);
    else
      vring.queue->set_view(view(), true);
  }
}

bool LocalDevice::lies_in(const Vring& vring, vhost::GuestAddress iova, uint64_t size) const {
  const ring::Format format = ring::Format::of(features_, vring.big_endian);
  const auto overlaps = [&](uint64_t address, uint64_t length) {
    return address - iova.value < size || iova.value - address < length;  // distances modulo 2^64
  };
  return overlaps(vring.addresses.desc, ring::RingConfig::desc_bytes(vring.size, format)) ||
         overlaps(vring.addresses.avail, ring::RingConfig::driver_bytes(vring.size, format)) ||
         overlaps(vring.addresses.used, ring::RingConfig::device_bytes(vring.size, format));
}

Result<Done> LocalDevice::on(vhost::SetFrontEnd& request) {
  TRY(front_end_.connect(std::move(request.front_end)));
  questions_.clear();
  set_views(false);  // misses that nobody could be told are told now
  start_all_or_report();
  return Done{};
}

// ---- rings
// -----------------------------------------------------------------------------------------------------------

LocalDevice::Vring& LocalDevice::vring(vhost::RingIndex index) {
  assert(index < vrings_.size());
  return vrings_[index];
}

Result<Done> LocalDevice::on(const vhost::SetVringNum& request) {
  if (request.size > model_.max_queue_size())
    return refused("ring is larger than this device serves", request.size);
  vring(request.ring).size = request.size;
  start_all_or_report();
  return Done{};
}

Result<Done> LocalDevice::on(const vhost::SetVringAddr& request) {
  Vring& vring = this->vring(request.ring);
  const vhost::SetVringAddr before = std::exchange(vring.addresses, request);
  if (auto fits = check_log(vring); !fits) {
    vring.addresses = before;
    return std::unexpected(fits.error());
  }
  vring.has_addresses = true;
  if (vring.queue) TRY(vring.queue->set_log(logging(vring)));
  return Done{};
}

Result<Done> LocalDevice::on(const vhost::SetVringBase& request) {
  vring(request.ring).base = request.base;
  return Done{};
}

Result<Done> LocalDevice::on(const vhost::SetVringEndian& request) {
  vring(request.ring).big_endian = request.big != 0;
  return Done{};
}

Result<vhost::RingState> LocalDevice::on(const vhost::GetVringBase& request) {
  stop(vring(request.ring));
  return forget_start(request.ring);
}

Result<vhost::RingState> LocalDevice::on(const vhost::GetVringBaseSkipDrain& request) {
  suspend(vring(request.ring));
  return forget_start(request.ring);
}

vhost::RingState LocalDevice::forget_start(vhost::RingIndex ring) {
  Vring& vring = this->vring(ring);
  vring.wanted = false;
  vring.kick_waiter.reset();
  vring.page_waiter.reset();
  vring.kick.reset();
  return vhost::RingState{.ring = ring, .value = vring.base};
}

Result<Done> LocalDevice::on(vhost::SetVringKick& request) {
  Vring& vring = this->vring(request.ring);
  std::shared_ptr<const Signal> kick;
  if (request.fd) kick = std::make_shared<const Signal>(TRY(Signal::adopt(std::move(request.fd))));
  vring.must_poll = !kick && !capable(vhost::VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS);
  if (vring.queue) vring.queue->set_kick(kick, vring.must_poll);
  vring.kick_waiter.reset();
  vring.kick = std::move(kick);
  vring.wanted = true;
  const auto started = try_start(static_cast<uint16_t>(request.ring));
  if (!started) {
    vring.wanted = false;
    return std::unexpected(started.error());
  }
  if (*started == Start::not_yet && vring.kick) wait_for_kick(static_cast<uint16_t>(request.ring));
  return Done{};
}

Result<Done> LocalDevice::on(vhost::SetVringCall& request) {
  Vring& vring = this->vring(request.ring);
  vring.call.reset();
  if (request.fd) {
    vring.call = std::make_shared<const Notifier>(TRY(Notifier::adopt(std::move(request.fd))));
    vring.call->signal();  // drivers in the field wait for what they may have missed
  }
  if (vring.queue) vring.queue->set_call(vring.call);
  return Done{};
}

Result<Done> LocalDevice::on(vhost::SetVringErr& request) {
  Vring& vring = this->vring(request.ring);
  vring.err.reset();
  if (request.fd) vring.err = std::make_shared<const Notifier>(TRY(Notifier::adopt(std::move(request.fd))));
  if (vring.queue) vring.queue->set_err(vring.err);
  return Done{};
}

Result<Done> LocalDevice::on(const vhost::SetVringEnable& request) {
  Vring& vring = this->vring(request.ring);
  const bool was_enabled = std::exchange(vring.enabled, request.enable != 0);
  if (vring.enabled != was_enabled) stop(vring);
  TRY(try_start(static_cast<uint16_t>(request.ring)));
  return Done{};
}

Result<Done> LocalDevice::on(const vhost::VringKick& request) {
  Vring& vring = this->vring(request.ring);
  vring.wanted = true;
  TRY(try_start(static_cast<uint16_t>(request.ring)));
  if (vring.queue) vring.queue->kick();
  return Done{};
}

void LocalDevice::wait_for_kick(uint16_t index) {
  if (born_still_) return;
  vrings_[index].kick_waiter = std::make_unique<KickWaiter>(*this, index, vrings_[index].kick);
}

void LocalDevice::wait_for_no_kicks() {
  for (Vring& vring : vrings_) vring.kick_waiter.reset();
}

void LocalDevice::go_on() {
  const std::scoped_lock lock(mutex_);
  born_still_ = false;
  for (size_t i = 0; i < vrings_.size(); ++i) {
    const Vring& vring = vrings_[i];
    for (RunningQueue* queue : queues_of(vring)) {
      if (queue != nullptr) queue->go_on();
    }
    if (!vring.queue && vring.wanted && vring.kick) wait_for_kick(static_cast<uint16_t>(i));
  }
}

void LocalDevice::on_waiting_kick(uint16_t index) {
  if (auto started = try_start(index); !started) {
    log::warning("queue {} cannot start: {}", index, started.error().to_string());
  }
}

Result<memory::Window> LocalDevice::open_area(uint64_t address, uint64_t length, memory::Access access) {
  if (!has(VIRTIO_F_ACCESS_PLATFORM))
    return memory::Window::open(map_, memory::FrontEndAddress{address}, length);
  memory::Translation failure;
  auto window = memory::Window::open(view(), memory::GuestAddress{address}, length, access, failure);
  if (!window && failure.outcome == memory::Translation::miss) ask(failure);
  return window;
}

Result<ring::RingConfig> LocalDevice::open_ring(Vring& vring) {
  const ring::Format format = ring::Format::of(features_, vring.big_endian);
  const auto desc_access = format.packed ? memory::Access::read_write : memory::Access::read;
  const vhost::SetVringAddr& at = vring.addresses;
  ring::RingConfig config{
      .size = vring.size, .format = format, .base = ring::RingBase::from_wire(vring.base, format.packed)};
  config.desc = TRY(open_area(at.desc, ring::RingConfig::desc_bytes(vring.size, format), desc_access));
  config.driver =
      TRY(open_area(at.avail, ring::RingConfig::driver_bytes(vring.size, format), memory::Access::read));
  config.device =
      TRY(open_area(at.used, ring::RingConfig::device_bytes(vring.size, format), memory::Access::write));
  if ((model_.uses_in_order() || format.in_order) && !inflight_.map) config.resume_at_used_index();
  if (inflight_.map) {
    const auto queue = static_cast<uint64_t>(&vring - vrings_.data());
    config.inflight = TRY(open_inflight(queue, format));
  }
  return config;
}

Result<LocalDevice::Start> LocalDevice::try_start(uint16_t index) {
  Vring& vring = vrings_[index];
  if (vring.queue) return Start::running;
  const bool driver_ready =
      !capable(vhost::VHOST_USER_PROTOCOL_F_STATUS) || (status_ & VIRTIO_CONFIG_S_DRIVER_OK) != 0;
  const bool described = vring.size > 0 && vring.has_addresses && !map_->regions().empty();
  const bool may_run = vring.enabled || model_.runs_disabled(index);
  if (!vring.wanted || !may_run || !described || !driver_ready) return Start::not_yet;
  auto config = open_ring(vring);
  // With an IOTLB the ring starts when the front-end has told where it lies.
  if (!config && has(VIRTIO_F_ACCESS_PLATFORM)) return Start::not_yet;
  if (!config) return std::unexpected(config.error());
  if (postcopy_ && !TRY(pages_are_here(vring, index))) return Start::not_yet;
  end_suspended(vring);
  if (!config->is_tracked()) TRY(check_untracked(index, *config));
  auto ring = TRY(ring::start(*std::move(config), view()));
  if (map_->broken()) return refused("the front-end took away its memory");
  std::unique_ptr<ring::RingLog> log;
  if (auto logged = logging(vring)) log = TRY(ring::RingLog::create(vring.size, *std::move(logged)));
  end_waiters(vring);
  RunningQueue::Setup setup{.index = index,
                            .features = features_ & ~bit(VHOST_F_LOG_ALL),
                            .big_endian = vring.big_endian,
                            .enabled = vring.enabled,
                            .must_poll = vring.must_poll,
                            .stands_still = born_still_,
                            .kick = vring.kick,
                            .call = vring.call,
                            .err = vring.err,
                            .log = std::move(log),
                            .fetcher = postcopy_ ? postcopy_->fetcher() : nullptr,
                            .events = events_for(index)};
  TRY(resume_model());
  auto& worker = workers_.worker(first_worker_ + model_.worker_of(index));
  vring.queue = std::make_unique<RunningQueue>(worker, model_, std::move(ring), view(), std::move(setup));
  running_.fetch_add(1);
  if (config_change_waits_.exchange(false)) front_end_.post(vhost::ConfigChange{});
  return Start::running;
}

// A ring that was stopped here is known to have nothing in flight. Of any other nobody knows, unless its
// chains are used in order: said aloud, for it cannot be refused to every machine that has moved, or stopped
// its back-end.
Result<> LocalDevice::check_untracked(uint16_t index, const ring::RingConfig& config) {
  TRY(check_nothing_between(config));
  TRY(config.validate());
  const Vring& vring = vrings_[index];
  if (vring.base == vring.drained_at || born_still_ || model_.uses_in_order() || config.format.in_order)
    return {};
  const uint32_t doubtful = ring::doubtful_chains(config);
  if (doubtful == 0) return {};
  limited_.warning(
      "queue {} was served by somebody else before, out of order and without an in-flight area, and {} "
      "requests wait: if that back-end was not stopped but has died, up to {} requests that it had taken "
      "will never be answered",
      index, doubtful, doubtful);
  return {};
}

// A waiter that starts its ring is at work itself.
void LocalDevice::end_waiters(Vring& vring) {
  for (std::unique_ptr<KickWaiter>* waiter : {&vring.kick_waiter, &vring.page_waiter}) {
    if (*waiter && workers_.control().is_current()) {
      (*waiter)->retire();
    } else {
      waiter->reset();
    }
  }
}

Result<> LocalDevice::start_all() {
  for (size_t index = 0; index < vrings_.size(); ++index) TRY(try_start(static_cast<uint16_t>(index)));
  return {};
}

void LocalDevice::start_all_or_report() {
  for (size_t index = 0; index < vrings_.size(); ++index) {
    if (auto started = try_start(static_cast<uint16_t>(index)); !started) {
      break_stopped(vrings_[index], static_cast<uint16_t>(index), started.error());
    }
  }
}

void LocalDevice::stop(Vring& vring) {
  end_suspended(vring);
  if (!vring.queue) return;
  vring.base = vring.queue->stop().to_wire(ring::Format::of(features_, false).packed);
  vring.drained_at = vring.base;
  vring.queue.reset();
  running_.fetch_sub(1);
  suspend_model();
}

void LocalDevice::suspend(Vring& vring) {
  if (!vring.queue) return;
  const auto base = vring.queue->suspend();
  if (!base) return stop(vring);  // nobody would know what is dropped
  vring.base = base->to_wire(ring::Format::of(features_, false).packed);
  vring.suspended = std::move(vring.queue);
  running_.fetch_sub(1);
}

void LocalDevice::end_suspended(Vring& vring) {
  if (!vring.suspended) return;
  vring.suspended->stop();
  vring.suspended.reset();
  suspend_model();
}

Result<> LocalDevice::resume_model() {
  if (!resumed_) TRY(model_.resume());
  resumed_ = true;
  return {};
}

// When no queue is left, also none that was stopped without waiting: what it has begun may still end.
void LocalDevice::suspend_model() {
  const bool idle = std::ranges::none_of(
      vrings_, [](const Vring& vring) { return vring.queue != nullptr || vring.suspended != nullptr; });
  if (idle && std::exchange(resumed_, false)) model_.suspend();
}

void LocalDevice::stop_all() {
  for (Vring& vring : vrings_) stop(vring);
}

void LocalDevice::restart_running() {
  std::vector<uint16_t> were_running;
  for (size_t index = 0; index < vrings_.size(); ++index) {
    end_suspended(vrings_[index]);
    if (!vrings_[index].queue) continue;
    stop(vrings_[index]);
    were_running.push_back(static_cast<uint16_t>(index));
  }
  for (const uint16_t index : were_running) {
    const auto started = try_start(index);
    if (!started) break_stopped(vrings_[index], index, started.error());
  }
}

void LocalDevice::break_stopped(Vring& vring, uint16_t index, const Error& error) {
  log::warning("queue {} cannot go on: {}", index, error.to_string());
  vring.wanted = false;
  needs_reset_ = true;
  if (vring.err) {
    vring.err->signal();
  } else {
    events_for(index).in_band_err();
  }
}

// Any thread.
void LocalDevice::ask(const memory::Translation& missing) {
  if (!questions_.open(missing.address, missing.access)) return;
  const vhost::IotlbFault miss{{.iova = missing.address,
                                .size = 0,
                                .front_end = {},
                                .permission = static_cast<uint8_t>(missing.access),
                                .type = vhost::IotlbType::miss}};
  front_end_.post(miss, [this, at = missing.address] { questions_.close(at, 1); });
}

RunningQueue::Events LocalDevice::events_for(uint16_t index) {
  RunningQueue::Events events;
  events.iotlb_miss = [this](const memory::Translation& missing) { ask(missing); };
  const bool in_band = capable(vhost::VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS);
  events.in_band_call = [this, index, in_band] {
    if (in_band) front_end_.post(vhost::VringCall{.ring = index});
  };
  events.in_band_err = [this, index, in_band] {
    if (in_band) front_end_.post(vhost::VringErr{.ring = index});
  };
  events.broke = [this] { needs_reset_ = true; };
  return events;
}

// ---- configuration space, status, reset
// ------------------------------------------------------------------------------

Result<vhost::ConfigBytes> LocalDevice::on(const vhost::GetConfig& request) {
  const uint64_t end = uint64_t{request.offset} + request.size;
  if (end > max_config_size) return refused("configuration space ends before", end);
  vhost::ConfigBytes config{
      .offset = request.offset, .flags = request.flags, .bytes = std::vector<std::byte>(request.size)};
  // A front-end may know more fields than this device has; those read as zero.
  if (request.offset < model_.config_size()) {
    const size_t known = std::min<size_t>(request.size, model_.config_size() - request.offset);
    model_.read_config(request.offset, std::span(config.bytes).first(known));
  }
  return config;
}

Result<Done> LocalDevice::on(const vhost::SetConfig& request) {
  const uint64_t end = uint64_t{request.config.offset} + request.config.bytes.size();
  if (end > model_.config_size()) return refused("configuration space ends before", end);
  TRY(model_.write_config(request.config.offset, request.config.bytes,
                          request.config.flags == vhost::VHOST_CONFIG_MIGRATION));
  return Done{};
}

void LocalDevice::config_changed() {
  if (running_ > 0)
    front_end_.post(vhost::ConfigChange{});
  else
    config_change_waits_ = true;
}

Result<Done> LocalDevice::on(const vhost::SetStatus& request) {
  status_ = request.status;
  if (status_ == 0)
    reset_device();
  else
    start_all_or_report();
  return Done{};
}

Result<uint64_t> LocalDevice::on(const vhost::GetStatus&) {
  return status_ | (needs_reset_ ? VIRTIO_CONFIG_S_NEEDS_RESET : 0);
}

Result<Done> LocalDevice::on(const vhost::ResetDevice&) {
  reset_device();
  for (Vring& vring : vrings_) {
    vring.enabled = false;
    vring.base = 0;
  }
  return Done{};
}

// ---- in-flight area

// Given away and forgotten: it is ours when SET_INFLIGHT_FD brings it back. Large enough for either ring
// format.
Result<vhost::InflightArea> LocalDevice::on(const vhost::GetInflightFd& request) {
  const uint64_t queue_bytes = std::max(ring::inflight_bytes(request.queue_size, false),
                                        ring::inflight_bytes(request.queue_size, true));
  const uint64_t bytes = request.queues * queue_bytes;
  return vhost::InflightArea{.size = bytes,
                             .offset = 0,
                             .queues = request.queues,
                             .queue_size = request.queue_size,
                             .fd = TRY(make_sealed_file(bytes))};
}

// Rings that run keep the area that they were started with.
Result<Done> LocalDevice::on(vhost::SetInflightFd& request) {
  vhost::InflightArea& area = request.area;
  const uint64_t queue_bytes = ring::inflight_bytes(area.queue_size, has(VIRTIO_F_RING_PACKED));
  if (area.size < area.queues * queue_bytes) return refused("in-flight area is too small", area.size);
  auto region =
      TRY(memory::Region::open({.size = area.size, .file_offset = area.offset}, std::move(area.fd)));
  inflight_ = {
      .map = TRY(memory::Map::of({std::move(region)})), .queues = area.queues, .queue_size = area.queue_size};
  return Done{};
}

Result<memory::Window> LocalDevice::open_inflight(uint64_t queue, const ring::Format& format) const {
  if (queue >= inflight_.queues) return refused("queue is not in the in-flight area", queue);
  const uint64_t bytes = ring::inflight_bytes(inflight_.queue_size, format.packed);
  return memory::Window::open(inflight_.map, memory::FrontEndAddress{queue * bytes}, bytes);
}

// Memory table, fds and owner stay; what the driver has set up goes. Where rings have stopped stays too: QEMU
// before 8.0 writes status 0 whenever it stops a device, also to migrate it, and asks for the bases
// afterwards.
void LocalDevice::reset_device() {
  transfer_.reset();
  stop_all();
  for (Vring& vring : vrings_) {
    vring.wanted = false;
    vring.kick_waiter.reset();
    vring.page_waiter.reset();
  }
  status_ = 0;
  needs_reset_ = false;
  model_.reset();
}

// ---- network devices
// -----------------------------------------------------------------------------------------------------

Result<Done> LocalDevice::on(const vhost::SendRarp& request) {
  std::array<std::byte, 6> mac;
  std::memcpy(mac.data(), &request.mac,
              mac.size());  // the field is an array of bytes, in memory as on the wire
  TRY(model_.announce(mac));
  return Done{};
}

Result<Done> LocalDevice::on(const vhost::NetSetMtu& request) {
  TRY(model_.set_mtu(static_cast<uint16_t>(request.mtu)));
  return Done{};
}

// ---- not offered
// -----------------------------------------------------------------------------------------------------

Result<vhost::CryptoSession> LocalDevice::on(const vhost::CreateCryptoSession&) { return not_offered(); }
Result<Done> LocalDevice::on(const vhost::CloseCryptoSession&) { return not_offered(); }
Result<Done> LocalDevice::on(const vhost::GpuSetSocket&) { return not_offered(); }
Result<vhost::SharedObject> LocalDevice::on(const vhost::GetSharedObject&) { return not_offered(); }
Result<vhost::ShmemConfig> LocalDevice::on(const vhost::GetShmemConfig&) { return not_offered(); }

}  // namespace ringway::engine
