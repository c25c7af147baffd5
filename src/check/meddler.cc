#include "ringway/check/meddler.h"

#include <utility>

namespace ringway::check {

Meddler::Meddler(std::shared_ptr<user::Connection> front_end, std::shared_ptr<user::Connection> back_end,
                 Change change)
    : front_end_(std::move(front_end)),
      back_end_(std::move(back_end)),
      change_(std::move(change)),
      requests_([this] { pass(user::Direction::received, *front_end_, *back_end_); }),
      replies_([this] { pass(user::Direction::sent, *back_end_, *front_end_); }) {}

Meddler::~Meddler() {
  front_end_->close();
  back_end_->close();
}

void Meddler::pass(user::Direction direction, user::Connection& from, user::Connection& to) {
  bool open = true;
  while (open) {
    auto frame = from.receive();
    if (!frame) break;
    for (const user::Frame& one : change_(direction, *std::move(frame)))
      open = open && to.send(one).has_value();
  }
  front_end_->close();
  back_end_->close();
}

}  // namespace ringway::check
