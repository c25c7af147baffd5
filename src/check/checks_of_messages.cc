// vhost-user "Message Specification", "Communication", "REPLY_ACK": what is on the socket.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "ringway/base/notifier.h"
#include "ringway/check/back_end_checks.h"
#include "ringway/user/remote.h"

namespace ringway::check {
namespace {

using vhost::bit;
constexpr uint64_t reply_ack = bit(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK);
constexpr uint64_t bit_30 = bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES);
constexpr uint64_t version_1 = uint64_t{1} << 32;

// Protocol features with which a session is as any other.
constexpr uint64_t plain =
    bit(vhost::VHOST_USER_PROTOCOL_F_MQ) | reply_ack | bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG) |
    bit(vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) | bit(vhost::VHOST_USER_PROTOCOL_F_STATUS);

bool agreed(const Wire& wire, unsigned feature) { return (wire.protocol() & bit(feature)) != 0; }

Or<Wire*> wire_with(Trial& trial, unsigned feature, uint64_t also = plain) {
  Wire* wire = TRY(trial.wire(also | bit(feature)));
  if (!agreed(*wire, feature)) return not_offered(std::string(vhost::protocol_feature_name(feature)));
  return wire;
}

// Its first replies may be wrong already; that it cannot be reached is the matter of no check.
Or<Wire*> greeted(Trial& trial, uint64_t wanted_protocol) {
  Wire* wire = TRY(trial.connected());
  if (auto done = wire->greet(wanted_protocol); !done)
    return fail("the first messages: " + done.error().to_string());
  return wire;
}

Or<> set_features(Wire& wire) {
  return reach(wire.send(id<vhost::SetFeatures>, payload(wire.features() & (bit_30 | version_1))),
               "SET_FEATURES");
}

uint32_t config_size(const Trial& trial) {
  return trial.kind().config_bytes > 0 ? static_cast<uint32_t>(trial.kind().config_bytes) : 4;
}

Bytes config_request(uint32_t offset, uint32_t size, uint32_t flags = 0) {
  Bytes bytes = payload(offset, size, flags);
  bytes.resize(bytes.size() + size);
  return bytes;
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

// The next message that comes is the answer to GET_FEATURES.
Or<> only_features_come(Wire& wire, const char* after) {
  TRY(reach(wire.send(id<vhost::GetFeatures>), after));
  const auto reply = wire.receive();
  if (!reply) return fail(fmt::format("after {}: {}", after, reply.error().to_string()));
  if (reply->header.request != id<vhost::GetFeatures>)
    return fail(fmt::format("{} was answered: {}", after, describe(*reply)));
  return {};
}

size_t count_fds(int process) {
  std::error_code error;
  size_t count = 0;
  for (std::filesystem::directory_iterator at(fmt::format("/proc/{}/fd", process), error), end;
       !error && at != end; at.increment(error)) {
    ++count;
  }
  return count;
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

// ---- messages of one purpose

Outcome log_base_is_answered(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD, plain));
  TRY(set_features(*wire));
  const SharedMemory log = TRY(reach(SharedMemory::make({0}, {0}, 1 << 20), "memory"));
  std::vector<UniqueFd> fds;
  fds.push_back(TRY(reach(log.file(), "memory")));
  TRY(reach(wire->send(id<vhost::SetLogBase>, payload(uint64_t{1} << 20, uint64_t{0}), std::move(fds)),
            "SET_LOG_BASE"));
  const auto reply = wire->receive();
  if (!reply) return fail("SET_LOG_BASE was not answered: " + reply.error().to_string());
  if (reply->header.request != id<vhost::SetLogBase>)
    return fail("SET_LOG_BASE was answered by " + describe(*reply));
  TRY(only_features_come(*wire, "SET_LOG_BASE"));
  return fmt::format("by {} bytes", reply->payload.size());
}

