#include "ringway/check/rig.h"

#include <fmt/format.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <unistd.h>

#include <thread>

#include "ringway/base/notifier.h"

namespace ringway::check {
namespace {

using vhost::bit;
using Clock = std::chrono::steady_clock;

constexpr milliseconds between_looks{1};

}  // namespace

// ---- Event, Inbox

Result<Event> Event::make() { return Event(TRY(make_eventfd())); }

void Event::signal() const {
  const uint64_t one = 1;
  (void)!::write(fd_.get(), &one, sizeof one);  // a full counter holds an event already
}

bool Event::arrives(milliseconds within) const {
  pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
  uint64_t count = 0;
  return ::poll(&entry, 1, static_cast<int>(within.count())) == 1 &&
         ::read(fd_.get(), &count, sizeof count) == static_cast<ssize_t>(sizeof count);
}

Result<vhost::FrontEndReply> Inbox::handle(vhost::FrontEndRequest request) {
  const auto* fault = std::get_if<vhost::IotlbFault>(&request);
  {
    const std::scoped_lock lock(mutex_);
    seen_.push_back(request.index());
    if (fault != nullptr) faults_.push_back(fault->message);
  }
  if (fault != nullptr && on_miss) on_miss(fault->message);
  if (std::holds_alternative<vhost::SharedObjectLookup>(request)) return vhost::SharedObject{};
  return vhost::Done{};
}

size_t Inbox::count() const {
  const std::scoped_lock lock(mutex_);
  return seen_.size();
}

std::vector<vhost::IotlbMessage> Inbox::faults() const {
  const std::scoped_lock lock(mutex_);
  return faults_;
}

// ---- Rig

Or<std::unique_ptr<Rig>> Rig::make(Target& target, const Kind& kind, const Patience& patience) {
  auto lease = TRY(reach(target.connect(), "connecting"));
  SharedMemory memory = TRY(reach(SharedMemory::make(guest_base, user_base, memory_bytes), "memory"));
  vhost::Device& device = lease->device();
  return std::make_unique<Rig>(std::move(lease), device, kind, patience, std::move(memory));
}

Or<> Rig::negotiate(const Wanted& wanted) {
  features_ = TRY(must(vhost::GetFeatures{}));
  capabilities_ = TRY(must(vhost::GetProtocolFeatures{})).bits;
  const uint64_t capabilities = capabilities_ & wanted.capabilities;
  TRY(must(vhost::SetProtocolFeatures{{capabilities}}));
  if (wanted.owner) TRY(must(vhost::SetOwner{}));
  const uint64_t features = features_ & (wanted.features | bit(VIRTIO_F_VERSION_1) | kind_.device_features);
  const uint64_t bit_30 = wanted.bit_30 ? bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES) : 0;
  TRY(must(vhost::SetFeatures{features | bit_30}));
  agreed_ = {.features = features, .capabilities = capabilities};
  bit_30_ = wanted.bit_30;
  return {};
}

Or<> Rig::share() {
  vhost::SetMemTable table;
  table.regions.push_back(TRY(reach(memory_.region(), "memory")));
  TRY(must(std::move(table)));
  return {};
}

