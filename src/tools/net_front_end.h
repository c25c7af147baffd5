// NetFrontEnd: a network device behind a vhost-user socket, started without a virtual machine: its pairs of
// queues run, all receive buffers are the device's. Owned by the thread that opened it; the queues may each
// be given to a thread of their own.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringway/device/net/config.h"
#include "ringway/tools/front_end.h"
#include "ringway/tools/net_driver.h"

namespace ringway::tools {

struct NetFrontEndOptions {
  std::string socket;
  uint16_t queues = 1;          // pairs
  uint32_t ring_size = 256;     // entries
  uint32_t frame_bytes = 1518;  // the longest frame that comes or goes, without checksum
  uint16_t mtu = 0;             // that the back-end is told; 0: none
  uint32_t buffer_bytes = 0;  // of a receive buffer; 0: 2048 if mergeable, else what the longest frame needs
  bool packed = false;
  bool mergeable = true;  // where it is offered, as are the three below
  bool indirect = false;  // with a table for each frame
  bool event_idx = true;
  bool in_order = true;
  bool own_header = false;  // headers have descriptors of their own
  bool huge_pages = false;
  std::chrono::milliseconds patience{30'000};  // for each answer
};

class NetFrontEnd {
 public:
  // The error is a sentence for the user.
  static std::expected<std::unique_ptr<NetFrontEnd>, std::string> open(const NetFrontEndOptions& options);

  // As they were negotiated.
  [[nodiscard]] const NetFrontEndOptions& options() const { return options_; }
  [[nodiscard]] const net::Mac& mac() const { return mac_; }
  [[nodiscard]] uint32_t mtu() const { return mtu_; }
  // Frames beyond the MTU may be left to the device to be segmented.
  [[nodiscard]] bool segments() const { return segments_; }
  // Frames of so many bytes for which a receive queue has buffers; at least 1.
  [[nodiscard]] uint32_t room_for(uint32_t bytes) const;
  [[nodiscard]] pid_t pid() const { return front_end_->pid(); }
  [[nodiscard]] const std::string& program() const { return front_end_->program(); }

  [[nodiscard]] Receiver& receiver(uint16_t queue) { return *pairs_[queue].receiver; }
  [[nodiscard]] Transmitter& transmitter(uint16_t queue) { return *pairs_[queue].transmitter; }
  [[nodiscard]] std::vector<const Signal*> call_signals(uint16_t queue) const;

  // Sends a frame to everybody, so that a switch learns where we are, and waits until it has been taken.
  std::expected<void, std::string> greet();
  [[nodiscard]] std::optional<std::string> trouble() const { return front_end_->trouble(); }
  std::expected<void, std::string> stop() { return front_end_->stop(); }

 private:
  struct Pair {
    std::unique_ptr<Receiver> receiver;
    std::unique_ptr<Transmitter> transmitter;
  };

  explicit NetFrontEnd(const NetFrontEndOptions& options)
      : options_(options), mtu_(options.mtu != 0 ? options.mtu : 1500) {}
  Result<> negotiate();
  [[nodiscard]] vhost::Agreement wanted() const;
  Result<> read_config(const vhost::Agreement& agreed);
  Result<> share_memory();
  Result<> start_pairs();

  NetFrontEndOptions options_;
  std::unique_ptr<FrontEnd> front_end_;
  ring::Format format_;
  net::Mac mac_{};
  uint32_t mtu_;
  bool segments_ = false;
  bool takes_segments_ = false;  // frames beyond the MTU may come
  std::vector<Pair> pairs_;
};

}  // namespace ringway::tools
