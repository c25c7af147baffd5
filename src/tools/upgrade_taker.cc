#include "ringway/tools/upgrade_taker.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "ringway/base/log.h"
#include "ringway/base/short_slices.h"
#include "ringway/engine/device_state.h"

namespace ringway::tools {
namespace {

using Clock = UpgradeChannel::Clock;
using Kind = user::HandedPlace::Kind;

constexpr uint64_t most_devices = 10'000;
// The other side has shorter ones: this is for one that has stopped.
constexpr std::chrono::seconds patience{120};

Clock::time_point later() { return Clock::now() + patience; }

Parsed<Kind> kind_of(const std::string& name) {
  if (name == "listens") return Kind::listens;
  if (name == "connects") return Kind::connects;
  if (name == "was connected") return Kind::was_connected;
  return std::unexpected(fmt::format("\"{}\" is no kind of place", name));
}

// Until the session's own thread has done it.
Parsed<void> outcome(const std::string& place, std::promise<Result<>>& promise) {
  std::future<Result<>> future = promise.get_future();
  if (future.wait_for(patience) != std::future_status::ready)
    return std::unexpected(fmt::format("{}: the session does not begin", place));
  const Result<> result = future.get();
  if (!result) return std::unexpected(fmt::format("{}: {}", place, result.error().to_string()));
  return {};
}

// Before its queues start.
Parsed<void> take_state(ServedDevice& device, int file) {
  std::vector<std::byte> state(engine::max_state + 1);
  const ssize_t got = ::pread(file, state.data(), state.size(), 0);
  if (got < 0) return std::unexpected(fmt::format("{}: its state cannot be read", device.place()));
  state.resize(static_cast<size_t>(got));
  if (auto taken = device.take_state(state); !taken)
    return std::unexpected(fmt::format("{}: {}", device.place(), taken.error().to_string()));
  return {};
}

}  // namespace

Parsed<UpgradeTaker> UpgradeTaker::meet(UniqueFd socket) {
  UpgradeTaker taker(TRY(UpgradeChannel::over(std::move(socket))));
  if (auto heard = taker.hear_devices(); !heard) {
    taker.refuse(heard.error());
    return std::unexpected(heard.error());
  }
  return taker;
}

Parsed<void> UpgradeTaker::hear_devices() {
  Letter begin = TRY(channel_.receive(LetterKind::begin, later()));
  // Looked at first: what else is in the letter belongs to the format.
  const auto format = begin.body.find("format");
  if (format == begin.body.end() || *format != upgrade_format) {
    return std::unexpected(fmt::format("this program understands format {} of the hand-over, not {}",
                                       upgrade_format, format == begin.body.end() ? "none" : format->dump()));
  }
  Fields fields(std::move(begin));
  fields.number("format");
  fields.text("version");
  const uint64_t count = fields.number("devices");
  TRY(fields.finish());
  if (count > most_devices) return std::unexpected(fmt::format("{} devices are too many", count));
  for (uint64_t i = 0; i < count; ++i) {
    Fields device(TRY(channel_.receive(LetterKind::device, later())));
    const std::string place = device.text("place");
    Given given{.type = device.text("type"), .backing = device.fd("backing")};
    TRY(device.finish());
    given_[place] = std::move(given);
  }
  return {};
}

Parsed<UniqueFd> UpgradeTaker::take_backing(const std::string& place, const std::string& type) {
  Given& given = given_.at(place);
  if (given.type != type) {
    return std::unexpected(fmt::format("{}: is configured as {}, and is {} now", place, type, given.type));
  }
  given.is_taken = true;
  return std::move(given.backing);
}

void UpgradeTaker::refuse(const std::string& why) {
  constexpr size_t most = 3000;  // bytes
  [[maybe_unused]] const auto sent =
      channel_.send({.kind = LetterKind::refused, .body = {{"why", why.substr(0, most)}}});
}

Parsed<void> UpgradeTaker::take_over(const Successors& successors, user::Listener& listener) {
  take_short_slices();
  const auto devices = successors.devices;
  for (const auto& [place, given] : given_) {
    if (!given.is_taken)
      return std::unexpected(fmt::format("{}: is served now, and is not configured any more", place));
  }
  TRY(channel_.send({.kind = LetterKind::opened}));
  TRY(hear_places(devices, listener));
  for (const Coming& one : coming_) TRY(outcome(one.place, one.inheritance->prepared));
  TRY(channel_.send({.kind = LetterKind::prepared}));
  TRY(hear_starts(devices));
  for (const Coming& one : coming_) TRY(outcome(one.place, one.inheritance->armed));
  TRY(channel_.send({.kind = LetterKind::armed}));
  TRY(channel_.receive(LetterKind::go, later()));
  for (const auto& one : successors.switches) one->let_out();
  for (const auto& device : devices) device->go_on();
  for (const auto& one : successors.switches) one->go_on();
  for (const Coming& one : coming_) one.inheritance->go.set_value();
  // The other one may be gone by now; that does not matter any more.
  [[maybe_unused]] const auto sent = channel_.send({.kind = LetterKind::running});
  if (auto listening = listener.take_up(); !listening) log::error("{}", listening.error().to_string());
  return {};
}

Parsed<void> UpgradeTaker::hear_places(std::span<const std::unique_ptr<ServedDevice>> devices,
                                       user::Listener& listener) {
  while (true) {
    Letter letter = TRY(channel_.receive_any({LetterKind::place, LetterKind::prepare}, later()));
    if (letter.kind == LetterKind::prepare) return Fields(std::move(letter)).finish();
    TRY(hear_place(std::move(letter), devices, listener));
  }
}

Parsed<void> UpgradeTaker::hear_place(Letter letter, std::span<const std::unique_ptr<ServedDevice>> devices,
                                      user::Listener& listener) {
  Fields fields(std::move(letter));
  user::HandedPlace place{.name = fields.text("place")};
  const std::string kind = fields.text("kind");
  place.owns_path = fields.flag("owns path");
  const uint64_t messages = fields.number("messages");
  place.listening = fields.fd("listening");
  place.connection = fields.fd("connection");
  place.waiting = fields.fd("waiting");
  TRY(fields.finish());
  place.kind = TRY(kind_of(kind));
  place.setting = TRY(channel_.receive_frames(messages, later()));
  const auto device =
      std::ranges::find_if(devices, [&](const auto& one) { return one->place() == place.name; });
  if (device == devices.end()) return std::unexpected(fmt::format("{}: there is no such device", place.name));
  const std::string name = place.name;
  auto inheritance = listener.inherit(std::move(place), **device);
  if (!inheritance) return std::unexpected(fmt::format("{}: {}", name, inheritance.error().to_string()));
  if (*inheritance) coming_.push_back({.place = name, .inheritance = *std::move(inheritance)});
  return {};
}

Parsed<void> UpgradeTaker::hear_starts(std::span<const std::unique_ptr<ServedDevice>> devices) {
  while (true) {
    Letter letter = TRY(channel_.receive_any({LetterKind::start, LetterKind::arm}, later()));
    if (letter.kind == LetterKind::start) {
      TRY(hear_start(std::move(letter), devices));
      continue;
    }
    TRY(Fields(std::move(letter)).finish());
    const auto missing = std::ranges::find(coming_, false, &Coming::started);
    if (missing == coming_.end()) return {};
    return std::unexpected(fmt::format("{}: its rings were not told", missing->place));
  }
}

Parsed<void> UpgradeTaker::hear_start(Letter letter, std::span<const std::unique_ptr<ServedDevice>> devices) {
  Fields fields(std::move(letter));
  const std::string place = fields.text("place");
  const uint64_t messages = fields.number("messages");
  const UniqueFd state = fields.fd("state");
  TRY(fields.finish());
  const auto one = std::ranges::find(coming_, place, &Coming::place);
  if (one == coming_.end() || one->started)
    return std::unexpected(fmt::format("{}: has no session that could start", place));
  one->started = true;
  const auto device =
      std::ranges::find_if(devices, [&](const auto& other) { return other->place() == place; });
  if (state && device != devices.end()) TRY(take_state(**device, state.get()));
  one->inheritance->start.set_value(TRY(channel_.receive_frames(messages, later())));
  return {};
}

}  // namespace ringway::tools
