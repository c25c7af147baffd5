// vhost-user "Ring states", "Suspended device state", and the messages about rings.
#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <thread>

#include "ringway/check/back_end_checks.h"

namespace ringway::check {
namespace {

using vhost::bit;
using Kick = Rig::Kick;

// A ring that could run but for what is checked: negotiated, memory shared, described.
Or<Rig*> described(Trial& trial, const Rig::Wanted& wanted = {}) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->needs_request());
  TRY(rig->negotiate(wanted));
  TRY(rig->share());
  TRY(rig->make_ring());
  TRY(rig->describe(rig->ring()));
  return rig;
}

Or<> rests(Rig& rig, const char* when) {
  const uint32_t count = TRY(rig.take_for(rig.ring(), rig.patience().quiet));
  if (count == 0) return {};
  return fail(fmt::format("{} requests were processed {}", count, when));
}

Or<> restart(Rig& rig, uint32_t base) {
  Rig::Ring& ring = rig.ring();
  ring.config.base = ring::RingBase::from_wire(base, ring.config.format.packed);
  if (auto started = rig.start(ring); !started)
    return fail(fmt::format("cannot go on from base {}: {}", base, started.error().detail));
  return {};
}

// What comes back of a request that is available when the ring starts, and by what.
enum class Started : uint8_t { by_message, by_kick, not_at_all };

Or<Started> start_with_requests(Trial& trial) {
  Rig* rig = TRY(described(trial));
  TRY(rig->add(rig->ring(), 3, Kick::no));
  TRY(rig->enable(rig->ring()));
  TRY(rig->set_kick(rig->ring()));
  Started by = Started::by_message;
  TRY(rig->take_for(rig->ring(), rig->patience().quiet));
  if (rig->ring().taken < rig->ring().added) {
    by = Started::by_kick;
    rig->ring().kick->signal();
    if (!rig->take_all(rig->ring())) by = Started::not_at_all;
  }
  TRY(rig->stop(rig->ring()));
  return by;
}

}  // namespace

// ---- what GET_VRING_BASE says

Outcome split_base_has_16_bits(Trial& trial) {
  Rig* rig = TRY(trial.running());
  TRY(rig->serves(rig->ring(), 3));
  const auto state = TRY(expect(rig->ask(vhost::GetVringBase{rig->kind().ring}), "GET_VRING_BASE"));
  if (state.ring != rig->kind().ring) return fail(fmt::format("the reply is about ring {}", state.ring));
  if (state.value == 3) return {};
  return fail(fmt::format("after 3 requests from 0 the base is {:#x}", state.value));
}

Outcome packed_base_has_both_indices(Trial& trial) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->needs_request());
  TRY(rig->negotiate({.features = bit(VIRTIO_F_RING_PACKED)}));
  if (!rig->offers(VIRTIO_F_RING_PACKED)) return not_offered("VIRTIO_F_RING_PACKED");
  TRY(rig->share());
  constexpr uint32_t size = 16;
  TRY(rig->make_ring(rig->kind().ring, size));
  TRY(rig->start(rig->ring()));
  const uint32_t before =
      std::visit([](auto& driver) { return driver.free_descriptors(); }, *rig->ring().driver);
  TRY(rig->add(rig->ring()));
  const uint32_t after =
      std::visit([](auto& driver) { return driver.free_descriptors(); }, *rig->ring().driver);
  TRY(rig->take_all(rig->ring()));
  constexpr uint32_t requests = 21;
  for (uint32_t i = 1; i < requests; ++i) TRY(rig->serves(rig->ring()));
  const uint32_t entries = requests * (before - after);
  const auto at = static_cast<uint16_t>(entries % size);
  const bool wrap = entries / size % 2 == 0;
  const ring::RingBase expected{.avail = at, .used = at, .avail_wrap = wrap, .used_wrap = wrap};
  const uint32_t base = TRY(rig->stop(rig->ring()));
  if (base == expected.to_wire(true)) return {};
  return fail(fmt::format("after {} entries of a ring of {} the base is {:#x} and not {:#x}", entries, size,
                          base, expected.to_wire(true)));
}

