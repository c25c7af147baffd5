// Both halves of a ring against each other, in one thread.
#include "ringway/ring/ring.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <random>
#include <string>

#include "ringway/ring/rig_test.h"

namespace ringway::ring {
namespace {

using test::Guest;
using test::must;
using test::Rig;
using test::Shape;

std::string name_of(const Shape& shape) {
  std::string name = fmt::format("{}_{}_base{}{}", shape.format.packed ? "packed" : "split", shape.size,
                                 shape.base.avail, shape.base.avail_wrap ? "" : "b");
  if (shape.table_entries > 0) name += "_indirect";
  if (shape.format.event_idx) name += "_event";
  if (shape.format.in_order) name += "_inorder";
  if (shape.format.big_endian) name += "_bigendian";
  return name;
}

std::vector<Shape> all_shapes() {
  std::vector<Shape> shapes;
  for (const bool packed : {false, true}) {
    for (const uint32_t size : {1U, 2U, 7U, 256U, 32768U}) {
      if (!packed && size == 7) continue;
      for (unsigned bits = 0; bits < 16; ++bits) {
        const bool far =
            (bits & 8) != 0;  // packed: the last entry of an even lap; split: just before the index wraps
        Shape shape{.size = size};
        shape.format = {.packed = packed,
                        .indirect = (bits & 1) != 0,
                        .event_idx = (bits & 2) != 0,
                        .in_order = (bits & 4) != 0};
        shape.table_entries = shape.format.indirect ? 5 : 0;
        if (far && packed) {
          const auto last = static_cast<uint16_t>(size - 1);
          shape.base = {.avail = last, .used = last, .avail_wrap = false, .used_wrap = false};
        } else if (far) {
          shape.base = {.avail = 65533, .used = 65533};
        }
        shapes.push_back(shape);
        if (packed || size == 7) continue;
        shape.format.big_endian = true;
        if (size == 2 || size == 256) shapes.push_back(shape);
      }
    }
  }
  return shapes;
}

// A driver's request: its bytes lie cut up at random in a place of their own.
class Request {
 public:
  static constexpr uint32_t most = 64;  // bytes in each direction
  Request(Guest& guest, uint64_t place) : guest_(guest), place_(place) {}

  // New contents in at most `buffers` buffers, of which some are empty.
  void make(std::mt19937& random, uint32_t buffers, uint32_t serial) {
    out_.assign(random() % most, '\0');
    for (char& byte : out_) byte = static_cast<char>(random());
    const auto bytes_in = static_cast<uint32_t>(random() % most);
    const uint32_t count = 1 + random() % buffers;
    const uint32_t in_readable = random() % (count + 1);
    if (in_readable == 0) out_.clear();
    std::memset(guest_.at(place_), 0, 2UL * stride);
    readable = cut(random, place_, in_readable, static_cast<uint32_t>(out_.size()));
    writable = cut(random, place_ + stride, count - in_readable, in_readable == count ? 0 : bytes_in);
    fill();
    number = serial;
  }
  [[nodiscard]] std::string written() const { return text(writable); }
  [[nodiscard]] const std::string& out() const { return out_; }

  std::vector<Buffer> readable;
  std::vector<Buffer> writable;
  uint32_t number = 0;
  static constexpr uint64_t stride = 4 * most;

 private:
  // Buffers that hold `bytes` in all, with gaps between some of them.
  static std::vector<Buffer> cut(std::mt19937& random, uint64_t at, uint32_t count, uint32_t bytes) {
    std::vector<Buffer> buffers;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t length = i + 1 == count ? bytes : static_cast<uint32_t>(random() % (bytes + 1));
      buffers.push_back({{at}, length});
      at += length + (random() % 2) * (stride - 2 * most) / count;
      bytes -= length;
    }
    return buffers;
  }
  void fill() {
    const char* from = out_.data();
    for (const Buffer& buffer : readable) {
      std::memcpy(guest_.at(buffer.address.value), from, buffer.length);
      from += buffer.length;
    }
  }
  [[nodiscard]] std::string text(const std::vector<Buffer>& buffers) const {
    std::string all;
    for (const Buffer& buffer : buffers) {
      all.append(reinterpret_cast<const char*>(guest_.at(buffer.address.value)), buffer.length);
    }
    return all;
  }

