#include "ringway/device/net/transmit.h"

#include <algorithm>
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

TransmitQueue::TransmitQueue(engine::QueueLoop& loop, port::Port& port, uint16_t pair, uint32_t longest,
                             const Rulebook& rulebook, Drops& drops)
    : loop_(loop),
      rulebook_(rulebook),
      drops_(drops),
      features_(loop.features()),
      header_(header_size(features_)),
      big_endian_(loop.big_endian()),
      longest_(longest),
      head_(port.abilities().head),
      outlet_(port.open_outlet(loop.worker(), pair)),
      passages_(std::make_unique<Passage[]>(loop.ring_size())),
      heads_(std::make_unique<std::byte[]>(size_t{head_} * loop.ring_size())) {
  for (uint32_t i = 0; i < loop.ring_size(); ++i) {
    passages_[i].queue = this;
    passages_[i].done = frame_done;
  }
}

void TransmitQueue::process(ring::Chain chain) {
  if (send(chain)) loop_.complete(std::move(chain), 0);
}

bool TransmitQueue::process_batch(std::span<ring::Chain> chains) {
  size_t done = 0;
  for (ring::Chain& chain : chains) {
    if (!send(chain)) continue;
    if (&chains[done] != &chain) chains[done] = std::move(chain);
    ++done;
  }
  loop_.complete_unwritten(chains.first(done));
  return true;
}

// True: the chain can be used. Else the port still needs it, and its passage holds it.
bool TransmitQueue::send(ring::Chain& chain) {
  ring::Reader reader = chain.reader();
  Header header;
  if (!read_header(reader, header) || reader.remaining() < port::min_frame) {
    return drop(Drop::runt);
  }
  if (reader.remaining() > port::max_frame) return drop(Drop::giant);
  Passage& passage = passages_[chain.index()];
  passage.length = static_cast<uint32_t>(reader.remaining());
  if (header.flags != 0 || header.gso_type != 0) [[unlikely]] {
    const auto offload = judge(header, big_endian_, passage.length, features_);
    if (!offload) return drop(Drop::malformed);
    passage.offload = *offload;
  } else {
    passage.offload = {};
  }
  if (passage.length > longest_ && passage.offload.gso_type == port::VIRTIO_NET_HDR_GSO_NONE) [[unlikely]] {
    return drop(Drop::giant);
  }
  if (head_ > 0) {
    const std::span head(&heads_[size_t{head_} * chain.index()], std::min(head_, passage.length));
    reader.read(head);
    passage.head = head;
  }
  passage.pieces = reader.pieces();
  if (outlet_->send(passage) == port::Outlet::Sent::done) return true;
  passage.chain = std::move(chain);
  return false;
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

bool TransmitQueue::drop(Drop reason) {
  drops_.count(reason);
  return true;
}

void TransmitQueue::frame_done(port::Frame& frame) {
  auto& passage = static_cast<Passage&>(frame);
  passage.queue->loop_.complete(std::move(passage.chain), 0);
}

}  // namespace ringway::net
