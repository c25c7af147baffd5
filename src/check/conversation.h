// Conversation: what a front-end said to a back-end that we play, message by message, with what was agreed on
// at each. Added to on the thread of the connection; judged when it has ended.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "ringway/check/wire.h"
#include "ringway/memory/map.h"
#include "ringway/user/frame.h"
#include "ringway/vhost/catalogue.h"

namespace ringway::check {

struct Said {
  user::Header header;
  Bytes payload;
  size_t fds = 0;
  const char* fd_fault = nullptr;
  std::vector<uint64_t> file_sizes;  // of the file descriptors; 0 of those that are no files
  bool fd_is_socket = false;         // of the first
  std::string text;                  // as bytes

  // Before it was said.
  vhost::Agreement agreed;
  bool features_set = false;
  uint64_t offered_features = 0;
  uint64_t offered_protocol = 0;
  uint64_t queues = 0;  // that were told; 0: not yet
  uint64_t slots = 0;
  std::vector<memory::RegionLayout> regions;

  // The part of the payload at `offset`; zeros beyond its end.
  template <class T>
  [[nodiscard]] T at(size_t offset) const {
    T value{};
    if (offset + sizeof value <= payload.size()) std::memcpy(&value, payload.data() + offset, sizeof value);
    return value;
  }
};

class Conversation {
 public:
  void hear(user::Direction direction, const user::Frame& frame);
  [[nodiscard]] const std::vector<Said>& said() const { return said_; }

 private:
  void learn_from(const Said& request);
  void learn_from_reply(const user::Frame& reply);
  std::vector<Said> said_;
  Said now_;  // what is agreed on by now
};

// The regions that SET_MEM_TABLE, ADD_MEM_REG and REM_MEM_REG carry.
[[nodiscard]] std::vector<memory::RegionLayout> regions_of(const Said& one);

}  // namespace ringway::check
