// vhost-user "Front-end message types": the messages about the device as a whole.
#include <fmt/format.h>
#include <linux/virtio_config.h>
#include <sys/stat.h>

#include <cstring>

#include "ringway/check/back_end_checks.h"

namespace ringway::check {
namespace {

using vhost::bit;

constexpr unsigned VIRTIO_NET_F_MTU = 3;  // linux/virtio_net.h is no C++

Or<Rig*> with(Trial& trial, unsigned capability) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->negotiate({.capabilities = bit(capability)}));
  if (!rig->can(capability)) return not_offered(std::string(vhost::protocol_feature_name(capability)));
  return rig;
}

}  // namespace

Outcome queue_number_is_told(Trial& trial) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->negotiate({.capabilities = bit(vhost::VHOST_USER_PROTOCOL_F_MQ)}));
  if (!rig->can(vhost::VHOST_USER_PROTOCOL_F_MQ)) return fail("MQ is not offered");
  const uint64_t told = TRY(expect(rig->ask(vhost::GetQueueNum{}), "GET_QUEUE_NUM"));
  if (told == 0) return fail("GET_QUEUE_NUM says 0");
  return fmt::format("{} queues", told);
}

// ---- in-flight area

namespace {

// Two where there are as many: a device may refuse an area for queues that it does not have.
Or<uint16_t> queues_of(Rig& rig) {
  if (!rig.can(vhost::VHOST_USER_PROTOCOL_F_MQ)) return 1;
  const uint64_t told = TRY(expect(rig.ask(vhost::GetQueueNum{}), "GET_QUEUE_NUM"));
  return told < 2 ? 1 : 2;
}

Or<vhost::InflightArea> area_of(Rig& rig, uint16_t queues) {
  vhost::InflightArea area =
      TRY(expect(rig.ask(vhost::GetInflightFd{queues, Rig::usual_size}), "GET_INFLIGHT_FD"));
  if (!area.fd) return fail("GET_INFLIGHT_FD brought no file descriptor");
  return area;
}

}  // namespace

Outcome inflight_area_is_given(Trial& trial) {
  constexpr unsigned capability = vhost::VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD;
  Rig* rig = TRY(trial.rig());
  TRY(rig->negotiate({.capabilities = bit(capability) | bit(vhost::VHOST_USER_PROTOCOL_F_MQ)}));
  if (!rig->can(capability)) return not_offered("INFLIGHT_SHMFD");
  const uint16_t queues = TRY(queues_of(*rig));
  const vhost::InflightArea area = TRY(area_of(*rig, queues));
  // Of split rings, as the specification has them.
  const uint64_t least = uint64_t{queues} * (16 + 16 * Rig::usual_size);
  const std::string asked = fmt::format("{} rings of {}", queues, Rig::usual_size);
  struct stat status{};
  if (::fstat(area.fd.get(), &status) != 0) return fail("its file descriptor cannot be examined");
  const auto file = static_cast<uint64_t>(status.st_size);
  if (area.size < least) return fail(fmt::format("{} bytes for {}", area.size, asked));
  if (file < area.size || file - area.size < area.offset)
    return fail(fmt::format("{} bytes from {} of a file of {}", area.size, area.offset, file));
  if (!Mapping::of_file(area.fd.get(), area.size, static_cast<off_t>(area.offset)))
    return fail("it cannot be mapped");
  return fmt::format("{} bytes for {}", area.size, asked);
}

Outcome fresh_inflight_area_is_taken(Trial& trial) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->needs_request());
  TRY(rig->negotiate({.capabilities = bit(vhost::VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)}));
  if (!rig->can(vhost::VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)) return not_offered("INFLIGHT_SHMFD");
  vhost::InflightArea area = TRY(area_of(*rig, static_cast<uint16_t>(rig->kind().ring + 1)));
  const Mapping mapped =
      TRY(reach(Mapping::of_file(area.fd.get(), area.size, static_cast<off_t>(area.offset)), "mapping it"));
  std::memset(mapped.data(), 0, area.size);  // uninitialised
  TRY(expect(rig->ask(vhost::SetInflightFd{std::move(area)}), "SET_INFLIGHT_FD of zeros"));
  TRY(rig->share());
  TRY(rig->make_ring());
  TRY(rig->start(rig->ring()));
  if (auto served = rig->serves(rig->ring(), 3); !served)
    return fail("with an area of zeros: " + served.error().detail);
  (void)TRY(rig->stop(rig->ring()));
  return {};
}

