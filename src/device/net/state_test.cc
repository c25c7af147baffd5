// What a driver has set, on its way to another back-end. The numbers are those of docs/robustness.md.
#include "ringway/device/net/state.h"

#include "ringway/device/net/control.h"
#include "ringway/device/net/rig_test.h"

namespace ringway::net {
namespace {

using namespace port;  // NOLINT(google-build-using-namespace): the names of the specification
using namespace test;  // NOLINT(google-build-using-namespace)

constexpr uint64_t controlled =
    bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_CTRL_RX) |
    bit(VIRTIO_NET_F_CTRL_RX_EXTRA) | bit(VIRTIO_NET_F_CTRL_VLAN) | bit(VIRTIO_NET_F_CTRL_MAC_ADDR) |
    bit(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | bit(VIRTIO_NET_F_GUEST_ANNOUNCE) | bit(VIRTIO_NET_F_MTU) |
    receive_offloads | bit(VIRTIO_NET_F_MQ) | bit(VIRTIO_NET_F_RSS) | bit(VIRTIO_NET_F_HASH_REPORT) |
    bit(VIRTIO_NET_F_NOTF_COAL);
constexpr size_t flags_at = 4;
constexpr size_t pairs_at = 32;

Bytes le(uint64_t value, size_t bytes) {
  Bytes all = as_bytes(value);
  all.resize(bytes);
  return all;
}
Bytes command(uint8_t group, uint8_t what) { return {std::byte{group}, std::byte{what}}; }
Bytes station(uint8_t last) {
  Bytes mac(6);
  mac[0] = std::byte{2};
  mac[5] = std::byte{last};
  return mac;
}

class NetState : public NetTest {
 protected:
  void order(const Bytes& bytes) {
    control().add_readable(bytes, UINT32_MAX, 1);
    const auto used = control().take();
    ASSERT_TRUE(used && used->size() == 1);
    EXPECT_EQ(std::to_integer<int>(used->front()), VIRTIO_NET_OK);
  }
  // One command of each kind.
  void order_everything() {
    order(command(0, 0) + le(0, 1));  // not promiscuous
    order(command(0, 3) + le(1, 1));  // no multicast
    order(command(1, 0) + le(2, 4) + station(7) + station(8) + le(1, 4) + station(9));
    order(command(1, 1) + station(5));
    order(command(6, 0) + le(8, 4) + le(50, 4));
    order(command(6, 1) + le(16, 4) + le(70, 4));
    order(command(2, 0) + le(10, 2));
    order(command(2, 0) + le(4095, 2));
    order(command(5, 0) + le(bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4), 8));
  }
  void order_rss() {
    order(command(4, 1) + le(supported_hash_types, 4) + le(3, 2) + le(1, 2) + le(0, 2) + le(1, 2) + le(1, 2) +
          le(0, 2) + le(2, 2) + le(40, 1) + Bytes(40, std::byte{0x5a}));
  }
  // A device like the first, of the same user or another, that nobody has told anything.
  static std::unique_ptr<Net> another(uint16_t pairs = 2) {
    return std::make_unique<Net>(std::make_unique<TestPort>(), Net::Options{.pairs = pairs, .mac = own});
  }
  static bool refuses(const Bytes& state, uint16_t pairs = 2) {
    const auto net = another(pairs);
    const Bytes before = net->save_state();
    const bool refused = !net->load_state(state);
    EXPECT_TRUE(!refused || net->save_state() == before) << "refused, and not whole";
    return refused;
  }
};

TEST_F(NetState, N127_all_that_a_driver_has_set_goes_to_another_device) {
  open(controlled, 2);
  order_everything();
  order_rss();
  ASSERT_TRUE(net_->set_mtu(9000));
  const Bytes state = net_->save_state();
  const auto there = another();
  ASSERT_TRUE(there->load_state(state));
  there->set_features(controlled);
  EXPECT_EQ(there->save_state(), state);
  EXPECT_EQ(there->mac()[5], std::byte{5});
  Config config;
  there->read_config(0, std::as_writable_bytes(std::span(&config, 1)));
  EXPECT_EQ(config.mtu, 9000);
}

TEST_F(NetState, N127_pairs_of_queues_and_a_hash_without_a_table_go_too) {
  open(controlled, 2);
  order(command(4, 0) + le(2, 2));
  order(command(4, 2) + le(1, 4) + Bytes(8) + le(8, 1) + Bytes(8, std::byte{3}));
  const Bytes state = net_->save_state();
  const auto there = another();
  ASSERT_TRUE(there->load_state(state));
  EXPECT_EQ(there->save_state(), state);
}

TEST_F(NetState, what_was_set_is_obeyed_there) {
  open(controlled, 2);
  order_everything();
  const Bytes state = net_->save_state();
  open(controlled, 2);
  ASSERT_TRUE(net_->load_state(state));
  receiver().add_writable({200});
  const auto arrives = [&](const Bytes& to) {
    Bytes frame = to;
    frame.resize(64);
    EXPECT_TRUE(deliver(frame));
    return receiver().take().has_value();
  };
  EXPECT_FALSE(arrives(station(6)));
  EXPECT_TRUE(arrives(station(5)));
  EXPECT_EQ(port_->wishes_.offloads, bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4));
}

