#include "ringway/device/port/loop.h"

#include <gtest/gtest.h>

#include "ringway/device/port/receiver_test.h"
#include "ringway/loop/loop_testing.h"

namespace ringway::port {
namespace {

using test::broadcast;
using test::Bytes;
using test::TestReceiver;

TEST(LoopPort, what_finds_no_buffer_is_dropped_and_what_follows_is_not) {
  // Has a buffer for every other frame.
  struct Every : TestReceiver {
    bool deliver(const Frame& frame) override {
      room_ = asked_++ % 2;
      return TestReceiver::deliver(frame);
    }
    unsigned asked_ = 0;
  } receiver;
  const auto loop = loop::testing::start_or_fail({});
  const auto port = open_loop();
  std::vector<Bytes> bytes;
  for (uint8_t i = 0; i < 10; ++i) bytes.push_back(broadcast(60, i));
  std::vector<Frame> frames;
  for (const Bytes& one : bytes) frames.push_back({.length = 60, .head = one});
  std::vector<Frame*> batch;
  for (Frame& frame : frames) batch.push_back(&frame);
  std::vector<Outlet::Sent> sent(batch.size(), Outlet::Sent::later);
  const std::vector<Outlet::Sent> all_done(batch.size(), Outlet::Sent::done);
  loop->run([&] {
    const auto outlet = port->open_outlet(*loop, 0);
    outlet->send_batch(batch, sent);
    EXPECT_EQ(sent, all_done) << "nobody receives";
    const auto inlet = port->open_inlet(*loop, 0, receiver);
    outlet->send_batch(batch, sent);
  });
  EXPECT_EQ(sent, all_done);
  ASSERT_EQ(receiver.arrived_.size(), 5U);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(receiver.arrived_[i].bytes, bytes[2 * i + 1]);
  EXPECT_EQ(port->counters().at(0).value, 10U + 5);
}

}  // namespace
}  // namespace ringway::port
