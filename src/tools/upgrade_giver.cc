#include "ringway/tools/upgrade_giver.h"

#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <optional>

#include "ringway/base/short_slices.h"
#include "ringway/engine/standstill.h"
#include "ringway/tools/upgrade_channel.h"
#include "ringway/user/sockets.h"

namespace ringway::tools {
namespace {

using Clock = std::chrono::steady_clock;
using Outcome = HandedOver::Outcome;

constexpr int successors_fd = 3;
constexpr std::chrono::seconds hold_time_out{5};   // while front-ends' messages wait
constexpr std::chrono::seconds drain_time_out{1};  // while guests wait for their last requests
constexpr std::chrono::milliseconds silence_time_out{3};
constexpr int silence_attempts = 300;
constexpr std::chrono::seconds arm_time_out{2};  // while guests wait
constexpr std::chrono::seconds go_time_out{30};

Clock::time_point in(Clock::duration time) { return Clock::now() + time; }

std::string sentence_of(const Error& error) { return error.to_string(); }

template <class T>
Parsed<T> parsed(Result<T> result) {
  if (!result) return std::unexpected(sentence_of(result.error()));
  if constexpr (std::is_void_v<T>)
    return {};
  else
    return *std::move(result);
}

// The new program, until it has proved itself; it ends with this.
class Successor {
 public:
  static Parsed<Successor> start(const std::string& binary, const Serving& serving);
  Successor(Successor&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), channel_(std::move(other.channel_)) {}
  Successor& operator=(Successor&&) = delete;
  ~Successor() { end(); }

  UpgradeChannel& channel() { return channel_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  pid_t release() { return std::exchange(pid_, 0); }
  // "the new program ended with status 1"; empty: it runs, or says why by itself.
  std::string end();

 private:
  Successor(pid_t pid, UpgradeChannel channel) : pid_(pid), channel_(std::move(channel)) {}
  pid_t pid_;
  UpgradeChannel channel_;
};

// As a program takes its arguments.
std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Without fork(): copying the tables of much memory would hold up the workers.
Parsed<Successor> Successor::start(const std::string& binary, const Serving& serving) {
  auto ends = user::socket_pair();
  if (!ends) return std::unexpected(sentence_of(ends.error()));
  std::vector<std::string> all{"ringway", "serve", fmt::format("--take-over={}", successors_fd)};
  all.insert(all.end(), serving.words.begin(), serving.words.end());
  std::vector<std::string> variables = serving.environment;
  for (char** one = environ; *one != nullptr; ++one) variables.emplace_back(*one);

  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_adddup2(&files, (*ends)[1].get(), successors_fd);
  ::posix_spawn_file_actions_addclosefrom_np(&files, successors_fd + 1);
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all_signals;
  sigemptyset(&none);
  sigfillset(&all_signals);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all_signals);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, binary.c_str(), &files, &attributes, pointers_to(all).data(),
                                  pointers_to(variables).data());
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0)
    return std::unexpected(fmt::format("{} cannot be started: {}", binary, std::strerror(error)));

  (*ends)[1].reset();
  auto channel = UpgradeChannel::over(std::move((*ends)[0]));
  if (!channel) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return std::unexpected(channel.error());
  }
  return Successor(pid, *std::move(channel));
}

std::string Successor::end() {
  if (pid_ == 0) return {};
  // One that has closed its end is about to tell its status.
  constexpr int looks = 100;
  int status = 0;
  pid_t ended = 0;
  for (int i = 0; i < looks && ended == 0; ++i) {
    ended = ::waitpid(pid_, &status, WNOHANG);
    if (ended == 0) ::usleep(1000);
  }
  if (ended == 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status, 0);
  }
  pid_ = 0;
  if (ended == 0) return {};
  if (WIFSIGNALED(status)) return fmt::format("the new program was ended by signal {}", WTERMSIG(status));
  return fmt::format("the new program ended with status {}", WEXITSTATUS(status));
}

// ---- the steps

Parsed<UniqueFd> backing_of(const ServedDevice& device) {
  auto backing = device.hand_over();
  if (!backing) return std::unexpected(fmt::format("{}: {}", device.place(), sentence_of(backing.error())));
  return *std::move(backing);
}