TEST_F(NetState, features_that_are_said_again_as_when_logging_begins_change_nothing) {
  open(controlled, 2);
  order_everything();
  const Bytes state = net_->save_state();
  net_->set_features(controlled);
  EXPECT_EQ(net_->save_state(), state);
}

TEST_F(NetState, a_driver_that_begins_anew_finds_nothing_of_it) {
  open(controlled, 2);
  order_everything();
  const auto there = another();
  const Bytes fresh = [] {
    const auto net = another();
    net->set_features(controlled);
    return net->save_state();
  }();
  ASSERT_TRUE(there->load_state(net_->save_state()));
  there->reset();
  there->set_features(controlled);
  EXPECT_EQ(there->save_state(), fresh);
}

TEST_F(NetState, H166_a_state_that_is_cut_off_or_too_long_is_refused_whole) {
  open(controlled, 2);
  order_everything();
  order_rss();
  Bytes state = net_->save_state();
  for (size_t size = 0; size < state.size(); ++size)
    EXPECT_TRUE(refuses({state.begin(), state.begin() + static_cast<ptrdiff_t>(size)})) << size;
  EXPECT_FALSE(refuses(state));
  state.push_back(std::byte{0});
  EXPECT_TRUE(refuses(state));
}

TEST_F(NetState, H166_what_cannot_have_come_about_is_refused_whole) {
  open(controlled, 2);
  order_everything();
  order_rss();
  const Bytes good = net_->save_state();
  const auto with = [&](size_t at, const Bytes& bytes) {
    Bytes changed = good;
    std::ranges::copy(bytes, changed.begin() + static_cast<ptrdiff_t>(at));
    return changed;
  };
  EXPECT_TRUE(refuses(with(0, le(2, 4)))) << "another version";
  EXPECT_TRUE(refuses(with(flags_at, le(1U << 11U, 4)))) << "an unknown flag";
  EXPECT_TRUE(refuses(with(8, le(controlled & ~bit(VIRTIO_NET_F_RSS), 8)))) << "a table without RSS";
  EXPECT_TRUE(refuses(with(8, le(controlled | bit(4), 8)))) << "a feature that is not offered";
  EXPECT_TRUE(refuses(with(16, le(bit(VIRTIO_NET_F_MAC), 8)))) << "no offload";
  EXPECT_TRUE(refuses(with(30, le(67, 2)))) << "no MTU";
  EXPECT_TRUE(refuses(with(pairs_at, le(3, 2)))) << "too many pairs";
  EXPECT_TRUE(refuses(with(pairs_at + 2, le(65, 2)))) << "too many addresses";
  EXPECT_TRUE(refuses(with(pairs_at + 6, le(3, 2)))) << "no power of two";
  EXPECT_TRUE(refuses(with(pairs_at + 8, le(1U << 30U, 4)))) << "an unknown hash";
  EXPECT_TRUE(refuses(with(pairs_at + 12, le(2, 2)))) << "no such pair";
  EXPECT_TRUE(refuses(with(604, le(1'000'001, 4)))) << "calls that are held too long";
  EXPECT_TRUE(refuses(with(8, le(controlled & ~bit(VIRTIO_NET_F_NOTF_COAL), 8))))
      << "calls that may not be held";
  EXPECT_TRUE(refuses(with(good.size() - 2, le(2, 2)))) << "no such pair in the table";
  EXPECT_TRUE(refuses(good, 1)) << "fewer queues";
  const auto agreed = another();
  agreed->set_features(controlled & ~bit(VIRTIO_NET_F_MTU));
  EXPECT_FALSE(agreed->load_state(good)) << "other features than were agreed on here";
}

TEST_F(NetState, H166_whatever_bit_is_turned_nothing_is_out_of_bounds) {
  open(controlled, 2);
  order_everything();
  order_rss();
  Bytes state = net_->save_state();
  for (size_t at = 0; at < state.size(); ++at) {
    for (const uint8_t mask : {0x01, 0x80, 0xff}) {
      state[at] ^= std::byte{mask};
      const auto net = another();
      const bool taken = net->load_state(state).has_value();
      EXPECT_TRUE(!taken || net->save_state().size() == state.size()) << at;
      state[at] ^= std::byte{mask};
    }
  }
}

}  // namespace
}  // namespace ringway::net
