// The socket's side: bytes and file descriptors through Connection, codec and Server, with a device behind
// them that offers every feature and answers every request, or with a front-end that answers every back-end
// message.
//
// Whatever comes: serve() ends, all file descriptors are closed, and a request that was understood can be
// sent again.

#include <sys/socket.h>

#include "fuzz/wire_script.h"
#include "ringway/user/codec.h"
#include "ringway/user/server.h"
#include "ringway/vhost/contract.h"

namespace ringway::fuzz {
namespace {

constexpr uint64_t everything = ~uint64_t{0};

// Answers whatever the contract lets through, with all that a reply can carry.
class AnyDevice final : public vhost::Device {
 public:
  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override {
    ++count_;
    return std::visit([this](auto& alternative) { return answer(alternative); }, request);
  }

 private:
  using Reply = Result<vhost::DeviceReply>;
  template <class Alternative>
  Reply answer(Alternative&) {
    if (count_ % 16 == 15) return refused("for a change");
    return vhost::DeviceReply(typename Alternative::Reply{});
  }
  Reply answer(vhost::GetFeatures&) { return everything; }
  Reply answer(vhost::GetProtocolFeatures&) { return vhost::Capabilities{everything}; }
  Reply answer(vhost::GetQueueNum&) { return uint64_t{4}; }
  Reply answer(vhost::GetVringBase& request) { return vhost::RingState{.ring = request.ring, .value = 7}; }
  Reply answer(vhost::GetConfig& request) {
    return vhost::ConfigBytes{
        .offset = request.offset, .flags = request.flags, .bytes = std::vector<std::byte>(request.size)};
  }
  Reply answer(vhost::SetMemTable& request) {
    FUZZ_CHECK(request.regions.size() <= 8);
    for (const vhost::MemoryRegion& region : request.regions) FUZZ_CHECK(region.fd);
    return vhost::Done{};
  }
  Reply answer(vhost::PostcopyAdvise&) { return make_fd(0, none_); }
  Reply answer(vhost::GetInflightFd& request) {
    return vhost::InflightArea{
        .size = 4096, .queues = request.queues, .queue_size = request.queue_size, .fd = make_fd(8, none_)};
  }
  Reply answer(vhost::GetSharedObject&) { return vhost::SharedObject{.fd = make_fd(8, none_)}; }
  Reply answer(vhost::SetDeviceStateFd&) { return vhost::StateChannel{.error = 0, .fd = make_fd(6, none_)}; }
  Reply answer(vhost::CreateCryptoSession& request) { return std::move(request.session); }
  Reply answer(vhost::SetFrontEnd& request) {
    front_end_ = std::move(request.front_end);
    FUZZ_CHECK(front_end_ != nullptr);
    return vhost::Done{};
  }
  unsigned count_ = 0;
  UniqueFd none_;
  std::shared_ptr<vhost::FrontEnd> front_end_;
};

class AnyFrontEnd final : public vhost::FrontEnd {
 public:
  Result<vhost::FrontEndReply> handle(vhost::FrontEndRequest request) override {
    const UniqueFd none;
    if (std::holds_alternative<vhost::SharedObjectLookup>(request))
      return vhost::SharedObject{.fd = make_fd(8, none)};
    return vhost::Done{};
  }
};

// In front of either: what was decoded must survive being encoded and decoded again.
template <class Request>
class Twice final : public vhost::Handler<Request> {
 public:
  explicit Twice(vhost::Handler<Request>& next) : next_(next) {}
  Result<vhost::ReplyOf<Request>> handle(Request request) override {
    const size_t index = request.index();
    if constexpr (std::is_same_v<Request, vhost::DeviceRequest>) {
      if (std::holds_alternative<vhost::SetFrontEnd>(request)) return next_.handle(std::move(request));
    }
    Result<user::Frame> frame = user::encode<Request>(std::move(request));
    FUZZ_CHECK(frame.has_value());
    const auto header = frame->header;
    const auto payload = frame->payload;
    const size_t fds = frame->fds.size();
    FUZZ_CHECK(header.size == payload.size() && payload.size() <= user::max_payload);
    Result<Request> second = user::decode<Request>(*std::move(frame));
    FUZZ_CHECK(second.has_value() && second->index() == index);
    Result<user::Frame> again = user::encode<Request>(*std::move(second));
    FUZZ_CHECK(again.has_value() && again->header == header && again->payload == payload &&
               again->fds.size() == fds);
    Result<Request> third = user::decode<Request>(*std::move(again));
    FUZZ_CHECK(third.has_value());
    return next_.handle(*std::move(third));
  }

 private:
  vhost::Handler<Request>& next_;
};

void serve_device(const std::shared_ptr<user::Connection>& connection) {
  AnyDevice device;
  Twice<vhost::DeviceRequest> twice(device);
  vhost::Contract contract(twice, {.queues = 4, .ring_size = 1024});
  user::DeviceServer(connection, contract).serve();
}

void serve_front_end(const std::shared_ptr<user::Connection>& connection, uint64_t capabilities) {
  AnyFrontEnd front_end;
  Twice<vhost::FrontEndRequest> twice(front_end);
  user::Negotiated negotiated;
  negotiated.set_features(everything);
  negotiated.set_capabilities(capabilities);
  user::Server<vhost::FrontEndRequest>(connection, twice, negotiated).serve();
}

void run(Input& input) {
  const UniqueFd memory;
  const auto kind = input.take<uint8_t>();
  WireScript script(input, memory);
  Sockets sockets;
  script.play(sockets.theirs);
  const auto connection = user::Connection::adopt(std::move(sockets.ours));
  FUZZ_CHECK(connection.has_value());
  if (kind % 4 != 0)
    serve_device(*connection);
  else
    serve_front_end(*connection, kind < 0x80 ? everything : 0);
}

}  // namespace
}  // namespace ringway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringway;
  static const bool quiet = (log::set_level(log::Level::error), true);
  static_cast<void>(quiet);
  const int before = fuzz::lowest_free_fd();
  fuzz::Input input(data, size);
  fuzz::run(input);
  FUZZ_CHECK(fuzz::lowest_free_fd() == before);
  return 0;
}
