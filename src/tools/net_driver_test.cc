// The driver half of a network device against an honest device, and against one that lies.
#include "ringway/tools/net_driver.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "ringway/memory/map.h"
#include "ringway/ring/ring.h"

namespace ringway::tools {
namespace {

// The device's half of a ring.
class Device {
 public:
  Device(const NetRing& driver, const GuestMemory& memory) {
    const uint32_t size = driver.options().ring_size;
    const ring::Format format = driver.options().format;
    const auto region = memory::Region::open(memory.layout(), std::move(*memory.file()));
    const auto map = *memory::Map::of({*region});
    const auto window = [&](memory::GuestAddress address, uint64_t bytes) {
      memory::Translation failure;
      return *memory::Window::open(memory::View(map), address, bytes, memory::Access::read_write, failure);
    };
    ring::RingConfig config{.size = size, .format = format};
    config.desc = window(driver.addresses().desc, ring::RingConfig::desc_bytes(size, format));
    config.driver = window(driver.addresses().driver, ring::RingConfig::driver_bytes(size, format));
    config.device = window(driver.addresses().device, ring::RingConfig::device_bytes(size, format));
    ring_.emplace(*ring::start(std::move(config), memory::View(map)));
  }

  // Takes what was transmitted.
  std::vector<std::string> take_all() {
    std::vector<std::string> frames;
    while (ring::Chain chain = pop()) {
      ring::Reader reader = chain.reader();
      std::string bytes(reader.remaining(), '\0');
      EXPECT_TRUE(reader.read(std::as_writable_bytes(std::span(bytes))));
      frames.push_back(bytes.substr(net_header_bytes));
      push(std::move(chain), 0);
    }
    publish();
    return frames;
  }
  // Writes into the next buffer; `claimed` bytes are said to be used.
  void put(const std::string& bytes, uint32_t claimed) {
    ring::Chain chain = pop();
    ASSERT_TRUE(chain);
    EXPECT_TRUE(chain.writer().write(std::as_bytes(std::span(bytes))));
    push(std::move(chain), claimed);
  }
  void put(const std::string& bytes) { put(bytes, static_cast<uint32_t>(bytes.size())); }
  void publish() {
    std::visit([](auto& ring) { (void)ring.publish(); }, *ring_);
  }
  // Receive buffers that the device has.
  [[nodiscard]] size_t buffers() {
    std::vector<ring::Chain> chains;
    while (ring::Chain chain = pop()) chains.push_back(std::move(chain));
    const size_t count = chains.size();
    for (; !chains.empty(); chains.pop_back()) {
      std::visit([&](auto& ring) { ring.push_back(std::move(chains.back())); }, *ring_);
    }
    return count;
  }

 private:
  ring::Chain pop() {
    return *std::visit([](auto& ring) { return ring.pop(); }, *ring_);
  }
  void push(ring::Chain chain, uint32_t claimed) {
    std::visit([&](auto& ring) { ring.push_used(std::move(chain), claimed); }, *ring_);
  }
  std::optional<ring::Ring> ring_;
};

// A header that says so many buffers, and a frame of so many bytes.
std::string received(uint16_t buffers, const std::string& frame) {
  port::Header header;
  header.num_buffers = buffers;
  std::string bytes(net_header_bytes, '\0');
  std::memcpy(bytes.data(), &header, bytes.size());
  return bytes + frame;
}

struct Kind {
  const char* name;
  ring::Format format;
  bool own_header = false;
};

class NetDriver : public testing::TestWithParam<Kind> {
 protected:
  static constexpr uint32_t ring_size = 16;
  static constexpr uint32_t buffer_bytes = 128;

  NetDriver()
      : memory(*GuestMemory::make(1 << 20)),
        transmitter(*Transmitter::make(options(), memory)),
        receiver(*Receiver::make(options(), true, memory)),
        transmitting(transmitter, memory),
        receiving(receiver, memory) {
    receiver.refill();
    receiver.publish();
  }
  static NetRingOptions options() {
    return {.ring_size = ring_size,
            .format = GetParam().format,
            .buffer_bytes = buffer_bytes,
            .own_header = GetParam().own_header};
  }
  static uint32_t frames_in_ring() { return ring_size / options().descriptors(); }

  uint32_t send(const std::string& frame, uint32_t most) {
    const uint32_t sent = transmitter.send(most, [&](uint16_t token) {
      const auto to = transmitter.buffer(token);
      std::memset(to.data(), 0, net_header_bytes);
      std::memcpy(to.data() + net_header_bytes, frame.data(), frame.size());
      return static_cast<uint32_t>(net_header_bytes + frame.size());
    });
    transmitter.publish();
    return sent;
  }
  // Frames that have come, and whether that went well.
  Result<std::vector<std::string>> receive(uint32_t most = 100) {
    std::vector<std::string> frames;
    TRY(receiver.receive(most, [&](const Received& frame) {
      std::string bytes(4096, '\0');
      bytes.resize(receiver.copy(frame, std::as_writable_bytes(std::span(bytes))));
      EXPECT_EQ(bytes.size(), frame.bytes + net_header_bytes);
      frames.push_back(bytes.substr(net_header_bytes));
    }));
    return frames;
  }
  std::string failure() {
    const auto frames = receive();
    return frames ? "none" : frames.error().what;
  }

