// RunningQueue in postcopy: what a chain points at is fetched by other threads before the device sees it, so
// that a page that is late holds up one chain (and those behind it, where their order matters), and no
// worker.
#include <array>
#include <cassert>

#include "ringway/engine/running_queue.h"

namespace ringway::engine {
namespace {

constexpr size_t max_table_pieces = 512;

}  // namespace

// Chains that come after the last page must not pass those before, which may be on their way still.
void RunningQueue::fetch(ring::Chain chain) {
  assert(arrivals_);
  const uint16_t index = chain.index();
  std::vector<iovec> pieces;
  if (setup_.fetcher) {
    const auto readable = chain.reader().pieces();
    const auto writable = chain.writer().pieces();
    pieces.assign(readable.begin(), readable.end());
    pieces.insert(pieces.end(), writable.begin(), writable.end());
  }
  arrivals_->add(std::move(chain));
  ++fetches_;
  const auto then = [this, index] { worker_.post([this, index] { on_arrival(index); }); };
  if (!setup_.fetcher) return then();
  setup_.fetcher->fetch(std::move(pieces), then);
}

void RunningQueue::on_arrival(uint16_t index) {
  assert(arrivals_);
  Arrivals& arrivals = *arrivals_;
  --fetches_;
  arrivals.arrived(index);
  bool any = false;
  while (ring::Chain chain = arrivals.next()) {
    if (is_over()) {
      abandon(std::move(chain));
    } else {
      queue_->process(std::move(chain));
    }
    any = true;
  }
  if (any) queue_->flush();
  if (drained_ != nullptr && fetches_ == 0) queue_->drain();
  worker_.at_end_of_turn(*this);
}

// An indirect table: the ring cannot go on without it.
void RunningQueue::fetch_table(const memory::Translation& missing) {
  state_ = State::waiting_for_pages;
  std::array<iovec, max_table_pieces> storage;
  memory::Segments pieces{std::span(storage)};
  const auto found = view_.translate(missing.address, missing.length, missing.access, pieces);
  if (found.outcome != memory::Translation::ok || !setup_.fetcher) pieces.clear();
  ++fetches_;
  const auto then = [this, held = view_] { worker_.post([this] { on_table_here(); }); };
  if (pieces.size() == 0) return then();
  setup_.fetcher->fetch({pieces.all().begin(), pieces.all().end()}, then);
}

void RunningQueue::on_table_here() {
  --fetches_;
  if (state_ == State::waiting_for_pages) {
    state_ = State::running;
    worker_.wake(*this);
  }
  if (drained_ != nullptr && fetches_ == 0) queue_->drain();
  worker_.at_end_of_turn(*this);
}

}  // namespace ringway::engine
