// TapDevice: the interface behind a tap port as its kernel sees it: opening queues of it, what it can do, and
// what it is told. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"

namespace ringway::port {

class TapDevice {
 public:
  // Of this name, created where it is not there; or the one that `fd` is a queue of.
  static Result<TapDevice> of_name(const std::string& name, bool many_queues);
  static Result<TapDevice> of_fd(const UniqueFd& fd);
  // Of a file that somebody else has set up: a tap's, a tun's, a macvtap's, or a packet socket.
  static Result<TapDevice> as_it_is(const UniqueFd& fd);
  // The one of a queue that another process still uses: it is as that process has made it. `created`: by that
  // process, or one before it.
  static Result<TapDevice> of_shared_fd(const UniqueFd& fd, bool created);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool has_many_queues() const { return many_queues_; }
  [[nodiscard]] bool is_created() const { return created_; }
  // One more queue. Refused while the interface is not there, unless it was created by us.
  [[nodiscard]] Result<UniqueFd> open_queue() const;
  // The first queue, once.
  [[nodiscard]] UniqueFd take_first() { return std::move(first_); }

 private:
  static Result<TapDevice> attach(const std::string& name, bool many_queues);
  TapDevice(std::string name, bool many_queues, bool created)
      : name_(std::move(name)), many_queues_(many_queues), created_(created) {}
  std::string name_;
  bool many_queues_;
  bool created_;
  bool may_open_ = true;
  UniqueFd first_;
};

// What precedes each frame of such a file now, bytes: a header, or nothing.
Result<size_t> header_of(const UniqueFd& fd);
// A queue of a tap is made ready: headers of 12 bytes, little-endian.
Result<> prepare_tap_queue(const UniqueFd& fd);
// Whether the kernel knows segmentation of UDP (TUN_F_USO4, TUN_F_USO6: Linux 6.2).
[[nodiscard]] bool tap_knows_uso(const UniqueFd& fd);
// VIRTIO_NET_F_GUEST_* that what is read may use from now on.
Result<> set_tap_offloads(const UniqueFd& fd, uint64_t guest_features);
// A queue that is not attached gets no frames.
Result<> attach_tap_queue(const UniqueFd& fd, bool attach);

}  // namespace ringway::port
