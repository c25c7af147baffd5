#include "ringway/device/net/receive.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "ringway/device/net/header_size.h"
#include "ringway/device/net/offload.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::net {
namespace {

// Places that a port is given at most: what one readv takes, with room for a header and a rest of its own.
constexpr size_t max_places = 1000;
// What the filter and the hash look at: an Ethernet header, two VLAN tags, an IPv6 header and two ports.
constexpr size_t look_bytes = 14 + 2 * 4 + 40 + 4;

std::span<const std::byte> bytes_of(const iovec& piece) {
  return {static_cast<const std::byte*>(piece.iov_base), piece.iov_len};
}

// Copies as much as fits; how much that was.
size_t copy_first(std::span<const iovec> pieces, std::span<std::byte> to) {
  size_t done = 0;
  for (const iovec& piece : pieces) {
    const size_t here = std::min(to.size() - done, piece.iov_len);
    memory::copy_out(to.data() + done, piece.iov_base, here);
    done += here;
  }
  return done;
}

// Most headers say what the last one in this place said: then the line stays with the driver as well.
template <class T>
void write_if_new(std::byte* to, T value) {
  T old;
  memory::copy_out(&old, to, sizeof old);
  if (old != value) memory::copy_in(to, &value, sizeof value);
}

}  // namespace

// Writes a frame into waiting chains one after the other; each is used when it is full, the last at the end.
class ReceiveQueue::Filler {
 public:
  explicit Filler(ReceiveQueue& queue) : queue_(queue) { begin(); }
  ~Filler() { use(); }
  Filler(const Filler&) = delete;
  Filler& operator=(const Filler&) = delete;

  void put(std::span<const std::byte> bytes) {
    each_chain(bytes.size(), [&](size_t length) {
      writer_.write(bytes.first(length));
      bytes = bytes.subspan(length);
    });
  }
  // Over bytes that are there already.
  void pass(size_t bytes) {
    each_chain(bytes, [&](size_t length) { writer_.skip(length); });
  }

 private:
  template <class Step>
  void each_chain(size_t bytes, Step&& step) {
    while (bytes > 0) {
      if (writer_.remaining() == 0) {
        use();
        begin();
      }
      const size_t here = std::min<uint64_t>(bytes, writer_.remaining());
      step(here);
      written_ += static_cast<uint32_t>(here);
      bytes -= here;
    }
  }
  void begin() {
    chain_ = std::move(queue_.at(queue_.begin_++));
    writer_ = chain_.writer();
    written_ = 0;
  }
  void use() { queue_.loop_.complete(std::move(chain_), written_); }

  ReceiveQueue& queue_;
  ring::Chain chain_;
  ring::Writer writer_;
  uint32_t written_ = 0;
};

ReceiveQueue::ReceiveQueue(engine::QueueLoop& loop, uint16_t pair, const Shared& shared)
    : loop_(loop),
      pair_(pair),
      shared_(shared),
      header_(header_size(loop.features())),
      mergeable_((loop.features() & port::bit(port::VIRTIO_NET_F_MRG_RXBUF)) != 0),
      big_endian_(loop.big_endian()),
      mask_(std::bit_ceil(loop.ring_size()) - 1),
      plain_second_(header_for({}, 1, {}).second),
      waiting_(std::make_unique<ring::Chain[]>(mask_ + size_t{1})) {
  reserved_.reserve(max_places);
  shared_.team.sit(pair, *this, loop.worker(), [this] { take_arrivals(); });
}

ReceiveQueue::~ReceiveQueue() {
  inlet_.reset();
  shared_.team.leave(pair_);
}

void ReceiveQueue::process(ring::Chain chain) { at(end_++) = std::move(chain); }

bool ReceiveQueue::process_batch(std::span<ring::Chain> chains) {
  for (ring::Chain& chain : chains) ReceiveQueue::process(std::move(chain));
  return true;
}

void ReceiveQueue::flush() {
  reserved_.clear();
  if (!std::exchange(starved_, false)) return;
  wanted_ = ahead;
  if (inlet_) inlet_->resume();
}

void ReceiveQueue::drain() {
  reserved_.clear();
  while (end_ != begin_) loop_.give_back(std::move(at(--end_)));
}

bool ReceiveQueue::starve() {
  starved_ = true;
  wanted_ = waiting() + one_more;
  return false;
}

// A buffer that holds no frame would be in the way of all others.
void ReceiveQueue::return_short_buffers() {
  const size_t least = mergeable_ ? header_ : header_ + port::min_frame;
  while (waiting() > 0 && room_of(begin_) < least) [[unlikely]] {
    shared_.drops.count(Drop::short_buffer);
    loop_.complete(std::move(at(begin_++)), 0);
  }
}

