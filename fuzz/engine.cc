// A whole back-end: a hostile front-end's socket, memory and rings against DeviceServer, Contract,
// LocalDevice and blk, with its worker running as it does in production.
//
// Whatever comes: the session ends, everything it brought is released, and the next front-end is served.

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "fuzz/wire_script.h"
#include "ringway/base/log.h"
#include "ringway/device/backing/memory.h"
#include "ringway/device/blk/blk.h"
#include "ringway/engine/local_device.h"
#include "ringway/engine/workers.h"
#include "ringway/user/server.h"
#include "ringway/vhost/contract.h"

namespace ringway::fuzz {
namespace {

constexpr off_t memory_size = 0x8000;  // seeds.py knows it
constexpr uint16_t queues = 2;

engine::Workers& workers() {
  static engine::Workers& all =
      *engine::Workers::start({.count = 2, .polling = loop::Polling::adaptive, .use_io_uring = false})
           .value()
           .release();
  return all;
}

UniqueFd make_memory(std::span<const std::byte> content) {
  UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  FUZZ_CHECK(::ftruncate(fd.get(), memory_size) == 0);
  FUZZ_CHECK(::pwrite(fd.get(), content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
  return fd;
}

void serve(engine::LocalDevice& device, UniqueFd socket) {
  vhost::Contract contract(device, {.queues = queues});
  const auto connection = user::Connection::adopt(std::move(socket));
  FUZZ_CHECK(connection.has_value());
  user::DeviceServer(*connection, contract).serve();
  device.disconnect();
}

void run(Input& input) {
  const auto flags = input.take<uint8_t>();
  const UniqueFd memory = make_memory(input.bytes(std::min<size_t>(input.take<uint16_t>(), memory_size)));
  blk::Blk blk(backing::open_memory(64 * backing::sector_size, (flags & 1) != 0).value(), {.queues = queues});
  engine::LocalDevice device(blk, workers(),
                             {.max_mem_slots = 8, .offer_inband_notifications = (flags & 2) != 0});
  WireScript script(input, memory);
  Sockets sockets;
  script.play(sockets.theirs);
  serve(device, std::move(sockets.ours));
}

}  // namespace
}  // namespace ringway::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringway;
  log::set_level(log::Level::error);
  fuzz::workers();
  const int before = fuzz::lowest_free_fd();
  fuzz::Input input(data, size);
  fuzz::run(input);
  FUZZ_CHECK(fuzz::lowest_free_fd() == before);
  return 0;
}