Outcome config_replies_match(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_CONFIG));
  TRY(set_features(*wire));
  const uint32_t whole = config_size(trial);
  Bytes all;
  size_t refusals = 0;
  for (uint32_t offset = 0; offset < whole; offset += 4) {
    for (uint32_t size = whole - offset; size > 0; size /= 2) {
      const auto reply = wire->ask(id<vhost::GetConfig>, config_request(offset, size));
      const std::string what = fmt::format("GET_CONFIG of {} bytes from {}", size, offset);
      if (!reply) return fail(fmt::format("{}: {}", what, reply.error().to_string()));
      if (reply->payload.empty() || reply->payload.size() == 12) {  // the header may stay: size 0 says no
        ++refusals;
        continue;
      }
      if (reply->payload.size() != 12 + size)
        return fail(fmt::format("{} was answered by {} bytes of payload and not {}", what,
                                reply->payload.size(), 12 + size));
      const Bytes bytes(reply->payload.begin() + 12, reply->payload.end());
      if (offset == 0 && size == whole) all = bytes;
      if (!all.empty() && !std::equal(bytes.begin(), bytes.end(), all.begin() + offset)) {
        return fail(fmt::format("{} gave {}, but of {} bytes from 0 these are {}", what, hex(bytes), whole,
                                hex(std::span(all).subspan(offset, size))));
      }
    }
  }
  if (all.empty() && trial.kind().config_bytes == 0)
    return not_testable("how large the configuration space is is not known, and 4 bytes cannot be read");
  if (all.empty()) return fail(fmt::format("the first {} bytes cannot be read", whole));
  return fmt::format("{} reads were refused", refusals);
}

Outcome undefined_config_flags_are_refused(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_CONFIG));
  if (!agreed(*wire, vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK))
    return not_testable("without REPLY_ACK a refusal is silent");
  TRY(set_features(*wire));
  const auto whole = wire->ask(id<vhost::GetConfig>, config_request(0, config_size(trial)));
  if (!whole || whole->payload.size() < 16) return not_testable("the configuration space cannot be read");
  // The bytes that are there already: whoever takes them does no harm.
  Bytes write = payload(uint32_t{0}, uint32_t{4}, uint32_t{2});
  write.insert(write.end(), whole->payload.begin() + 12, whole->payload.begin() + 16);
  const auto answer = wire->ack(id<vhost::SetConfig>, write);
  if (!answer && answer.error().fault == Fault::gone) return "the connection is closed over it";
  if (!answer) return fail("SET_CONFIG with flags 2: " + answer.error().to_string());
  if (*answer != 0) return {};
  return fail("success is answered to SET_CONFIG with flags 2");
}

Outcome stray_fds_are_closed(Trial& trial) {
  const int process = trial.target().process();
  if (process <= 0 || count_fds(process) == 0)
    return not_testable("the file descriptors of its process are not to be seen from here");
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS));
  TRY(set_features(*wire));
  SharedMemory memory = TRY(reach(SharedMemory::make(Rig::guest_base, Rig::user_base, 1 << 16), "memory"));
  const Bytes region =
      payload(uint64_t{0}, Rig::guest_base.value, uint64_t{1} << 16, Rig::user_base.value, uint64_t{0});
  const auto send = [&](uint32_t request, bool with_fd) -> Or<> {
    std::vector<UniqueFd> fds;
    if (with_fd) fds.push_back(TRY(reach(memory.file(), "memory")));
    TRY(reach(wire->send(request, region, std::move(fds)), "a region"));
    TRY(reach(wire->ask_u64(id<vhost::GetFeatures>), "GET_FEATURES"));
    return {};
  };
  TRY(send(id<vhost::AddMemReg>, true));
  TRY(send(id<vhost::RemMemReg>, false));
  const size_t before = count_fds(process);
  constexpr int rounds = 8;
  for (int i = 0; i < rounds; ++i) {
    TRY(send(id<vhost::AddMemReg>, true));
    const auto removed = send(id<vhost::RemMemReg>, true);
    if (!removed) return "a message with one is refused, which is allowed";
  }
  const size_t after = count_fds(process);
  if (after < before + rounds) return {};
  return fail(fmt::format("{} times REM_MEM_REG with a file descriptor left {} of them open", rounds,
                          after - before));
}

// ---- device state, shared objects, shared memory, postcopy

