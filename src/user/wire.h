// Writer and Reader: the two directions of a payload's layout (codec.cc). Both offer the same calls, so that
// one function describes a payload for both. Used on one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/user/codec.h"
#include "ringway/user/frame.h"
#include "ringway/vhost/request.h"

namespace ringway::user {

inline constexpr uint64_t ring_index_mask = 0xff;  // of the u64 of SET_VRING_KICK and its like
inline constexpr uint64_t no_fd_flag = 0x100;      // likewise, and of SET_DEVICE_STATE_FD's reply

// What one side of a layout may be: an integer or an address.
template <class T>
concept Number = std::is_integral_v<T> || std::is_enum_v<T>;

class Writer {
 public:
  Writer(Frame& frame, BackChannel* back_channel) : frame_(frame), back_channel_(back_channel) {}

  template <class... Fields>
  void operator()(const Fields&... fields) {
    (put(fields), ...);
  }
  void zeros(size_t count) { frame_.payload.resize(frame_.payload.size() + count); }
  void bytes(const std::vector<std::byte>& from) {
    frame_.payload.insert(frame_.payload.end(), from.begin(), from.end());
  }
  void fd(UniqueFd& from) {
    if (!from) return fail(refused("a file descriptor must go with it"));
    optional_fd(from);
  }
  void optional_fd(UniqueFd& from) {
    if (from) frame_.fds.push_back(std::move(from));
  }
  void stray_fd() {}
  void ring_and_fd(uint32_t ring, UniqueFd& fd) {
    if (ring > ring_index_mask) return fail(refused("ring index does not fit into 8 bits", ring));
    put(uint64_t{ring} | (fd ? 0 : no_fd_flag));
    optional_fd(fd);
  }
  void regions(std::vector<vhost::MemoryRegion>& from);
  void log(vhost::SetLogBase& from);
  void config(const vhost::ConfigBytes& from);
  void config_request(const vhost::GetConfig& from);
  void iotlb_type(vhost::IotlbType type, vhost::IotlbType, vhost::IotlbType) { put(type); }
  void front_end(std::shared_ptr<vhost::FrontEnd>& from);
  void status(bool success) { put(uint64_t{success ? 0U : 1U}); }
  void state_channel(vhost::StateChannel& from);
  void looked_up(vhost::SharedObject& from);

  [[nodiscard]] const Result<>& result() const { return result_; }

 private:
  template <Number T>
  void put(const T& value) {
    const size_t at = frame_.payload.size();
    frame_.payload.resize(at + sizeof value);
    std::memcpy(&frame_.payload[at], &value, sizeof value);
  }
  template <class Space>
  void put(const memory::Address<Space>& address) {
    put(address.value);
  }
  void put(const memory::RegionLayout& r) { (*this)(r.guest, r.size, r.front_end, r.file_offset); }
  void put(const vhost::Uuid& uuid) { frame_.payload.insert(frame_.payload.end(), uuid.begin(), uuid.end()); }
  void put(const std::array<uint64_t, 256>& values) {
    for (const uint64_t value : values) put(value);
  }
  void fail(std::unexpected<Error> error) {
    if (result_) result_ = error;
  }

  Frame& frame_;
  BackChannel* const back_channel_;
  Result<> result_;
};

class Reader {
 public:
  Reader(Frame& frame, BackChannel* back_channel)
      : rest_(frame.payload), fds_(frame.fds), back_channel_(back_channel) {}

  template <class... Fields>
  void operator()(Fields&... fields) {
    (get(fields), ...);
  }
  void zeros(size_t count) { take(count); }  // what is reserved is not looked at
  void bytes(std::vector<std::byte>& to) {
    const auto all = take(rest_.size());
    to.assign(all.begin(), all.end());
  }
  void fd(UniqueFd& to) {
    if (fds_.empty()) return fail(violation("a file descriptor is missing"));
    optional_fd(to);
  }
  void optional_fd(UniqueFd& to) {
    if (fds_.empty()) return;
    to = std::move(fds_.front());
    fds_ = fds_.subspan(1);
  }
  void stray_fd() {
    UniqueFd closed;
    optional_fd(closed);
  }
  void ring_and_fd(uint32_t& ring, UniqueFd& fd);
  void regions(std::vector<vhost::MemoryRegion>& to);
  void log(vhost::SetLogBase& to);
  void config(vhost::ConfigBytes& to);
  void config_request(vhost::GetConfig& to);
  void iotlb_type(vhost::IotlbType& type, vhost::IotlbType one, vhost::IotlbType other) {
    get(type);
    if (type != one && type != other)
      fail(violation("unknown IOTLB message type", static_cast<uint8_t>(type)));
  }
  void front_end(std::shared_ptr<vhost::FrontEnd>& to);
  void status(bool) {
    uint64_t value = 0;
    if (!rest_.empty()) get(value);
    if (value != 0) fail(refused("the peer refused it", value));
  }
  void state_channel(vhost::StateChannel& to);
  void looked_up(vhost::SharedObject& to);
  void skip_rest() { rest_ = {}; }

  [[nodiscard]] size_t remaining() const { return rest_.size(); }
  // Everything must have been taken.
  [[nodiscard]] Result<> finish() {
    if (!fds_.empty()) fail(violation("more file descriptors came than it takes"));
    if (!rest_.empty()) fail(violation("payload is longer than it says", rest_.size()));
    return result_;
  }

 private:
  // `count` bytes, or nothing after a failure.
  std::span<const std::byte> take(size_t count) {
    if (count > rest_.size()) {
      fail(violation("payload is shorter than it says"));
      return {};
    }
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  template <Number T>
  void get(T& value) {
    const auto from = take(sizeof value);
    if (!from.empty()) std::memcpy(&value, from.data(), sizeof value);
  }
  template <class Space>
  void get(memory::Address<Space>& address) {
    get(address.value);
  }
  void get(memory::RegionLayout& r) { (*this)(r.guest, r.size, r.front_end, r.file_offset); }
  void get(vhost::Uuid& uuid) {
    const auto from = take(uuid.size());
    std::copy(from.begin(), from.end(), uuid.begin());
  }
  void get(std::array<uint64_t, 256>& values) {
    for (uint64_t& value : values) get(value);
  }
  void fail(std::unexpected<Error> error) {
    if (result_) result_ = error;
  }

  std::span<const std::byte> rest_;
  std::span<UniqueFd> fds_;
  BackChannel* const back_channel_;
  Result<> result_;
};

}  // namespace ringway::user