Outcome base_is_taken(Trial& trial) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->needs_request());
  TRY(rig->negotiate());
  TRY(rig->share());
  constexpr uint32_t begin = 65'533;
  constexpr uint32_t requests = 5;
  TRY(rig->make_ring(rig->kind().ring, Rig::usual_size, begin));
  if (auto started = rig->start(rig->ring()); !started)
    return fail(fmt::format("from base {}: {}", begin, started.error().detail));
  if (auto served = rig->serves(rig->ring(), requests); !served)
    return fail(fmt::format("from base {}: {}", begin, served.error().detail));
  const uint32_t base = TRY(rig->stop(rig->ring()));
  const uint32_t expected = (begin + requests) & 0xffff;
  if (base == expected) return {};
  return fail(fmt::format("{} requests after base {} it is {} and not {}", requests, begin, base, expected));
}

Outcome stop_waits_for_requests(Trial& trial) {
  Rig* rig = TRY(trial.running());
  TRY(rig->add(rig->ring(), 20));
  const uint32_t base = TRY(rig->stop(rig->ring()));
  // What is used was used before the reply.
  const uint32_t used = TRY(rig->take_present(rig->ring()));
  const uint32_t late = TRY(rig->take_for(rig->ring(), rig->patience().quiet));
  if (base == used && late == 0) return fmt::format("{} of 20 requests were taken", base);
  return fail(fmt::format("the reply says that {} requests were taken; {} were used then, {} later", base,
                          used, late));
}

// ---- stopped and started

Outcome stopped_rings_rest(Trial& trial) {
  Rig* rig = TRY(described(trial));
  TRY(rig->enable(rig->ring()));
  TRY(rig->add(rig->ring(), 2));
  TRY(rests(*rig, "before SET_VRING_KICK"));
  TRY(rig->set_kick(rig->ring()));
  rig->ring().kick->signal();
  TRY(rig->take_all(rig->ring()));
  TRY(rig->stop(rig->ring()));
  TRY(rig->add(rig->ring(), 2));
  TRY(rests(*rig, "after GET_VRING_BASE"));
  return {};
}

Outcome get_vring_base_stops(Trial& trial) {
  Rig* rig = TRY(trial.running());
  TRY(rig->serves(rig->ring()));
  TRY(rig->stop(rig->ring()));
  TRY(rig->add(rig->ring()));
  TRY(rests(*rig, "after GET_VRING_BASE"));
  return {};
}

Outcome enabling_is_remembered(Trial& trial) {
  Rig* rig = TRY(described(trial));
  TRY(rig->enable(rig->ring()));
  TRY(rig->set_kick(rig->ring()));
  TRY(rig->serves(rig->ring(), 3));
  TRY(rig->stop(rig->ring()));
  return {};
}

Outcome disabled_rings_discard(Trial& trial) {
  if (trial.kind().name != "net") return not_testable("what it means for this device is not specified");
  Rig* rig = TRY(described(trial));
  TRY(rig->enable(rig->ring(), false));
  TRY(rig->set_kick(rig->ring()));
  TRY(rig->add(rig->ring(), 3));
  if (auto taken = rig->take_all(rig->ring()); !taken) {
    return fail("frames on a disabled ring must be processed and discarded: " + taken.error().detail);
  }
  return "whether they were discarded is seen at the other end";
}

Outcome running_rings_are_served(Trial& trial) {
  auto rig = trial.running();
  // Whoever cannot get here at all does not serve rings.
  if (!rig && rig.error().before_check) return fail(rig.error().detail);
  if (!rig) return std::unexpected(rig.error());
  TRY((*rig)->serves((*rig)->ring()));
  TRY((*rig)->serves((*rig)->ring(), 16));
  TRY((*rig)->stop((*rig)->ring()));
  return std::string(trial.kind().request);
}

Outcome kick_message_starts(Trial& trial) {
  switch (TRY(start_with_requests(trial))) {
    case Started::by_message:
      return {};
    case Started::by_kick:
      return "it starts at the first kick after the message, as older texts have it";
    case Started::not_at_all:
      break;
  }
  return fail("requests that were available at SET_VRING_KICK are not processed, not even after a kick");
}

Outcome no_kick_is_needed_to_start(Trial& trial) {
  if (TRY(start_with_requests(trial)) == Started::by_message) return {};
  return fail("requests that were available at SET_VRING_KICK wait for a kick");
}

