// vhost-user "Memory access", "IOMMU support", and the messages about memory.
#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <algorithm>

#include "ringway/check/back_end_checks.h"

namespace ringway::check {
namespace {

using memory::FrontEndAddress;
using memory::GuestAddress;
using vhost::bit;

constexpr unsigned slots_bit = vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS;
constexpr uint64_t data_bytes = Rig::slots * Kind::slot_bytes;
// Where further regions lie: apart from the first one in both address spaces.
constexpr GuestAddress more_guest{Rig::guest_base.value + (uint64_t{64} << 20)};
constexpr FrontEndAddress more_user{Rig::user_base.value + (uint64_t{256} << 20)};

Or<SharedMemory> more_memory(uint64_t number, uint64_t bytes) {
  return reach(SharedMemory::make({more_guest.value + number * (uint64_t{2} << 20)},
                                  {more_user.value + number * (uint64_t{4} << 20)}, bytes),
               "memory");
}

Or<> add_region(vhost::SetMemTable& table, const SharedMemory& memory) {
  table.regions.push_back(TRY(reach(memory.region(), "memory")));
  return {};
}

Or<Rig*> negotiated(Trial& trial, const Rig::Wanted& wanted = {}) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->needs_request());
  TRY(rig->negotiate(wanted));
  return rig;
}

Or<Rig*> with_slots(Trial& trial) {
  Rig* rig = TRY(negotiated(trial, {.capabilities = bit(slots_bit)}));
  if (!rig->can(slots_bit)) return not_offered("CONFIGURE_MEM_SLOTS");
  return rig;
}

Or<> start(Rig& rig) {
  TRY(rig.make_ring());
  return rig.start(rig.ring());
}

}  // namespace

Outcome ring_addresses_have_40_bytes(Trial& trial) {
  Rig* rig = TRY(trial.running());
  TRY(rig->serves(rig->ring()));
  return {};
}

Outcome addresses_are_user_addresses(Trial& trial) {
  Rig* rig = TRY(trial.running());
  if (auto served = rig->serves(rig->ring(), 3); !served)
    return fail(fmt::format("with user addresses from {:#x} and guest addresses from {:#x}: {}",
                            Rig::user_base.value, Rig::guest_base.value, served.error().detail));
  return {};
}

Outcome guest_addresses_may_be_used(Trial& trial) {
  constexpr unsigned gpa = vhost::VHOST_USER_PROTOCOL_F_GPA_ADDRESSES;
  Rig* rig = TRY(negotiated(trial, {.capabilities = bit(gpa)}));
  if (!rig->can(gpa)) return not_offered("GPA_ADDRESSES");
  rig->memory().move_user({Rig::guest_base.value});
  const auto served = [&]() -> Or<> {
    TRY(rig->share());
    TRY(start(*rig));
    return rig->serves(rig->ring(), 3);
  }();
  if (!served) return fail("with user addresses that are guest addresses: " + served.error().detail);
  return {};
}

Outcome eight_regions_are_taken(Trial& trial) {
  Rig* rig = TRY(negotiated(trial));
  std::vector<SharedMemory> more;
  vhost::SetMemTable table;
  TRY(add_region(table, rig->memory()));
  for (uint64_t i = 0; i < 7; ++i) {
    more.push_back(TRY(more_memory(i, data_bytes)));
    TRY(add_region(table, more.back()));
  }
  TRY(expect(rig->ask(std::move(table)), "SET_MEM_TABLE of 8 regions"));
  TRY(start(*rig));
  rig->use_slots_in(more.back(), 0);
  if (auto served = rig->serves(rig->ring(), 3); !served)
    return fail("with buffers in the eighth region: " + served.error().detail);
  TRY(rig->stop(rig->ring()));
  return {};
}

