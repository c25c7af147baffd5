#include "ringway/engine/state_transfer.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>

#include "ringway/base/notifier.h"
#include "ringway/base/quiet_write.h"

namespace ringway::engine {
namespace {

constexpr size_t at_once = 4096;  // bytes: a pipe that can be written to has room for as many

Result<> check_access(const UniqueFd& channel, int wanted) {
  const int flags = ::fcntl(channel.get(), F_GETFL);
  if (flags < 0) return os_failure("cannot examine the channel for device state");
  const int access = flags & O_ACCMODE;
  if (access != wanted && access != O_RDWR)
    return refused("the channel for device state is of the wrong direction");
  if (::fcntl(channel.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    return os_failure("cannot use the channel for device state");
  return {};
}

}  // namespace

StateTransfer::StateTransfer(UniqueFd channel, UniqueFd stop, bool is_load, std::vector<std::byte> state,
                             size_t most)
    : channel_(std::move(channel)),
      stop_(std::move(stop)),
      is_load_(is_load),
      state_(std::move(state)),
      most_(most) {}

Result<std::unique_ptr<StateTransfer>> StateTransfer::save(UniqueFd channel, std::vector<std::byte> state) {
  TRY(check_access(channel, O_WRONLY));
  UniqueFd stop = TRY(make_eventfd());
  std::unique_ptr<StateTransfer> self(
      new StateTransfer(std::move(channel), std::move(stop), false, std::move(state), 0));
  TRY(self->start());
  return self;
}

Result<std::unique_ptr<StateTransfer>> StateTransfer::load(UniqueFd channel, size_t most) {
  TRY(check_access(channel, O_RDONLY));
  UniqueFd stop = TRY(make_eventfd());
  std::unique_ptr<StateTransfer> self(new StateTransfer(std::move(channel), std::move(stop), true, {}, most));
  TRY(self->start());
  return self;
}

StateTransfer::~StateTransfer() {
  const uint64_t one = 1;
  static_cast<void>(::write(stop_.get(), &one, sizeof one));  // fails only when it holds 2^64 - 2 events
  if (thread_.joinable()) thread_.join();
}

Result<> StateTransfer::start() {
  try {
    thread_ = std::thread([this] {
      Result<> outcome = is_load_ ? read_all() : write_all();
      channel_.reset();
      const std::scoped_lock lock(mutex_);
      outcome_ = outcome;
      ended_.notify_all();
    });
  } catch (const std::system_error& error) {
    return os_failure("cannot start a thread for device state", error.code().value());
  }
  return {};
}

bool StateTransfer::running() {
  const std::scoped_lock lock(mutex_);
  return !outcome_;
}

Result<std::vector<std::byte>> StateTransfer::finish(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  ended_.wait_for(lock, patience, [this] { return outcome_.has_value(); });
  if (!outcome_) return refused("the transfer of device state does not end");
  TRY(Result<>(*outcome_));
  return std::move(state_);
}

Result<> StateTransfer::wait_for(short events) {
  std::array<pollfd, 2> entries{{{.fd = channel_.get(), .events = events, .revents = 0},
                                 {.fd = stop_.get(), .events = POLLIN, .revents = 0}}};
  while (::poll(entries.data(), entries.size(), -1) < 0) {
    if (errno != EINTR) return os_failure("cannot wait for the channel of device state");
  }
  if (entries[1].revents != 0) return gone("the transfer of device state was aborted");
  return {};
}

Result<> StateTransfer::write_all() {
  std::span<const std::byte> rest(state_);
  while (!rest.empty()) {
    TRY(wait_for(POLLOUT));
    const ssize_t written = quiet_write(channel_.get(), rest.first(std::min(rest.size(), at_once)));
    if (written >= 0) {
      rest = rest.subspan(static_cast<size_t>(written));
    } else if (errno != EAGAIN && errno != EINTR) {
      return os_failure("cannot write device state");
    }
  }
  state_.clear();
  return {};
}

Result<> StateTransfer::read_all() {
  std::array<std::byte, at_once> buffer;
  while (true) {
    TRY(wait_for(POLLIN));
    const ssize_t count = ::read(channel_.get(), buffer.data(), buffer.size());
    if (count == 0) return {};
    if (count < 0 && errno != EAGAIN && errno != EINTR) return os_failure("cannot read device state");
    if (count < 0) continue;
    if (state_.size() + static_cast<size_t>(count) > most_)
      return refused("device state is too large", most_);
    state_.insert(state_.end(), buffer.begin(), buffer.begin() + count);
  }
}

}  // namespace ringway::engine