Outcome rings_start_again(Trial& trial) {
  Rig* rig = TRY(trial.running());
  constexpr int rounds = 50;
  for (int i = 0; i < rounds; ++i) {
    if (auto served = rig->serves(rig->ring(), 3); !served)
      return fail(fmt::format("start {}: {}", i + 1, served.error().detail));
    TRY(restart(*rig, TRY(rig->stop(rig->ring()))));
  }
  TRY(rig->serves(rig->ring(), 3));
  return fmt::format("{} times", rounds);
}

Outcome enabling_works_at_any_time(Trial& trial) {
  Rig* rig = TRY(trial.running());
  for (int i = 0; i < 10; ++i) {
    TRY(rig->enable(rig->ring(), false));
    TRY(rig->enable(rig->ring(), true));
    if (auto served = rig->serves(rig->ring()); !served)
      return fail("after it was disabled and enabled again: " + served.error().detail);
  }
  return {};
}

Outcome without_bit_30_rings_are_enabled(Trial& trial) {
  Rig* rig = TRY(described(trial, {.bit_30 = false}));
  TRY(rig->set_kick(rig->ring()));
  if (auto served = rig->serves(rig->ring(), 3); !served)
    return fail("without bit 30 and SET_VRING_ENABLE: " + served.error().detail);
  TRY(rig->stop(rig->ring()));
  return {};
}

Outcome things_change_under_running_rings(Trial& trial) {
  Rig* rig = TRY(trial.running());
  Rig::Ring& ring = rig->ring();
  const auto still_serves = [&](const char* after) -> Or<> {
    if (auto served = rig->serves(ring); !served)
      return fail(fmt::format("after {}: {}", after, served.error().detail));
    return {};
  };
  TRY(still_serves("the start"));
  ring.call = std::make_unique<Event>(TRY(reach(Event::make(), "an eventfd")));
  TRY(rig->must(vhost::SetVringCall{ring.index, TRY(reach(ring.call->copy(), "an eventfd"))}));
  TRY(still_serves("another SET_VRING_CALL"));
  if (!ring.call->arrives(rig->patience().answer))
    return fail("the eventfd of another SET_VRING_CALL is not signalled");
  TRY(rig->share());
  TRY(still_serves("the same SET_MEM_TABLE"));
  return {};
}

// ---- suspended

namespace {

// All rings are stopped just after requests were added.
Or<Rig*> suspended(Trial& trial, std::shared_ptr<Inbox> inbox = nullptr) {
  Rig* rig = TRY(trial.running({.capabilities = bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG)}));
  if (inbox) {
    const auto heard = rig->ask(vhost::SetFrontEnd{std::move(inbox)});
    if (!heard) return not_offered("BACKEND_REQ");
  }
  TRY(rig->serves(rig->ring(), 3));
  TRY(rig->add(rig->ring(), 20));
  TRY(rig->stop(rig->ring()));
  return rig;
}

}  // namespace

Outcome suspended_memory_stays(Trial& trial) {
  Rig* rig = TRY(suspended(trial));
  const auto now = rig->memory().bytes();
  const std::vector<std::byte> before(now.begin(), now.end());
  std::this_thread::sleep_for(rig->patience().quiet);
  const auto differs = std::ranges::mismatch(before, now);
  if (differs.in1 == before.end()) return {};
  return fail(fmt::format("memory changed at offset {:#x} while all rings were stopped",
                          differs.in1 - before.begin()));
}

Outcome suspended_is_silent(Trial& trial) {
  Rig* rig = TRY(suspended(trial));
  (void)rig->ring().call->arrives(milliseconds(0));
  if (!rig->ring().call->arrives(rig->patience().quiet)) return {};
  return fail("the call eventfd was signalled while all rings were stopped");
}

Outcome suspended_sends_nothing(Trial& trial) {
  auto inbox = std::make_shared<Inbox>();
  Rig* rig = TRY(suspended(trial, inbox));
  const size_t before = inbox->count();
  std::this_thread::sleep_for(rig->patience().quiet);
  if (inbox->count() == before) return {};
  return fail(fmt::format("{} messages came while all rings were stopped", inbox->count() - before));
}

Outcome suspended_answers(Trial& trial) {
  Rig* rig = TRY(suspended(trial));
  TRY(expect(rig->ask(vhost::GetFeatures{}), "GET_FEATURES while all rings were stopped"));
  if (rig->agreed().has_capability(vhost::VHOST_USER_PROTOCOL_F_CONFIG) && rig->kind().config_bytes > 0) {
    const auto size = static_cast<uint32_t>(rig->kind().config_bytes);
    TRY(expect(rig->ask(vhost::GetConfig{.offset = 0, .size = size}),
               "GET_CONFIG while all rings were stopped"));
  }
  return {};
}