// What the driver has made available since our last turn counts too: a sender may be faster than our turns.
ReceiveQueue::Plan ReceiveQueue::plan(uint64_t bytes) {
  return_short_buffers();
  uint64_t room = 0;
  uint32_t chains = 0;
  for (uint32_t tries = most_tries();; --tries) {
    const uint32_t most = mergeable_ ? waiting() : std::min(waiting(), 1U);
    while (chains < most) {
      room += room_of(begin_ + chains++);
      if (room >= bytes) return {Plan::fits, chains};
    }
    // Merged, more buffers may come until the whole ring waits.
    if (mergeable_ ? waiting() == loop_.ring_size() : most > 0) return {Plan::never};
    if (tries == 0 || !take_more()) return {Plan::not_now};
  }
}

bool ReceiveQueue::take_more() {
  wanted_ = waiting() + one_more;
  const bool came = loop_.take_available();
  wanted_ = ahead;
  return_short_buffers();
  return came;
}

ReceiveQueue::HeaderWords ReceiveQueue::header_for(const port::Offload& offload, uint32_t chains,
                                                   const HashResult& hash) const {
  const bool may_trust = (accepts() & port::bit(port::VIRTIO_NET_F_GUEST_CSUM)) != 0;
  const auto flags =
      static_cast<uint8_t>(offload.flags & (port::VIRTIO_NET_HDR_F_NEEDS_CSUM |
                                            (may_trust ? port::VIRTIO_NET_HDR_F_DATA_VALID : 0)));
  const auto at = [this](uint16_t field, unsigned byte) {
    return uint64_t{in_driver_order(field, big_endian_)} << (8 * byte);
  };
  return {.first = uint64_t{flags} | uint64_t{offload.gso_type} << 8U | at(offload.hdr_len, 2) |
                   at(offload.gso_size, 4) | at(offload.csum_start, 6),
          .second = static_cast<uint32_t>(at(offload.csum_offset, 0) | at(static_cast<uint16_t>(chains), 2)),
          .hash_value = hash.value,
          .hash_report = hash.report};
}

const Rules& ReceiveQueue::rules() {
  if (const uint64_t edition = shared_.rulebook.edition(); edition != edition_) [[unlikely]] {
    edition_ = edition;
    rules_ = shared_.rulebook.present();
    is_blind_ = rules_->blind();
    if (!is_blind_) scratch_.resize(port::max_frame);
    loop_.moderate_calls(rules_->receive_calls);
  }
  return *rules_;
}

bool ReceiveQueue::deliver(const port::Frame& frame) {
  reserved_.clear();
  rules();
  return deliver_one(frame);
}

size_t ReceiveQueue::deliver_batch(std::span<const port::Frame* const> frames) {
  reserved_.clear();
  rules();
  size_t done = 0;
  while (done < frames.size() && deliver_one(*frames[done])) ++done;
  return done;
}

void ReceiveQueue::expect(size_t frames) {
  if (static_cast<int32_t>(fetched_ - begin_) < 0) fetched_ = begin_;
  for (; frames > 0 && static_cast<int32_t>(fetched_ - end_) < 0; --frames) {
    const std::span<const iovec> places = at(fetched_++).writer().pieces();
    if (places.empty()) continue;
    auto* const to = static_cast<std::byte*>(places.front().iov_base);
    memory::prefetch_for_store(to);
    memory::prefetch_for_store(to + 64);
  }
}

// The filter and the hash see what the driver will see: what they look at is copied once, and delivered.
bool ReceiveQueue::look_and_take(const port::Frame& frame) {
  std::array<std::byte, look_bytes> copy;
  Looked looked{.head = frame.head};
  if (frame.head.size() < copy.size()) {
    std::ranges::copy(frame.head, copy.begin());
    looked.skip = copy_first(frame.pieces, std::span(copy).subspan(frame.head.size()));
    looked.head = std::span(copy).first(frame.head.size() + looked.skip);
  }
  const Rules& rules = *rules_;
  if (!rules.filter.passes(looked.head)) return true;
  HashResult hash;
  if (rules.spread.hash) hash = hash_of(looked.head, rules.spread.types, *rules.spread.hash);
  const uint16_t active = rules.pairs > 0 ? rules.pairs : shared_.team.size();
  const uint16_t pair = rules.spread.pair_for(hash, pair_, active);
  if (rules.spread.reported) looked.hash = hash;
  if (pair == pair_) return take(frame, looked);
  if (!pass_on(pair, frame, looked)) shared_.drops.count(Drop::other_full);
  return true;
}

bool ReceiveQueue::pass_on(uint16_t pair, const port::Frame& frame, const Looked& looked) {
  if (ReceiveQueue* const other = shared_.team.here(pair, loop_.worker())) {
    other->reserved_.clear();
    return other->take(frame, looked);
  }
  port::Frame with_head = frame;
  with_head.head = looked.head;
  return shared_.team.send(pair, with_head, looked.skip, looked.hash);
}

void ReceiveQueue::take_arrivals() {
  reserved_.clear();
  Crossing& crossing = shared_.team.arrivals(pair_);
  for (auto arrival = crossing.front(); !arrival.bytes.empty(); arrival = crossing.front()) {
    port::Frame frame{.offload = arrival.offload, .length = static_cast<uint32_t>(arrival.bytes.size())};
    if (!take(frame, {.head = arrival.bytes, .hash = arrival.hash})) shared_.drops.count(Drop::other_full);
    crossing.drop_front();
  }
}

