// vhost-user "Front-end message types": messages of one purpose.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "ringway/check/back_end_checks.h"
#include "ringway/check/small_talk.h"

namespace ringway::check {
namespace {

using vhost::bit;

size_t count_fds(int process) {
  std::error_code error;
  size_t count = 0;
  for (std::filesystem::directory_iterator at(fmt::format("/proc/{}/fd", process), error), end;
       !error && at != end; at.increment(error)) {
    ++count;
  }
  return count;
}

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

// ---- device state, shared objects, shared memory

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

}  // namespace ringway::check
