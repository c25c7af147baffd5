// IotlbQuestions: the IOTLB misses that the front-end has been told of and has not answered. A miss is told
// once: by the time that a second question arrived, the guest might have torn down what the first was about.
// Any thread.
#pragma once

#include <algorithm>
#include <mutex>
#include <vector>

#include "ringway/memory/view.h"

namespace ringway::engine {

class IotlbQuestions {
 public:
  // True if it was not open already.
  bool open(memory::GuestAddress address, memory::Access access) {
    const std::scoped_lock lock(mutex_);
    const Question question{address, access};
    if (std::ranges::find(open_, question) != open_.end()) return false;
    open_.push_back(question);
    return true;
  }
  // Answered by an update of [iova, iova + size), which does not wrap; or refused, with size 1.
  void close(memory::GuestAddress iova, uint64_t size) {
    const std::scoped_lock lock(mutex_);
    std::erase_if(open_,
                  [&](const Question& question) { return question.address.value - iova.value < size; });
  }
  void clear() {
    const std::scoped_lock lock(mutex_);
    open_.clear();
  }

 private:
  struct Question {
    memory::GuestAddress address;
    memory::Access access;
    bool operator==(const Question&) const = default;
  };
  std::mutex mutex_;
  std::vector<Question> open_;  // about one per ring
};

}  // namespace ringway::engine
