// A driver and a device on two threads that sleep whenever there is nothing to do. A lost notification is a
// hang, which a timeout turns into a failure.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <random>
#include <thread>

#include "ringway/base/notifier.h"
#include "ringway/ring/rig_test.h"

namespace ringway::ring {
namespace {

using test::Device;
using test::Front;
using test::Guest;
using test::Rig;
using test::Shape;

// One direction's notifications. The two ends belong to two threads.
class Bell {
 public:
  Bell() {
    UniqueFd fd = test::must(make_eventfd());
    ring_ = test::must(Notifier::adopt(test::must(fd.duplicate())));
    hear_ = test::must(Signal::adopt(std::move(fd)));
  }
  void ring() const { ring_.signal(); }
  // False: nobody rang for far too long.
  [[nodiscard]] bool wait() const {
    pollfd entry{.fd = hear_.fd(), .events = POLLIN};
    const bool rang = ::poll(&entry, 1, 20'000) == 1;
    (void)hear_.take();
    return rang;
  }

 private:
  Notifier ring_;
  Signal hear_;
};

struct Traffic {
  uint32_t chains;
  const Buffer question;
  const Buffer answer;
  Bell kick;
  Bell call;
  std::atomic<bool> failed = false;
};

// Uses every chain with the number that it finds in it, plus one.
void serve(Device& device, Traffic& traffic) {
  std::mt19937 random(1);
  uint32_t served = 0;
  bool awake = true;
  device.disable_kicks();
  while (served < traffic.chains) {
    uint32_t burst = 0;
    const uint32_t most = 1 + random() % 8;
    while (burst < most) {
      Chain chain = device.pop();
      if (!chain) break;
      uint32_t question = 0;
      if (!chain.reader().read(question) || !chain.writer().write(question + 1)) traffic.failed = true;
      device.push_used(std::move(chain), 4);
      ++burst;
    }
    served += burst;
    if (device.publish()) traffic.call.ring();
    if (burst > 0 || served == traffic.chains) continue;
    awake = device.enable_kicks();
    if (!awake && !traffic.kick.wait()) {
      ADD_FAILURE() << "the device slept through chain " << served;
      traffic.failed = true;
    }
    device.disable_kicks();
    if (traffic.failed) break;
  }
}

// Each token has a question and an answer of its own.
void drive(Front& front, const Guest& guest, Traffic& traffic, uint32_t at_once) {
  std::mt19937 random(2);
  std::vector<uint32_t> asked(at_once, 0);
  std::vector<uint32_t> idle;
  for (uint32_t i = 0; i < at_once; ++i) idle.push_back(i);
  std::vector<uint32_t> slot_of(65536, 0);
  uint32_t added = 0;
  uint32_t returned = 0;
  const auto place = [](const Buffer& first, uint32_t slot) {
    return Buffer{{first.address.value + 64 * slot}, 4};
  };
  front.disable_calls();
  while (returned < traffic.chains && !traffic.failed) {
    bool worked = false;
    for (uint32_t burst = random() % 8; burst > 0 && added < traffic.chains && !idle.empty(); --burst) {
      const uint32_t slot = idle.back();
      asked[slot] = static_cast<uint32_t>(random());
      memory::store<uint32_t>(guest.at(place(traffic.question, slot).address.value), asked[slot]);
      const auto token = front.add({place(traffic.question, slot)}, {place(traffic.answer, slot)});
      if (!token) break;
      slot_of[*token] = slot;
      idle.pop_back();
      ++added;
      worked = true;
    }
    if (front.publish()) traffic.kick.ring();
    while (const auto used = front.take_used()) {
      const uint32_t slot = slot_of[used->token];
      const auto answer = memory::load<uint32_t>(guest.at(place(traffic.answer, slot).address.value));
      if (answer != asked[slot] + 1 || used->written != 4) traffic.failed = true;
      idle.push_back(slot);
      ++returned;
      worked = true;
    }
    if (worked || returned == traffic.chains ||
        (added < traffic.chains && !idle.empty() && front.free_descriptors() > 1)) {
      continue;
    }
    if (!front.enable_calls() && !traffic.call.wait()) {
      ADD_FAILURE() << "the driver slept through chain " << returned;
      traffic.failed = true;
    }
    front.disable_calls();
  }
}

class Stress : public testing::TestWithParam<Shape> {};

TEST_P(Stress, no_notification_is_lost) {
  Guest guest(uint64_t{1} << 20);
  Rig rig(guest, GetParam());
  const uint32_t at_once = std::min(GetParam().size, 32U);
  Traffic traffic{.chains = 60'000,
                  .question = {{guest.allocate(64 * at_once)}, 4},
                  .answer = {{guest.allocate(64 * at_once)}, 4}};
  std::thread device([&] { serve(rig.device, traffic); });
  drive(rig.front, guest, traffic, at_once);
  device.join();
  EXPECT_FALSE(traffic.failed);
  EXPECT_EQ(rig.device.in_flight(), 0U);
  EXPECT_EQ(rig.front.in_flight(), 0U);
}

std::vector<Shape> stress_shapes() {
  std::vector<Shape> shapes;
  for (const bool packed : {false, true}) {
    for (const bool event_idx : {false, true}) {
      for (const uint32_t size : {packed ? 3U : 2U, 16U, 256U}) {
        Shape shape{.size = size, .format = {.packed = packed, .event_idx = event_idx}};
        shape.format.in_order = size == 16;
        shape.format.indirect = size == 256;
        shape.table_entries = size == 256 ? 4 : 0;
        shapes.push_back(shape);
      }
    }
  }
  return shapes;
}

INSTANTIATE_TEST_SUITE_P(all, Stress, testing::ValuesIn(stress_shapes()), [](const auto& test) {
  const Shape& shape = test.param;
  return fmt::format("{}_{}{}", shape.format.packed ? "packed" : "split", shape.size,
                     shape.format.event_idx ? "_event" : "");
});

}  // namespace
}  // namespace ringway::ring