Result<UniqueFd> file_with(std::span<const std::byte> bytes) {
  UniqueFd file(::memfd_create("state", MFD_CLOEXEC));
  if (!file || ::pwrite(file.get(), bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    return os_failure("cannot write the state of a device down");
  return file;
}

Parsed<void> tell_device(const std::string& place, const std::string& type, UniqueFd backing,
                         UpgradeChannel& channel) {
  Letter letter{.kind = LetterKind::device};
  letter.body = {{"place", place}, {"type", type}, {"fds", nlohmann::json::array()}};
  if (backing) {
    letter.body["fds"].push_back("backing");
    letter.fds.push_back(std::move(backing));
  }
  return channel.send(std::move(letter));
}

Parsed<std::vector<ServedSwitch::HandedUplink>> uplinks_of(const Serving& serving) {
  std::vector<ServedSwitch::HandedUplink> all;
  for (const auto& one : serving.switches) {
    for (auto& uplink : TRY(one->hand_over())) all.push_back(std::move(uplink));
  }
  return all;
}

Parsed<void> tell_devices(const Serving& serving, const UpgradeWish& wish, UpgradeChannel& channel) {
  auto uplinks = TRY(uplinks_of(serving));
  TRY(channel.send({.kind = LetterKind::begin,
                    .body = {{"format", upgrade_format},
                             {"version", RINGWAY_VERSION},
                             {"devices", serving.devices.size() + uplinks.size()}}}));
  for (auto& uplink : uplinks)
    TRY(tell_device(uplink.place, uplink_type, std::move(uplink.backing), channel));
  for (const auto& device : serving.devices)
    TRY(tell_device(device->place(), device->type(), TRY(backing_of(*device)), channel));
  TRY(channel.receive(LetterKind::opened, in(wish.time_to_open)));
  return {};
}

const char* name_of(user::HandedPlace::Kind kind) {
  switch (kind) {
    case user::HandedPlace::Kind::listens:
      return "listens";
    case user::HandedPlace::Kind::connects:
      return "connects";
    case user::HandedPlace::Kind::was_connected:
      break;
  }
  return "was connected";
}

Parsed<void> tell_place(user::HandedPlace& place, UpgradeChannel& channel) {
  Letter letter{.kind = LetterKind::place};
  letter.body = {{"place", place.name},
                 {"kind", name_of(place.kind)},
                 {"owns path", place.owns_path},
                 {"messages", place.setting.size()},
                 {"fds", nlohmann::json::array()}};
  const auto attach = [&](const char* name, UniqueFd& fd) {
    if (!fd) return;
    letter.body["fds"].push_back(name);
    letter.fds.push_back(std::move(fd));
  };
  attach("listening", place.listening);
  attach("connection", place.connection);
  attach("waiting", place.waiting);
  TRY(channel.send(std::move(letter)));
  return channel.send(place.setting);
}

// The one who waits with its sessions held and its devices standing still.
class Pause {
 public:
  explicit Pause(const Serving& serving) : serving_(serving) {}
  ~Pause() {
    // What has been handed over is left alone, to the end of the process.
    for (auto& still : still_) {
      if (is_final_) [[maybe_unused]]
        auto* const for_ever = still.release();
    }
    if (!is_final_) move_on();
    if (held_ && !is_final_) serving_.listener.release();
  }
  Pause(const Pause&) = delete;
  Pause& operator=(const Pause&) = delete;

  Parsed<std::vector<user::HandedPlace>> hold() {
    auto places = parsed(serving_.listener.hold(in(hold_time_out)));
    held_ = places.has_value();
    return places;
  }
  // As hold(), at a moment when no front-end is being asked for a translation, and none will be: its answer
  // would not be heard.
  Parsed<std::vector<user::HandedPlace>> hold_in_silence() {
    for (int i = 0; i < silence_attempts; ++i) {
      auto places = TRY(hold());
      const bool translated = std::ranges::any_of(
          serving_.devices, [](const auto& device) { return device->is_translated_for(); });
      if (!translated || reach_standstill(in(silence_time_out))) return places;
      move_on();
      serving_.listener.release();
      held_ = false;
      ::usleep(1000);
    }
    return std::unexpected("front-ends have to be asked for translations all the time");
  }
  Parsed<void> stand_still() {
    if (!reach_standstill(in(drain_time_out))) {
      return std::unexpected(fmt::format("{}: requests are not done after {} ms", moving_,
                                         std::chrono::milliseconds(drain_time_out).count()));
    }
    // Something may have failed since the other process heard of it.
    for (const auto& device : serving_.devices) TRY(backing_of(*device));
    return {};
  }
  Parsed<std::vector<user::Frame>> start_of(size_t device) {
    return parsed(serving_.listener.start_of(*serving_.devices[device], still_[device]->bases()));
  }
  Parsed<UniqueFd> state_of(size_t device) { return parsed(file_with(still_[device]->state())); }
  void make_final() { is_final_ = true; }
  [[nodiscard]] std::chrono::microseconds so_far() const {
    return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began_);
  }

 private:
  void move_on() {
    still_.clear();
    if (!std::exchange(stands_still_, false)) return;
    for (const auto& one : serving_.switches) one->go_on();
  }
  bool reach_standstill(Clock::time_point deadline) {
    if (!stands_still_) {
      stands_still_ = true;
      began_ = Clock::now();
      for (const auto& one : serving_.switches) one->stand_still();
      for (const auto& device : serving_.devices) still_.push_back(device->stand_still());
    }
    for (size_t i = 0; i < still_.size(); ++i) {
      if (still_[i]->reached(deadline)) continue;
      moving_ = serving_.devices[i]->place();
      return false;
    }
    return true;
  }

  const Serving& serving_;
  std::string moving_;  // the device that has not come to a standstill
  bool held_ = false;
  bool is_final_ = false;
  bool stands_still_ = false;
  Clock::time_point began_;
  std::vector<std::unique_ptr<engine::LocalDevice::Standstill>> still_;
};

Parsed<void> tell_sessions(std::vector<user::HandedPlace>& places, UpgradeChannel& channel) {
  for (user::HandedPlace& place : places) TRY(tell_place(place, channel));
  TRY(channel.send({.kind = LetterKind::prepare}));
  TRY(channel.receive(LetterKind::prepared, in(hold_time_out)));
  return {};
}

Parsed<void> tell_starts(const Serving& serving, std::span<const std::string> served, Pause& pause,
                         UpgradeChannel& channel) {
  for (size_t i = 0; i < serving.devices.size(); ++i) {
    const std::string& place = serving.devices[i]->place();
    if (std::ranges::find(served, place) == served.end()) continue;
    const std::vector<user::Frame> frames = TRY(pause.start_of(i));
    Letter letter{.kind = LetterKind::start};
    letter.body = {{"place", place}, {"messages", frames.size()}, {"fds", {"state"}}};
    letter.fds.push_back(TRY(pause.state_of(i)));
    TRY(channel.send(std::move(letter)));
    TRY(channel.send(frames));
  }
  TRY(channel.send({.kind = LetterKind::arm}));
  TRY(channel.receive(LetterKind::armed, in(arm_time_out)));
  return {};
}

// Everything up to where there is still a way back.
Parsed<void> prepare(const Serving& serving, const UpgradeWish& wish, Pause& pause, UpgradeChannel& channel) {
  TRY(tell_devices(serving, wish, channel));
  std::vector<user::HandedPlace> places = TRY(pause.hold_in_silence());
  std::vector<std::string> served;
  for (const user::HandedPlace& place : places) {
    if (place.connection) served.push_back(place.name);
  }
  TRY(tell_sessions(places, channel));
  places.clear();
  TRY(pause.stand_still());
  return tell_starts(serving, served, pause, channel);
}

HandedOver go(Pause& pause, Successor& successor) {
  const pid_t pid = successor.pid();
  HandedOver result{.outcome = Outcome::lost, .successor = pid};
  if (const auto running = successor.channel().receive(LetterKind::running, in(go_time_out)); !running) {
    successor.release();
    result.sentence = fmt::format("process {} had taken over, and does not answer: {}", pid, running.error());
    return result;
  }
  result.outcome = Outcome::moved;
  result.pause = pause.so_far();
  successor.release();
  return result;
}

}  // namespace

HandedOver hand_over(const Serving& serving, const UpgradeWish& wish) {
  if (!serving.obstacle.empty()) return {.sentence = serving.obstacle};
  auto successor = Successor::start(wish.binary, serving);
  if (!successor) return {.sentence = successor.error()};
  take_short_slices();
  std::optional<Pause> pause(std::in_place, serving);
  auto ready = prepare(serving, wish, *pause, successor->channel());
  if (ready) ready = successor->channel().send({.kind = LetterKind::go});
  if (!ready) {
    pause.reset();  // before anything that takes time
    const std::string end = successor->end();
    return {.sentence = end.empty() ? ready.error() : fmt::format("{} ({})", ready.error(), end)};
  }
  pause->make_final();
  HandedOver result = go(*pause, *successor);
  if (result.outcome == Outcome::moved) {
    result.sentence = fmt::format("process {} serves {} {} now, after a pause of {:.1f} ms", result.successor,
                                  serving.devices.size(), serving.devices.size() == 1 ? "device" : "devices",
                                  static_cast<double>(result.pause.count()) / 1000);
  }
  return result;
}

}  // namespace ringway::tools
