// The socket between a process that hands its devices over and the one that takes them: letters, which are
// ours, and between them frames of vhost-user. docs/upgrade-format.md. One thread.
//
// Both speak format 1. Every field of a letter is known to who reads it and is there, or the letter is
// refused, by the name of the field: who does not understand all of it must not take a guest over.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ringway/tools/parse.h"
#include "ringway/user/connection.h"

namespace ringway::tools {

inline constexpr uint64_t upgrade_format = 1;
inline constexpr const char* uplink_type = "uplink";  // of a switch; it is told as devices are

enum class LetterKind : uint32_t {
  begin = 1001,
  device,
  place,
  prepare,
  start,
  arm,
  go,
  refused = 1101,
  opened,
  prepared,
  armed,
  running,
};

struct Letter {
  LetterKind kind{};
  nlohmann::json body = nlohmann::json::object();
  std::vector<UniqueFd> fds;  // in the order of the body's "fds"
};

// Takes the fields of a letter out of it one by one.
class Fields {
 public:
  explicit Fields(Letter letter) : letter_(std::move(letter)) {}
  uint64_t number(const char* name);
  std::string text(const char* name);
  bool flag(const char* name);
  // A file descriptor that the list "fds" names; none if it does not.
  UniqueFd fd(const char* name);
  // What was wrong first: a field that is missing, of another type, or left over.
  Parsed<void> finish();

 private:
  template <class T>
  T take(const char* name, bool (nlohmann::json::*is)() const noexcept);
  void fail(std::string mistake);
  Letter letter_;
  std::string mistake_;
};

class UpgradeChannel {
 public:
  using Clock = std::chrono::steady_clock;
  static Parsed<UpgradeChannel> over(UniqueFd socket);

  Parsed<void> send(Letter letter);
  Parsed<void> send(const std::vector<user::Frame>& frames);
  // `expected`, or what the other side says against it.
  Parsed<Letter> receive(LetterKind expected, Clock::time_point deadline);
  Parsed<Letter> receive_any(std::initializer_list<LetterKind> expected, Clock::time_point deadline);
  Parsed<std::vector<user::Frame>> receive_frames(uint64_t count, Clock::time_point deadline);

 private:
  explicit UpgradeChannel(std::shared_ptr<user::Connection> connection)
      : connection_(std::move(connection)) {}
  std::shared_ptr<user::Connection> connection_;
};

}  // namespace ringway::tools
