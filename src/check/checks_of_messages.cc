// vhost-user "Message Specification", "Communication", "REPLY_ACK": headers and replies, and what is agreed
// on.
#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringway/base/notifier.h"
#include "ringway/check/back_end_checks.h"
#include "ringway/check/small_talk.h"
#include "ringway/user/remote.h"

namespace ringway::check {
namespace {

using vhost::bit;

// Its first replies may be wrong already; that it cannot be reached is the matter of no check.
Or<Wire*> greeted(Trial& trial, uint64_t wanted_protocol) {
  Wire* wire = TRY(trial.connected());
  if (auto done = wire->greet(wanted_protocol); !done)
    return fail("the first messages: " + done.error().to_string());
  return wire;
}

// A message that is answered, and how many bytes its reply has.
struct Question {
  const char* name;
  user::Frame frame;
  size_t reply_bytes;
};

// All that is answered always, as far as it was agreed on, and one acknowledgement.
std::vector<Question> questions(const Trial& trial, const Wire& wire) {
  std::vector<Question> all;
  const auto add = [&](const char* name, uint32_t request, Bytes bytes, size_t reply_bytes) {
    all.push_back({name, Wire::frame(request, std::move(bytes)), reply_bytes});
  };
  add("GET_FEATURES", id<vhost::GetFeatures>, {}, 8);
  if ((wire.features() & bit_30) != 0) add("GET_PROTOCOL_FEATURES", id<vhost::GetProtocolFeatures>, {}, 8);
  if (agreed(wire, vhost::VHOST_USER_PROTOCOL_F_MQ)) add("GET_QUEUE_NUM", id<vhost::GetQueueNum>, {}, 8);
  if (agreed(wire, vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
    add("GET_MAX_MEM_SLOTS", id<vhost::GetMaxMemSlots>, {}, 8);
  if (agreed(wire, vhost::VHOST_USER_PROTOCOL_F_STATUS)) add("GET_STATUS", id<vhost::GetStatus>, {}, 8);
  if (agreed(wire, vhost::VHOST_USER_PROTOCOL_F_CONFIG) && trial.kind().config_bytes > 0) {
    add("GET_CONFIG", id<vhost::GetConfig>, config_request(0, config_size(trial)), 12 + config_size(trial));
  }
  if (agreed(wire, vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK)) {
    add("SET_FEATURES with need_reply", id<vhost::SetFeatures>,
        payload(wire.features() & (bit_30 | version_1)), 8);
    all.back().frame.header.flags |= user::need_reply_flag;
  }
  return all;
}

// A front-end on the wire's connection that asks for no more than was agreed on, and whose ring runs.
class BareRig {
 public:
  BareRig(const Trial& trial, const Wire& wire, SharedMemory memory)
      : remote_(wire.connection(), negotiated_with(wire), nullptr, trial.patience().answer),
        rig_(nullptr, remote_, trial.kind(), trial.patience(), std::move(memory)) {}
  static Or<std::unique_ptr<BareRig>> start(const Trial& trial, const Wire& wire, bool bit_30_too) {
    SharedMemory memory =
        TRY(reach(SharedMemory::make(Rig::guest_base, Rig::user_base, Rig::memory_bytes), "memory"));
    auto made = std::make_unique<BareRig>(trial, wire, std::move(memory));
    Rig& rig = made->rig_;
    TRY(rig.needs_request());
    const uint64_t features = wire.features() & version_1;
    TRY(rig.must(vhost::SetFeatures{features | (bit_30_too ? bit_30 : 0)}));
    rig.assume({.features = features, .capabilities = wire.protocol()}, bit_30_too);
    TRY(rig.share());
    TRY(rig.make_ring());
    TRY(rig.describe(rig.ring()));
    TRY(rig.set_kick(rig.ring()));
    if (bit_30_too) TRY(rig.enable(rig.ring()));
    constexpr uint8_t ready = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
                              VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
    if (agreed(wire, vhost::VHOST_USER_PROTOCOL_F_STATUS)) TRY(rig.must(vhost::SetStatus{ready}));
    return made;
  }
  [[nodiscard]] Rig& rig() { return rig_; }

 private:
  static std::shared_ptr<user::Negotiated> negotiated_with(const Wire& wire) {
    auto negotiated = std::make_shared<user::Negotiated>();
    negotiated->set_capabilities(wire.protocol());
    return negotiated;
  }
  user::Remote<vhost::DeviceRequest> remote_;
  Rig rig_;
};

// GET_VRING_BASE of a ring that runs: of others only what never sets them up asks.
std::optional<Question> question_about_ring(const Trial& trial, const Wire& wire,
                                            std::unique_ptr<BareRig>& rig) {
  if (!trial.kind().has_request()) return std::nullopt;
  auto started = BareRig::start(trial, wire, (wire.features() & bit_30) != 0);
  if (!started) return std::nullopt;
  rig = *std::move(started);
  if (!rig->rig().serves(rig->rig().ring())) return std::nullopt;
  return Question{"GET_VRING_BASE",
                  Wire::frame(id<vhost::GetVringBase>, payload(trial.kind().ring, uint32_t{0})), 8};
}

// All of the above.
std::vector<Question> all_questions(const Trial& trial, const Wire& wire, std::unique_ptr<BareRig>& rig) {
  std::vector<Question> all = questions(trial, wire);
  if (auto one = question_about_ring(trial, wire, rig)) all.push_back(std::move(*one));
  return all;
}

// Asks all questions and looks at each reply.
template <class Look>
Outcome each_reply(Trial& trial, Look look) {
  Wire* wire = TRY(greeted(trial, plain));
  TRY(set_features(*wire));
  std::string asked;
  std::unique_ptr<BareRig> rig;
  for (const Question& question : all_questions(trial, *wire, rig)) {
    TRY(reach(wire->send(question.frame), question.name));
    const auto reply = wire->receive();
    if (!reply) return fail(fmt::format("{}: {}", question.name, reply.error().to_string()));
    if (auto looked = look(question, *reply); !looked) return std::unexpected(looked.error());
    asked += (asked.empty() ? "" : ", ") + std::string(question.name);
  }
  return asked;
}

// Nothing else comes.
Or<> silent(const Wire& wire, const Trial& trial, const char* after) {
  if (!wire.stirs(trial.patience().quiet)) return {};
  if (wire.closed()) return fail(fmt::format("it closed the connection after {}", after));
  return fail(fmt::format("a second reply came after {}", after));
}

}  // namespace

// ---- headers and replies

Outcome headers_are_native(Trial& trial) {
  return each_reply(trial, [](const Question& question, const user::Frame& reply) -> Or<> {
    if (reply.header.request == question.frame.header.request) return {};
    return fail(fmt::format("{} was answered by message {:#x}", question.name, reply.header.request));
  });
}

// The connection has looked at the version already: a frame that comes has it.
Outcome replies_have_version_1(Trial& trial) {
  return each_reply(trial, [](const Question& question, const user::Frame& reply) -> Or<> {
    if ((reply.header.flags & user::version_mask) == user::version) return {};
    return fail(fmt::format("the reply to {} has flags {:#x}", question.name, reply.header.flags));
  });
}

Outcome replies_have_the_reply_flag(Trial& trial) {
  return each_reply(trial, [](const Question& question, const user::Frame& reply) -> Or<> {
    if (reply.header.is_reply()) return {};
    return fail(fmt::format("the reply to {} has flags {:#x}", question.name, reply.header.flags));
  });
}

Outcome replies_have_their_size(Trial& trial) {
  return each_reply(trial, [](const Question& question, const user::Frame& reply) -> Or<> {
    const bool refused = question.frame.header.request == id<vhost::GetConfig> && reply.payload.empty();
    if (reply.payload.size() == question.reply_bytes || refused) return {};
    return fail(fmt::format("the reply to {} has {} bytes of payload and not {}", question.name,
                            reply.payload.size(), question.reply_bytes));
  });
}

Outcome need_reply_asks_for_a_reply(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK));
  const Bytes features = payload(wire->features() & (bit_30 | version_1));
  TRY(expect(wire->ack(id<vhost::SetFeatures>, features), "SET_FEATURES with need_reply"));
  TRY(reach(wire->send(id<vhost::SetFeatures>, features), "SET_FEATURES"));
  TRY(only_features_come(*wire, "SET_FEATURES without need_reply"));
  return {};
}

Outcome replies_come_where_owed(Trial& trial) {
  Wire* wire = TRY(trial.wire(plain));
  SharedMemory memory =
      TRY(reach(SharedMemory::make(Rig::guest_base, Rig::user_base, Rig::memory_bytes), "memory"));
  struct Quiet {
    const char* name;
    uint32_t request;
    Bytes bytes;
    bool eventfd = false;
    bool region = false;
  };
  const memory::RegionLayout at = memory.layout();
  const std::vector<Quiet> all = {
      {"SET_OWNER", id<vhost::SetOwner>, {}},
      {"SET_FEATURES", id<vhost::SetFeatures>, payload(wire->features() & (bit_30 | version_1))},
      {"SET_MEM_TABLE", id<vhost::SetMemTable>,
       payload(uint32_t{1}, uint32_t{0}, at.guest.value, at.size, at.front_end.value, uint64_t{0}), false,
       true},
      {"SET_VRING_NUM", id<vhost::SetVringNum>, payload(uint32_t{0}, Rig::usual_size)},
      {"SET_VRING_BASE", id<vhost::SetVringBase>, payload(uint32_t{0}, uint32_t{0})},
      {"SET_VRING_CALL", id<vhost::SetVringCall>, payload(uint64_t{0}), true},
      {"SET_VRING_ERR", id<vhost::SetVringErr>, payload(uint64_t{0}), true},
  };
  for (const Quiet& one : all) {
    std::vector<UniqueFd> fds;
    if (one.eventfd) fds.push_back(TRY(reach(make_eventfd(), "an eventfd")));
    if (one.region) fds.push_back(TRY(reach(memory.file(), "memory")));
    TRY(reach(wire->send(one.request, one.bytes, std::move(fds)), one.name));
    TRY(only_features_come(*wire, one.name));
  }
  std::unique_ptr<BareRig> rig;
  for (const Question& question : all_questions(trial, *wire, rig)) {
    TRY(reach(wire->send(question.frame), question.name));
    const auto reply = wire->receive();
    if (!reply) return fail(fmt::format("{}: {}", question.name, reply.error().to_string()));
    TRY(only_features_come(*wire, question.name));
  }
  TRY(silent(*wire, trial, "the last message"));
  return {};
}

Outcome own_replies_come_once(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK));
  TRY(set_features(*wire));
  std::unique_ptr<BareRig> rig;
  for (Question& question : all_questions(trial, *wire, rig)) {
    question.frame.header.flags |= user::need_reply_flag;
    TRY(reach(wire->send(question.frame), question.name));
    const auto reply = wire->receive();
    if (!reply) return fail(fmt::format("{} with need_reply: {}", question.name, reply.error().to_string()));
    if (reply->header.request != question.frame.header.request ||
        (reply->payload.size() != question.reply_bytes && !reply->payload.empty())) {
      return fail(
          fmt::format("{} with need_reply was answered differently: {}", question.name, describe(*reply)));
    }
    TRY(only_features_come(*wire, question.name));
  }
  TRY(silent(*wire, trial, "the last message"));
  return {};
}

