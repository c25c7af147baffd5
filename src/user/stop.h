// Stop: once requested, ends every wait of the connections that share it. Any thread; never taken back.
#pragma once

#include <memory>

#include "ringway/base/notifier.h"

namespace ringway::user {

class Stop {
 public:
  static Result<std::shared_ptr<Stop>> make();
  void request() const;
  [[nodiscard]] bool requested() const;
  [[nodiscard]] int fd() const { return event_.get(); }  // readable for ever once requested

 private:
  explicit Stop(UniqueFd event) : event_(std::move(event)) {}
  UniqueFd event_;
};

}  // namespace ringway::user
