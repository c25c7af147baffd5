// How other threads reach a loop: Stack (lock-free, many to one), Doorbell (wakes a sleeping loop) and, of
// the two, the Mailbox of posted tasks. Each class says which thread may call what.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"

namespace ringway::loop {

// Node has a member `Node* next`. Nodes are owned by whoever holds them.
template <class Node>
class Stack {
 public:
  // Any thread.
  void push(Node* node) {
    node->next = top_.load(std::memory_order_relaxed);
    while (!top_.compare_exchange_weak(node->next, node, std::memory_order_seq_cst)) {
    }
  }
  [[nodiscard]] bool empty() const { return top_.load(std::memory_order_seq_cst) == nullptr; }
  // One thread. Everything, the oldest first.
  [[nodiscard]] Node* take_all() {
    if (top_.load(std::memory_order_relaxed) == nullptr) return nullptr;
    Node* newest_first = top_.exchange(nullptr, std::memory_order_acquire);
    Node* oldest_first = nullptr;
    while (newest_first != nullptr) {
      Node* const node = newest_first;
      newest_first = std::exchange(node->next, oldest_first);
      oldest_first = node;
    }
    return oldest_first;
  }

 private:
  std::atomic<Node*> top_ = nullptr;
};

// The eventfd that ends a loop's sleep. It is written only while the loop sleeps, and no wake-up is lost:
//   another thread   publishes its work, then reads asleep_;
//   the loop         sets asleep_, then looks for work once more, and only then sleeps.
// All four are sequentially consistent, so they have one order for all threads: either the loop's look comes
// after the work was published, and finds it; or the read of asleep_ comes after it was set, and rings. The
// poller watches the eventfd edge by edge, so nobody ever has to read it.
class Doorbell {
 public:
  static Result<std::shared_ptr<Doorbell>> make();

  // Any thread, after its work was published by a sequentially consistent operation (Stack::push).
  void ring();
  // The loop's thread: before its last look for work, and after it has slept or found some.
  void lie_down() { asleep_.store(true, std::memory_order_seq_cst); }
  void get_up() { asleep_.store(false, std::memory_order_relaxed); }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  explicit Doorbell(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
  std::atomic<bool> asleep_ = false;
};

class Mailbox {
 public:
  using Task = std::move_only_function<void()>;

  explicit Mailbox(std::shared_ptr<Doorbell> doorbell) : doorbell_(std::move(doorbell)) {}
  ~Mailbox();
  // Any thread.
  void post(Task task);
  // The loop's thread. Runs at most `budget` tasks in the order of posting; false if there was none.
  bool run(unsigned budget);
  [[nodiscard]] bool empty() const { return taken_ == nullptr && posted_.empty(); }

 private:
  struct Letter {
    Task task;
    Letter* next = nullptr;
  };
  std::shared_ptr<Doorbell> doorbell_;
  Stack<Letter> posted_;
  Letter* taken_ = nullptr;  // the oldest first; the loop's own
};

}  // namespace ringway::loop
