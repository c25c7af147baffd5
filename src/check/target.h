// Target: what is checked, reached anew for each check: a back-end's socket, or a device in this process.
// Owned by the thread that runs the checks.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "ringway/base/result.h"
#include "ringway/check/wire.h"
#include "ringway/vhost/handler.h"

namespace ringway::check {

// One session of a front-end, from its first request; it ends with the object.
class Lease {
 public:
  virtual ~Lease() = default;
  virtual vhost::Device& device() = 0;
  // Whether each request has an answer; else a refusal is silent.
  [[nodiscard]] virtual bool acknowledges() const { return true; }
  // The last messages as they were on the wire; empty where there are none.
  [[nodiscard]] virtual std::string transcript() const { return {}; }
};

class Target {
 public:
  virtual ~Target() = default;
  virtual Result<std::unique_ptr<Lease>> connect() = 0;

  // Whether it is reached by messages that can be looked at.
  [[nodiscard]] virtual bool has_frames() const { return false; }
  virtual Result<std::unique_ptr<Wire>> connect_frames() { return refused("there are no messages here"); }

  // The process that serves it; 0: none, or not to be seen from here.
  [[nodiscard]] virtual int process() const { return 0; }
  // Starts it again if it can be, whatever it does now.
  virtual Result<> restart() { return refused("it cannot be started again from here"); }
  // How it ended since this was asked last, if it did and that can be seen, and was not asked to.
  struct End {
    std::string how;  // a sentence
    bool crashed = false;
    bool operator==(const End&) const = default;
  };
  virtual std::optional<End> end() { return std::nullopt; }
};

}  // namespace ringway::check
