#include "ringway/loop/sources.h"

#include <gtest/gtest.h>

namespace ringway::loop {
namespace {

using namespace std::chrono_literals;
using Clock = Loop::Clock;

// Has work each time that `period` has passed since its last, and kicks when it is parked then.
class PeriodicSource final : public Source {
 public:
  explicit PeriodicSource(Clock::duration period) : period_(period) {}
  [[nodiscard]] bool has_work() const { return Clock::now() - last_ >= period_; }
  bool poll() override {
    ++polls;
    if (!has_work()) return false;
    const Clock::time_point now = Clock::now();
    // The machine may have held us up.
    if (now - last_ > Patience::max_window / 2) ++long_pauses;
    last_ = now;
    ++work;
    return true;
  }
  bool park() override {
    ++parks;
    parked = true;
    return true;
  }
  void unpark() override { parked = false; }

  int polls = 0;
  int work = 0;
  int parks = 0;
  int long_pauses = 0;
  bool parked = false;

 private:
  const Clock::duration period_;
  Clock::time_point last_ = Clock::now();
};

void run_until_worked(Sources& sources, SourceState& state, PeriodicSource& source, int work) {
  while (source.work < work) {
    if (source.parked && source.has_work()) sources.signalled(state);
    sources.turn();
  }
}

TEST(Sources, ASourceWithShortPausesIsParkedAFewTimesAndThenNoMore) {
  Sources sources(Polling::adaptive);
  PeriodicSource source(40us);
  SourceState& state = sources.add(source);
  run_until_worked(sources, state, source, 1000);
  EXPECT_LE(source.parks, 5 + 4 * source.long_pauses);
}

TEST(Sources, ASourceWithLongPausesIsPolledOnlyWhenThereIsWork) {
  Sources sources(Polling::adaptive);
  PeriodicSource source(1ms);
  SourceState& state = sources.add(source);
  run_until_worked(sources, state, source, 10);  // learns
  const int polls = source.polls;
  run_until_worked(sources, state, source, 110);
  EXPECT_EQ(state.patience.window(), 0ns);
  EXPECT_LE(source.polls - polls, 2 * 100);
  EXPECT_GE(source.parks, 100);
}

TEST(Sources, AKickWithoutWorkBeginsNoNewWindow) {
  Sources sources(Polling::adaptive);
  PeriodicSource source(1h);
  SourceState& state = sources.add(source);
  while (!source.parked) sources.turn();
  const int polls = source.polls;
  for (int kick = 0; kick < 10; ++kick) {
    sources.signalled(state);
    sources.turn();
    EXPECT_TRUE(source.parked);
  }
  EXPECT_EQ(source.polls, polls + 10);
}

}  // namespace
}  // namespace ringway::loop
