// vhost-user "Migrating back-end state": what a back-end saves, and what it loads.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "ringway/base/quiet_write.h"
#include "ringway/check/back_end_checks.h"

namespace ringway::check {
namespace {

using Clock = std::chrono::steady_clock;
using State = std::vector<std::byte>;

constexpr unsigned capability = vhost::VHOST_USER_PROTOCOL_F_DEVICE_STATE;
constexpr uint32_t save = 0;  // directions
constexpr uint32_t load = 1;
constexpr size_t most_bytes = size_t{256} << 20;

struct Pipe {
  UniqueFd reading;
  UniqueFd writing;
};

Or<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return not_testable("no pipe can be made here");
  return Pipe{.reading = UniqueFd(ends[0]), .writing = UniqueFd(ends[1])};
}

// Our end of the channel: `ours`, or the one that the back-end has brought instead.
Or<UniqueFd> channel(Rig& rig, uint32_t direction, UniqueFd theirs, UniqueFd ours) {
  auto answer = rig.ask(vhost::SetDeviceStateFd{.direction = direction, .phase = 0, .fd = std::move(theirs)});
  if (!answer || answer->error != 0) return not_testable("it moves no state now");
  return answer->fd ? std::move(answer->fd) : std::move(ours);
}

bool is_ready(const UniqueFd& fd, short events, Clock::time_point end) {
  const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
  pollfd entry{.fd = fd.get(), .events = events, .revents = 0};
  return left.count() > 0 && ::poll(&entry, 1, static_cast<int>(left.count())) == 1;
}

Or<State> read_all(const UniqueFd& from, milliseconds patience) {
  const auto end = Clock::now() + patience;
  State state;
  while (state.size() < most_bytes && is_ready(from, POLLIN, end)) {
    std::array<std::byte, 4096> buffer;
    const ssize_t got = ::read(from.get(), buffer.data(), buffer.size());
    if (got == 0) return state;
    if (got < 0) break;
    state.insert(state.end(), buffer.begin(), buffer.begin() + got);
  }
  return not_testable("its state cannot be had: see N061");
}

// In two parts, so that a reader of one part only is found out.
Or<> write_all(const UniqueFd& to, const State& state, milliseconds patience) {
  const auto end = Clock::now() + patience;
  ::fcntl(to.get(), F_SETFL, ::fcntl(to.get(), F_GETFL) | O_NONBLOCK);
  size_t done = 0;
  while (done < state.size()) {
    if (!is_ready(to, POLLOUT, end))
      return fail(fmt::format("{} of {} bytes of its own state were read", done, state.size()));
    const size_t here = done == 0 ? (state.size() + 1) / 2 : state.size() - done;
    const ssize_t put = quiet_write(to.get(), std::span(state).subspan(done, here));
    if (put < 0 && errno != EAGAIN) return fail("its own state is not read: it has closed the channel");
    done += put > 0 ? static_cast<size_t>(put) : 0;
  }
  return {};
}

Or<State> saved(Rig& rig) {
  Pipe pipe = TRY(make_pipe());
  const UniqueFd from = TRY(channel(rig, save, std::move(pipe.writing), std::move(pipe.reading)));
  State state = TRY(read_all(from, rig.patience().answer));
  if (TRY(rig.must(vhost::CheckDeviceState{})) != 0) return not_testable("its state cannot be had: see N127");
  return state;
}

}  // namespace

Outcome loads_to_the_end(Trial& trial) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->negotiate({.capabilities = vhost::bit(capability)}));
  if (!rig->can(capability)) return not_offered("DEVICE_STATE");
  const State state = TRY(saved(*rig));
  Pipe pipe = TRY(make_pipe());
  const UniqueFd looking = TRY(reach(pipe.reading.duplicate(), "a copy of a file descriptor"));
  {
    // Whose end is the end of the state.
    const UniqueFd to = TRY(channel(*rig, load, std::move(pipe.reading), std::move(pipe.writing)));
    TRY(write_all(to, state, rig->patience().answer));
  }
  const uint64_t checked = TRY(expect(rig->ask(vhost::CheckDeviceState{}), "CHECK_DEVICE_STATE"));
  if (checked != 0)
    return fail(
        fmt::format("CHECK_DEVICE_STATE says {:#x} to its own state, of {} bytes", checked, state.size()));
  int unread = 0;
  if (::ioctl(looking.get(), FIONREAD, &unread) == 0 && unread > 0)
    return fail(fmt::format("{} of {} bytes of its own state were not read", unread, state.size()));
  return fmt::format("{} bytes", state.size());
}

Outcome goes_on_after_a_save(Trial& trial) {
  Rig* rig = TRY(trial.rig());
  TRY(rig->needs_request());
  TRY(rig->negotiate({.capabilities = vhost::bit(capability)}));
  if (!rig->can(capability)) return not_offered("DEVICE_STATE");
  TRY(rig->share());
  TRY(rig->make_ring());
  TRY(rig->start(rig->ring()));
  TRY(rig->serves(rig->ring(), 3));
  const uint32_t base = TRY(rig->stop(rig->ring()));
  TRY(saved(*rig));
  Rig::Ring& ring = rig->ring();
  ring.config.base = ring::RingBase::from_wire(base, ring.config.format.packed);
  TRY(rig->start(ring));
  if (auto again = rig->serves(ring, 3); !again)
    return fail("after its state was saved: " + again.error().detail);
  return {};
}

}  // namespace ringway::check
