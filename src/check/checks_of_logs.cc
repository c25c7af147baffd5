// vhost-user "Migration": the dirty log.
#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "ringway/check/back_end_checks.h"

namespace ringway::check {
namespace {

using vhost::bit;

constexpr uint64_t log_bytes = 192 << 10;  // more than the highest guest address needs
constexpr uint64_t log_offset = 8192;

// A ring that runs, and a log that the device has; logging is off.
struct Logged {
  Rig* rig = nullptr;
  SharedMemory log;

  [[nodiscard]] std::byte* byte_of(memory::GuestAddress address) const {
    return log.at(log_offset + address.value / SharedMemory::page / 8);
  }
  [[nodiscard]] bool is_marked(memory::GuestAddress address) const {
    const auto mask = static_cast<std::byte>(1U << (address.value / SharedMemory::page % 8));
    return (*byte_of(address) & mask) != std::byte{0};
  }
  // What is used may be marked a moment later than it is seen.
  [[nodiscard]] bool comes_marked(memory::GuestAddress address) const {
    const auto end = std::chrono::steady_clock::now() + rig->patience().answer;
    while (!is_marked(address)) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  [[nodiscard]] size_t marks() const {
    size_t count = 0;
    for (const std::byte byte : log.bytes())
      count += static_cast<size_t>(std::popcount(static_cast<uint8_t>(byte)));
    return count;
  }
  void clear() const { std::ranges::fill(log.bytes(), std::byte{0}); }
  // Of the first slot that is used next.
  [[nodiscard]] memory::GuestAddress written(uint64_t slot) const {
    return rig->memory().guest(Rig::slots_at + slot * Kind::slot_bytes + rig->kind().written_at);
  }
  [[nodiscard]] memory::GuestAddress used_ring() const {
    return {rig->ring().config.address.value + rig->ring().config.layout().device};
  }

  Or<> switch_features(bool on) const {
    const uint64_t features = rig->agreed().features | bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES);
    TRY(expect(rig->ask(vhost::SetFeatures{features | (on ? bit(VHOST_F_LOG_ALL) : 0)}),
               "SET_FEATURES under a running ring"));
    return {};
  }
  Or<> switch_ring(bool on) const {
    vhost::SetVringAddr at = rig->addresses(rig->ring());
    at.flags = on ? 1U << VHOST_VRING_F_LOG : 0;
    at.log = used_ring().value;
    TRY(expect(rig->ask(at), "SET_VRING_ADDR under a running ring"));
    return {};
  }
};

Or<Logged> logged(Trial& trial) {
  if (trial.kind().has_request() && trial.kind().written_bytes == 0)
    return not_testable("no request is known that makes this device write");
  Rig* rig = TRY(trial.rig());
  TRY(rig->needs_request());
  TRY(rig->negotiate({.capabilities = bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD)}));
  if (!rig->offers(VHOST_F_LOG_ALL)) return not_offered("VHOST_F_LOG_ALL");
  if (!rig->can(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD)) return not_offered("LOG_SHMFD");
  TRY(rig->share());
  TRY(rig->make_ring());
  TRY(rig->start(rig->ring()));
  Logged all{.rig = rig, .log = TRY(reach(SharedMemory::make({0}, {0}, log_offset + log_bytes), "memory"))};
  const auto set = rig->ask(
      vhost::SetLogBase{.size = log_bytes, .offset = log_offset, .fd = TRY(reach(all.log.file(), "memory"))});
  if (!set) return fail("SET_LOG_BASE: " + set.error().to_string());
  return all;
}

}  // namespace

Outcome logging_is_switched(Trial& trial) {
  const Logged all = TRY(logged(trial));
  TRY(all.rig->serves(all.rig->ring(), 2));
  if (all.marks() > 0)
    return fail(fmt::format("{} pages were marked before VHOST_F_LOG_ALL was set", all.marks()));
  TRY(all.switch_features(true));
  TRY(all.switch_ring(true));
  TRY(all.rig->serves(all.rig->ring(), 2));
  if (!all.comes_marked(all.written(0)) && all.marks() == 0)
    return fail("no page was marked while VHOST_F_LOG_ALL was set");
  TRY(all.switch_ring(false));
  TRY(all.switch_features(false));
  all.clear();
  TRY(all.rig->serves(all.rig->ring(), 2));
  if (all.marks() > 0)
    return fail(fmt::format("{} pages were marked after VHOST_F_LOG_ALL was taken back", all.marks()));
  return {};
}

Outcome written_pages_are_marked(Trial& trial) {
  const Logged all = TRY(logged(trial));
  TRY(all.switch_features(true));
  TRY(all.switch_ring(true));
  constexpr uint64_t requests = 10;
  TRY(all.rig->serves(all.rig->ring(), requests));
  for (uint64_t slot = 0; slot < requests; ++slot) {
    if (!all.comes_marked(all.written(slot)))
      return fail(fmt::format("page {:#x} was written and is not marked; {} pages are",
                              all.written(slot).value, all.marks()));
  }
  return fmt::format("{} pages are marked", all.marks());
}

Outcome used_rings_are_marked(Trial& trial) {
  const Logged all = TRY(logged(trial));
  TRY(all.switch_features(true));
  TRY(all.switch_ring(true));
  TRY(all.rig->serves(all.rig->ring(), 2));
  if (all.comes_marked(all.used_ring())) return {};
  return fail(
      fmt::format("page {:#x} of the used ring was written and is not marked", all.used_ring().value));
}

Outcome log_begins_at_its_offset(Trial& trial) {
  const Logged all = TRY(logged(trial));
  TRY(all.switch_features(true));
  TRY(all.switch_ring(true));
  TRY(all.rig->serves(all.rig->ring(), 2));
  if (all.comes_marked(all.written(0))) return {};
  for (uint64_t at = 0; at < log_offset + log_bytes; ++at) {
    if (*all.log.at(at) == std::byte{0}) continue;
    return fail(fmt::format("with offset {} the mark of page {:#x} is not at {}, but there are marks at {}",
                            log_offset, all.written(0).value, all.byte_of(all.written(0)) - all.log.at(0),
                            at));
  }
  return fail("there are no marks at all");
}

// A mark of ours beside a mark of theirs: one that is lost was overwritten by a write that is not atomic.
Outcome log_marks_are_atomic(Trial& trial) {
  const Logged all = TRY(logged(trial));
  TRY(all.switch_features(true));
  TRY(all.switch_ring(true));
  for (int round = 0; round < 200; ++round) {
    all.clear();
    std::byte* byte = all.byte_of(all.written(static_cast<uint64_t>(round) % Rig::slots));
    const auto page = all.written(static_cast<uint64_t>(round) % Rig::slots).value / SharedMemory::page;
    const auto ours = static_cast<uint8_t>(1U << ((page + 4) % 8));
    TRY(all.rig->add(all.rig->ring()));
    std::atomic_ref(*reinterpret_cast<uint8_t*>(byte)).fetch_or(ours);
    TRY(all.rig->take_all(all.rig->ring()));
    if ((static_cast<uint8_t>(*byte) & ours) == 0)
      return fail(fmt::format("in round {} a mark beside theirs was lost", round));
  }
  return "nothing was lost in 200 rounds";
}

Outcome log_fd_is_taken(Trial& trial) {
  const Logged all = TRY(logged(trial));
  const Event event = TRY(reach(Event::make(), "an eventfd"));
  TRY(expect(all.rig->ask(vhost::SetLogFd{TRY(reach(event.copy(), "an eventfd"))}), "SET_LOG_FD"));
  TRY(all.rig->serves(all.rig->ring()));
  return {};
}

}  // namespace ringway::check
