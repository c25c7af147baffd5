// LocalDevice: the dirty log. vhost-user "Migration".
#include <linux/virtio_config.h>

#include "ringway/engine/local_device.h"
#include "ringway/memory/guest_ranges.h"
#include "ringway/vhost/features.h"

namespace ringway::engine {
namespace {

using vhost::Done;

constexpr size_t max_area_pieces = 1024;  // as many as a ring's area may have

bool is_logged(const vhost::SetVringAddr& addresses) {
  return (addresses.flags >> VHOST_VRING_F_LOG & 1) != 0;
}

Result<std::shared_ptr<const memory::DirtyLog>> open_log(const vhost::SetLogBase& request) {
  if (request.origin == vhost::MemoryRegion::Origin::own_process)
    return memory::DirtyLog::borrow(request.front_end, request.size);
  if (!request.fd) return refused("a log needs a file");
  return memory::DirtyLog::open(request.fd, request.size, request.offset);
}

}  // namespace

Result<Done> LocalDevice::on(const vhost::SetLogBase& request) {
  auto log = TRY(open_log(request));
  if (!log->covers(*map_)) return refused("the log is too small for the memory table", request.size);
  const auto before = std::exchange(log_, std::move(log));
  for (const Vring& vring : vrings_) {
    if (auto fits = check_log(vring); !fits) {
      log_ = before;
      return std::unexpected(fits.error());
    }
  }
  TRY(set_logs());
  return Done{};
}

Result<Done> LocalDevice::on(vhost::SetLogFd& request) {
  std::shared_ptr<const Notifier> news;
  if (request.fd) news = std::make_shared<const Notifier>(TRY(Notifier::adopt(std::move(request.fd))));
  log_news_ = std::move(news);
  TRY(set_logs());
  return Done{};
}

Result<> LocalDevice::set_logs() {
  for (Vring& vring : vrings_) {
    if (vring.queue) TRY(vring.queue->set_log(logging(vring)));
  }
  return {};
}

Result<> LocalDevice::check_log(const Vring& vring) const {
  if (!log_ || !is_logged(vring.addresses) || vring.size == 0 || has(VIRTIO_F_ACCESS_PLATFORM)) return {};
  const ring::Format format = ring::Format::of(features_, vring.big_endian);
  const uint64_t bytes = ring::RingConfig::device_bytes(vring.size, format);
  if (log_->covers({vring.addresses.log}, bytes)) return {};
  return refused("used ring is logged outside of the log", vring.addresses.log);
}

// Behind an IOMMU the log address is an I/O virtual one like the others, so it says no more than they do:
// what counts is where the pages are.
std::optional<ring::Logging> LocalDevice::logging(const Vring& vring) const {
  if (!has(VHOST_F_LOG_ALL) || !log_) return std::nullopt;
  ring::Logging logging{.log = log_, .news = log_news_, .desc = {}, .device = {}};
  if (!is_logged(vring.addresses)) return logging;
  const ring::Format format = ring::Format::of(features_, vring.big_endian);
  const uint64_t bytes = ring::RingConfig::device_bytes(vring.size, format);
  if (format.packed) {
    logging.desc = guest_ranges(vring.addresses.desc, ring::RingConfig::desc_bytes(vring.size, format));
  }
  if (has(VIRTIO_F_ACCESS_PLATFORM)) {
    logging.device = guest_ranges(vring.addresses.used, bytes);
  } else {
    logging.device = {{.offset = 0, .length = bytes, .guest = {vring.addresses.log}}};
  }
  return logging;
}

std::vector<iovec> LocalDevice::pieces_of(uint64_t address, uint64_t length) const {
  std::vector<iovec> storage(max_area_pieces);
  memory::Segments pieces{std::span(storage)};
  if (has(VIRTIO_F_ACCESS_PLATFORM)) {
    view().translate({address}, length, memory::Access::read, pieces);
  } else {
    map_->translate(memory::FrontEndAddress{address}, length, pieces);
  }
  storage.resize(pieces.size());
  return storage;
}

// The area has been opened, so all of it is in the memory table.
std::vector<ring::LoggedRange> LocalDevice::guest_ranges(uint64_t address, uint64_t length) const {
  std::vector<ring::LoggedRange> ranges;
  uint64_t done = 0;
  for (const iovec& piece : pieces_of(address, length)) {
    memory::each_guest_range(*map_, piece, [&](uint64_t at, memory::GuestAddress guest, uint64_t bytes) {
      ranges.push_back({.offset = done + at, .length = bytes, .guest = guest});
    });
    done += piece.iov_len;
  }
  return ranges;
}

}  // namespace ringway::engine
