// For tests of this room: a port that remembers what it was sent and delivers what the test says, and a
// driver half for each queue of a device over it.
#pragma once

#include <gtest/gtest.h>
#include <linux/virtio_config.h>

#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "ringway/device/net/net.h"
#include "ringway/device/port/virtio_net.h"
#include "ringway/ring/rig_test.h"

namespace ringway::net::test {

using port::bit;
using Bytes = std::vector<std::byte>;

inline Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// A frame of `length` bytes to the test's device, of which no two bytes in a row are the same.
inline Bytes frame_of(size_t length, uint8_t first = 0) {
  Bytes frame(length);
  for (size_t i = 0; i < length; ++i) frame[i] = static_cast<std::byte>(first + i * 7 + i / 256);
  if (length > 0) frame[0] &= std::byte{0xfe};  // to one station
  return frame;
}

template <class T>
Bytes as_bytes(const T& value) {
  Bytes bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

inline Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

class TestPort final : public port::Port {
 public:
  struct Sent {
    port::Offload offload;
    Bytes bytes;
    size_t head = 0;
  };

  [[nodiscard]] const port::Abilities& abilities() const override { return abilities_; }
  Result<> wish(const port::Wishes& wishes) override {
    wishes_ = wishes;
    return {};
  }
  std::unique_ptr<port::Outlet> open_outlet(loop::Loop&, uint16_t pair) override {
    return std::make_unique<Out>(*this, pair);
  }
  std::unique_ptr<port::Inlet> open_inlet(loop::Loop&, uint16_t pair, port::Receiver& receiver) override {
    return std::make_unique<In>(*this, pair, receiver);
  }
  [[nodiscard]] port::Link link() const override { return link_; }
  void change_link(bool up) {
    link_.up = up;
    link_changed();
  }
  // Ends what was held back.
  void finish_all() {
    while (!held_.empty()) {
      held_.front()->done(*held_.front());
      held_.pop_front();
    }
  }

  port::Abilities abilities_{.takes = port::transmit_offloads, .gives = port::receive_offloads, .pairs = 128};
  port::Link link_;
  port::Wishes wishes_;
  bool hold_ = false;      // frames end later
  size_t hold_every_ = 1;  // of them, the first and so on
  std::vector<Sent> sent_;
  std::deque<port::Frame*> held_;
  std::map<uint16_t, port::Receiver*> receivers_;
  std::map<uint16_t, int> resumed_;
  int flushed_ = 0;
  std::vector<size_t> batches_;  // frames of each

 private:
  struct Out : port::Outlet {
    Out(TestPort& port, uint16_t) : port_(port) {}
    void send_batch(std::span<port::Frame* const> frames, std::span<Sent> sent) override {
      port_.batches_.push_back(frames.size());
      Outlet::send_batch(frames, sent);
    }
    Sent send(port::Frame& frame) override {
      TestPort::Sent sent{.offload = frame.offload, .bytes = {}, .head = frame.head.size()};
      sent.bytes.assign(frame.head.begin(), frame.head.end());
      for (const iovec& piece : frame.pieces) {
        const auto* from = static_cast<const std::byte*>(piece.iov_base);
        sent.bytes.insert(sent.bytes.end(), from, from + piece.iov_len);
      }
      EXPECT_EQ(sent.bytes.size(), frame.length);
      port_.sent_.push_back(std::move(sent));
      if (!port_.hold_ || (port_.sent_.size() - 1) % port_.hold_every_ != 0) return Sent::done;
      port_.held_.push_back(&frame);
      return Sent::later;
    }
    void flush() override { ++port_.flushed_; }
    void drain() override { port_.finish_all(); }
    TestPort& port_;
  };
  struct In : port::Inlet {
    In(TestPort& port, uint16_t pair, port::Receiver& receiver) : port_(port), pair_(pair) {
      port_.receivers_[pair] = &receiver;
    }
    ~In() override { port_.receivers_.erase(pair_); }
    void resume() override { ++port_.resumed_[pair_]; }
    TestPort& port_;
    uint16_t pair_;
  };
};

// One queue with its driver half.
class TestQueue final : public engine::QueueLoop {
 public:
  static constexpr uint32_t size = 128;

  TestQueue(ring::test::Guest& guest, loop::Loop& worker, uint16_t index, uint64_t features, bool packed)
      : guest_(guest), worker_(worker), index_(index), features_(features), rig_(guest, shape(packed)) {}
  ~TestQueue() override { stop(); }

  void start(engine::Model& model) {
    worker_.run([&] { queue_ = model.start_queue(*this); });
  }
  void stop() {
    if (!queue_) return;
    worker_.run([&] {
      queue_->drain();
      queue_.reset();
    });
  }
  // Makes a chain of these lengths of writable buffers available, and processes it; where the first lies.
  uint64_t add_writable(const std::vector<uint32_t>& lengths) {
    const uint64_t first = add_writable_unseen(lengths);
    process();
    return first;
  }
  // The same, without processing it.
  uint64_t add_writable_unseen(const std::vector<uint32_t>& lengths) {
    std::vector<ring::Buffer> buffers;
    for (const uint32_t length : lengths)
      buffers.push_back({.address = {guest_.allocate(length)}, .length = length});
    const auto token = rig_.front.add({}, buffers);
    EXPECT_TRUE(token);
    if (token) chains_[*token] = buffers;
    rig_.front.publish();
    return buffers[0].address.value;
  }
  // The same for readable bytes, cut into pieces of at most `cut`, and `room` writable ones behind.
  void add_readable(const Bytes& bytes, uint32_t cut = UINT32_MAX, uint32_t room = 0) {
    EXPECT_TRUE(add_readable_unseen(bytes, cut, room));
    process();
  }
  // The same, without processing it.
  bool add_readable_unseen(const Bytes& bytes, uint32_t cut = UINT32_MAX, uint32_t room = 0) {
    const uint64_t at = guest_.allocate(bytes.size() + 1);
    if (!bytes.empty()) std::memcpy(guest_.at(at), bytes.data(), bytes.size());
    std::vector<ring::Buffer> buffers;
    for (uint64_t done = 0; done < bytes.size(); done += cut) {
      buffers.push_back({.address = {at + done},
                         .length = static_cast<uint32_t>(std::min<uint64_t>(cut, bytes.size() - done))});
    }
    std::vector<ring::Buffer> writable;
    if (room > 0) writable.push_back({.address = {guest_.allocate(room)}, .length = room});
    const auto token = rig_.front.add(buffers, writable);
    if (token) chains_[*token] = writable;
    if (token) tokens_.push_back(*token);
    return token.has_value();
  }
  void process() {
    rig_.front.publish();
    worker_.run([&] {
      take_available();
      queue_->flush();
      rig_.device.publish();
    });
  }
  // What the next used chain says that was written, with its bytes; nothing: none is used.
  std::optional<Bytes> take() {
    worker_.run([&] { rig_.device.publish(); });
    const auto used = rig_.front.take_used();
    if (!used) return std::nullopt;
    Bytes bytes;
    uint32_t left = used->written;
    for (const ring::Buffer& buffer : chains_[used->token]) {
      const std::byte* from = guest_.at(buffer.address.value);
      const uint32_t here = std::min(left, buffer.length);
      bytes.insert(bytes.end(), from, from + here);
      left -= here;
    }
    EXPECT_EQ(left, 0U) << "more was written than there was room for";
    return bytes;
  }
  // Of the next used chain, and of the chain that was added as number `index`.
  std::optional<uint16_t> take_token() {
    worker_.run([&] { rig_.device.publish(); });
    const auto used = rig_.front.take_used();
    return used ? std::optional(used->token) : std::nullopt;
  }
  [[nodiscard]] std::optional<uint16_t> token_of(size_t index) const { return tokens_.at(index); }
  [[nodiscard]] uint32_t in_flight() { return rig_.device.in_flight(); }
  engine::Queue& queue() { return *queue_; }

  void complete(ring::Chain chain, uint32_t written) override {
    EXPECT_TRUE(worker_.is_current());
    rig_.device.push_used(std::move(chain), written);
  }
  void give_back(ring::Chain chain) override { rig_.device.push_back(std::move(chain)); }
  void fail(ring::Chain chain, Error error) override {
    ADD_FAILURE() << error.to_string();
    rig_.device.abandon(std::move(chain));
  }
  bool take_available() override {
    std::vector<ring::Chain> chains;
    while (chains.size() < queue_->appetite()) {
      ring::Chain chain = rig_.device.pop();
      if (!chain) break;
      chains.push_back(std::move(chain));
    }
    if (!queue_->process_batch(chains)) {
      for (ring::Chain& chain : chains) queue_->process(std::move(chain));
    }
    return !chains.empty();
  }
  void moderate_calls(const engine::CallModeration& moderation) override { moderation_ = moderation; }
  [[nodiscard]] loop::Loop& worker() override { return worker_; }
  [[nodiscard]] uint16_t index() const override { return index_; }
  [[nodiscard]] uint32_t ring_size() const override { return size; }
  [[nodiscard]] uint64_t features() const override { return features_; }
  [[nodiscard]] bool enabled() const override { return enabled_; }
  [[nodiscard]] bool big_endian() const override { return big_endian_; }

  bool enabled_ = true;
  bool big_endian_ = false;
  engine::CallModeration moderation_;

 private:
  static ring::test::Shape shape(bool packed) {
    ring::test::Shape shape{.size = size};
    shape.format.packed = packed;
    return shape;
  }
  ring::test::Guest& guest_;
  loop::Loop& worker_;
  const uint16_t index_;
  const uint64_t features_;
  ring::test::Rig rig_;
  std::map<uint16_t, std::vector<ring::Buffer>> chains_;
  std::vector<uint16_t> tokens_;  // of readable chains, as they were added
  std::unique_ptr<engine::Queue> queue_;
};

class NetTest : public testing::Test {
 protected:
  static constexpr uint64_t modern = bit(VIRTIO_F_VERSION_1);
  static constexpr Mac own{std::byte{0x02}, std::byte{1}, std::byte{2},
                           std::byte{3},    std::byte{4}, std::byte{5}};

  // A device whose driver has accepted these features, with all of its queues running.
  void open(uint64_t features = modern, uint16_t pairs = 1, bool packed = false) {
    queues_.clear();
    net_.reset();
    auto port = std::make_unique<TestPort>();
    if (prepare_) prepare_(*port);
    port_ = port.get();
    net_ = std::make_unique<Net>(std::move(port), Net::Options{.pairs = pairs, .mac = own, .mtu = mtu_});
    EXPECT_EQ(features & ~net_->features() & ~engine_features, 0U) << "not offered";
    net_->set_features(features);
    const bool control = (features & bit(port::VIRTIO_NET_F_CTRL_VQ)) != 0;
    const auto count = static_cast<uint16_t>(2 * pairs + (control ? 1 : 0));
    for (uint16_t i = 0; i < count; ++i) {
      queues_.push_back(
          std::make_unique<TestQueue>(guest_, *loops_[i / 2 % loops_.size()], i, features, packed));
      queues_.back()->big_endian_ = big_endian_;
      queues_.back()->start(*net_);
    }
  }
  void TearDown() override { queues_.clear(); }

  TestQueue& receiver(uint16_t pair = 0) { return *queues_[2U * pair]; }
  TestQueue& transmitter(uint16_t pair = 0) { return *queues_[2U * pair + 1]; }
  TestQueue& control() { return *queues_.back(); }

  // Transmits header and frame, and expects that the chain comes back.
  void transmit(const Bytes& bytes, uint32_t cut = UINT32_MAX) {
    transmitter().add_readable(bytes, cut);
    const auto used = transmitter().take();
    ASSERT_TRUE(used) << "the chain did not come back";
    EXPECT_TRUE(used->empty());
  }
  static Bytes plain(const port::Header& header = {}) {
    Bytes bytes = as_bytes(header);
    bytes.resize(port::plain_header);
    return bytes;
  }
  bool deliver(const Bytes& frame, const port::Offload& offload = {}, uint16_t pair = 0) {
    const iovec piece{.iov_base = const_cast<std::byte*>(frame.data()), .iov_len = frame.size()};
    const port::Frame one{
        .offload = offload, .length = static_cast<uint32_t>(frame.size()), .pieces = {&piece, 1}};
    bool taken = false;
    receiver(pair).worker().run([&] { taken = port_->receivers_.at(pair)->deliver(one); });
    return taken;
  }
  [[nodiscard]] uint64_t dropped(Drop reason) const {
    const auto counters = net_->counters();
    return counters[counters.size() - drop_reasons + static_cast<size_t>(reason)].value;
  }
  [[nodiscard]] Config config() const {
    Config config;
    net_->read_config(0, std::as_writable_bytes(std::span(&config, 1)));
    return config;
  }

  static constexpr uint64_t engine_features = bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_F_RING_PACKED);
  std::vector<std::unique_ptr<loop::Loop>> loops_ = [] {
    std::vector<std::unique_ptr<loop::Loop>> loops;
    loops.push_back(*loop::Loop::start({.use_io_uring = false}));
    return loops;
  }();
  std::function<void(TestPort&)> prepare_;
  uint16_t mtu_ = 0;
  bool big_endian_ = false;
  ring::test::Guest guest_{32 << 20};
  TestPort* port_ = nullptr;
  std::unique_ptr<Net> net_;
  std::vector<std::unique_ptr<TestQueue>> queues_;
};

}  // namespace ringway::net::test
