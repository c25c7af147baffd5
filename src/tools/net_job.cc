#include "ringway/tools/net_job.h"

#include <algorithm>
#include <cassert>

namespace ringway::tools {
namespace {

constexpr uint32_t most_at_once = 64;
constexpr int64_t millisecond = 1'000'000;  // nanoseconds
// How long a full window waits before what is missing counts as lost: where each frame is followed, a
// back-end that had no CPU for a while must not look like one that loses.
constexpr int64_t patience_for_some = 10 * millisecond;
constexpr int64_t patience_for_each = 1000 * millisecond;
// After the end: what has not come for so long does not come.
constexpr int64_t settling = 2 * millisecond;
constexpr int64_t settling_with_losses = 300 * millisecond;

uint32_t batch_of(const NetWork& work) {
  uint32_t entries = most_at_once * 4;
  if (work.transmitter != nullptr) entries = std::min(entries, work.transmitter->options().ring_size);
  if (work.receiver != nullptr) entries = std::min(entries, work.receiver->options().ring_size);
  return std::max(entries / 4, 1U);
}

}  // namespace

// ---- flows, tally

NetFlows::NetFlows(const std::vector<FlowOptions>& flows)
    : flows_(flows.begin(), flows.end()), states_(std::make_unique<State[]>(flows.size())) {}

bool NetFlows::all_arrived() const {
  for (uint16_t flow = 0; flow < count(); ++flow) {
    if (arrived(flow) < sent(flow)) return false;
  }
  return true;
}

void NetTally::add(const NetTally& other) {
  sent += other.sent;
  sent_bytes += other.sent_bytes;
  received += other.received;
  received_bytes += other.received_bytes;
  latency.add(other.latency);
  kicks += other.kicks;
  sleeps += other.sleeps;
  turns += other.turns;
  nanoseconds = std::max(nanoseconds, other.nanoseconds);
}

// ---- the job

NetJob::NetJob(const NetWork& work, NetFlows& flows, uint16_t number, uint64_t run)
    : work_(work),
      flows_(flows),
      number_(number),
      run_(run),
      batch_(batch_of(work)),
      copy_(net_header_bytes + most_frame),
      arrivals_(work.numbered ? flows.count() : 0),
      came_(flows.count()) {
  assert(work.numbered || (!work.checked && !work.timed));
  if (work.transmitter != nullptr && !work.numbered) write_all();
}

void NetJob::write_all() {
  const uint32_t entries = work_.transmitter->options().ring_size;
  for (uint32_t token = 0; token < entries; ++token) {
    const auto to = work_.transmitter->buffer(static_cast<uint16_t>(token));
    lengths_.push_back(flows_.flow(number_).write(token, to));
  }
}

void NetJob::begin(Phase /*phase*/, int64_t now) {
  settled_ = false;
  clear(now);
}

void NetJob::clear(int64_t now) {
  tally_ = {};
  begin_ = now;
  kicks_before_ = kicks();
}

void NetJob::count(int64_t now) {
  counted_ = tally_;
  counted_.kicks = kicks() - kicks_before_;
  counted_.nanoseconds = now - begin_;
}

NetAccount NetJob::account() const {
  NetAccount account = account_;
  account.sent = flows_.sent(number_);
  return account;
}

uint64_t NetJob::kicks() const {
  uint64_t sum = 0;
  if (work_.transmitter != nullptr) sum += work_.transmitter->kicks();
  if (work_.receiver != nullptr) sum += work_.receiver->kicks();
  return sum;
}

Result<bool> NetJob::turn(bool stop) {
  const uint32_t received = work_.receiver == nullptr ? 0 : TRY(receive());
  const uint32_t reclaimed = work_.transmitter == nullptr ? 0 : TRY(work_.transmitter->reclaim(batch_));
  const uint32_t came = work_.window == 0 && work_.transmitter != nullptr ? reclaimed : received;
  finished_.store(finished_.load(std::memory_order_relaxed) + came, std::memory_order_relaxed);
  const uint32_t sent = stop || work_.transmitter == nullptr ? 0 : send();
  if (received + reclaimed > 0) ++tally_.turns;
  const bool busy = received + reclaimed + sent > 0;
  if (busy) {
    idle_since_ = 0;
  } else {
    idle(stop);
  }
  return busy;
}

Result<uint32_t> NetJob::receive() {
  Receiver& receiver = *work_.receiver;
  const uint32_t frames = TRY(receiver.receive(batch_, [this](const Received& frame) { take(frame); }));
  if (frames > 0) {
    receiver.refill();
    receiver.publish();
    for (size_t flow = 0; flow < came_.size(); ++flow) {
      if (came_[flow] > 0) flows_.note_arrived(static_cast<uint16_t>(flow), std::exchange(came_[flow], 0));
    }
  }
  if (work_.aside == nullptr) return frames;
  if (TRY(work_.aside->receive(batch_, [](const Received&) {})) > 0) {
    work_.aside->refill();
    work_.aside->publish();
  }
  return frames;
}

void NetJob::take(const Received& frame) {
  if (work_.numbered) return identify(frame);
  ++tally_.received;
  tally_.received_bytes += frame.bytes;
  ++account_.received;
  if (work_.window > 0) ++came_[quick_flow(frame)];
}

// Of frames that are not followed one by one: only how many there are of each flow.
uint16_t NetJob::quick_flow(const Received& frame) const {
  if (came_.size() == 1) return 0;
  const uint16_t flow = flow_of_port(work_.receiver->peek<uint16_t>(frame, net_header_bytes + flow_at));
  return flow < came_.size() ? flow : number_;
}

void NetJob::identify(const Received& frame) {
  const size_t bytes = work_.receiver->copy(frame, copy_);
  const std::span<const std::byte> copy = std::span(copy_).first(bytes).subspan(net_header_bytes);
  const auto tag = read_tag(copy);
  if (!tag || tag->run != run_ || tag->flow >= arrivals_.size()) {
    ++account_.foreign;
    return;
  }
  ++tally_.received;
  tally_.received_bytes += frame.bytes;
  ++account_.received;
  check(*tag, copy);
}

void NetJob::check(const FrameTag& tag, std::span<const std::byte> frame) {
  const Arrivals::Kind kind = arrivals_[tag.flow].see(tag.sequence);
  account_.late += kind == Arrivals::Kind::late ? 1 : 0;
  if (kind == Arrivals::Kind::duplicate) {
    ++account_.duplicates;
  } else {
    ++came_[tag.flow];
  }
  if (work_.checked && !flows_.flow(tag.flow).matches(tag, frame)) ++account_.changed;
  if (work_.timed && tag.sequence + 1 == next_) {
    tally_.latency.record(static_cast<uint64_t>(std::max<int64_t>(now_ns() - started_, 0)));
  }
}

uint32_t NetJob::send() {
  const uint32_t most = allowance();
  if (most == 0) return 0;
  const Flow& flow = flows_.flow(number_);
  Transmitter& transmitter = *work_.transmitter;
  uint64_t bytes = 0;
  if (work_.timed) started_ = now_ns();
  const uint32_t sent = transmitter.send(most, [&](uint16_t token) {
    const uint32_t length = work_.numbered ? flow.write(next_++, transmitter.buffer(token)) : lengths_[token];
    bytes += length;
    return length;
  });
  if (sent == 0) return 0;
  transmitter.publish();
  flows_.note_sent(number_, sent);
  tally_.sent += sent;
  tally_.sent_bytes += bytes - uint64_t{sent} * net_header_bytes;
  return sent;
}

uint32_t NetJob::allowance() const {
  if (work_.window == 0) return batch_;
  const uint64_t arrived = flows_.arrived(number_) + forgiven_;
  const uint64_t sent = flows_.sent(number_);
  const uint64_t under_way = sent > arrived ? sent - arrived : 0;
  return static_cast<uint32_t>(
      std::min<uint64_t>(batch_, work_.window - std::min<uint64_t>(under_way, work_.window)));
}

void NetJob::idle(bool stop) {
  if (work_.window == 0) return;
  const int64_t now = now_ns();
  if (idle_since_ == 0) idle_since_ = now;
  const int64_t idle = now - idle_since_;
  if (stop) {
    settled_ = idle > (flows_.all_arrived() ? settling : settling_with_losses);
  } else if (idle > (work_.numbered ? patience_for_each : patience_for_some)) {
    const uint64_t arrived = flows_.arrived(number_);
    const uint64_t sent = flows_.sent(number_);
    forgiven_ = sent > arrived ? sent - arrived : 0;
    idle_since_ = 0;
  }
}

bool NetJob::at_rest(bool stop) const {
  if (!stop) return false;
  return in_flight() == 0 && (work_.window == 0 || settled_);
}

uint64_t NetJob::in_flight() const {
  return work_.transmitter == nullptr ? 0 : work_.transmitter->in_flight();
}

bool NetJob::prepare_to_sleep() {
  bool ready = false;
  // A frame that arrives tells that it was transmitted.
  const bool waits_for_transmission = work_.transmitter != nullptr && work_.window == 0;
  if (waits_for_transmission) ready |= work_.transmitter->enable_calls();
  if (work_.receiver != nullptr) ready |= work_.receiver->enable_calls();
  if (!ready) ++tally_.sleeps;
  return ready;
}

void NetJob::wake_up() {
  if (work_.transmitter != nullptr) work_.transmitter->disable_calls();
  if (work_.receiver != nullptr) work_.receiver->disable_calls();
}

}  // namespace ringway::tools
