// docs/robustness.md, part B 2.3: what is in a ring, and where it lies, while it runs.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <thread>

#include "ringway/check/hostile_inputs.h"

namespace ringway::check {
namespace {

constexpr uint16_t next_flag = 1;
constexpr uint16_t write_flag = 2;
constexpr uint16_t indirect_flag = 4;
constexpr uint64_t nowhere = uint64_t{3} << 50;
constexpr milliseconds for_the_device{60};

// A split ring of a rig, written as it should not be.
class RawRing {
 public:
  explicit RawRing(Rig& rig) : rig_(rig), at_(rig.ring().config.layout()), area_(rig.ring().config.area) {}

  void descriptor(uint16_t index, uint64_t address, uint32_t length, uint16_t flags, uint16_t next) {
    std::byte* to = area_ + at_.desc + index * 16;
    std::memcpy(to, &address, 8);
    std::memcpy(to + 8, &length, 4);
    std::memcpy(to + 12, &flags, 2);
    std::memcpy(to + 14, &next, 2);
  }
  void head(uint16_t place, uint16_t index) { std::memcpy(area_ + at_.driver + 4 + place * 2, &index, 2); }
  void index(uint16_t value) { std::memcpy(area_ + at_.driver + 2, &value, 2); }
  [[nodiscard]] uint64_t slot() const { return rig_.memory().guest(Rig::slots_at).value; }
  [[nodiscard]] std::byte* slot_bytes() const { return rig_.memory().at(Rig::slots_at); }

