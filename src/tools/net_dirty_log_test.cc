// The dirty log of network devices: what is marked is what was written. vhost-user "Migration".
#include "ringway/device/net/rig_test.h"
#include "ringway/device/port/switch.h"
#include "ringway/tools/net_machine_test.h"

namespace ringway::tools {
namespace {

// One machine and its log. What is compared is what happens from note() to judge(), both while all is idle.
class Logged {
 public:
  explicit Logged(NetMachine& machine) : machine_(machine) {}
  void note() {
    machine_.take_marks();
    machine_.take_used_pages();
    before_ = machine_.snapshot();
  }
  // Every page that changed is marked, and of the others those of buffers that were used, where the device
  // could have written more. How many pages changed.
  size_t judge() {
    const Pages changed = machine_.changed_since(before_);
    const Pages marked = machine_.take_marks();
    EXPECT_TRUE(std::ranges::includes(marked, changed)) << "changed and not marked";
    EXPECT_EQ(machine_.data_pages(marked), machine_.take_used_pages());
    return machine_.data_pages(changed).size();
  }

 private:
  NetMachine& machine_;
  Bytes before_;
};

class NetDirtyLog : public testing::TestWithParam<NetShape> {
 protected:
  static constexpr int rounds = 30;
  std::unique_ptr<engine::Workers> workers_ = *engine::Workers::start({.count = GetParam().workers});
};

TEST_P(NetDirtyLog, N051_what_another_device_sends_marks_the_receivers_pages_and_none_of_the_senders) {
  const auto fabric = port::Switch::make({});
  NetMachine a(GetParam(), *workers_, fabric->plug({}).value(), 1);
  NetMachine b(GetParam(), *workers_, fabric->plug({}).value(), 2);
  for (NetMachine* machine : {&a, &b}) {
    machine->start();
    machine->set_log();
  }
  net::Mac everybody;
  everybody.fill(std::byte{0xff});
  const Bytes greeting = b.frame_to(everybody, 60);
  b.send(greeting);
  ASSERT_TRUE(b.are_sent(1));
  ASSERT_EQ(a.next(), greeting);
  Logged log(b);
  size_t most = 0;
  for (int round = 0; round < rounds; ++round) {
    while_idle(*workers_, [&] {
      a.refill();
      b.refill();
      a.take_marks();
      log.note();
    });
    std::vector<Bytes> frames;
    for (uint32_t i = 0; i < NetMachine::slots; ++i)
      frames.push_back(
          a.frame_to(a.below(5) == 0 ? everybody : b.mac(), 60 + a.below(NetMachine::longest - 59)));
    frames.resize(b.fitting(frames));
    for (const Bytes& frame : frames) a.send(frame);
    for (const Bytes& frame : frames) ASSERT_EQ(b.next(), frame);
    ASSERT_TRUE(a.are_sent(frames.size()));
    while_idle(*workers_, [&] {
      EXPECT_EQ(a.data_pages(a.take_marks()), Pages());
      most = std::max(most, log.judge());
    });
  }
  EXPECT_GT(most, 5U);
}

// As a switch, a file or a socket delivers, and as a tap does.
TEST_P(NetDirtyLog, N051_what_a_port_copies_or_reads_into_the_buffers_is_marked) {
  workers_ = *engine::Workers::start({.count = 1});
  loop::Loop& worker = workers_->worker(0);
  auto* const port = new net::test::TestPort;
  NetMachine machine(GetParam(), *workers_, std::unique_ptr<port::Port>(port), 3);
  machine.start();
  machine.set_log();
  // All buffers, where frames may lie in several.
  const auto has_buffers = [&] {
    uint64_t bytes = NetMachine::header;
    worker.run([&] {
      for (const iovec& place : port->receivers_.at(0)->reserve(UINT32_MAX)) bytes += place.iov_len;
    });
    return GetParam().mergeable ? bytes == machine.room() : bytes > NetMachine::header;
  };
  const auto deliver = [&](const Bytes& frame) {
    const iovec piece{.iov_base = const_cast<std::byte*>(frame.data()), .iov_len = frame.size()};
    return port->receivers_.at(0)->deliver(
        {.length = static_cast<uint32_t>(frame.size()), .pieces = {&piece, 1}});
  };
  // Of which all but the first `bytes` did not fit where the port could read to.
  const auto read_in = [&](const Bytes& frame, size_t bytes) {
    size_t done = 0;
    for (const iovec& place : port->receivers_.at(0)->reserve(static_cast<uint32_t>(bytes))) {
      std::memcpy(place.iov_base, frame.data() + done, place.iov_len);
      done += place.iov_len;
    }
    return port->receivers_.at(0)->commit({}, static_cast<uint32_t>(done), std::span(frame).subspan(done));
  };
  Logged log(machine);
  for (int round = 0; round < rounds; ++round) {
    while_idle(*workers_, [&] {
      machine.refill();
      log.note();
    });
    std::vector<Bytes> frames;
    for (uint32_t i = 0; i < NetMachine::slots; ++i)
      frames.push_back(machine.frame_to(machine.mac(), 60 + machine.below(NetMachine::longest - 59)));
    frames.resize(machine.fitting(frames));
    ASSERT_TRUE(loop::testing::eventually(has_buffers));
    worker.run([&] {
      for (const Bytes& frame : frames) {
        EXPECT_TRUE(machine.below(2) == 0 ? deliver(frame) : read_in(frame, machine.below(frame.size()) + 1));
      }
    });
    for (const Bytes& frame : frames) ASSERT_EQ(machine.next(), frame);
    while_idle(*workers_, [&] { EXPECT_GT(log.judge(), 0U); });
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, NetDirtyLog,
    testing::Values(NetShape{.name = "split"}, NetShape{.name = "split_many_workers", .workers = 2},
                    NetShape{.name = "split_mergeable", .mergeable = true},
                    NetShape{.name = "split_indirect_mergeable_many_workers",
                             .indirect = true,
                             .mergeable = true,
                             .workers = 2},
                    NetShape{.name = "split_iommu_mergeable_many_workers",
                             .iommu = true,
                             .mergeable = true,
                             .workers = 2},
                    NetShape{.name = "packed", .packed = true},
                    NetShape{.name = "packed_many_workers", .packed = true, .workers = 2},
                    NetShape{.name = "packed_mergeable", .packed = true, .mergeable = true},
                    NetShape{.name = "packed_indirect_mergeable_many_workers",
                             .packed = true,
                             .indirect = true,
                             .mergeable = true,
                             .workers = 2},
                    NetShape{.name = "packed_iommu_indirect_mergeable",
                             .packed = true,
                             .indirect = true,
                             .iommu = true,
                             .mergeable = true}),
    [](const auto& shape) { return std::string(shape.param.name); });

}  // namespace
}  // namespace ringway::tools