namespace {

Or<user::Frame> ask_state_fd(Wire& wire, uint32_t direction, uint32_t phase, UniqueFd fd) {
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(fd));
  TRY(reach(wire.send(id<vhost::SetDeviceStateFd>, payload(direction, phase), std::move(fds)),
            "SET_DEVICE_STATE_FD"));
  auto reply = wire.receive();
  if (!reply) return fail("SET_DEVICE_STATE_FD was not answered: " + reply.error().to_string());
  if (reply->payload.size() != 8)
    return fail(fmt::format("SET_DEVICE_STATE_FD was answered by {} bytes and not 8", reply->payload.size()));
  return *std::move(reply);
}

uint64_t value_of(const user::Frame& reply) {
  uint64_t value = 0;
  std::memcpy(&value, reply.payload.data(), sizeof value);
  return value;
}

Or<std::array<UniqueFd, 2>> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return not_testable("no pipe can be made here");
  return std::array<UniqueFd, 2>{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// How many bytes come until the end, which must come in time.
Or<size_t> read_to_end(int fd, milliseconds patience) {
  constexpr size_t most = size_t{256} << 20;
  const auto end = std::chrono::steady_clock::now() + patience;
  std::array<std::byte, 4096> buffer;
  size_t bytes = 0;
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  while (bytes <= most) {
    const auto left = std::chrono::ceil<milliseconds>(end - std::chrono::steady_clock::now());
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    if (left.count() <= 0 || ::poll(&entry, 1, static_cast<int>(left.count())) == 0) {
      return fail(fmt::format("its state does not end within {} s: {} bytes came",
                              static_cast<double>(patience.count()) / 1000, bytes));
    }
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got == 0) return bytes;
    if (got < 0 && errno != EAGAIN && errno != EINTR) return fail("its state cannot be read");
    bytes += got > 0 ? static_cast<size_t>(got) : 0;
  }
  return fail(fmt::format("its state has more than {} MiB", most >> 20));
}

constexpr uint64_t state_error = 0xff;
constexpr uint64_t state_no_fd = 0x100;

}  // namespace

Outcome state_transfers_are_checked(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_DEVICE_STATE));
  TRY(set_features(*wire));
  for (const auto& [direction, phase] : {std::pair{2U, 0U}, std::pair{0U, 1U}}) {
    auto ends = TRY(make_pipe());
    const auto reply = ask_state_fd(*wire, direction, phase, std::move(ends[1]));
    if (!reply && wire->closed()) return "the connection is closed over it";
    if (!reply) return std::unexpected(reply.error());
    const uint64_t value = value_of(*reply);
    if ((value & state_error) == 0)
      return fail(
          fmt::format("direction {}, phase {} was answered by {:#x}, success", direction, phase, value));
  }
  return {};
}

Outcome state_replies_have_one_meaning(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_DEVICE_STATE));
  TRY(set_features(*wire));
  auto ends = TRY(make_pipe());
  const user::Frame reply = TRY(ask_state_fd(*wire, 0, 0, std::move(ends[1])));
  const uint64_t value = value_of(reply);
  if ((value & state_error) != 0 && !reply.fds.empty())
    return fail(fmt::format("{:#x}, an error, came with a file descriptor", value));
  const bool says_none = (value & state_no_fd) != 0;
  if (says_none == reply.fds.empty()) return {};
  return fail(fmt::format("{:#x} came with {} file descriptors", value, reply.fds.size()));
}

Outcome state_is_checked(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_DEVICE_STATE));
  TRY(set_features(*wire));
  auto ends = TRY(make_pipe());
  user::Frame reply = TRY(ask_state_fd(*wire, 0, 0, std::move(ends[1])));
  if ((value_of(reply) & state_error) != 0) return not_testable("it saves no state now");
  const UniqueFd from = reply.fds.empty() ? std::move(ends[0]) : std::move(reply.fds[0]);
  const size_t bytes = TRY(read_to_end(from.get(), trial.patience().answer));
  const uint64_t checked = TRY(expect(wire->ask_u64(id<vhost::CheckDeviceState>), "CHECK_DEVICE_STATE"));
  if (checked != 0) return fail(fmt::format("CHECK_DEVICE_STATE says {:#x} after all was read", checked));
  return fmt::format("{} bytes", bytes);
}

