// Frames between two devices over a switch: one copy, from the sender's buffers into the receiver's.
#include "ringway/device/net/rig_test.h"
#include "ringway/device/port/switch.h"
#include "ringway/loop/loop_testing.h"

namespace ringway::net {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification
using namespace test;  // NOLINT(google-build-using-namespace)
using loop::testing::eventually;

// A port of a switch that notes what its device's receive queue is given.
class WatchedPort final : public Port {
 public:
  struct Given {
    uint32_t length = 0;
    size_t head = 0;
    std::vector<iovec> pieces;
  };

  explicit WatchedPort(std::unique_ptr<Port> port) : port_(std::move(port)) {}
  [[nodiscard]] const Abilities& abilities() const override { return port_->abilities(); }
  Result<> wish(const Wishes& wishes) override { return port_->wish(wishes); }
  std::unique_ptr<Outlet> open_outlet(loop::Loop& loop, uint16_t pair) override {
    return port_->open_outlet(loop, pair);
  }
  std::unique_ptr<Inlet> open_inlet(loop::Loop& loop, uint16_t pair, Receiver& receiver) override {
    watch_.receiver = &receiver;
    return port_->open_inlet(loop, pair, watch_);
  }
  // While the worker does nothing.
  std::vector<Given>& given() { return watch_.given; }

 private:
  struct Watch final : Receiver {
    bool deliver(const Frame& frame) override {
      note(frame);
      return receiver->deliver(frame);
    }
    void note(const Frame& frame) {
      given.push_back({.length = frame.length,
                       .head = frame.head.size(),
                       .pieces = {frame.pieces.begin(), frame.pieces.end()}});
    }
    size_t deliver_batch(std::span<const Frame* const> frames) override {
      const size_t done = receiver->deliver_batch(frames);
      for (const Frame* frame : frames.first(done)) note(*frame);
      return done;
    }
    void expect(size_t frames) override { receiver->expect(frames); }
    std::span<const iovec> reserve(uint32_t) override {
      ADD_FAILURE() << "a switch has nothing to read from";
      return {};
    }
    bool commit(const Offload&, uint32_t, std::span<const std::byte>) override { return false; }
    [[nodiscard]] uint64_t accepts() const override { return receiver->accepts(); }

    Receiver* receiver = nullptr;
    std::vector<Given> given;
  };

  const std::unique_ptr<Port> port_;
  Watch watch_;
};

// A device with its own memory, on one pair of queues.
struct Machine {
  Machine(Switch& fabric, loop::Loop& worker, uint64_t features, bool packed)
      : watched(new WatchedPort(fabric.plug({}).value())),
        net(std::unique_ptr<Port>(watched), {}),
        receiver(guest, worker, 0, features, packed),
        transmitter(guest, worker, 1, features, packed) {
    EXPECT_EQ(features & ~net.features() & ~bit(VIRTIO_F_VERSION_1), 0U) << "not offered";
    net.set_features(features);
    receiver.start(net);
    transmitter.start(net);
  }
  [[nodiscard]] bool holds(const iovec& piece) const {
    const auto* const first = static_cast<const std::byte*>(piece.iov_base);
    return first >= guest.data() && first + piece.iov_len <= guest.data() + guest.size();
  }
  // What comes next into the receiver's buffers, header and frame; empty: nothing does.
  Bytes next() {
    std::optional<Bytes> used;
    return eventually([&] { return (used = receiver.take()).has_value(); }) ? *used : Bytes();
  }
  bool is_sent() {
    return eventually([&] { return transmitter.take().has_value(); });
  }

  ring::test::Guest guest{4 << 20};
  WatchedPort* const watched;
  Net net;
  TestQueue receiver;
  TestQueue transmitter;
};

struct Kind {
  bool packed = false;
  bool many_workers = false;
};

class NetGuestToGuest : public testing::TestWithParam<Kind> {
 protected:
  static constexpr uint64_t modern = bit(VIRTIO_F_VERSION_1);
  static constexpr uint64_t mergeable = bit(VIRTIO_NET_F_MRG_RXBUF);

