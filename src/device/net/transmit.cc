#include "ringway/device/net/transmit.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "ringway/device/net/header_size.h"
#include "ringway/device/net/offload.h"

namespace ringway::net {
namespace {

using port::Header;

struct LegacyHeader {
  std::byte bytes[port::legacy_header];
};
struct PlainHeader {
  std::byte bytes[port::plain_header];
};

template <class Wire>
bool read_as(ring::Reader& from, Header& header) {
  Wire wire;
  if (!from.read(wire)) return false;
  std::memcpy(static_cast<void*>(&header), &wire, sizeof wire);
  return true;
}

}  // namespace

TransmitQueue::TransmitQueue(engine::QueueLoop& loop, port::Port& port, uint16_t pair,
                             const std::atomic<uint32_t>& longest, const Rulebook& rulebook, Drops& drops)
    : loop_(loop),
      rulebook_(rulebook),
      drops_(drops),
      features_(loop.features()),
      header_(header_size(features_)),
      big_endian_(loop.big_endian()),
      longest_now_(longest),
      head_(port.abilities().head),
      outlet_(port.open_outlet(loop.worker(), pair)),
      passages_(std::make_unique<Passage[]>(loop.ring_size())) {
  for (uint32_t i = 0; i < loop.ring_size(); ++i) {
    passages_[i].queue = this;
    passages_[i].done = frame_done;
    release(passages_[i]);
  }
}

void TransmitQueue::process(ring::Chain chain) { send({&chain, 1}); }

bool TransmitQueue::process_batch(std::span<ring::Chain> chains) {
  while (!chains.empty()) {
    const size_t count = std::min(chains.size(), port::Outlet::most_at_once);
    send(chains.first(count));
    chains = chains.subspan(count);
  }
  return true;
}

// At most as many as an outlet takes at once.
void TransmitQueue::send(std::span<ring::Chain> chains) {
  using port::Outlet;
  std::array<Passage*, Outlet::most_at_once> passages;  // null: dropped
  std::array<port::Frame*, Outlet::most_at_once> frames;
  std::array<Outlet::Sent, Outlet::most_at_once> sent;
  longest_ = longest_now_.load(std::memory_order_relaxed);
  size_t count = 0;
  for (size_t i = 0; i < chains.size(); ++i) {
    passages[i] = passage_for(chains[i]);
    if (passages[i] != nullptr) frames[count++] = passages[i];
  }
  outlet_->send_batch(std::span(frames).first(count), sent);
  size_t next = 0;  // of what was sent
  size_t done = 0;
  for (size_t i = 0; i < chains.size(); ++i) {
    Passage* const passage = passages[i];
    const bool later = passage != nullptr && sent[next++] == Outlet::Sent::later;
    if (later || oldest_ != nullptr) [[unlikely]] {
      wait_in_line(passage != nullptr ? *passage : take_free(), std::move(chains[i]), !later);
      continue;
    }
    if (passage != nullptr) release(*passage);
    if (done != i) chains[done] = std::move(chains[i]);
    ++done;
  }
  loop_.complete_unwritten(chains.first(done));
}

void TransmitQueue::wait_in_line(Passage& passage, ring::Chain chain, bool has_ended) {
  passage.chain = std::move(chain);
  passage.has_ended = has_ended;
  passage.behind = nullptr;
  (oldest_ == nullptr ? oldest_ : newest_->behind) = &passage;
  newest_ = &passage;
}

// Null: it was dropped, and the chain can be used.
TransmitQueue::Passage* TransmitQueue::passage_for(const ring::Chain& chain) {
  ring::Reader reader = chain.reader();
  Header header;
  if (!read_header(reader, header) || reader.remaining() < port::min_frame) {
    return drop(Drop::runt);
  }
  if (reader.remaining() > port::max_frame) return drop(Drop::giant);
  const auto length = static_cast<uint32_t>(reader.remaining());
  port::Offload offload;
  if (header.flags != 0 || header.gso_type != 0) [[unlikely]] {
    const auto judged = judge(header, big_endian_, length, features_);
    if (!judged) return drop(Drop::malformed);
    offload = *judged;
  }
  if (length > longest_ && offload.gso_type == port::VIRTIO_NET_HDR_GSO_NONE) [[unlikely]] {
    return drop(Drop::giant);
  }
  Passage& passage = take_free();
  passage.length = length;
  passage.offload = offload;
  if (head_ > 0) {
    const std::span head = std::span(passage.own_head).first(std::min(head_, length));
    reader.read(head);
    passage.head = head;
  }
  passage.pieces = reader.pieces();
  return &passage;
}

bool TransmitQueue::read_header(ring::Reader& from, Header& header) const {
  switch (header_) {
    case port::plain_header:
      return read_as<PlainHeader>(from, header);
    case port::legacy_header:
      return read_as<LegacyHeader>(from, header);
    default:
      return read_as<Header>(from, header);
  }
}

port::Outlet::Sent TransmitQueue::send_own(port::Frame& frame) {
  const auto sent = outlet_->send(frame);
  outlet_->flush();
  return sent;
}

void TransmitQueue::look_at_rules() {
  edition_ = rulebook_.edition();
  loop_.moderate_calls(rulebook_.present()->transmit_calls);
}

TransmitQueue::Passage* TransmitQueue::drop(Drop reason) {
  drops_.count(reason);
  return nullptr;
}

void TransmitQueue::complete_oldest() {
  while (oldest_ != nullptr && oldest_->has_ended) {
    Passage& passage = *std::exchange(oldest_, oldest_->behind);
    release(passage);
    loop_.complete(std::move(passage.chain), 0);
  }
}

void TransmitQueue::frame_done(port::Frame& frame) {
  auto& passage = static_cast<Passage&>(frame);
  passage.has_ended = true;
  passage.queue->complete_oldest();
}

}  // namespace ringway::net
