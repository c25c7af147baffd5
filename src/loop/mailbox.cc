#include "ringway/loop/mailbox.h"

#include "ringway/base/notifier.h"

namespace ringway::loop {

Result<std::shared_ptr<Doorbell>> Doorbell::make() {
  UniqueFd event = TRY(make_eventfd());
  return std::shared_ptr<Doorbell>(new Doorbell(std::move(event)));
}

void Doorbell::ring() {
  if (!asleep_.load(std::memory_order_seq_cst)) return;
  if (!asleep_.exchange(false)) return;  // somebody else rings
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
}

Mailbox::~Mailbox() {
  while (!empty()) {
    if (taken_ == nullptr) taken_ = posted_.take_all();
    delete std::exchange(taken_, taken_->next);
  }
}

void Mailbox::post(Task task) {
  // The task may be what lets the loop's owner destroy it, so nothing of the loop is touched after the push.
  const std::shared_ptr<Doorbell> doorbell = doorbell_;
  posted_.push(new Letter{.task = std::move(task)});
  doorbell->ring();
}

bool Mailbox::run(unsigned budget) {
  if (taken_ == nullptr) taken_ = posted_.take_all();
  if (taken_ == nullptr) return false;
  for (; budget > 0 && taken_ != nullptr; --budget) {
    const std::unique_ptr<Letter> letter(std::exchange(taken_, taken_->next));
    letter->task();
  }
  return true;
}

}  // namespace ringway::loop
