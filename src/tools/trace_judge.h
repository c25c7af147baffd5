// Judge: says what looks wrong in a conversation, by the message table, the codec and vhost::Contract, and by
// what can be seen of memory, rings and file descriptors. It keeps silent where it is not sure. One for each
// front-end; owned by the tap's thread.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringway/tools/trace_rings.h"
#include "ringway/tools/trace_talk.h"
#include "ringway/vhost/contract.h"

namespace ringway::tools {

struct Finding {
  enum class Level : uint8_t {
    mistake,  // the specification does not allow it
    odd,      // it may be meant, and is often the reason why something does not work
  };
  uint64_t number = 0;  // of the message it is about
  const char* name = "";
  Level level = Level::odd;
  std::string text;
};

class Judge {
 public:
  using Clock = SeenMessage::Clock;

  // A reply is late after `patience`. `talk` outlives the judge.
  Judge(Talk& talk, std::chrono::milliseconds patience);
  ~Judge();

  // After the talk has followed the message. `answered`: what it answers.
  std::vector<Finding> see(const SeenMessage& message, const std::optional<Talk::Asked>& answered);
  // Replies that are late by now.
  std::vector<Finding> late(Clock::time_point now);
  [[nodiscard]] std::optional<Clock::time_point> next_late() const;
  // `first`: who has left first, if anybody.
  std::vector<Finding> end(std::optional<Side> first, Clock::time_point now);

 private:
  class Oracle;
  using Level = Finding::Level;

  void check_frame(const SeenMessage& message);
  void check_flags(const SeenMessage& message);
  void check_request(const SeenMessage& message);
  void check_need(const SeenMessage& message);
  void check_reply(const SeenMessage& message, const std::optional<Talk::Asked>& answered);
  void check_negotiation(const SeenMessage& message);
  void ask_contract(const SeenMessage& message, vhost::DeviceRequest request);
  void forget(const SeenMessage& message);
  void take_back(const Talk::Asked& refused);
  void check_hang_up(Clock::time_point now);
  void say(const SeenMessage& message, Level level, std::string text);
  void say(Doubt doubt);

  Talk& talk_;
  const std::chrono::milliseconds patience_;
  std::unique_ptr<Oracle> oracle_;           // what stands behind the contract
  std::optional<vhost::Contract> contract_;  // nothing: what was negotiated is not known any more
  std::optional<vhost::Contract> before_;    // as it was before the request that was asked last
  std::optional<RingWatch> rings_before_;
  uint64_t last_request_ = 0;
  RingWatch rings_;
  std::vector<Finding> found_;
};

}  // namespace ringway::tools
