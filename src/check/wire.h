// Wire: a front-end's connection as frames, for checks of what is on the socket. Used on one thread.
// vhost-user "Message Specification".
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ringway/check/finding.h"
#include "ringway/user/connection.h"
#include "ringway/user/frame.h"
#include "ringway/user/message.h"

namespace ringway::check {

using Bytes = std::vector<std::byte>;
using std::chrono::milliseconds;

// "01000000 05000000 08000000 ..." with a word about file descriptors; long payloads are cut.
[[nodiscard]] std::string hex(std::span<const std::byte> bytes);
[[nodiscard]] std::string describe(const user::Frame& frame);

// The last frames of a connection, in both directions. Any thread.
class Transcript {
 public:
  void add(user::Direction direction, const user::Frame& frame);
  [[nodiscard]] std::string text() const;

 private:
  static constexpr size_t kept = 3;
  mutable std::mutex mutex_;
  std::deque<std::string> lines_;
};

// The parts of a payload, one behind the other.
template <class... Parts>
Bytes payload(const Parts&... parts) {
  Bytes bytes;
  const auto append = [&](const auto& part) {
    const auto* from = reinterpret_cast<const std::byte*>(&part);
    bytes.insert(bytes.end(), from, from + sizeof part);
  };
  (append(parts), ...);
  return bytes;
}

template <class Request>
inline constexpr uint32_t id = user::id_of<vhost::DeviceRequest, Request>;

class Wire {
 public:
  static Result<std::unique_ptr<Wire>> over(UniqueFd fd, milliseconds patience);

  [[nodiscard]] const std::shared_ptr<user::Connection>& connection() const { return connection_; }
  [[nodiscard]] std::string transcript() const { return transcript_->text(); }
  [[nodiscard]] milliseconds patience() const { return patience_; }

  static user::Frame frame(uint32_t request, Bytes payload = {}, std::vector<UniqueFd> fds = {});
  Result<> send(const user::Frame& frame);
  Result<> send(uint32_t request, Bytes payload = {}, std::vector<UniqueFd> fds = {}) {
    return send(frame(request, std::move(payload), std::move(fds)));
  }
  // These bytes as they are, without a frame's form.
  Result<> send_raw(std::span<const std::byte> bytes, std::span<const UniqueFd> fds = {});

  // The next frame, whatever it is. Fault `gone`: closed; `violation`: late, or no message.
  Result<user::Frame> receive();
  // Whether a frame, or the end, comes within the time.
  [[nodiscard]] bool stirs(milliseconds within) const;
  [[nodiscard]] bool closed() const { return connection_->hung_up(); }

  Result<user::Frame> ask(uint32_t request, Bytes payload = {}) {
    auto sent = send(request, std::move(payload));
    if (!sent) return std::unexpected(sent.error());
    return receive();
  }
  // Of a reply of 8 bytes to that very request.
  Result<uint64_t> ask_u64(uint32_t request, Bytes payload = {});
  // With need_reply: what the acknowledgement says.
  Result<uint64_t> ack(uint32_t request, Bytes payload = {}, std::vector<UniqueFd> fds = {});

  // GET_FEATURES, GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES of what is both offered and wanted, SET_OWNER.
  // What is offered is remembered.
  Result<> greet(uint64_t wanted_protocol);
  [[nodiscard]] uint64_t features() const { return features_; }
  [[nodiscard]] uint64_t offered_protocol() const { return offered_; }
  [[nodiscard]] uint64_t protocol() const { return agreed_; }

 private:
  Wire(std::shared_ptr<user::Connection> connection, UniqueFd raw, std::shared_ptr<Transcript> transcript,
       milliseconds patience)
      : connection_(std::move(connection)),
        raw_(std::move(raw)),
        transcript_(std::move(transcript)),
        patience_(patience) {}

  const std::shared_ptr<user::Connection> connection_;
  const UniqueFd raw_;  // the same socket
  const std::shared_ptr<Transcript> transcript_;
  const milliseconds patience_;
  uint64_t features_ = 0;
  uint64_t offered_ = 0;
  uint64_t agreed_ = 0;
};

}  // namespace ringway::check
