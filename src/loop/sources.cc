#include "ringway/loop/sources.h"

#include <algorithm>

namespace ringway::loop {

using Clock = Loop::Clock;

SourceState& Sources::add(Source& source) {
  all_.push_back(std::make_unique<SourceState>());
  SourceState& state = *all_.back();
  state.source = &source;
  state.index = all_.size() - 1;
  awake_.push_back(&state);
  return state;
}

void Sources::remove(SourceState& state) {
  state.source = nullptr;
  if (state.awake) *std::ranges::find(awake_, &state) = nullptr;
  changed_ = true;
  std::swap(all_[state.index], all_.back());
  all_[state.index]->index = state.index;
  removed_.push_back(std::move(all_.back()));
  all_.pop_back();
}

bool Sources::turn() {
  bool any_worked = false;
  bool any_idle = false;
  // Sources may come, go and wake others inside poll(); those that come are polled in the next turn.
  for (size_t i = 0, count = awake_.size(); i < count; ++i) {
    SourceState* state = awake_[i];
    if (state == nullptr) continue;
    const bool worked = state->source->poll();
    if (state->source == nullptr) continue;
    state->worked = worked;
    if (worked) {
      any_worked = true;
      if (state->idle || state->parked) found_work(*state);
    } else {
      any_idle = true;
    }
  }
  if (any_idle && polling_ != Polling::always) park_the_idle();
  if (changed_) {
    std::erase(awake_, nullptr);
    removed_.clear();
    changed_ = false;
  }
  return any_worked;
}

void Sources::found_work(SourceState& state) {
  if (state.parked) state.patience.learn(Clock::now() - state.idle_since);
  state.idle = state.parked = false;
}

void Sources::park_the_idle() {
  const Clock::time_point now = Clock::now();
  for (size_t i = 0, count = awake_.size(); i < count; ++i) {
    SourceState* state = awake_[i];
    if (state == nullptr || state->worked) continue;
    if (!state->idle) {
      state->idle = true;
      state->idle_since = now;
    }
    if (!out_of_patience(*state, now)) continue;
    const bool parked = state->source->park();
    if (state->source == nullptr) continue;
    if (!parked) {
      state->idle = false;
      continue;
    }
    state->awake = false;
    state->parked = true;
    awake_[i] = nullptr;
    changed_ = true;
  }
}

bool Sources::out_of_patience(const SourceState& state, Clock::time_point now) const {
  return polling_ == Polling::never || now - state.idle_since >= state.patience.window();
}

void Sources::signalled(SourceState& state) {
  if (state.awake) return;
  state.awake = state.worked = true;
  awake_.push_back(&state);
  state.source->unpark();
}

void Sources::wake(SourceState& state) {
  signalled(state);
  state.idle = state.parked = false;
}

}  // namespace ringway::loop