Outcome fds_go_with_their_regions(Trial& trial) {
  Rig* rig = TRY(negotiated(trial));
  // Equally large, so that only their order tells which is which.
  SharedMemory data = TRY(more_memory(0, Rig::memory_bytes));
  for (const bool first : {true, false}) {
    vhost::SetMemTable table;
    TRY(add_region(table, first ? data : rig->memory()));
    TRY(add_region(table, first ? rig->memory() : data));
    TRY(expect(rig->ask(std::move(table)), "SET_MEM_TABLE of 2 regions"));
    TRY(start(*rig));
    rig->use_slots_in(data, 0);
    if (auto served = rig->serves(rig->ring(), 3); !served)
      return fail(fmt::format("with rings in region {} and buffers in the other: {}", first ? 2 : 1,
                              served.error().detail));
    TRY(rig->stop(rig->ring()));
  }
  return {};
}

Outcome slots_are_as_many_as_told(Trial& trial) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->negotiate({.capabilities = bit(slots_bit)}));
  if (!rig->can(slots_bit)) return not_offered("CONFIGURE_MEM_SLOTS");
  const uint64_t told = TRY(expect(rig->ask(vhost::GetMaxMemSlots{}), "GET_MAX_MEM_SLOTS"));
  if (told == 0) return fail("GET_MAX_MEM_SLOTS says 0");
  constexpr uint64_t enough = 64;
  std::vector<SharedMemory> more;
  for (uint64_t i = 0; i < std::min(told, enough); ++i) {
    more.push_back(TRY(more_memory(i, SharedMemory::page)));
    const auto added = rig->ask(vhost::AddMemReg{TRY(reach(more.back().region(), "memory"))});
    if (!added)
      return fail(fmt::format("GET_MAX_MEM_SLOTS says {}, and ADD_MEM_REG {} fails: {}", told, i + 1,
                              added.error().to_string()));
  }
  return fmt::format("{} slots, {} used", told, more.size());
}

Outcome added_memory_is_used(Trial& trial) {
  Rig* rig = TRY(with_slots(trial));
  TRY(expect(rig->ask(vhost::AddMemReg{TRY(reach(rig->memory().region(), "memory"))}), "ADD_MEM_REG"));
  TRY(start(*rig));
  TRY(rig->serves(rig->ring()));
  SharedMemory data = TRY(more_memory(0, data_bytes));
  TRY(expect(rig->ask(vhost::AddMemReg{TRY(reach(data.region(), "memory"))}),
             "ADD_MEM_REG under a running ring"));
  rig->use_slots_in(data, 0);
  if (auto served = rig->serves(rig->ring(), 3); !served)
    return fail("with buffers in added memory: " + served.error().detail);
  return {};
}

Outcome removal_ignores_the_offset(Trial& trial) {
  Rig* rig = TRY(with_slots(trial));
  TRY(rig->must(vhost::AddMemReg{TRY(reach(rig->memory().region(), "memory"))}));
  SharedMemory data = TRY(more_memory(0, data_bytes));
  TRY(rig->must(vhost::AddMemReg{TRY(reach(data.region(), "memory"))}));
  memory::RegionLayout other = data.layout();
  other.file_offset = 8192;
  TRY(expect(rig->ask(vhost::RemMemReg{other}), "REM_MEM_REG with another offset"));
  TRY(expect(rig->ask(vhost::AddMemReg{TRY(reach(data.region(), "memory"))}),
             "ADD_MEM_REG of what was removed"));
  TRY(start(*rig));
  rig->use_slots_in(data, 0);
  TRY(rig->serves(rig->ring(), 3));
  return {};
}

// ---- behind an IOMMU

