// The table of hostile inputs, made for a device of one kind. Used on one thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ringway/check/trial.h"

namespace ringway::check {

// What an input works with: a fresh connection, greeted, and a rig over it.
struct Assault {
  Trial& trial;
  Wire& wire;
  // The last message, whose answer is waited for; nothing: none is due.
  bool sent = false;

  void say(uint32_t request, Bytes payload = {}, std::vector<UniqueFd> fds = {});
  void say_raw(std::span<const std::byte> bytes, std::span<const UniqueFd> fds = {});
};

struct HostileInput {
  const char* number;
  std::string what;
  std::function<Or<>(Assault&)> send;
};

[[nodiscard]] std::vector<HostileInput> hostile_messages();
[[nodiscard]] std::vector<HostileInput> hostile_memory();
[[nodiscard]] std::vector<HostileInput> hostile_rings(const Kind& kind);

}  // namespace ringway::check