Or<> Rig::make_ring(vhost::RingIndex index, uint32_t size, std::optional<uint32_t> base) {
  auto made = std::make_unique<Ring>();
  const ring::Format format = ring::Format::of(agreed_.features, false);
  const uint32_t begin = base.value_or(format.packed ? 0x8000'8000 : 0);
  made->index = index;
  made->user_offset = (index % 8) * ring_area;
  made->config = {.size = size,
                  .format = format,
                  .base = ring::RingBase::from_wire(begin, format.packed),
                  .area = memory_.at(made->user_offset),
                  .address = memory_.guest(made->user_offset)};
  made->driver = std::make_unique<ring::Driver>(TRY(reach(ring::make_driver(made->config), "a driver")));
  made->kick = std::make_unique<Event>(TRY(reach(Event::make(), "an eventfd")));
  made->call = std::make_unique<Event>(TRY(reach(Event::make(), "an eventfd")));
  made->err = std::make_unique<Event>(TRY(reach(Event::make(), "an eventfd")));
  rings_[index] = std::move(made);
  return {};
}

vhost::SetVringAddr Rig::addresses(const Ring& ring) const {
  const ring::DriverLayout at = ring.config.layout();
  // Behind an IOMMU rings are at I/O virtual addresses, which are the driver's here.
  const uint64_t base = agreed_.has_feature(VIRTIO_F_ACCESS_PLATFORM) ? ring.config.address.value
                                                                      : memory_.user(ring.user_offset);
  return {.ring = ring.index,
          .flags = 0,
          .desc = base + at.desc,
          .used = base + at.device,
          .avail = base + at.driver,
          .log = 0};
}

Or<> Rig::describe_one(Ring& ring) {
  const uint32_t base = ring.config.base.to_wire(ring.config.format.packed);
  TRY(must(vhost::SetVringNum{.ring = ring.index, .size = ring.config.size}));
  TRY(must(vhost::SetVringBase{.ring = ring.index, .base = base}));
  TRY(must(addresses(ring)));
  TRY(must(vhost::SetVringCall{.ring = ring.index, .fd = TRY(reach(ring.call->copy(), "an eventfd"))}));
  TRY(must(vhost::SetVringErr{.ring = ring.index, .fd = TRY(reach(ring.err->copy(), "an eventfd"))}));
  return {};
}

Or<> Rig::describe(Ring& ring) {
  if (ring.index == kind_.ring) TRY(start_companions());
  return describe_one(ring);
}

Or<> Rig::start_companions() {
  for (vhost::RingIndex index = 0; index < kind_.ring; ++index) {
    TRY(make_ring(index));
    Ring& companion = ring(index);
    TRY(describe_one(companion));
    TRY(set_kick(companion));
    if (bit_30_) TRY(enable(companion));
  }
  return {};
}

Or<> Rig::set_kick(Ring& ring) {
  TRY(must(vhost::SetVringKick{.ring = ring.index, .fd = TRY(reach(ring.kick->copy(), "an eventfd"))}));
  return {};
}

Or<> Rig::enable(Ring& ring, bool on) {
  TRY(must(vhost::SetVringEnable{.ring = ring.index, .enable = on ? 1U : 0U}));
  return {};
}

Or<> Rig::start(Ring& ring) {
  TRY(describe(ring));
  TRY(set_kick(ring));
  return enable(ring);
}

Or<> Rig::needs_request() const {
  if (kind_.has_request()) return {};
  if (!kind_.request.empty()) return not_testable("it does not serve requests at all: see N032");
  return not_testable("there is no request that every device takes: say by --device what it is");
}

Or<> Rig::set_up(const Wanted& wanted) {
  TRY(needs_request());
  TRY(negotiate(wanted));
  TRY(share());
  TRY(make_ring());
  return start(ring());
}

Or<> Rig::add(Ring& ring, uint32_t count, Kick kick) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t slot = next_slot_++ % slots;
    const uint64_t offset = slots_offset_ + slot * Kind::slot_bytes;
    const Request request = kind_.write({slots_memory_->at(offset), Kind::slot_bytes},
                                        slots_memory_->guest(offset), agreed_.features);
    const std::optional<uint16_t> token = std::visit(
        [&](auto& driver) {
          const auto added = driver.add({.readable = request.readable, .writable = request.writable});
          (void)driver.publish();
          return added;
        },
        *ring.driver);
    if (!token) return not_testable("did not get that far: the ring is full");
    ring.slot_of_token[*token] = slot;
    ++ring.added;
  }
  if (kick == Kick::yes) ring.kick->signal();
  return {};
}

Or<bool> Rig::take_one(Ring& ring) {
  const auto found = std::visit([](auto& driver) { return driver.take_used(); }, *ring.driver);
  if (!found) return fail("the used ring cannot be: " + found.error().to_string());
  const auto& used = *found;
  if (!used) return false;
  ++ring.taken;
  const uint64_t offset = slots_offset_ + ring.slot_of_token[used->token] * Kind::slot_bytes;
  const auto wrong = kind_.judge({slots_memory_->at(offset), Kind::slot_bytes}, used->written);
  if (wrong) return fail(*wrong);
  return true;
}

Or<> Rig::take_all(Ring& ring) {
  const auto end = Clock::now() + patience_.answer;
  while (ring.taken < ring.added) {
    if (TRY(take_one(ring))) continue;
    if (while_waiting_) while_waiting_();
    if (Clock::now() > end) {
      return fail(fmt::format("{} of {} requests came back within {} s", ring.taken, ring.added,
                              static_cast<double>(patience_.answer.count()) / 1000));
    }
    std::this_thread::sleep_for(between_looks);
  }
  return {};
}

Or<uint32_t> Rig::take_present(Ring& ring) {
  uint32_t count = 0;
  while (TRY(take_one(ring))) ++count;
  return count;
}

Or<uint32_t> Rig::take_for(Ring& ring, milliseconds time) {
  const auto end = Clock::now() + time;
  uint32_t count = 0;
  while (Clock::now() < end) {
    if (TRY(take_one(ring))) {
      ++count;
    } else {
      std::this_thread::sleep_for(between_looks);
    }
  }
  return count;
}

Or<> Rig::serves(Ring& ring, uint32_t count) {
  TRY(add(ring, count));
  return take_all(ring);
}

Or<uint32_t> Rig::stop(Ring& ring) {
  const uint32_t base = TRY(must(vhost::GetVringBase{ring.index})).value;
  for (vhost::RingIndex index = 0; ring.index == kind_.ring && index < kind_.ring; ++index)
    TRY(must(vhost::GetVringBase{index}));
  return base;
}

}  // namespace ringway::check