  GuestMemory memory;
  Transmitter transmitter;
  Receiver receiver;
  Device transmitting;
  Device receiving;
};

TEST_P(NetDriver, frames_are_transmitted_and_their_buffers_come_back) {
  for (int turn = 0; turn < 40; ++turn) {
    const std::string frame = "frame " + std::to_string(turn);
    EXPECT_EQ(send(frame, 3), 3U);
    EXPECT_EQ(transmitter.in_flight(), 3U);
    EXPECT_EQ(*transmitter.reclaim(100), 0U);
    EXPECT_EQ(transmitting.take_all(), std::vector<std::string>(3, frame));
    EXPECT_EQ(*transmitter.reclaim(2), 2U);
    EXPECT_EQ(*transmitter.reclaim(100), 1U);
  }
}

TEST_P(NetDriver, a_full_ring_takes_no_more) {
  EXPECT_EQ(send("x", 100), frames_in_ring());
  EXPECT_EQ(send("y", 100), 0U);
  EXPECT_EQ(transmitting.take_all().size(), frames_in_ring());
  EXPECT_EQ(*transmitter.reclaim(100), frames_in_ring());
  EXPECT_EQ(send("z", 100), frames_in_ring());
}

TEST_P(NetDriver, what_was_written_once_is_sent_again) {
  EXPECT_EQ(send("same", 100), frames_in_ring());
  for (int turn = 0; turn < 5; ++turn) {
    EXPECT_EQ(transmitting.take_all(), std::vector<std::string>(frames_in_ring(), "same"));
    EXPECT_EQ(*transmitter.reclaim(100), frames_in_ring());
    EXPECT_EQ(transmitter.send(100, [](uint16_t) { return net_header_bytes + 4; }), frames_in_ring());
    transmitter.publish();
  }
}

TEST_P(NetDriver, frames_are_received_and_buffers_given_again) {
  EXPECT_EQ(receiving.buffers(), frames_in_ring());
  for (int turn = 0; turn < 40; ++turn) {
    receiving.put(received(1, "one"));
    receiving.put(received(1, "two"));
    receiving.publish();
    EXPECT_EQ(*receive(), (std::vector<std::string>{"one", "two"}));
    receiver.refill();
    receiver.publish();
    EXPECT_EQ(receiving.buffers(), frames_in_ring());
  }
}

TEST_P(NetDriver, a_merged_frame_is_put_together_also_when_no_more_are_wanted) {
  const std::string begin(buffer_bytes - net_header_bytes, 'a');
  receiving.put(received(1, "alone"));
  receiving.put(received(3, begin));
  receiving.put(std::string(buffer_bytes, 'b'));
  receiving.put("end");
  receiving.publish();
  EXPECT_EQ(*receive(1), (std::vector<std::string>{"alone", begin + std::string(buffer_bytes, 'b') + "end"}));
}

TEST_P(NetDriver, a_frame_without_bytes_breaks_the_ring) {
  receiving.put(received(1, ""));
  receiving.publish();
  EXPECT_EQ(failure(), "a received frame has no bytes");
}

TEST_P(NetDriver, num_buffers_is_judged) {
  for (const uint16_t lie : {uint16_t{0}, static_cast<uint16_t>(ring_size + 1), uint16_t{0xffff}}) {
    receiving.put(received(lie, "frame"));
    receiving.publish();
    EXPECT_EQ(failure(), "num_buffers makes no sense");
  }
}

TEST_P(NetDriver, a_merged_frame_that_is_not_all_there_breaks_the_ring) {
  receiving.put(received(2, std::string(buffer_bytes - net_header_bytes, 'a')));
  receiving.publish();
  EXPECT_EQ(failure(), "a merged frame is not used as a whole");
}

TEST_P(NetDriver, a_merged_frame_with_a_hole_breaks_the_ring) {
  receiving.put(received(2, "short"));
  receiving.put("end");
  receiving.publish();
  EXPECT_EQ(failure(), "a buffer of a merged frame is not full");
}

TEST_P(NetDriver, more_bytes_than_a_buffer_has_break_the_ring) {
  receiving.put(received(1, "frame"), buffer_bytes + 1);
  receiving.publish();
  EXPECT_EQ(failure(), "a receive buffer has not so many bytes");
}

TEST(NetRingOptions, buffers_begin_in_different_sets_of_a_cache) {
  for (const uint32_t bytes : {76U, 1530U, 2048U, 65562U}) {
    const NetRingOptions options{.ring_size = 256, .buffer_bytes = bytes};
    EXPECT_GE(options.stride(), bytes);
    EXPECT_EQ(options.stride() / 64 % 2, 1U);
    EXPECT_EQ(options.stride() % 64, 0U);
  }
}

INSTANTIATE_TEST_SUITE_P(kinds, NetDriver,
                         testing::Values(Kind{"split", {.event_idx = true}},
                                         Kind{"split_in_order", {.in_order = true}},
                                         Kind{"split_own_header", {}, true},
                                         Kind{"split_indirect", {.indirect = true}, true},
                                         Kind{"packed", {.packed = true, .event_idx = true}},
                                         Kind{"packed_in_order", {.packed = true, .in_order = true}},
                                         Kind{"packed_own_header", {.packed = true}, true},
                                         Kind{"packed_indirect", {.packed = true, .indirect = true}, true}),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace ringway::tools