 private:
  Rig& rig_;
  const ring::DriverLayout at_;
  std::byte* area_;
};

using Spoil = std::function<void(RawRing&)>;

// A ring that runs, over the assault's connection; then it is spoilt and kicked.
HostileInput ring_input(const char* number, const char* what, Spoil spoil) {
  return {number, fmt::format("a ring with {}", what), [spoil = std::move(spoil)](Assault& a) -> Or<> {
            Rig* rig = TRY(a.trial.rig_over(a.wire));
            TRY(rig->set_up());
            TRY(rig->serves(rig->ring()));
            RawRing raw(*rig);
            spoil(raw);
            rig->ring().kick->signal();
            std::this_thread::sleep_for(for_the_device);
            return {};
          }};
}

// One chain at the second place, which is next.
void offer(RawRing& ring, uint16_t head) {
  ring.head(1, head);
  ring.index(2);
}

std::vector<HostileInput> contents() {
  std::vector<HostileInput> all;
  all.push_back(ring_input("A.1.2.9", "a head that is no descriptor", [](RawRing& r) { offer(r, 0xffff); }));
  all.push_back(ring_input("H175", "a chain that points to itself", [](RawRing& r) {
    r.descriptor(0, r.slot(), 16, next_flag, 0);
    offer(r, 0);
  }));
  all.push_back(ring_input("H175", "a chain that loops", [](RawRing& r) {
    for (uint16_t i = 0; i < Rig::usual_size; ++i)
      r.descriptor(i, r.slot(), 16, next_flag, static_cast<uint16_t>((i + 1) % Rig::usual_size));
    offer(r, 0);
  }));
  all.push_back(ring_input("A.1.2.9", "a next that is no descriptor", [](RawRing& r) {
    r.descriptor(0, r.slot(), 16, next_flag, 0xfff0);
    offer(r, 0);
  }));
  all.push_back(ring_input("H178", "an index far ahead", [](RawRing& r) { r.index(0x4000); }));
  all.push_back(ring_input("H178", "an index that goes back", [](RawRing& r) { r.index(0xfff0); }));
  all.push_back(ring_input("H191", "a buffer outside of memory", [](RawRing& r) {
    r.descriptor(0, nowhere, 4096, 0, 0);
    offer(r, 0);
  }));
  all.push_back(ring_input("H191", "a buffer that ends outside of memory", [](RawRing& r) {
    r.descriptor(0, Rig::guest_base.value + Rig::memory_bytes - 16, 4096, write_flag, 0);
    offer(r, 0);
  }));
  all.push_back(ring_input("H194", "a buffer whose end wraps", [](RawRing& r) {
    r.descriptor(0, ~uint64_t{0} - 15, 0xffffffff, write_flag, 0);
    offer(r, 0);
  }));
  all.push_back(ring_input("H196", "buffers of more than 4 GiB", [](RawRing& r) {
    for (uint16_t i = 0; i < 8; ++i)
      r.descriptor(i, r.slot(), 0xffffffff, i < 7 ? next_flag : 0, static_cast<uint16_t>(i + 1));
    offer(r, 0);
  }));
  all.push_back(ring_input("H193", "empty buffers", [](RawRing& r) {
    r.descriptor(0, r.slot(), 0, next_flag, 1);
    r.descriptor(1, r.slot(), 0, write_flag, 0);
    offer(r, 0);
  }));
  all.push_back(ring_input("H197", "writable before readable buffers", [](RawRing& r) {
    r.descriptor(0, r.slot(), 16, next_flag | write_flag, 1);
    r.descriptor(1, r.slot() + 512, 512, 0, 0);
    offer(r, 0);
  }));
  all.push_back(ring_input("H184", "an indirect table that was not agreed on", [](RawRing& r) {
    r.descriptor(0, r.slot(), 16, indirect_flag, 0);
    offer(r, 0);
  }));
  all.push_back(ring_input("A.1.2.12", "an indirect table of a length that is none", [](RawRing& r) {
    r.descriptor(0, r.slot(), 15, indirect_flag, 0);
    offer(r, 0);
  }));
  all.push_back(ring_input("H239", "a request of one byte", [](RawRing& r) {
    r.descriptor(0, r.slot(), 1, next_flag, 1);
    r.descriptor(1, r.slot() + 2048, 1, write_flag, 0);
    offer(r, 0);
  }));
  all.push_back(ring_input("H181", "one head many times", [](RawRing& r) {
    for (uint16_t i = 0; i < Rig::usual_size; ++i) r.head(i, 0);
    r.index(40);
  }));
  return all;
}

// Where a ring may not lie: told, started and kicked.
HostileInput place_input(const char* number, const char* what,
                         std::function<void(vhost::SetVringAddr&)> spoil) {
  return {number, fmt::format("a ring that lies {}", what), [spoil = std::move(spoil)](Assault& a) -> Or<> {
            Rig* rig = TRY(a.trial.rig_over(a.wire));
            TRY(rig->needs_request());
            TRY(rig->negotiate());
            TRY(rig->share());
            TRY(rig->make_ring());
            vhost::SetVringAddr at = rig->addresses(rig->ring());
            spoil(at);
            (void)rig->ask(vhost::SetVringNum{rig->ring().index, rig->ring().config.size});
            (void)rig->ask(at);
            (void)rig->set_kick(rig->ring());
            (void)rig->enable(rig->ring());
            TRY(rig->add(rig->ring(), 2));
            std::this_thread::sleep_for(for_the_device);
            return {};
          }};
}

std::vector<HostileInput> places() {
  std::vector<HostileInput> all;
  all.push_back(place_input("N009", "outside of memory", [](vhost::SetVringAddr& at) { at.desc = nowhere; }));
  all.push_back(place_input("N009", "at the top of all addresses",
                            [](vhost::SetVringAddr& at) { at.used = ~uint64_t{0} - 3; }));
  all.push_back(place_input("N009", "at 0", [](vhost::SetVringAddr& at) { at.avail = 0; }));
  all.push_back(place_input("N009", "across the end of memory", [](vhost::SetVringAddr& at) {
    at.desc = Rig::user_base.value + Rig::memory_bytes - 16;
  }));
  all.push_back(place_input("H074", "at an odd address", [](vhost::SetVringAddr& at) { at.desc += 1; }));
  all.push_back(place_input("H076", "with its parts on one another",
                            [](vhost::SetVringAddr& at) { at.used = at.avail = at.desc; }));
  return all;
}

Or<Rig*> running(Assault& a) {
  Rig* rig = TRY(a.trial.rig_over(a.wire));
  TRY(rig->set_up());
  TRY(rig->serves(rig->ring()));
  return rig;
}

std::vector<HostileInput> moves() {
  std::vector<HostileInput> all;
  all.push_back({"H114", "memory whose file is truncated under a running ring", [](Assault& a) -> Or<> {
                   Rig* rig = TRY(running(a));
                   const UniqueFd file = TRY(reach(rig->memory().file(), "memory"));
                   if (::ftruncate(file.get(), 0) != 0) return not_testable("the file cannot be truncated");
                   rig->ring().kick->signal();
                   std::this_thread::sleep_for(for_the_device);
                   return {};
                 }});
  all.push_back({"H114", "memory whose file is truncated before a ring starts", [](Assault& a) -> Or<> {
                   Rig* rig = TRY(a.trial.rig_over(a.wire));
                   TRY(rig->needs_request());
                   TRY(rig->negotiate());
                   TRY(rig->share());
                   TRY(rig->make_ring());
                   TRY(rig->describe(rig->ring()));
                   const UniqueFd file = TRY(reach(rig->memory().file(), "memory"));
                   if (::ftruncate(file.get(), 0) != 0) return not_testable("the file cannot be truncated");
                   (void)rig->set_kick(rig->ring());
                   (void)rig->enable(rig->ring());
                   rig->ring().kick->signal();
                   std::this_thread::sleep_for(for_the_device);
                   return {};
                 }});
  all.push_back({"H107", "memory that is taken away under a running ring", [](Assault& a) -> Or<> {
                   Rig* rig = TRY(running(a));
                   TRY(rig->add(rig->ring(), 8));
                   (void)rig->ask(vhost::SetMemTable{});
                   rig->ring().kick->signal();
                   std::this_thread::sleep_for(for_the_device);
                   return {};
                 }});
  all.push_back({"H070", "a ring that grows while it runs", [](Assault& a) -> Or<> {
                   Rig* rig = TRY(running(a));
                   (void)rig->ask(vhost::SetVringNum{rig->ring().index, 32768});
                   TRY(rig->add(rig->ring(), 8));
                   std::this_thread::sleep_for(for_the_device);
                   return {};
                 }});
  all.push_back(
      {"H092", "another SET_VRING_KICK and SET_VRING_ERR for a ring that runs", [](Assault& a) -> Or<> {
         Rig* rig = TRY(running(a));
         (void)rig->set_kick(rig->ring());
         (void)rig->ask(
             vhost::SetVringErr{rig->ring().index, TRY(reach(rig->ring().err->copy(), "an eventfd"))});
         std::this_thread::sleep_for(for_the_device);
         return {};
       }});
  all.push_back({"H088", "a ring that is stopped twice", [](Assault& a) -> Or<> {
                   Rig* rig = TRY(running(a));
                   TRY(rig->stop(rig->ring()));
                   (void)rig->ask(vhost::GetVringBase{rig->ring().index});
                   return {};
                 }});
  all.push_back({"H082", "a base that does not fit the ring", [](Assault& a) -> Or<> {
                   Rig* rig = TRY(running(a));
                   TRY(rig->stop(rig->ring()));
                   (void)rig->ask(vhost::SetVringBase{rig->ring().index, 0x5555});
                   (void)rig->set_kick(rig->ring());
                   rig->ring().kick->signal();
                   std::this_thread::sleep_for(for_the_device);
                   return {};
                 }});
  all.push_back({"N096", "a front-end that leaves with requests in flight", [](Assault& a) -> Or<> {
                   Rig* rig = TRY(running(a));
                   return rig->add(rig->ring(), 20);
                 }});
  return all;
}

}  // namespace

std::vector<HostileInput> hostile_rings(const Kind& kind) {
  if (!kind.has_request()) return {};
  std::vector<HostileInput> all = contents();
  std::ranges::move(places(), std::back_inserter(all));
  std::ranges::move(moves(), std::back_inserter(all));
  return all;
}

}  // namespace ringway::check
