// Talk: one front-end's conversation with the back-end as far as it can be followed from outside: which reply
// answers what, which replies are due, what was offered and agreed on. Owned by the tap's thread. vhost-user
// "Communication".
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "ringway/tools/device_names.h"
#include "ringway/tools/trace_message.h"
#include "ringway/user/codec.h"
#include "ringway/vhost/catalogue.h"

namespace ringway::tools {

class Talk {
 public:
  struct Asked {
    uint64_t number = 0;  // of the message
    uint32_t id = 0;
    const char* name = "";
    Channel channel = Channel::main;
    SeenMessage::Clock::time_point when;  // it was complete
    bool reply_due = false;               // always, or because need_reply was negotiated and set
    bool is_late = false;                 // has been told
    user::Asked parts;                    // what its reply repeats; filled in by who can decode it
  };

  // `type`: what the device is, if the user knows; null: it is guessed.
  explicit Talk(const DeviceType* type) : type_(type), type_is_given_(type != nullptr) {}

  // Fills in what a reply answers. Null, if it is a request or answers nothing.
  std::optional<Asked> follow(SeenMessage& message);
  [[nodiscard]] std::deque<Asked>& open(Channel channel) { return open_[static_cast<size_t>(channel)]; }

  [[nodiscard]] std::optional<uint64_t> offered_features() const { return offered_features_; }
  [[nodiscard]] std::optional<uint64_t> offered_protocol() const { return offered_protocol_; }
  [[nodiscard]] const vhost::Agreement& agreed() const { return agreed_; }
  [[nodiscard]] bool features_set() const { return features_set_; }
  [[nodiscard]] bool has_owner() const { return has_owner_; }
  [[nodiscard]] const DeviceType* type() const { return type_; }

 private:
  static constexpr size_t max_open = 64;  // requests that perhaps are answered

  std::optional<Asked> match(SeenMessage& message);
  void remember(const SeenMessage& message);
  void learn(const SeenMessage& message);
  [[nodiscard]] bool is_reply_due(const SeenMessage& message) const;

  const DeviceType* type_;
  const bool type_is_given_;
  std::array<std::deque<Asked>, 2> open_;
  std::optional<uint64_t> offered_features_;
  std::optional<uint64_t> offered_protocol_;
  vhost::Agreement agreed_;
  bool has_owner_ = false;
  bool features_set_ = false;
  bool postcopy_ = false;
};

// The number that a payload of 8 bytes is; nothing for another size.
[[nodiscard]] std::optional<uint64_t> u64_of(std::span<const std::byte> payload);

}  // namespace ringway::tools
