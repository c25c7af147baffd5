#include "ringway/device/port/uplink.h"

#include <gtest/gtest.h>

#include "ringway/device/port/loop.h"
#include "ringway/device/port/switch_rig_test.h"

namespace ringway::port {
namespace {

using test::Bytes;
using test::counting;
using test::eventually;
using test::Guest;

// What is behind an uplink in a test: keeps what it gets, later or at once, and says what it is told to.
class Outside final : public Port {
 public:
  explicit Outside(uint32_t head, bool keeps) : abilities_{.head = head}, keeps_(keeps) {}
  [[nodiscard]] const Abilities& abilities() const override { return abilities_; }
  std::unique_ptr<Outlet> open_outlet(loop::Loop&, uint16_t) override { return std::make_unique<Out>(*this); }
  std::unique_ptr<Inlet> open_inlet(loop::Loop&, uint16_t, Receiver& receiver) override {
    receiver_ = &receiver;
    return std::make_unique<In>();
  }
  // On the loop.
  void say(const Bytes& bytes) {
    const auto places = receiver_->reserve(2048);
    const size_t length = std::min(places[0].iov_len, bytes.size());
    std::memcpy(places[0].iov_base, bytes.data(), length);
    EXPECT_TRUE(receiver_->commit({}, static_cast<uint32_t>(length), std::span(bytes).subspan(length)));
  }
  [[nodiscard]] bool is_open() const { return receiver_ != nullptr; }
  [[nodiscard]] bool offers_nothing() const {
    const Bytes bytes(100);
    const iovec piece{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
    return receiver_->reserve(2048).empty() && !receiver_->deliver({.length = 100, .pieces = {&piece, 1}});
  }
  bool has(const Bytes& bytes) {
    const std::scoped_lock lock(mutex_);
    return std::ranges::find(got_, bytes) != got_.end();
  }

 private:
  class In final : public Inlet {
    void resume() override {}
  };
  class Out final : public Outlet {
   public:
    explicit Out(Outside& outside) : outside_(outside) {}
    ~Out() override { EXPECT_TRUE(kept_.empty()); }
    Sent send(Frame& frame) override {
      EXPECT_EQ(frame.head.size(), std::min(frame.length, outside_.abilities_.head));
      {
        const std::scoped_lock lock(outside_.mutex_);
        outside_.got_.push_back(test::flat(frame));
      }
      if (!outside_.keeps_) return Sent::done;
      kept_.push_back(&frame);
      return Sent::later;
    }
    void drain() override {
      for (Frame* frame : std::exchange(kept_, {})) frame->done(*frame);
    }

   private:
    Outside& outside_;
    std::vector<Frame*> kept_;
  };

  const Abilities abilities_;
  const bool keeps_;
  Receiver* receiver_ = nullptr;
  std::mutex mutex_;
  std::vector<Bytes> got_;
};

class UplinkTest : public testing::TestWithParam<std::tuple<bool, uint32_t, bool>> {
 protected:
  UplinkTest() {
    const auto& [many, head, keeps] = GetParam();
    loops_.push_back(loop::testing::start_or_fail({}));
    if (many) loops_.push_back(loop::testing::start_or_fail({}));
    auto outside = std::make_unique<Outside>(head, keeps);
    outside_ = outside.get();
    const std::array<loop::Loop*, 1> on{loops_[0].get()};
    uplink_ = test::value_of(Uplink::open(switch_, std::move(outside), {}, on));
  }
  std::vector<std::unique_ptr<loop::Loop>> loops_;
  std::shared_ptr<Switch> switch_ = Switch::make({});
  Outside* outside_ = nullptr;
  std::unique_ptr<Uplink> uplink_;
};
INSTANTIATE_TEST_SUITE_P(Ports, UplinkTest,
                         testing::Combine(testing::Bool(), testing::Values(0U, 16U), testing::Bool()));

TEST_P(UplinkTest, frames_go_out_and_come_in) {
  Guest a(*switch_, *loops_.back(), 1);
  for (const size_t size : {20U, 100U, 3000U, 60000U}) {
    const Bytes out = a.frame_to(broadcast_mac, counting(size));
    a.queues.send(out);
    EXPECT_TRUE(eventually([&] { return outside_->has(out); })) << size;
    const Bytes in = test::ethernet(a.mac(), test::station_mac(99), counting(size, 5));
    loops_[0]->run([&] { outside_->say(in); });
    EXPECT_EQ(a.queues.next().bytes, in);
    const Bytes answer = a.frame_to(test::station_mac(99), counting(size, 9));
    a.queues.send(answer);
    EXPECT_TRUE(eventually([&] { return outside_->has(answer); })) << size;
  }
  a.queues.drain();
  EXPECT_TRUE(eventually([&] { return a.queues.under_way == 0; }));
}

TEST_P(UplinkTest, work_that_the_port_behind_does_not_take_is_done) {
  Guest a(*switch_, *loops_.back(), 1);
  auto built = test::build({.payload = 5000});
  built.offload.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
  built.offload.gso_size = 2000;
  a.queues.send(built.frame, built.offload);
  EXPECT_TRUE(eventually([&] { return uplink_->counters()[2].value == 3; })) << uplink_->counters()[2].name;
}

TEST_P(UplinkTest, while_it_stands_still_nothing_is_taken_from_the_port_behind) {
  Guest a(*switch_, *loops_.back(), 1);
  uplink_->stand_still();
  loops_[0]->run([&] { EXPECT_TRUE(outside_->offers_nothing()); });
  uplink_->go_on();
  const Bytes in = test::ethernet(a.mac(), test::station_mac(99), counting(100));
  loops_[0]->run([&] { outside_->say(in); });
  EXPECT_EQ(a.queues.next().bytes, in);
}

TEST(UplinkThatWaits, touches_nothing_of_the_port_behind_before_it_goes_on) {
  const auto loop = loop::testing::start_or_fail({});
  const auto fabric = Switch::make({});
  auto behind = std::make_unique<Outside>(0, false);
  Outside& outside = *behind;
  const std::array<loop::Loop*, 1> on{loop.get()};
  const auto uplink =
      test::value_of(Uplink::open(fabric, std::move(behind), {}, on, Uplink::Start::by_go_on));
  loop->run([&] { EXPECT_FALSE(outside.is_open()); });
  uplink->let_out();
  loop->run([&] { EXPECT_TRUE(outside.is_open() && outside.offers_nothing()); });
  uplink->go_on();
  loop->run([&] { EXPECT_FALSE(outside.offers_nothing()); });
}

TEST_P(UplinkTest, it_ends_while_guests_send) {
  Guest a(*switch_, *loops_.back(), 1);
  Guest b(*switch_, *loops_.front(), 2);
  for (int i = 0; i < 50; ++i) {
    a.queues.send(a.frame_to(broadcast_mac));
    b.queues.send(b.frame_to(test::station_mac(77)));
  }
  uplink_.reset();
  for (int i = 0; i < 50; ++i) a.send_to(b);
  EXPECT_TRUE(eventually([&] { return b.queues.received >= 50; }));
}

}  // namespace
}  // namespace ringway::port