  Guest& guest_;
  uint64_t place_;
  std::string out_;
};

std::string answer_to(const std::string& question, size_t length) {
  std::string answer(length, '\0');
  for (size_t i = 0; i < length; ++i) {
    answer[i] = static_cast<char>(i + 1 + (question.empty() ? 0 : question[i % question.size()]));
  }
  return answer;
}

class Traffic : public testing::TestWithParam<Shape> {};

// Random chains; the device ends them in random order.
TEST_P(Traffic, every_chain_arrives_whole_and_comes_back_once) {
  const Shape& shape = GetParam();
  const uint32_t together = std::min(shape.size, 40U);  // requests
  Guest guest(uint64_t{16} << 20);
  Rig rig(guest, shape);
  std::mt19937 random(shape.size + shape.base.avail);

  std::vector<Request> requests;
  for (uint32_t i = 0; i < together; ++i) requests.emplace_back(guest, guest.allocate(2 * Request::stride));
  std::vector<uint32_t> idle(together);
  for (uint32_t i = 0; i < together; ++i) idle[i] = i;
  std::vector<int> by_token(shape.size, -1);
  struct Answer {
    uint32_t written;
    std::string text;
  };
  std::vector<Answer> answers(shape.size);
  std::vector<Chain> held;
  std::deque<uint32_t> order;  // tokens as they were added
  uint32_t added = 0;
  uint32_t returned = 0;
  const uint32_t goal = 2000 + 3 * std::min(shape.size, 400U);
  for (uint32_t turn = 0; returned < goal; ++turn) {
    ASSERT_LT(turn, 1'000'000U) << "no progress";
    for (uint32_t burst = random() % 20; burst > 0 && !idle.empty() && added < goal; --burst) {
      Request& request = requests[idle.back()];
      request.make(random, std::min(shape.size, 7U), added);
      const auto token = rig.front.add(request.readable, request.writable);
      if (!token) break;
      ASSERT_LT(*token, shape.size);
      ASSERT_EQ(by_token[*token], -1) << "token in flight twice";
      by_token[*token] = static_cast<int>(idle.back());
      idle.pop_back();
      order.push_back(*token);
      ++added;
    }
    if (random() % 4 != 0) (void)rig.front.publish();
    for (uint32_t burst = random() % 20; burst > 0; --burst) {
      Chain chain = rig.device.pop();
      if (!chain) break;
      if (random() % 16 == 0) {
        rig.device.push_back(std::move(chain));
        continue;
      }
      ASSERT_GE(by_token[chain.index()], 0);
      Reader reader = chain.reader();
      std::string question(reader.remaining(), '\0');
      ASSERT_TRUE(reader.read(std::as_writable_bytes(std::span(question))));
      ASSERT_EQ(question, requests[by_token[chain.index()]].out());
      Writer writer = chain.writer();
      const std::string text = answer_to(question, random() % (writer.remaining() + 1));
      ASSERT_TRUE(writer.write(std::as_bytes(std::span(text))));
      answers[chain.index()] = {static_cast<uint32_t>(text.size()), text};
      held.push_back(std::move(chain));
    }
    std::ranges::shuffle(held, random);
    for (uint32_t burst = random() % 20; burst > 0 && !held.empty(); --burst) {
      const uint32_t written = answers[held.back().index()].written;
      rig.device.push_used(std::move(held.back()), written);
      held.pop_back();
    }
    if (random() % 4 != 0) (void)rig.device.publish();
    while (const auto used = rig.front.take_used()) {
      ASSERT_GE(by_token[used->token], 0) << "token came back twice";
      if (shape.format.in_order) {
        ASSERT_EQ(used->token, order.front());
        order.pop_front();
      }
      const Request& request = requests[by_token[used->token]];
      const Answer& answer = answers[used->token];
      ASSERT_FALSE(used->overlong);
      ASSERT_EQ(used->written, answer.written);
      ASSERT_EQ(request.written().substr(0, used->written), answer.text);
      ASSERT_TRUE(request.written().find_first_not_of('\0', used->written) == std::string::npos);
      idle.push_back(static_cast<uint32_t>(std::exchange(by_token[used->token], -1)));
      ++returned;
    }
  }
  EXPECT_EQ(rig.front.in_flight(), 0U);
  EXPECT_EQ(rig.device.in_flight(), 0U);
  EXPECT_EQ(rig.front.free_descriptors(), shape.size);
}

TEST_P(Traffic, a_full_ring_is_used_whole_lap_after_lap) {
  const Shape& shape = GetParam();
  Guest guest(uint64_t{16} << 20);
  Rig rig(guest, shape);
  const uint64_t place = guest.allocate(64);
  for (int lap = 0; lap < 5; ++lap) {
    for (uint32_t i = 0; i < shape.size; ++i) ASSERT_TRUE(rig.front.add({{{place}, 8}}, {}));
    ASSERT_FALSE(rig.front.add({{{place}, 8}}, {})) << "more than fit";
    EXPECT_FALSE(rig.device.pop()) << "seen before it was published";
    (void)rig.front.publish();
    std::vector<Chain> chains;
    while (Chain chain = rig.device.pop()) chains.push_back(std::move(chain));
    ASSERT_EQ(chains.size(), shape.size);
    EXPECT_EQ(rig.device.in_flight(), shape.size);
    for (Chain& chain : chains) rig.device.push_used(std::move(chain), 0);
    EXPECT_FALSE(rig.front.take_used()) << "seen before it was published";
    (void)rig.device.publish();
    uint32_t returned = 0;
    while (rig.front.take_used()) ++returned;
    ASSERT_EQ(returned, shape.size);
  }
}

TEST_P(Traffic, chains_in_which_nothing_was_written_come_back_together) {
  const Shape& shape = GetParam();
  Guest guest(uint64_t{16} << 20);
  Rig rig(guest, shape);
  std::minstd_rand random(7);
  const uint64_t place = guest.allocate(64);
  for (int lap = 0; lap < 60; ++lap) {
    std::deque<uint16_t> expected;
    const uint32_t count = 1 + random() % shape.size;
    const uint32_t odd_one = random() % (2 * count);  // could be written to, so nothing may skip it
    for (uint32_t i = 0; i < count && rig.front.free_descriptors() >= (i == odd_one ? 2 : 1); ++i) {
      const auto token = i == odd_one ? rig.front.add({{{place}, 8}}, {{{place + 32}, 8}})
                                      : rig.front.add({{{place}, 8}}, {});
      ASSERT_TRUE(token);
      expected.push_back(*token);
    }
    (void)rig.front.publish();
    std::vector<Chain> chains;
    while (Chain chain = rig.device.pop()) chains.push_back(std::move(chain));
    ASSERT_EQ(chains.size(), expected.size());
    const std::span<Chain> all(chains);
    const size_t first = random() % (all.size() + 1);
    if (random() % 2 == 0) {
      rig.device.push_used(all.first(first));
      if (random() % 2 == 0) (void)rig.device.publish();
      rig.device.push_used(all.subspan(first));
    } else {  // in order, these wait for the others
      rig.device.push_used(all.subspan(first));
      rig.device.push_used(all.first(first));
    }
    (void)rig.device.publish();
    std::vector<uint16_t> returned;
    while (const auto used = rig.front.take_used()) {
      EXPECT_EQ(used->written, 0U);
      returned.push_back(used->token);
    }
    if (!shape.format.in_order) {
      std::ranges::sort(returned);
      std::ranges::sort(expected);
    }
    ASSERT_TRUE(std::ranges::equal(returned, expected)) << lap;
  }
  EXPECT_EQ(rig.device.in_flight(), 0U);
  EXPECT_EQ(rig.front.free_descriptors(), shape.size);
}

TEST_P(Traffic, one_chain_takes_the_whole_ring) {
  const Shape& shape = GetParam();
  Guest guest(uint64_t{16} << 20);
  Rig rig(guest, shape);
  // Every second one is writable and none touches the next, so that none are merged.
  const uint32_t readable = shape.size / 2;
  const uint64_t place = guest.allocate(uint64_t{shape.size} * 2);
  for (int lap = 0; lap < 3; ++lap) {
    std::vector<Buffer> out;
    std::vector<Buffer> in;
    for (uint32_t i = 0; i < shape.size; ++i) (i < readable ? out : in).push_back({{place + 2 * i}, 1});
    const bool direct = shape.size == 1 || shape.size > shape.table_entries;
    ASSERT_TRUE(rig.front.add(out, in));
    EXPECT_EQ(rig.front.free_descriptors(), direct ? 0U : shape.size - 1);
    (void)rig.front.publish();
    Chain chain = rig.device.pop();
    ASSERT_TRUE(chain);
    EXPECT_EQ(chain.reader().pieces().size(), readable);
    EXPECT_EQ(chain.writer().pieces().size(), shape.size - readable);
    rig.device.push_used(std::move(chain), shape.size - readable);
    (void)rig.device.publish();
    const auto used = rig.front.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, shape.size - readable);
  }
}