// ---- negotiation

Outcome bit_30_announces_protocol_features(Trial& trial) {
  Wire* wire = TRY(greeted(trial, 0));
  if ((wire->features() & bit_30) == 0) return not_offered("VHOST_USER_F_PROTOCOL_FEATURES");
  return fmt::format("protocol features {:#x}", wire->offered_protocol());
}

Outcome features_are_answered(Trial& trial) {
  Wire* wire = TRY(trial.wire(0));
  const uint64_t again = TRY(expect(wire->ask_u64(id<vhost::GetFeatures>), "GET_FEATURES"));
  if (again == wire->features()) return fmt::format("{:#x}", again);
  return fail(fmt::format("GET_FEATURES said {:#x}, and then {:#x}", wire->features(), again));
}

Outcome protocol_features_precede_features(Trial& trial) {
  Wire* wire = TRY(greeted(trial, plain));
  if ((wire->features() & bit_30) == 0) return not_offered("VHOST_USER_F_PROTOCOL_FEATURES");
  // Both were sent by now, and SET_FEATURES was not.
  const auto again = wire->ask_u64(id<vhost::GetProtocolFeatures>);
  if (!again) return fail("before SET_FEATURES: " + again.error().to_string());
  if (*again == wire->offered_protocol()) return {};
  return fail(
      fmt::format("GET_PROTOCOL_FEATURES said {:#x}, and then {:#x}", wire->offered_protocol(), *again));
}

