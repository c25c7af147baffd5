// The front-end half against a hostile back-end: RemoteDevice asks what the input says, and gets whatever
// bytes and file descriptors the input has for it.
//
// Whatever is answered: every call returns, and all file descriptors are closed.

#include "ringway/user/remote.h"

#include <memory>

#include "fuzz/wire_script.h"
#include "ringway/base/log.h"

namespace ringway::fuzz {
namespace {

class Quiet final : public vhost::FrontEnd {
 public:
  Result<vhost::FrontEndReply> handle(vhost::FrontEndRequest) override { return vhost::Done{}; }
};

// The request with this id, with plausible content.
vhost::DeviceRequest make_request(uint8_t id, Input& input) {
  const UniqueFd none;
  const auto ring = static_cast<vhost::RingIndex>(input.take<uint8_t>() % 4);
  switch (id % 24) {
    case 0:
      return vhost::GetFeatures{};
    case 1:
      return vhost::SetFeatures{input.take<uint64_t>()};
    case 2:
      return vhost::GetProtocolFeatures{};
    case 3:
      return vhost::SetProtocolFeatures{{input.take<uint64_t>()}};
    case 4:
      return vhost::GetVringBase{ring};
    case 5:
      return vhost::GetQueueNum{};
    case 6:
      return vhost::GetConfig{.offset = input.take<uint8_t>(), .size = input.take<uint8_t>()};
    case 7:
      return vhost::GetInflightFd{.queues = 2, .queue_size = 128};
    case 8:
      return vhost::GetMaxMemSlots{};
    case 9:
      return vhost::GetStatus{};
    case 10:
      return vhost::GetSharedObject{};
    case 11:
      return vhost::SetDeviceStateFd{.fd = make_fd(0, none)};
    case 12:
      return vhost::CheckDeviceState{};
    case 13:
      return vhost::GetShmemConfig{};
    case 14:
      return vhost::PostcopyAdvise{};
    case 15:
      return vhost::PostcopyListen{};
    case 16:
      return vhost::PostcopyEnd{};
    case 17:
      return vhost::CreateCryptoSession{.session = {std::vector<std::byte>(16)}};
    case 18:
      return vhost::UpdateIotlb{};
    case 19:
      return vhost::SetLogBase{.size = 4096, .offset = 0, .fd = make_fd(8, none)};
    case 20:
      return vhost::SetVringKick{.ring = ring, .fd = make_fd(0, none)};
    case 21: {
      vhost::SetMemTable table;
      table.regions.push_back(
          {.layout = {.guest = {0}, .size = 4096, .front_end = {0}}, .fd = make_fd(8, none)});
      return table;
    }
    case 22:
      return vhost::SetFrontEnd{std::make_shared<Quiet>()};
    default:
      return vhost::GetVringBaseSkipDrain{ring};
  }
}

void run(Input& input) {
  Input requests = input.part();
  const UniqueFd memory;
  WireScript script(input, memory);
  Sockets sockets;
  script.play(sockets.theirs);
  auto connection = user::Connection::adopt(std::move(sockets.ours));
  FUZZ_CHECK(connection.has_value());
  user::RemoteDevice device(*connection, std::chrono::milliseconds(1000));
  bool is_gone = false;
  while (!requests.empty()) {
    const auto reply = device.handle(make_request(requests.take<uint8_t>(), requests));
    if (is_gone) FUZZ_CHECK(!reply);
    is_gone = !reply && reply.error().fault == Fault::gone;
  }
}

}  // namespace
}  // namespace ringway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringway;
  log::set_level(log::Level::error);
  const int before = fuzz::lowest_free_fd();
  fuzz::Input input(data, size);
  fuzz::run(input);
  FUZZ_CHECK(fuzz::lowest_free_fd() == before);
  return 0;
}