bool ReceiveQueue::take(const port::Frame& frame, const Looked& looked) {
  if (!may_take(frame.offload)) [[unlikely]] {
    shared_.drops.count(Drop::unfinished);
    return true;
  }
  if (take_in_one_piece(frame, looked)) [[likely]]
    return true;
  const Plan plan = this->plan(header_ + frame.length);
  if (plan.outcome == Plan::not_now) return starve();
  if (plan.outcome == Plan::never) {
    shared_.drops.count(Drop::never_fits);
    return true;
  }
  const HeaderWords header = header_for(frame.offload, plan.chains, looked.hash);
  Filler filler(*this);
  filler.put(std::as_bytes(std::span(&header, 1)).first(header_));
  filler.put(looked.head);
  size_t skip = looked.skip;
  for (const iovec& piece : frame.pieces) {
    const size_t passed = std::min(skip, piece.iov_len);
    skip -= passed;
    filler.put(bytes_of(piece).subspan(passed));
  }
  return true;
}

// The usual case by itself: the next buffer is in one piece and holds the whole frame.
bool ReceiveQueue::take_in_one_piece(const port::Frame& frame, const Looked& looked) {
  if (waiting() == 0) return false;
  const std::span<const iovec> places = at(begin_).writer().pieces();
  const size_t length = header_ + frame.length;
  if (places.empty() || places.front().iov_len < length) return false;
  auto* to = static_cast<std::byte*>(places.front().iov_base);
  const auto append = [&](const void* from, size_t bytes) {
    memory::copy_in(to, from, bytes);
    to += bytes;
  };
  const bool is_short = header_ == port::plain_header;
  const HeaderWords header = port::is_plain(frame.offload) && is_short
                                 ? HeaderWords{.second = plain_second_}
                                 : header_for(frame.offload, 1, looked.hash);
  if (is_short) [[likely]] {
    write_if_new(to, header.first);
    write_if_new(to + sizeof header.first, header.second);
    to += port::plain_header;
  } else {
    append(&header, header_);
  }
  if (!looked.head.empty()) append(looked.head.data(), looked.head.size());
  size_t skip = looked.skip;
  for (const iovec& piece : frame.pieces) {
    const size_t passed = std::min(skip, piece.iov_len);
    skip -= passed;
    append(static_cast<const std::byte*>(piece.iov_base) + passed, piece.iov_len - passed);
  }
  loop_.complete(std::move(at(begin_++)), static_cast<uint32_t>(length));
  if (waiting() == low) loop_.take_available();
  return true;
}

std::span<const iovec> ReceiveQueue::reserve(uint32_t bytes) {
  return_short_buffers();
  reserved_.clear();
  scratch_reserved_ = !rules().blind();
  uint32_t tries = most_tries();
  while (waiting() == 0 && tries > 0 && take_more()) --tries;
  if (scratch_reserved_) return reserve_scratch();
  uint64_t skip = header_;
  uint64_t wanted = bytes;
  for (uint32_t i = 0; wanted > 0 && (i == 0 || mergeable_); ++i) {
    while (i == waiting() && tries > 0 && take_more()) --tries;
    if (i == waiting()) break;
    for (const iovec& piece : at(begin_ + i).writer().pieces()) {
      const uint64_t passed = std::min<uint64_t>(skip, piece.iov_len);
      skip -= passed;
      const uint64_t here = std::min<uint64_t>(piece.iov_len - passed, wanted);
      if (here == 0) continue;
      if (reserved_.size() == max_places) return reserved_;
      reserved_.push_back({.iov_base = static_cast<std::byte*>(piece.iov_base) + passed, .iov_len = here});
      wanted -= here;
    }
  }
  if (reserved_.empty()) starve();
  return reserved_;
}

std::span<const iovec> ReceiveQueue::reserve_scratch() {
  if (waiting() == 0) {
    starve();
    return {};
  }
  reserved_.push_back({.iov_base = scratch_.data(), .iov_len = scratch_.size()});
  return reserved_;
}

bool ReceiveQueue::commit(const port::Offload& offload, uint32_t length, std::span<const std::byte> rest) {
  reserved_.clear();
  if (scratch_reserved_) {
    if (!rest.empty()) return false;  // longer than any frame
    const port::Frame frame{.offload = offload, .length = length, .head = std::span(scratch_).first(length)};
    return rules().blind() ? take(frame, {.head = frame.head}) : look_and_take(frame);
  }
  if (!may_take(offload)) [[unlikely]] {
    shared_.drops.count(Drop::unfinished);
    return true;
  }
  const Plan plan = this->plan(header_ + length + rest.size());
  if (plan.outcome != Plan::fits) return false;
  const HeaderWords header = header_for(offload, plan.chains, {});
  Filler filler(*this);
  filler.put(std::as_bytes(std::span(&header, 1)).first(header_));
  filler.pass(length);
  filler.put(rest);
  return true;
}

}  // namespace ringway::net