// ---- notifications

Outcome rings_without_kick_are_polled(Trial& trial) {
  Rig* rig = TRY(described(trial));
  TRY(rig->enable(rig->ring()));
  TRY(expect(rig->ask(vhost::SetVringKick{rig->ring().index, {}}),
             "SET_VRING_KICK without a file descriptor"));
  TRY(rig->add(rig->ring(), 3, Kick::no));
  if (auto taken = rig->take_all(rig->ring()); !taken)
    return fail("without a kick eventfd: " + taken.error().detail);
  TRY(rig->stop(rig->ring()));
  return {};
}

Outcome call_is_signalled(Trial& trial) {
  Rig* rig = TRY(trial.running());
  Rig::Ring& ring = rig->ring();
  (void)ring.call->arrives(rig->patience().quiet);  // some signal it as soon as they have it
  TRY(rig->serves(ring));
  if (!ring.call->arrives(rig->patience().answer))
    return fail("a request was used and the call eventfd was not signalled");
  const auto none = rig->ask(vhost::SetVringCall{ring.index, {}});
  if (!none) return fail("SET_VRING_CALL without a file descriptor: " + none.error().to_string());
  (void)ring.call->arrives(milliseconds(0));
  if (auto served = rig->serves(ring); !served)
    return fail("without a call eventfd: " + served.error().detail);
  if (ring.call->arrives(rig->patience().quiet))
    return fail("the call eventfd that was taken back is signalled");
  return {};
}

Outcome err_is_taken(Trial& trial) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->negotiate());
  const Event err = TRY(reach(Event::make(), "an eventfd"));
  TRY(expect(rig->ask(vhost::SetVringErr{0, TRY(reach(err.copy(), "an eventfd"))}), "SET_VRING_ERR"));
  TRY(expect(rig->ask(vhost::SetVringErr{0, {}}), "SET_VRING_ERR without a file descriptor"));
  TRY(expect(rig->ask(vhost::GetFeatures{}), "GET_FEATURES after it"));
  return {};
}

Outcome reset_owner_keeps_the_session(Trial& trial) {
  Rig* rig = TRY(trial.running());
  TRY(rig->serves(rig->ring()));
  TRY(expect(rig->ask(vhost::ResetOwner{}), "RESET_OWNER"));
  // All may be disabled now, also those that some devices wait for.
  for (vhost::RingIndex index = 0; index <= rig->ring().index; ++index)
    TRY(expect(rig->ask(vhost::SetVringEnable{index, 1}), "SET_VRING_ENABLE after RESET_OWNER"));
  if (auto served = rig->serves(rig->ring()); !served)
    return fail("after RESET_OWNER and SET_VRING_ENABLE: " + served.error().detail);
  return {};
}

Outcome in_band_calls_come(Trial& trial) {
  constexpr unsigned in_band = vhost::VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS;
  Rig* rig = TRY(trial.rig());
  TRY(rig->needs_request());
  TRY(rig->negotiate({.capabilities = bit(in_band)}));
  if (!rig->can(in_band)) return not_offered("INBAND_NOTIFICATIONS");
  auto inbox = std::make_shared<Inbox>();
  TRY(rig->must(vhost::SetFrontEnd{inbox}));
  TRY(rig->share());
  TRY(rig->make_ring());
  Rig::Ring& ring = rig->ring();
  TRY(rig->must(vhost::SetVringNum{ring.index, ring.config.size}));
  TRY(rig->must(vhost::SetVringBase{ring.index, 0}));
  TRY(rig->must(rig->addresses(ring)));
  TRY(rig->enable(ring));
  TRY(rig->add(ring, 1, Kick::no));
  TRY(rig->must(vhost::VringKick{ring.index}));
  if (auto taken = rig->take_all(ring); !taken) return fail("after VRING_KICK: " + taken.error().detail);
  const auto end = std::chrono::steady_clock::now() + rig->patience().answer;
  while (inbox->count_of<vhost::VringCall>() == 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(milliseconds(1));
  if (inbox->count_of<vhost::VringCall>() > 0) return {};
  return fail("a request was used and no BACKEND_VRING_CALL came");
}

}  // namespace ringway::check