// Whoever negotiates nothing gets the protocol as it was before there was anything to negotiate.
Outcome works_without_protocol_features(Trial& trial) {
  Wire* wire = TRY(trial.wire(0));
  const auto bare = TRY(BareRig::start(trial, *wire, false));
  TRY(bare->rig().serves(bare->rig().ring(), 3));
  TRY(bare->rig().stop(bare->rig().ring()));
  return {};
}

Outcome acknowledgements_tell_the_truth(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK,
                             reply_ack | bit(vhost::VHOST_USER_PROTOCOL_F_MQ) |
                                 bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)));
  const uint64_t good =
      TRY(expect(wire->ack(id<vhost::SetFeatures>, payload(wire->features() & (bit_30 | version_1))),
                 "a right SET_FEATURES"));
  if (good != 0) return fail(fmt::format("a right SET_FEATURES was answered by {:#x}", good));

  // What cannot have been done. A connection that is closed over it is an answer too.
  struct Bad {
    const char* what;
    uint32_t request;
    Bytes bytes;
    bool fd = false;
  };
  std::vector<Bad> all;
  const bool slots = agreed(*wire, vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
  const Bytes region =
      payload(uint64_t{0}, Rig::guest_base.value, uint64_t{4096}, Rig::user_base.value, uint64_t{0});
  if (slots)
    all.push_back({"ADD_MEM_REG of an eventfd, which has no memory", id<vhost::AddMemReg>, region, true});
  if (slots) all.push_back({"REM_MEM_REG of a region that was never added", id<vhost::RemMemReg>, region});
  std::string lies;
  std::string closed;
  const uint64_t protocol = wire->protocol();
  for (const Bad& one : all) {
    trial.close();
    Wire* fresh = TRY(trial.wire(protocol));
    TRY(set_features(*fresh));
    std::vector<UniqueFd> fds;
    if (one.fd) fds.push_back(TRY(reach(make_eventfd(), "an eventfd")));
    const auto answer = fresh->ack(one.request, one.bytes, std::move(fds));
    if (!answer && answer.error().fault == Fault::gone)
      closed += (closed.empty() ? "" : ", ") + std::string(one.what);
    if (!answer && answer.error().fault != Fault::gone)
      return fail(fmt::format("{}: {}", one.what, answer.error().to_string()));
    if (answer && *answer == 0) lies += (lies.empty() ? "" : ", ") + std::string(one.what);
  }
  if (!lies.empty()) return fail("success is answered to " + lies);
  return closed.empty() ? std::string() : "the connection is closed over " + closed;
}

Outcome in_band_needs_its_channel(Trial& trial) {
  constexpr uint64_t in_band = bit(vhost::VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS);
  Wire* wire = TRY(trial.wire(0));
  if ((wire->offered_protocol() & in_band) == 0) return not_offered("INBAND_NOTIFICATIONS");
  TRY(reach(wire->send(id<vhost::SetProtocolFeatures>, payload(in_band)), "SET_PROTOCOL_FEATURES"));
  if (wire->stirs(trial.patience().answer) && wire->closed()) return {};
  return fail(fmt::format("the connection stays open after SET_PROTOCOL_FEATURES {:#x}", in_band));
}

}  // namespace ringway::check
