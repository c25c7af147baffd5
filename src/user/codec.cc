#include "ringway/user/codec.h"

#include <type_traits>
#include <utility>

#include "ringway/user/wire.h"

namespace ringway::user {
namespace {

using namespace vhost;  // the payloads: nearly every name of it

// clang-format off: a payload to a line
// ---- layouts: what is on the wire, in order; W is Writer or Reader

template <class W, class T>
  requires std::is_empty_v<T>
void layout(W&, T&) {}

template <class W> void layout(W& w, SetFeatures& m) { w(m.features); }
template <class W> void layout(W& w, SetMemTable& m) { w.regions(m.regions); }
template <class W> void layout(W& w, SetLogBase& m) { w.log(m); }
template <class W> void layout(W& w, SetLogFd& m) { w.fd(m.fd); }
template <class W> void layout(W& w, SetVringNum& m) { w(m.ring, m.size); }
template <class W> void layout(W& w, SetVringAddr& m) { w(m.ring, m.flags, m.desc, m.used, m.avail, m.log); }
template <class W> void layout(W& w, SetVringBase& m) { w(m.ring, m.base); }
template <class W> void layout(W& w, GetVringBase& m) { w(m.ring), w.zeros(4); }
template <class W> void layout(W& w, SetVringKick& m) { w.ring_and_fd(m.ring, m.fd); }
template <class W> void layout(W& w, SetVringCall& m) { w.ring_and_fd(m.ring, m.fd); }
template <class W> void layout(W& w, SetVringErr& m) { w.ring_and_fd(m.ring, m.fd); }
template <class W> void layout(W& w, SetProtocolFeatures& m) { w(m.capabilities.bits); }
template <class W> void layout(W& w, SetVringEnable& m) { w(m.ring, m.enable); }
template <class W> void layout(W& w, SendRarp& m) { w(m.mac); }
template <class W> void layout(W& w, NetSetMtu& m) { w(m.mtu); }
template <class W> void layout(W& w, SetFrontEnd& m) { w.front_end(m.front_end); }
template <class W> void layout(W& w, SetVringEndian& m) { w(m.ring, m.big); }
template <class W> void layout(W& w, GetConfig& m) { w.config_request(m); }
template <class W> void layout(W& w, ConfigBytes& m) { w.config(m); }
template <class W> void layout(W& w, SetConfig& m) { w.config(m.config); }
template <class W> void layout(W& w, CryptoSession& m) { w.bytes(m.bytes); }
template <class W> void layout(W& w, CreateCryptoSession& m) { layout(w, m.session); }
template <class W> void layout(W& w, CloseCryptoSession& m) { w(m.session); }
template <class W> void layout(W& w, GetInflightFd& m) { w.zeros(16), w(m.queues, m.queue_size), w.zeros(4); }
template <class W> void layout(W& w, InflightArea& m) {
  w(m.size, m.offset, m.queues, m.queue_size), w.zeros(4), w.optional_fd(m.fd);
}
template <class W> void layout(W& w, SetInflightFd& m) { layout(w, m.area); }
template <class W> void layout(W& w, GpuSetSocket& m) { w.fd(m.fd); }
template <class W> void layout(W& w, VringKick& m) { w(m.ring), w.zeros(4); }
template <class W> void layout(W& w, AddMemReg& m) { w.zeros(8), w(m.region.layout), w.fd(m.region.fd); }
template <class W> void layout(W& w, RemMemReg& m) { w.zeros(8), w(m.layout), w.stray_fd(); }
template <class W> void layout(W& w, SetStatus& m) { w(m.status); }
template <class W> void layout(W& w, GetSharedObject& m) { w(m.uuid); }
template <class W> void layout(W& w, SetDeviceStateFd& m) { w(m.direction, m.phase), w.fd(m.fd); }
template <class W> void layout(W& w, GetVringBaseSkipDrain& m) { w(m.ring), w.zeros(4); }

template <class W> void iotlb(W& w, IotlbMessage& m, IotlbType one, IotlbType other) {
  w(m.iova, m.size, m.front_end, m.permission), w.iotlb_type(m.type, one, other), w.zeros(6);
}
template <class W> void layout(W& w, UpdateIotlb& m) { iotlb(w, m.message, IotlbType::update, IotlbType::invalidate); }
template <class W> void layout(W& w, IotlbFault& m) { iotlb(w, m.message, IotlbType::miss, IotlbType::access_fail); }
template <class W> void layout(W& w, HostNotifier& m) { w.ring_and_fd(m.ring, m.fd), w(m.size, m.offset); }
template <class W> void layout(W& w, VringCall& m) { w(m.ring), w.zeros(4); }
template <class W> void layout(W& w, VringErr& m) { w(m.ring), w.zeros(4); }
template <class W> void layout(W& w, SharedObjectAdd& m) { w(m.uuid); }
template <class W> void layout(W& w, SharedObjectRemove& m) { w(m.uuid); }
template <class W> void layout(W& w, SharedObjectLookup& m) { w(m.uuid); }
template <class W> void layout(W& w, ShmemRange& m) {
  w(m.shmid), w.zeros(7), w(m.fd_offset, m.shm_offset, m.length, m.flags);
}
template <class W> void layout(W& w, ShmemMap& m) { layout(w, m.range), w.fd(m.fd); }
template <class W> void layout(W& w, ShmemUnmap& m) { layout(w, m.range); }

// ---- layouts of replies

template <class W> void layout(W& w, uint64_t& m) { w(m); }
template <class W> void layout(W& w, RingState& m) { w(m.ring, m.value); }
template <class W> void layout(W& w, Capabilities& m) { w(m.bits); }
template <class W> void layout(W& w, UniqueFd& m) { w.optional_fd(m); }
template <class W> void layout(W& w, StateChannel& m) { w.state_channel(m); }
template <class W> void layout(W& w, SharedObject& m) { w.optional_fd(m.fd); }
template <class W> void layout(W& w, ShmemConfig& m) { w(m.regions), w.zeros(4), w(m.sizes); }

// clang-format on

// How `Request` is answered, where that differs from the layout of the value.
template <class Request, class W>
void reply_layout(W& w, typename Request::Reply& reply) {
  if constexpr (std::is_same_v<typename Request::Reply, Done>) {
    w.status(true);
  } else if constexpr (std::is_same_v<Request, SharedObjectLookup>) {
    w.looked_up(reply);
  } else {
    layout(w, reply);
  }
}

// The reply to `Request` that says no.
template <class Request>
typename Request::Reply refusal() {
  if constexpr (std::is_same_v<Request, SetDeviceStateFd>) return StateChannel{.error = 1};
  if constexpr (std::is_same_v<Request, CheckDeviceState>) return 1;
  return typename Request::Reply{};
}

// ---- from a table's row to the type

// Calls `f` with the alternative of `Request` that has this id, as a std::type_identity.
template <class Request, class F>
auto with_alternative(uint32_t id, F f) {
  using First = std::type_identity<std::variant_alternative_t<0, Request>>;
  using Call = decltype(f(First{})) (*)(F&);
  static constexpr auto calls = []<size_t... I>(std::index_sequence<I...>) {
    return std::array<Call, sizeof...(I)>{
        [](F& g) { return g(std::type_identity<std::variant_alternative_t<I, Request>>{}); }...};
  }(std::make_index_sequence<std::variant_size_v<Request>>{});
  return calls[id - 1](f);
}

template <class Request>
const Message& row_of(const Request& request) {
  return messages<Request>[request.index()];
}

Result<> check_size(Payload payload, size_t size) {
  const SizeRule rule = size_rule(payload);
  if (!rule.allows(size)) return violation(rule.otherwise, size);
  return {};
}

Result<> check_fds(const FdRule& rule, const Frame& frame) {
  if (frame.fd_fault != nullptr) return violation(frame.fd_fault);
  if (frame.fds.size() < rule.min || frame.fds.size() > rule.max)
    return violation(rule.otherwise, frame.fds.size());
  return {};
}

Frame frame_for(const Message& message, uint32_t flags) {
  return Frame{.header = {.request = message.id, .flags = flags}};
}

Frame sized(Frame frame) {
  frame.header.size = static_cast<uint32_t>(frame.payload.size());
  return frame;
}

template <class T>
Result<T> about(const char* name, Result<T> result) {
  if (!result) return std::unexpected(result.error().about(name));
  return result;
}

template <class Request>
Result<Request> decode_known(const Message& message, Frame& frame, BackChannel* back_channel) {
  TRY(check_size(message.request, frame.payload.size()));
  TRY(check_fds(fd_rule(message.fds), frame));
  return with_alternative<Request>(message.id, [&]<class T>(std::type_identity<T>) -> Result<Request> {
    T value{};
    Reader reader(frame, back_channel);
    layout(reader, value);
    TRY(reader.finish());
    return Request(std::move(value));
  });
}

template <class Request>
Result<Frame> encode_known(const Message& message, Request& request, BackChannel* back_channel) {
  Frame frame = frame_for(message, version);
  Writer writer(frame, back_channel);
  std::visit([&](auto& value) { layout(writer, value); }, request);
  TRY(writer.result());
  if (!size_rule(message.request).allows(frame.payload.size())) return refused("cannot be sent: too large");
  return sized(std::move(frame));
}

// ---- replies

Frame encode_table(const Message& message, const MemoryTable& table) {
  Frame frame = frame_for(message, version | reply_flag);
  Writer writer(frame, nullptr);
  const bool whole = message.request == Payload::memory_table;
  if (whole) writer(static_cast<uint32_t>(table.regions.size()));
  writer.zeros(whole ? 4 : 8);
  for (const memory::RegionLayout& region : table.regions) writer(region);
  return sized(std::move(frame));
}

Result<MemoryTable> decode_table(const Message& message, Frame& frame) {
  Reader reader(frame, nullptr);
  uint32_t count = 1;
  const bool whole = message.request == Payload::memory_table;
  if (whole) reader(count);
  reader.zeros(whole ? 4 : 8);
  if (reader.remaining() != size_t{count} * 32)
    return violation("payload does not fit its number of regions", count);
  MemoryTable table;
  table.regions.resize(count);
  for (memory::RegionLayout& region : table.regions) reader(region);
  TRY(reader.finish());
  return table;
}

Result<> compare(const Asked& asked, const RingState& reply) {
  if (reply.ring != asked.ring) return violation("reply is about another ring", reply.ring);
  return {};
}
Result<> compare(const Asked& asked, const ConfigBytes& reply) {
  if (reply.bytes.empty()) return refused("the peer refused it");
  if (reply.bytes.size() != asked.config_size)
    return violation("reply has another size than was asked for", reply.bytes.size());
  if (reply.offset != asked.config_offset) return violation("reply is for another offset", reply.offset);
  return {};
}
Result<> compare(const Asked&, const UniqueFd& reply) {
  if (!reply) return refused("the peer gave no file descriptor");
  return {};
}
Result<> compare(const Asked&, const InflightArea& reply) {
  if (!reply.fd || reply.size == 0) return refused("the peer gave no buffer");
  return {};
}
Result<> compare(const Asked&, const auto&) { return {}; }

template <class Request>
Result<ReplyOf<Request>> decode_known_reply(const Message& message, const Asked& asked, Frame& frame) {
  TRY(check_size(message.reply_payload, frame.payload.size()));
  TRY(check_fds({0, message.reply_fd ? 1U : 0U, "unexpected file descriptors"}, frame));
  if (message.reply == Reply::memory && frame.payload.size() != sizeof(uint64_t)) {
    if constexpr (std::is_same_v<Request, DeviceRequest>)
      return ReplyOf<Request>(TRY(decode_table(message, frame)));
  }
  const auto decode_as = [&]<class T>(std::type_identity<T>) -> Result<ReplyOf<Request>> {
    typename T::Reply value{};
    Reader reader(frame, nullptr);
    reply_layout<T>(reader, value);
    if (message.reply_payload == Payload::object_or_nothing) reader.skip_rest();
    TRY(reader.finish());
    TRY(compare(asked, value));
    return ReplyOf<Request>(std::move(value));
  };
  return with_alternative<Request>(message.id, decode_as);
}

template <class Request>
Frame encode_value(const Message& message, ReplyOf<Request> reply) {
  return with_alternative<Request>(message.id, [&]<class T>(std::type_identity<T>) {
    Frame frame = frame_for(message, version | reply_flag);
    Writer writer(frame, nullptr);
    reply_layout<T>(writer, std::get<typename T::Reply>(reply));
    return sized(std::move(frame));
  });
}

}  // namespace

template <class Request>
Result<Frame> encode(Request request, BackChannel* back_channel) {
  return about(info_of(request).name, encode_known(row_of(request), request, back_channel));
}

template <class Request>
Result<Request> decode(Frame frame, BackChannel* back_channel) {
  const uint32_t id = frame.header.request;
  const Message* message = find_message<Request>(id);
  if (message == nullptr) return violation("unknown message", id);
  return about(message_name<Request>(id), decode_known<Request>(*message, frame, back_channel));
}

template <class Request>
Asked asked(const Request& request) {
  return std::visit(
      []<class T>(const T& value) {
        Asked what;
        if constexpr (requires { value.ring; }) what.ring = value.ring;
        if constexpr (std::is_same_v<T, GetConfig>) what.config_offset = value.offset;
        if constexpr (std::is_same_v<T, GetConfig>) what.config_size = value.size;
        return what;
      },
      request);
}

template <class Request>
Result<Frame> encode_reply(const Message& message, ReplyOf<Request> reply) {
  if constexpr (std::is_same_v<Request, DeviceRequest>) {
    if (const auto* table = std::get_if<MemoryTable>(&reply)) return encode_table(message, *table);
  }
  Frame frame = encode_value<Request>(message, std::move(reply));
  if (!size_rule(message.reply_payload).allows(frame.payload.size()))
    return refused("the reply is too large");
  return frame;
}

Frame encode_status(const Message& message, bool success) {
  Frame frame = frame_for(message, version | reply_flag);
  Writer(frame, nullptr).status(success);
  return sized(std::move(frame));
}

template <class Request>
std::optional<Frame> encode_refusal(const Message& message) {
  switch (message.reply) {
    case Reply::value:
      return std::nullopt;
    case Reply::value_or_refusal:
      break;
    default:
      return encode_status(message, false);
  }
  return with_alternative<Request>(message.id, [&]<class T>(std::type_identity<T>) -> std::optional<Frame> {
    if (message.reply_payload == Payload::config_or_nothing)
      return sized(frame_for(message, version | reply_flag));
    return encode_value<Request>(message, ReplyOf<Request>(refusal<T>()));
  });
}

template <class Request>
Result<ReplyOf<Request>> decode_reply(const Message& message, const Asked& asked, Frame frame) {
  return about(message_name<Request>(message.id), decode_known_reply<Request>(message, asked, frame));
}

template Result<Frame> encode(DeviceRequest, BackChannel*);
template Result<Frame> encode(FrontEndRequest, BackChannel*);
template Result<DeviceRequest> decode(Frame, BackChannel*);
template Result<FrontEndRequest> decode(Frame, BackChannel*);
template Asked asked(const DeviceRequest&);
template Asked asked(const FrontEndRequest&);
template Result<Frame> encode_reply<DeviceRequest>(const Message&, DeviceReply);
template Result<Frame> encode_reply<FrontEndRequest>(const Message&, FrontEndReply);
template std::optional<Frame> encode_refusal<DeviceRequest>(const Message&);
template std::optional<Frame> encode_refusal<FrontEndRequest>(const Message&);
template Result<DeviceReply> decode_reply<DeviceRequest>(const Message&, const Asked&, Frame);
template Result<FrontEndReply> decode_reply<FrontEndRequest>(const Message&, const Asked&, Frame);

}  // namespace ringway::user
