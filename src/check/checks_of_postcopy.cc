// vhost-user "Migration", postcopy: pages that have not come are asked for by a userfaultfd, and waited for.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "ringway/check/back_end_checks.h"
#include "ringway/check/small_talk.h"

namespace ringway::check {
namespace {

using vhost::bit;

constexpr uint64_t page = SharedMemory::page;

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

Or<> listen(Wire& wire) {
  if (agreed(wire, vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK)) {
    TRY(expect(wire.ack(id<vhost::PostcopyListen>), "POSTCOPY_LISTEN with need_reply"));
    return {};
  }
  return reach(wire.send(id<vhost::PostcopyListen>), "POSTCOPY_LISTEN");
}

Or<> end(Wire& wire) {
  const uint64_t answer = TRY(expect(wire.ask_u64(id<vhost::PostcopyEnd>), "POSTCOPY_END was not answered"));
  if (answer != 0) return fail(fmt::format("POSTCOPY_END was answered by {:#x}", answer));
  return {};
}

// A region as messages have it.
struct RegionOnWire {
  uint64_t guest = 0;
  uint64_t size = 0;
  uint64_t user = 0;
  uint64_t offset = 0;
};

// The table of one region, and the address at which the back-end has it.
Or<uint64_t> share_in_postcopy(Wire& wire, const SharedMemory& memory) {
  const memory::RegionLayout& layout = memory.layout();
  const RegionOnWire ours{
      .guest = layout.guest.value, .size = layout.size, .user = layout.front_end.value, .offset = 0};
  std::vector<UniqueFd> fds;
  fds.push_back(TRY(reach(memory.file(), "memory")));
  TRY(reach(wire.send(id<vhost::SetMemTable>, payload(uint32_t{1}, uint32_t{0}, ours), std::move(fds)),
            "SET_MEM_TABLE"));
  const auto reply = wire.receive();
  if (!reply) return fail("SET_MEM_TABLE in postcopy was not answered: " + reply.error().to_string());
  struct {
    uint32_t count = 0;
    uint32_t padding = 0;
    RegionOnWire region;
  } theirs;
  if (reply->header.request != id<vhost::SetMemTable> || reply->payload.size() < sizeof theirs)
    return fail("SET_MEM_TABLE in postcopy was answered by " + describe(*reply));
  std::memcpy(&theirs, reply->payload.data(), sizeof theirs);
  if (theirs.count != 1) return fail(fmt::format("{} regions are answered to 1", theirs.count));
  if (theirs.region.guest != ours.guest || theirs.region.size != ours.size)
    return fail(fmt::format("the region of {} bytes at {:#x} is answered as {} bytes at {:#x}", ours.size,
                            ours.guest, theirs.region.size, theirs.region.guest));
  // From here on we can answer its faults, and say so.
  TRY(reach(wire.send(id<vhost::SetMemTable>, payload(uint64_t{0})), "the acknowledgement of SET_MEM_TABLE"));
  return theirs.region.user;
}

// A request whose page has not come, of a ring that runs.
struct Missing {
  Rig* rig = nullptr;
  Wire* wire = nullptr;
  UniqueFd faults;
  uint64_t at = 0;  // where the page is in the back-end, by its word
  std::vector<std::byte> content;
};

Or<Missing> request_without_its_page(Trial& trial) {
  if (!trial.kind().has_request())
    return not_testable("there is no request that every device takes: say by --device what it is");
  Missing missing;
  missing.wire = TRY(postcopy_wire(trial));
  missing.rig = TRY(trial.rig_over(*missing.wire));
  Rig& rig = *missing.rig;
  TRY(rig.negotiate(
      {.capabilities = bit(vhost::VHOST_USER_PROTOCOL_F_PAGEFAULT) | bit(vhost::VHOST_USER_PROTOCOL_F_MQ)}));
  missing.faults = TRY(advise(*missing.wire));
  TRY(listen(*missing.wire));
  const uint64_t base = TRY(share_in_postcopy(*missing.wire, rig.memory()));
  TRY(rig.make_ring());
  TRY(rig.start(rig.ring()));
  TRY(rig.add(rig.ring(), 1, Rig::Kick::no));
  const std::byte* slot = rig.memory().at(Rig::slots_at);
  missing.at = base + Rig::slots_at;
  missing.content.assign(slot, slot + page);
  const UniqueFd file = TRY(reach(rig.memory().file(), "memory"));
  if (::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, Rig::slots_at, page) != 0)
    return not_testable("no page can be taken away here");
  rig.ring().kick->signal();
  return missing;
}

// The address of the fault that comes next; none: none comes in time.
Or<std::optional<uint64_t>> next_fault(const UniqueFd& faults, milliseconds patience) {
  pollfd entry{.fd = faults.get(), .events = POLLIN, .revents = 0};
  if (::poll(&entry, 1, static_cast<int>(patience.count())) != 1) return std::nullopt;
  uffd_msg message{};
  if (::read(faults.get(), &message, sizeof message) != static_cast<ssize_t>(sizeof message))
    return not_testable("the userfaultfd cannot be read");
  if (message.event != UFFD_EVENT_PAGEFAULT) return not_testable("the userfaultfd tells of something else");
  const uint64_t address = message.arg.pagefault.address;  // of a packed structure
  return address;
}

// The page is brought to where it is missed, which goes on then.
Or<> bring(const Missing& missing, uint64_t fault) {
  uffdio_copy copy{};
  copy.dst = fault / page * page;
  copy.src = reinterpret_cast<uintptr_t>(missing.content.data());
  copy.len = page;
  if (::ioctl(missing.faults.get(), UFFDIO_COPY, &copy) == 0) return {};
  return fail(fmt::format("no page can be brought to {:#x}, where one is missed: {}", copy.dst,
                          std::strerror(errno)));
}

}  // namespace

