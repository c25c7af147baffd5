// Plays a back-end for one front-end after another: a right one, and ones that are wrong in a way of their
// own. Owned by one thread. vhost-user "Communication".
#pragma once

#include <chrono>
#include <expected>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "ringway/check/runner.h"

namespace ringway::tools {

struct FrontEndCheck {
  std::string socket;
  std::string start;  // command that starts the front-end; empty: it comes by itself
  std::set<unsigned> only;
  bool hostile = false;
  std::chrono::milliseconds arrival{30'000};  // until it comes
  std::chrono::milliseconds talk{10'000};     // how long it is listened to
};

// What became of one wrong reply.
struct WrongReply {
  std::string what;
  check::Finding finding;
};

struct FrontEndReport {
  std::vector<check::Row> rows;
  std::vector<WrongReply> wrong_replies;
};

// The error is a sentence: nobody came, or the place cannot be listened at.
std::expected<FrontEndReport, std::string> check_front_end(const FrontEndCheck& options);

}  // namespace ringway::tools
