// LocalDevice: memory that comes after the rings have started. vhost-user "Migration", POSTCOPY_ADVISE,
// SET_MEM_TABLE, POSTCOPY_LISTEN, POSTCOPY_END.
#include "ringway/base/log.h"
#include "ringway/engine/kick_waiter.h"
#include "ringway/engine/local_device.h"

namespace ringway::engine {

using vhost::Done;

Result<UniqueFd> LocalDevice::on(const vhost::PostcopyAdvise&) {
  if (postcopy_) return refused("postcopy was advised before");
  std::shared_ptr<Postcopy> postcopy = TRY(Postcopy::advise());
  UniqueFd fd = TRY(postcopy->for_front_end());
  const std::scoped_lock lock(postcopy_mutex_);
  postcopy_ = std::move(postcopy);
  return fd;
}

Result<Done> LocalDevice::on(const vhost::PostcopyListen&) {
  if (!postcopy_) return refused("postcopy was not advised");
  if (postcopy_->listening()) return refused("postcopy has begun already");
  if (running_ > 0) return refused("postcopy begins before rings run");
  TRY(postcopy_->listen(*map_));
  return Done{};
}

Result<Done> LocalDevice::on(const vhost::PostcopyEnd&) {
  if (!postcopy_) return refused("postcopy was not advised");
  end_postcopy();
  start_all_or_report();
  return Done{};
}

// Who waits for pages goes on first, then queues stop to fetch, then the fetchers' threads end.
void LocalDevice::end_postcopy() {
  if (!postcopy_) return;
  postcopy_->give_up();
  std::shared_ptr<Postcopy> ended;
  {
    const std::scoped_lock lock(postcopy_mutex_);
    ended = std::exchange(postcopy_, nullptr);
  }
  for (Vring& vring : vrings_) {
    vring.page_waiter.reset();
    if (vring.queue) vring.queue->end_postcopy(view());
  }
}

void LocalDevice::expect_no_more_pages() {
  std::shared_ptr<Postcopy> postcopy;
  {
    const std::scoped_lock lock(postcopy_mutex_);
    postcopy = postcopy_;
  }
  if (postcopy) postcopy->give_up();
}

// A table is answered by where its regions are here, and that is acknowledged by an empty table: only then is
// the front-end ready for our faults. No ring runs in between.
Result<vhost::DeviceReply> LocalDevice::promise_memory(const std::shared_ptr<const memory::Map>& map) {
  if (map->regions().empty() && !postcopy_->may_touch()) {
    postcopy_->acknowledged();
    start_all_or_report();
    return vhost::DeviceReply(Done{});
  }
  if (running_ > 0) return refused("memory moves only while all rings are stopped, in postcopy");
  TRY(postcopy_->watch(*map));
  map_ = map;
  vhost::MemoryTable table;
  for (const auto& region : map->regions()) {
    memory::RegionLayout layout = region->layout();
    layout.front_end = {reinterpret_cast<uintptr_t>(region->data())};
    table.regions.push_back(layout);
  }
  return vhost::DeviceReply(std::move(table));
}

Result<bool> LocalDevice::pages_are_here(Vring& vring, uint16_t index) {
  if (!postcopy_->listening()) return true;
  if (!postcopy_->may_touch()) return false;
  const ring::Format format = ring::Format::of(features_, vring.big_endian);
  const vhost::SetVringAddr& at = vring.addresses;
  std::vector<iovec> pieces;
  const auto add = [&](uint64_t address, uint64_t length) {
    const std::vector<iovec> area = pieces_of(address, length);
    pieces.insert(pieces.end(), area.begin(), area.end());
  };
  add(at.desc, ring::RingConfig::desc_bytes(vring.size, format));
  add(at.avail, ring::RingConfig::driver_bytes(vring.size, format));
  add(at.used, ring::RingConfig::device_bytes(vring.size, format));
  if (memory::pages_are_here(pieces)) return true;
  if (vring.page_waiter && vring.page_waiter->waits()) return false;
  UniqueFd here = TRY(make_eventfd());
  const auto tell = std::make_shared<const Notifier>(TRY(Notifier::adopt(TRY(here.duplicate()))));
  const auto told = std::make_shared<const Signal>(TRY(Signal::adopt(std::move(here))));
  vring.page_waiter = std::make_unique<KickWaiter>(*this, index, told);
  postcopy_->fetcher()->fetch(std::move(pieces), [tell, held = map_] { tell->signal(); });
  return false;
}

}  // namespace ringway::engine
