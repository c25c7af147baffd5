// Meddler: passes frames between two connections, and changes them on the way: how a right peer is made a
// wrong one. Its threads end when either side does. Made and ended by one thread.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "ringway/user/connection.h"

namespace ringway::check {

class Meddler {
 public:
  // What goes on instead of a frame: it, another, several, or none. Each direction has a thread of its own.
  // A frame that is `received` comes from the front-end.
  using Change = std::function<std::vector<user::Frame>(user::Direction, user::Frame)>;

  Meddler(std::shared_ptr<user::Connection> front_end, std::shared_ptr<user::Connection> back_end,
          Change change);
  ~Meddler();  // closes both
  Meddler(const Meddler&) = delete;
  Meddler& operator=(const Meddler&) = delete;

 private:
  void pass(user::Direction direction, user::Connection& from, user::Connection& to);
  const std::shared_ptr<user::Connection> front_end_;
  const std::shared_ptr<user::Connection> back_end_;
  const Change change_;
  std::jthread requests_;
  std::jthread replies_;
};

[[nodiscard]] inline std::vector<user::Frame> just(user::Frame frame) {
  std::vector<user::Frame> one;
  one.push_back(std::move(frame));
  return one;
}

}  // namespace ringway::check