Outcome postcopy_advise_brings_a_userfaultfd(Trial& trial) {
  Wire* wire = TRY(postcopy_wire(trial));
  const UniqueFd fd = TRY(advise(*wire));
  std::array<char, 64> kind{};
  const ssize_t length =
      ::readlink(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), kind.data(), kind.size() - 1);
  const std::string_view name(kind.data(), static_cast<size_t>(std::max<ssize_t>(length, 0)));
  if (name.find("userfaultfd") != std::string_view::npos) return {};
  return fail(fmt::format("POSTCOPY_ADVISE brought {} and no userfaultfd", name));
}

Outcome postcopy_ends(Trial& trial) {
  Wire* wire = TRY(postcopy_wire(trial));
  TRY(advise(*wire));
  TRY(listen(*wire));
  TRY(end(*wire));
  return {};
}

Outcome postcopy_waits_for_pages(Trial& trial) {
  Missing missing = TRY(request_without_its_page(trial));
  Rig& rig = *missing.rig;
  const auto fault = TRY(next_fault(missing.faults, rig.patience().answer));
  if (!fault) return not_testable("it did not ask for the page: see N112");
  const uint32_t early = TRY(rig.take_for(rig.ring(), rig.patience().quiet));
  TRY(bring(missing, *fault));
  if (early > 0) return fail("a request was processed whose page had not come");
  if (auto served = rig.take_all(rig.ring()); !served)
    return fail("after the page had come: " + served.error().detail);
  TRY(end(*missing.wire));
  return {};
}

Outcome postcopy_tells_its_addresses(Trial& trial) {
  const Missing missing = TRY(request_without_its_page(trial));
  const auto fault = TRY(next_fault(missing.faults, missing.rig->patience().answer));
  if (!fault) return not_testable("it did not ask for the page: see N112");
  TRY(bring(missing, *fault));
  if (*fault / page == missing.at / page) return {};
  return fail(
      fmt::format("by its addresses the page is at {:#x}, and it asks for {:#x}", missing.at, *fault));
}

Outcome postcopy_asks_for_pages(Trial& trial) {
  const Missing missing = TRY(request_without_its_page(trial));
  const auto fault = TRY(next_fault(missing.faults, missing.rig->patience().answer));
  if (!fault) return fail("a page that had not come was not asked for by the userfaultfd");
  TRY(bring(missing, *fault));
  return {};
}

}  // namespace ringway::check