Outcome shmem_config_is_sound(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_SHMEM));
  const user::Frame reply = TRY(expect(wire->ask(id<vhost::GetShmemConfig>), "GET_SHMEM_CONFIG"));
  constexpr size_t regions = 256;
  if (reply.payload.size() != 8 + regions * 8)
    return fail(fmt::format("{} bytes and not {}", reply.payload.size(), 8 + regions * 8));
  uint32_t told = 0;
  std::memcpy(&told, reply.payload.data(), sizeof told);
  uint32_t used = 0;
  for (size_t i = 0; i < regions; ++i) {
    uint64_t size = 0;
    std::memcpy(&size, reply.payload.data() + 8 + i * 8, sizeof size);
    if (size % SharedMemory::page != 0)
      return fail(fmt::format("region {} has {} bytes: no whole pages", i, size));
    used += size != 0 ? 1 : 0;
  }
  if (told != used) return fail(fmt::format("{} regions are told, {} have a size", told, used));
  return {};
}

Outcome shmem_config_stays(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_SHMEM));
  const user::Frame first = TRY(expect(wire->ask(id<vhost::GetShmemConfig>), "GET_SHMEM_CONFIG"));
  for (int i = 0; i < 100; ++i) {
    const user::Frame again = TRY(expect(wire->ask(id<vhost::GetShmemConfig>), "GET_SHMEM_CONFIG"));
    if (again.payload != first.payload) return fail("it is not the same each time");
  }
  return {};
}

Outcome unknown_objects_have_no_fd(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_SHARED_OBJECT));
  const user::Frame reply =
      TRY(expect(wire->ask(id<vhost::GetSharedObject>, payload(uint64_t{0x5a5a}, uint64_t{0xa5a5})),
                 "GET_SHARED_OBJECT"));
  if (reply.fds.empty()) return {};
  return fail("an object that cannot be there was answered by a file descriptor");
}

namespace {

// Postcopy excludes memory slots. The userfaultfd, or why there is none.
Or<UniqueFd> advise(Wire& wire) {
  auto reply = wire.ask(id<vhost::PostcopyAdvise>);
  if (!reply) return fail("POSTCOPY_ADVISE was not answered: " + reply.error().to_string());
  if (reply->header.request != id<vhost::PostcopyAdvise>)
    return fail("POSTCOPY_ADVISE was answered by " + describe(*reply));
  if (reply->fds.empty()) return not_testable("it has no userfaultfd, which may be forbidden to it");
  if (reply->fds.size() > 1)
    return fail(fmt::format("POSTCOPY_ADVISE brought {} file descriptors", reply->fds.size()));
  return std::move(reply->fds[0]);
}

Or<Wire*> postcopy_wire(Trial& trial) {
  Wire* wire = TRY(wire_with(trial, vhost::VHOST_USER_PROTOCOL_F_PAGEFAULT,
                             reply_ack | bit(vhost::VHOST_USER_PROTOCOL_F_MQ)));
  TRY(set_features(*wire));
  return wire;
}

}  // namespace

Outcome postcopy_advise_brings_a_userfaultfd(Trial& trial) {
  Wire* wire = TRY(postcopy_wire(trial));
  const UniqueFd fd = TRY(advise(*wire));
  std::error_code error;
  const std::string kind =
      std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", fd.get()), error).string();
  if (kind.find("userfaultfd") != std::string::npos) return {};
  return fail("POSTCOPY_ADVISE brought " + kind + " and no userfaultfd");
}

Outcome postcopy_ends(Trial& trial) {
  Wire* wire = TRY(postcopy_wire(trial));
  TRY(advise(*wire));
  if (agreed(*wire, vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK)) {
    TRY(expect(wire->ack(id<vhost::PostcopyListen>), "POSTCOPY_LISTEN with need_reply"));
  } else {
    TRY(reach(wire->send(id<vhost::PostcopyListen>), "POSTCOPY_LISTEN"));
  }
  const uint64_t answer = TRY(expect(wire->ask_u64(id<vhost::PostcopyEnd>), "POSTCOPY_END was not answered"));
  if (answer != 0) return fail(fmt::format("POSTCOPY_END was answered by {:#x}", answer));
  return {};
}

}  // namespace ringway::check