  void open(uint64_t features) {
    for (int i = 0; i < (GetParam().many_workers ? 2 : 1); ++i)
      loops_.push_back(loop::testing::start_or_fail({}));
    a_ = std::make_unique<Machine>(*switch_, *loops_.front(), features, GetParam().packed);
    b_ = std::make_unique<Machine>(*switch_, *loops_.back(), features, GetParam().packed);
    // The switch learns where b is. What it asks of everybody it copies.
    b_->transmitter.add_readable(plain() + frame(b_mac, a_mac, 60));
    EXPECT_TRUE(b_->is_sent());
  }
  void TearDown() override {
    a_.reset();
    b_.reset();
  }
  static Bytes plain(const Header& header = {}) {
    Bytes bytes = as_bytes(header);
    bytes.resize(plain_header);
    return bytes;
  }
  static Bytes frame(const Mac& from, const Mac& to, size_t length) {
    Bytes bytes = frame_of(length);
    std::ranges::copy(to, bytes.begin());
    std::ranges::copy(from, bytes.begin() + 6);
    bytes[12] = std::byte{0x88};  // no VLAN tag
    bytes[13] = std::byte{0xb5};
    return bytes;
  }
  // What b's receive queue was given last lies in a's memory, all but what the switch decides on.
  void expect_uncopied(size_t length) {
    WatchedPort::Given given;
    b_->receiver.worker().run([&] {
      ASSERT_EQ(b_->watched->given().size(), 1U);
      given = b_->watched->given().front();
      b_->watched->given().clear();
    });
    ASSERT_EQ(given.length, length);
    EXPECT_LE(given.head, max_head);
    size_t bytes = given.head;
    for (const iovec& piece : given.pieces) {
      EXPECT_TRUE(a_->holds(piece));
      bytes += piece.iov_len;
    }
    EXPECT_EQ(bytes, length);
  }

  static constexpr Mac a_mac{std::byte{2}, {}, {}, {}, {}, std::byte{0xa}};
  static constexpr Mac b_mac{std::byte{2}, {}, {}, {}, {}, std::byte{0xb}};
  std::vector<std::unique_ptr<loop::Loop>> loops_;
  std::shared_ptr<Switch> switch_ = Switch::make({});
  std::unique_ptr<Machine> a_, b_;
};

TEST_P(NetGuestToGuest, a_frame_is_copied_once_from_the_senders_buffers_into_the_receivers) {
  open(modern);
  for (const size_t length : {60U, 61U, 64U, 65U, 200U, 1514U}) {
    for (const uint32_t cut : {UINT32_MAX, 100U, 33U}) {
      const Bytes sent = frame(a_mac, b_mac, length);
      b_->receiver.add_writable({2048});
      a_->transmitter.add_readable(plain() + sent, cut);
      const Bytes got = b_->next();
      ASSERT_EQ(got.size(), plain_header + length);
      EXPECT_TRUE(std::ranges::equal(std::span(got).subspan(plain_header), sent)) << length;
      EXPECT_TRUE(a_->is_sent());
      expect_uncopied(length);
    }
  }
}

TEST_P(NetGuestToGuest, a_frame_that_fills_several_buffers_is_copied_once_too) {
  open(modern | mergeable);
  const Bytes sent = frame(a_mac, b_mac, 9000);
  for (int i = 0; i < 10; ++i) b_->receiver.add_writable({100, 924});
  a_->transmitter.add_readable(plain() + sent, 1000);
  Bytes got;
  while (got.size() < plain_header + sent.size()) {
    const Bytes next = b_->next();
    ASSERT_FALSE(next.empty());
    got = got + next;
  }
  EXPECT_TRUE(std::ranges::equal(std::span(got).subspan(plain_header), sent));
  EXPECT_TRUE(a_->is_sent());
  expect_uncopied(sent.size());
}

TEST_P(NetGuestToGuest, work_that_both_sides_leave_undone_is_carried_along) {
  open(modern | mergeable | bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_GUEST_CSUM) |
       bit(VIRTIO_NET_F_HOST_TSO4) | bit(VIRTIO_NET_F_GUEST_TSO4));
  const Bytes sent = frame(a_mac, b_mac, 30'000);
  Header header;
  header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
  header.hdr_len = 54;
  header.gso_size = 1448;
  header.csum_start = 34;
  header.csum_offset = 16;
  b_->receiver.add_writable({40'000});
  a_->transmitter.add_readable(plain(header) + sent, 4096);
  const Bytes got = b_->next();
  ASSERT_EQ(got.size(), plain_header + sent.size());
  header.num_buffers = 1;
  EXPECT_TRUE(std::ranges::equal(std::span(got).first(plain_header), plain(header)));
  EXPECT_TRUE(std::ranges::equal(std::span(got).subspan(plain_header), sent)) << "nobody has touched it";
  EXPECT_TRUE(a_->is_sent());
  expect_uncopied(sent.size());
}

INSTANTIATE_TEST_SUITE_P(Kinds, NetGuestToGuest,
                         testing::Values(Kind{}, Kind{.packed = true}, Kind{.many_workers = true},
                                         Kind{.packed = true, .many_workers = true}),
                         [](const auto& kind) {
                           return std::string(kind.param.packed ? "packed" : "split") +
                                  (kind.param.many_workers ? "_many_workers" : "_one_worker");
                         });

}  // namespace
}  // namespace ringway::net