// That it does not wait would be seen by requests that take long only; that it stops, and where, by any.
Outcome skip_drain_stops_at_once(Trial& trial) {
  constexpr unsigned skip_drain = vhost::VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN;
  constexpr uint64_t needed = bit(skip_drain) | bit(vhost::VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT) |
                              bit(vhost::VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
  Rig* rig = TRY(trial.rig());
  TRY(rig->needs_request());
  TRY(rig->negotiate({.capabilities = needed}));
  if (!rig->can(skip_drain)) return not_offered("GET_VRING_BASE_SKIP_DRAIN");
  if (rig->agreed().capabilities != needed) return fail("it is offered without what it needs");
  TRY(rig->must(vhost::SetInflightFd{TRY(area_of(*rig, static_cast<uint16_t>(rig->kind().ring + 1)))}));
  TRY(rig->share());
  TRY(rig->make_ring());
  Rig::Ring& ring = rig->ring();
  TRY(rig->start(ring));
  TRY(rig->serves(ring, 20));
  const vhost::RingState stopped =
      TRY(expect(rig->ask(vhost::GetVringBaseSkipDrain{ring.index}), "GET_VRING_BASE_SKIP_DRAIN"));
  if (stopped.value != ring.taken)
    return fail(fmt::format("{} requests were served, and the reply says {}", ring.taken, stopped.value));
  TRY(rig->add(ring, 2));
  const uint32_t served = TRY(rig->take_for(ring, rig->patience().quiet));
  if (served > 0) return fail(fmt::format("{} requests were processed after it", served));
  return {};
}

// ---- configuration

Outcome mtu_is_judged(Trial& trial) {
  constexpr unsigned capability = vhost::VHOST_USER_PROTOCOL_F_MTU;
  Rig* rig = TRY(trial.rig());
  TRY(rig->negotiate({.features = bit(VIRTIO_NET_F_MTU), .capabilities = bit(capability)}));
  if (!rig->can(capability) || !rig->offers(VIRTIO_NET_F_MTU))
    return not_offered("NET_MTU with VIRTIO_NET_F_MTU");
  TRY(expect(rig->ask(vhost::NetSetMtu{1500}), "NET_SET_MTU of 1500"));
  if (!rig->ask(vhost::NetSetMtu{67})) return {};
  if (!rig->acknowledges()) return not_testable("without REPLY_ACK a refusal is silent");
  return fail("success is answered to NET_SET_MTU of 67");
}

Outcome read_only_config_stays(Trial& trial) {
  const std::optional<uint32_t> field = trial.kind().read_only_field;
  if (!field) return not_testable("no read-only field of this device is known");
  Rig* rig = TRY(with(trial, vhost::VHOST_USER_PROTOCOL_F_CONFIG));
  const auto size = static_cast<uint32_t>(trial.kind().config_bytes);
  const vhost::GetConfig read{.offset = 0, .size = size};
  const vhost::ConfigBytes before = TRY(reach(rig->ask(read), "GET_CONFIG"));
  vhost::ConfigBytes change{.offset = *field, .flags = vhost::VHOST_CONFIG_WRITABLE, .bytes = {}};
  change.bytes.assign(before.bytes.begin() + change.offset, before.bytes.begin() + change.offset + 8);
  const vhost::ConfigBytes original = change;
  change.bytes[0] ^= std::byte{8};
  const bool accepted = rig->ask(vhost::SetConfig{change}).has_value();
  const auto after = rig->ask(read);
  if (!after) return "the connection is closed over it";
  if (after->bytes == before.bytes) return accepted ? "it is acknowledged and nothing is written" : "";
  (void)rig->ask(vhost::SetConfig{original});
  return fail(fmt::format("8 bytes at {}, which are read-only, were changed by SET_CONFIG", change.offset));
}

Outcome endianness_is_taken(Trial& trial) {
  Rig* rig = TRY(with(trial, vhost::VHOST_USER_PROTOCOL_F_CROSS_ENDIAN));
  for (const uint32_t big : {0U, 1U})
    TRY(expect(rig->ask(vhost::SetVringEndian{0, big}), "SET_VRING_ENDIAN"));
  const auto other = rig->ask(vhost::SetVringEndian{0, 2});
  if (!other) return {};
  if (!rig->acknowledges()) return not_testable("without REPLY_ACK a refusal is silent");
  return fail("success is answered to SET_VRING_ENDIAN of 2");
}

Outcome back_channel_is_taken(Trial& trial) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->negotiate());
  const auto taken = rig->ask(vhost::SetFrontEnd{std::make_shared<Inbox>()});
  if (taken) return {};
  if (std::string_view(taken.error().what) == "was not negotiated") return not_offered("BACKEND_REQ");
  return fail("SET_BACKEND_REQ_FD: " + taken.error().to_string());
}

// ---- reset, status

Outcome device_is_reset(Trial& trial) {
  constexpr unsigned capability = vhost::VHOST_USER_PROTOCOL_F_RESET_DEVICE;
  Rig* rig = TRY(trial.rig());
  TRY(rig->needs_request());
  TRY(rig->negotiate({.capabilities = bit(capability)}));
  if (!rig->can(capability)) return not_offered("RESET_DEVICE");
  TRY(rig->share());
  TRY(rig->make_ring());
  TRY(rig->start(rig->ring()));
  TRY(rig->serves(rig->ring(), 3));
  TRY(expect(rig->ask(vhost::ResetDevice{}), "RESET_DEVICE"));
  TRY(rig->add(rig->ring(), 2));
  const uint32_t served = TRY(rig->take_for(rig->ring(), rig->patience().quiet));
  if (served > 0) return fail(fmt::format("{} requests were processed after RESET_DEVICE", served));
  // From the start, without SET_OWNER.
  TRY(rig->must(vhost::SetFeatures{rig->agreed().features | bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES)}));
  TRY(rig->share());
  TRY(rig->make_ring());
  TRY(rig->start(rig->ring()));
  if (auto again = rig->serves(rig->ring(), 3); !again)
    return fail("set up again after RESET_DEVICE: " + again.error().detail);
  return {};
}

Outcome status_is_kept(Trial& trial) {
  Rig* rig = TRY(with(trial, vhost::VHOST_USER_PROTOCOL_F_STATUS));
  constexpr uint8_t set = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
  TRY(expect(rig->ask(vhost::SetStatus{0}), "SET_STATUS of 0"));
  TRY(expect(rig->ask(vhost::SetStatus{set}), "SET_STATUS"));
  const uint64_t got = TRY(expect(rig->ask(vhost::GetStatus{}), "GET_STATUS"));
  if ((got & 0xff) == set) return {};
  return fail(fmt::format("status {:#x} was set, and {:#x} is answered", set, got));
}

}  // namespace ringway::check
