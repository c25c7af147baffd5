// A network device whose back-end dies, and what the next one does again. vhost-user "Inflight I/O tracking",
// docs/operations.md.
#include "ringway/device/net/rig_test.h"
#include "ringway/tools/net_machine_test.h"

namespace ringway::tools {
namespace {

using loop::testing::eventually;
using net::test::TestPort;

struct Kind {
  NetShape shape;
  bool tracked = false;  // there is an in-flight area
};

class NetCrash : public testing::TestWithParam<Kind> {
 protected:
  std::unique_ptr<port::Port> new_port(bool holds) {
    auto port = std::make_unique<TestPort>();
    port->hold_ = holds;
    port_ = port.get();
    return port;
  }
  void start(bool holds) {
    machine_.emplace(GetParam().shape, *workers_, new_port(holds), 7);
    if (GetParam().tracked) machine_->track();
    machine_->start();
  }
  // Waits until the port has been sent so many frames, and says which.
  std::vector<Bytes> sent(size_t count) {
    std::vector<Bytes> frames;
    EXPECT_TRUE(eventually([&] {
      frames.clear();
      worker().run([&] {
        for (const TestPort::Sent& one : port_->sent_) frames.push_back(one.bytes);
      });
      return frames.size() >= count;
    }));
    return frames;
  }
  // The port is done with one of those that it holds.
  void end(size_t which) {
    worker().run([&] {
      port::Frame* const frame = port_->held_.at(which);
      port_->held_.erase(port_->held_.begin() + static_cast<ptrdiff_t>(which));
      frame->done(*frame);
    });
  }
  // Waits until there are buffers for it.
  bool arrives(const Bytes& frame) {
    const iovec piece{.iov_base = const_cast<std::byte*>(frame.data()), .iov_len = frame.size()};
    return eventually([&] {
      bool is_taken = false;
      worker().run([&] {
        const auto receiver = port_->receivers_.find(0);
        is_taken =
            receiver != port_->receivers_.end() &&
            receiver->second->deliver({.length = static_cast<uint32_t>(frame.size()), .pieces = {&piece, 1}});
      });
      return is_taken;
    });
  }
  Bytes any_frame() { return machine_->frame_to(machine_->mac(), 60 + machine_->below(1400)); }
  loop::Loop& worker() { return workers_->worker(0); }

  std::unique_ptr<engine::Workers> workers_ = *engine::Workers::start({.count = 1});
  TestPort* port_ = nullptr;
  std::optional<NetMachine> machine_;
};

TEST_P(NetCrash, frames_that_were_taken_and_did_not_come_back_are_sent_again_in_order_and_nothing_else) {
  start(true);
  std::vector<Bytes> frames;
  for (int i = 0; i < 6; ++i) machine_->send(frames.emplace_back(any_frame()));
  EXPECT_EQ(sent(6), frames);
  end(3);  // and is not shown to the driver before the first three are
  end(0);
  end(0);
  ASSERT_TRUE(machine_->are_sent(2));
  const std::vector<Bytes> left(frames.begin() + 2, frames.end());
  machine_->crash(new_port(true));
  EXPECT_EQ(sent(4), left);
  end(0);
  ASSERT_TRUE(machine_->are_sent(1));
  machine_->crash(new_port(false));
  EXPECT_EQ(sent(3), std::vector<Bytes>(left.begin() + 1, left.end()));
  ASSERT_TRUE(machine_->are_sent(3));
  for (int i = 0; i < 100; ++i) {
    machine_->send(any_frame());
    ASSERT_TRUE(machine_->are_sent(1));
  }
}

TEST_P(NetCrash, receive_buffers_are_used_on_and_what_was_received_is_not_received_again) {
  start(false);
  for (int life = 0; life < 5; ++life) {
    std::vector<Bytes> frames;
    for (int i = 0; i < 8; ++i) frames.push_back(any_frame());
    frames.resize(machine_->fitting(frames));
    const size_t before = frames.size() / 2;
    for (size_t i = 0; i < before; ++i) ASSERT_TRUE(arrives(frames[i]));
    machine_->crash(new_port(false));
    for (size_t i = before; i < frames.size(); ++i) ASSERT_TRUE(arrives(frames[i]));
    for (const Bytes& frame : frames) ASSERT_EQ(machine_->next(), frame);
    machine_->refill();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, NetCrash,
    testing::Values(Kind{.shape = {.name = "split"}, .tracked = true},
                    Kind{.shape = {.name = "split_mergeable_indirect", .indirect = true, .mergeable = true},
                         .tracked = true},
                    Kind{.shape = {.name = "packed", .packed = true}, .tracked = true},
                    Kind{.shape = {.name = "packed_mergeable_indirect",
                                   .packed = true,
                                   .indirect = true,
                                   .mergeable = true},
                         .tracked = true},
                    // All that QEMU does for networks.
                    Kind{.shape = {.name = "split_untracked", .mergeable = true}}),
    [](const auto& kind) { return std::string(kind.param.shape.name); });

}  // namespace
}  // namespace ringway::tools