namespace {

// Memory whose guest addresses mean nothing: only the IOTLB says where descriptors point.
Or<Rig*> behind_iommu(Trial& trial) {
  Rig* rig = TRY(negotiated(trial, {.features = bit(VIRTIO_F_ACCESS_PLATFORM)}));
  if (!rig->offers(VIRTIO_F_ACCESS_PLATFORM)) return not_offered("VIRTIO_F_ACCESS_PLATFORM");
  vhost::SetMemTable table;
  vhost::MemoryRegion region = TRY(reach(rig->memory().region(), "memory"));
  region.layout.guest = {uint64_t{7} << 40};
  table.regions.push_back(std::move(region));
  TRY(rig->must(std::move(table)));
  return rig;
}

vhost::IotlbMessage entry(const Rig& rig, uint64_t offset, uint64_t size) {
  (void)rig;
  return {.iova = {Rig::guest_base.value + offset},
          .size = size,
          .front_end = {Rig::user_base.value + offset},
          .permission = 3,
          .type = vhost::IotlbType::update};
}

vhost::IotlbMessage invalidation(uint64_t offset, uint64_t size) {
  return {.iova = {Rig::guest_base.value + offset},
          .size = size,
          .front_end = {},
          .permission = 0,
          .type = vhost::IotlbType::invalidate};
}

}  // namespace

Outcome iotlb_translates(Trial& trial) {
  Rig* rig = TRY(behind_iommu(trial));
  TRY(rig->must(vhost::UpdateIotlb{entry(*rig, 0, Rig::memory_bytes)}));
  TRY(start(*rig));
  TRY(rig->serves(rig->ring(), 3));
  return {};
}

Outcome iotlb_payload_is_taken(Trial& trial) {
  Rig* rig = TRY(behind_iommu(trial));
  for (const uint8_t permission : {uint8_t{1}, uint8_t{2}, uint8_t{3}}) {
    vhost::IotlbMessage one = entry(*rig, 0, SharedMemory::page);
    one.permission = permission;
    TRY(expect(rig->ask(vhost::UpdateIotlb{one}), "an update"));
    TRY(expect(rig->ask(vhost::UpdateIotlb{invalidation(0, SharedMemory::page)}), "an invalidation"));
  }
  return {};
}

Outcome iotlb_is_acknowledged(Trial& trial) {
  Rig* rig = TRY(behind_iommu(trial));
  TRY(expect(rig->ask(vhost::UpdateIotlb{entry(*rig, 0, Rig::memory_bytes)}), "an update of mapped memory"));
  TRY(expect(rig->ask(vhost::UpdateIotlb{invalidation(0, Rig::memory_bytes)}), "an invalidation"));
  const auto outside = rig->ask(vhost::UpdateIotlb{entry(*rig, uint64_t{1} << 40, SharedMemory::page)});
  return outside ? "an update outside of all regions is acknowledged as well" : "";
}

// With nothing in the IOTLB the device asks, page by page, for what it needs.
Outcome iotlb_misses_are_told(Trial& trial) {
  Rig* rig = TRY(behind_iommu(trial));
  auto inbox = std::make_shared<Inbox>();
  if (!rig->ask(vhost::SetFrontEnd{inbox})) return not_offered("BACKEND_REQ");
  size_t answered = 0;
  std::optional<std::string> wrong;
  rig->while_waiting([&] {
    const auto faults = inbox->faults();
    for (; answered < faults.size(); ++answered) {
      const vhost::IotlbMessage& fault = faults[answered];
      const uint64_t offset = fault.iova.value - Rig::guest_base.value;
      if (offset >= Rig::memory_bytes)
        wrong = fmt::format("a miss of {:#x}, where nothing is", fault.iova.value);
      if (fault.permission < 1 || fault.permission > 3)
        wrong = fmt::format("a miss with permission {}", fault.permission);
      const uint64_t page = offset / SharedMemory::page * SharedMemory::page;
      if (!wrong) (void)rig->ask(vhost::UpdateIotlb{entry(*rig, page, SharedMemory::page)});
    }
  });
  TRY(start(*rig));
  auto served = rig->serves(rig->ring(), 3);
  if (wrong) return fail(*wrong);
  if (!served && answered == 0) return fail("nothing is in the IOTLB, and no miss came");
  if (!served) return fail(fmt::format("{} misses were answered: {}", answered, served.error().detail));
  return fmt::format("{} misses", answered);
}

}  // namespace ringway::check
