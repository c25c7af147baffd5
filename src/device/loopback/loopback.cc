#include "ringway/device/loopback/loopback.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "ringway/device/port/virtio_net.h"

namespace ringway::loopback {
namespace {

using port::bit;
using port::Header;
using port::plain_header;
using port::VIRTIO_NET_F_MRG_RXBUF;

// VIRTIO "Device Operation": without either feature a header has no num_buffers.
size_t header_size(uint64_t features) {
  const bool has_count = (features & (bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_NET_F_MRG_RXBUF))) != 0;
  return has_count ? plain_header : port::legacy_header;
}

class TransmitQueue final : public engine::Queue {
 public:
  TransmitQueue(std::shared_ptr<Cable> cable, engine::QueueLoop& loop)
      : cable_(std::move(cable)), loop_(loop), header_(header_size(loop.features())) {}

  void process(ring::Chain chain) override {
    const ring::Reader frame = chain.reader();
    if (frame.remaining() > header_) cable_->send(frame);
    loop_.complete(std::move(chain), 0);
  }

 private:
  const std::shared_ptr<Cable> cable_;
  engine::QueueLoop& loop_;
  const size_t header_;  // bytes
};

class ReceiveQueue final : public engine::Queue, private Receiver {
 public:
  ReceiveQueue(std::shared_ptr<Cable> cable, engine::QueueLoop& loop)
      : cable_(std::move(cable)),
        loop_(loop),
        header_(header_size(loop.features())),
        mergeable_((loop.features() & bit(VIRTIO_NET_F_MRG_RXBUF)) != 0) {
    waiting_.reserve(loop.ring_size());
    cable_->plug(*this, loop.worker());
  }
  ~ReceiveQueue() override { cable_->unplug(); }

  void process(ring::Chain chain) override {
    // It may have been the last that a merged frame waited for, so no more than the ring has.
    waiting_.push_back(std::move(chain));
  }
  void flush() override { deliver(); }

  void drain() override {
    for (; waiting_.size() > first_; waiting_.pop_back()) loop_.give_back(std::move(waiting_.back()));
    waiting_.clear();
    first_ = 0;
  }

 private:
  void deliver() override {
    for (auto frame = cable_->front(); !frame.empty(); frame = cable_->front()) {
      // The transmitting queue may have started with other features, and a shorter header.
      const bool is_frame = frame.size() > header_;
      const auto chains = is_frame ? chains_for(frame.size()) : 0;
      if (chains == 0) {
        if (is_frame && !can_never_fit()) break;
      } else {
        write(frame, chains);
      }
      cable_->drop_front();
    }
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(first_));
    first_ = 0;
  }

  [[nodiscard]] size_t available() const { return waiting_.size() - first_; }

  // How many of the waiting chains take so many bytes; 0: they do not.
  [[nodiscard]] size_t chains_for(size_t bytes) const {
    const size_t most = mergeable_ ? available() : std::min<size_t>(available(), 1);
    uint64_t room = 0;
    for (size_t count = 0; count < most; ++count) {
      room += waiting_[first_ + count].writer().remaining();
      if (count == 0 && room < header_) return 0;
      if (room >= bytes) return count + 1;
    }
    return 0;
  }
  // Merged, more buffers may come until the whole ring waits.
  [[nodiscard]] bool can_never_fit() const {
    return mergeable_ ? available() == loop_.ring_size() : available() > 0;
  }

  void write(std::span<const std::byte> frame, size_t chains) {
    Header header;
    std::memcpy(&header, frame.data(), header_);
    if (header_ == plain_header) set_count(header, static_cast<uint16_t>(chains));
    bool first = true;
    for (; chains > 0; --chains) {
      ring::Chain chain = std::move(waiting_[first_++]);
      ring::Writer writer = chain.writer();
      const auto length = static_cast<size_t>(std::min<uint64_t>(writer.remaining(), frame.size()));
      if (std::exchange(first, false)) {
        writer.write(std::as_bytes(std::span(&header, 1)).first(header_));
        writer.write(frame.first(length).subspan(header_));
      } else {
        writer.write(frame.first(length));
      }
      frame = frame.subspan(length);
      loop_.complete(std::move(chain), static_cast<uint32_t>(length));
    }
  }

  void set_count(Header& header, uint16_t count) const {
    header.num_buffers = loop_.big_endian() ? std::byteswap(count) : count;
  }

  const std::shared_ptr<Cable> cable_;
  engine::QueueLoop& loop_;
  const size_t header_;  // bytes
  const bool mergeable_;
  std::vector<ring::Chain> waiting_;  // for frames; those before first_ are used
  size_t first_ = 0;
};

}  // namespace

Result<std::unique_ptr<Loopback>> Loopback::open(uint16_t pairs) {
  if (pairs == 0 || pairs > 128) return refused("a network device has 1 to 128 pairs of queues", pairs);
  std::vector<std::shared_ptr<Cable>> cables;
  while (cables.size() < pairs) cables.push_back(TRY(Cable::make()));
  return std::unique_ptr<Loopback>(new Loopback(std::move(cables)));
}

uint32_t Loopback::device_id() const { return VIRTIO_ID_NET; }

uint64_t Loopback::features() const { return bit(VIRTIO_NET_F_MRG_RXBUF); }

// The frames of before have a header of another size.
void Loopback::set_features(uint64_t features) {
  if (header_size(features) != header_size(std::exchange(features_, features))) reset();
}

void Loopback::reset() {
  for (const auto& cable : cables_) cable->clear();
}

std::unique_ptr<engine::Queue> Loopback::start_queue(engine::QueueLoop& loop) {
  const auto& cable = cables_[loop.index() / 2];
  if (loop.index() % 2 == 0) return std::make_unique<ReceiveQueue>(cable, loop);
  return std::make_unique<TransmitQueue>(cable, loop);
}

}  // namespace ringway::loopback