TEST_P(Traffic, a_restart_at_the_base_loses_and_repeats_nothing) {
  const Shape& shape = GetParam();
  Guest guest(uint64_t{16} << 20);
  Rig rig(guest, shape);
  const uint64_t place = guest.allocate(uint64_t{64} * 64);
  uint32_t added = 0;
  uint32_t popped = 0;
  for (int round = 0; round < 40; ++round) {
    // Each chain is as long as its number says, so a lost or repeated one shows.
    while (added - popped < std::min(shape.size, 20U)) {
      if (!rig.front.add({{{place}, 1 + added % 64}}, {})) break;
      ++added;
    }
    (void)rig.front.publish();
    // Several at once, and never more than were asked for.
    std::array<Chain, 3> chains;
    const std::span wanted = std::span(chains).first(std::min(shape.size, 3U));
    for (size_t count = 0; count < wanted.size();) {
      const size_t more = must(rig.device.pop(wanted.subspan(count)));
      ASSERT_GT(more, 0U);
      count += more;
    }
    for (Chain& chain : wanted) {
      EXPECT_EQ(chain.reader().remaining(), 1 + popped % 64);
      ++popped;
      rig.device.push_used(std::move(chain), 0);
    }
    (void)rig.device.publish();
    while (rig.front.take_used()) {
    }
    RingConfig config = rig.device.stop();
    config.base = RingBase::from_wire(config.base.to_wire(shape.format.packed), shape.format.packed);
    rig.device = test::Device(must(start(std::move(config), guest.view())));
  }
}

INSTANTIATE_TEST_SUITE_P(all, Traffic, testing::ValuesIn(all_shapes()),
                         [](const auto& test) { return name_of(test.param); });

}  // namespace
}  // namespace ringway::ring
