// A front-end without a virtual machine, for a device of the kernel's vhost: in this process, or behind a
// bridge that listens at $RINGWAY_BRIDGE. Queues of equal slots that are given to the device and come back.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "ringway/kernel/kernel_device.h"
#include "ringway/ring/driver.h"
#include "ringway/tools/guest_memory.h"
#include "ringway/user/remote.h"
#include "ringway/vhost/contract.h"
#include "ringway/vhost/session.h"

namespace ringway::kernel_tests {

using std::chrono_literals::operator""s;
using std::chrono_literals::operator""ms;

// The value of a Result; the test ends without one.
template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  return *std::move(result);
}
inline void must(Result<> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
}

struct Part {
  uint32_t offset = 0;  // in the slot
  uint32_t length = 0;  // bytes
};

struct Back {
  uint16_t slot = 0;
  uint32_t written = 0;  // bytes
};

class Queue {
 public:
  Queue(tools::GuestMemory& memory, const ring::Format& format, uint32_t size, uint16_t slots,
        uint32_t slot_bytes)
      : size_(size),
        slot_bytes_(slot_bytes),
        area_(must(memory.take(ring::DriverLayout::of(size, format, 0).bytes, 4096))),
        data_(must(memory.take(uint64_t{slots} * slot_bytes, 4096))),
        driver_(must(ring::make_driver(
            {.size = size, .format = format, .area = area_.bytes.data(), .address = area_.address}))),
        slot_of_(size),
        layout_(ring::DriverLayout::of(size, format, 0)) {}

  void start(vhost::Session& session, uint32_t ring, uint64_t base_of_areas, uint32_t base = 0) {
    vhost::QueueSetup setup{.ring = ring,
                            .size = size_,
                            .base = base,
                            .desc = base_of_areas + area_.address.value + layout_.desc,
                            .driver = base_of_areas + area_.address.value + layout_.driver,
                            .device = base_of_areas + area_.address.value + layout_.device,
                            .kick = must(make_eventfd()),
                            .call = must(make_eventfd()),
                            .err = must(make_eventfd())};
    kick_ = must(Notifier::adopt(must(setup.kick.duplicate())));
    call_ = must(Signal::adopt(must(setup.call.duplicate())));
    err_ = must(Signal::adopt(must(setup.err.duplicate())));
    must(session.start_queue(std::move(setup)));
  }

  [[nodiscard]] std::span<std::byte> slot(uint16_t index) const {
    return data_.bytes.subspan(size_t{index} * slot_bytes_, slot_bytes_);
  }

  // Gives a slot to the device: what it reads, what it writes.
  void give(uint16_t slot, std::vector<Part> readable, std::vector<Part> writable) {
    const auto buffers = [&](const std::vector<Part>& parts) {
      std::vector<ring::Buffer> list;
      for (const Part& part : parts) {
        list.push_back({.address = {data_.address.value + uint64_t{slot} * slot_bytes_ + part.offset},
                        .length = part.length});
      }
      return list;
    };
    const auto in = buffers(readable);
    const auto out = buffers(writable);
    const auto token =
        std::visit([&](auto& one) { return one.add({.readable = in, .writable = out}); }, driver_);
    if (!token) throw std::runtime_error("the ring is full");
    slot_of_[*token] = slot;
    if (std::visit([](auto& one) { return one.publish(); }, driver_)) kick_.signal();
  }

  // The next slot that comes back; nothing if none does in time.
  std::optional<Back> take(std::chrono::milliseconds patience = 20s) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (true) {
      if (auto used = must(std::visit([](auto& one) { return one.take_used(); }, driver_))) {
        if (used->overlong) throw std::runtime_error("the device wrote more than there is room for");
        return Back{.slot = slot_of_[used->token], .written = used->written};
      }
      if (err_.take()) throw std::runtime_error("the device says that the ring is broken");
      if (std::chrono::steady_clock::now() > deadline) return std::nullopt;
      if (std::visit([](auto& one) { return one.enable_calls(); }, driver_)) continue;
      pollfd entry{.fd = call_.fd(), .events = POLLIN};
      ::poll(&entry, 1, 50);
      call_.take();
    }
  }

  [[nodiscard]] uint32_t in_flight() const {
    return std::visit([](const auto& one) { return one.in_flight(); }, driver_);
  }

 private:
  const uint32_t size_;
  const uint32_t slot_bytes_;
  const tools::GuestBlock area_;
  const tools::GuestBlock data_;
  ring::Driver driver_;
  std::vector<uint16_t> slot_of_;
  const ring::DriverLayout layout_;
  Notifier kick_;
  Signal call_;
  Signal err_;
};

// Answers misses by mapping the page, I/O virtual addresses being guest addresses.
class Iommu {
 public:
  void ask(const vhost::IotlbMessage& miss) {
    const std::scoped_lock lock(mutex_);
    pages_.insert(miss.iova.value & ~uint64_t{4095});
    arrived_.notify_all();
  }
  // Maps what has been asked for; says how many pages that were.
  size_t answer(vhost::Session& session, const memory::RegionLayout& layout) {
    std::set<uint64_t> pages;
    {
      const std::scoped_lock lock(mutex_);
      pages.swap(pages_);
    }
    for (const uint64_t page : pages) {
      must(session.map_iotlb({.iova = {page},
                              .size = 4096,
                              .front_end = {layout.front_end.value + (page - layout.guest.value)},
                              .permission = 3}));
    }
    return pages.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::set<uint64_t> pages_;
};

class FrontEnd {
 public:
  // `open` makes the file and its endpoint where there is no bridge.
  FrontEnd(std::function<Result<std::unique_ptr<kernel::KernelDevice>>()> open, uint64_t features)
      : memory(must(tools::GuestMemory::make(16 << 20))) {
    if (const char* bridge = std::getenv("RINGWAY_BRIDGE")) {
      device_ = must(user::RemoteDevice::connect(bridge));
    } else {
      kernel_ = must(open());
      const kernel::Shape& shape = kernel_->shape();
      device_ = std::make_unique<vhost::Contract>(
          *kernel_, vhost::Contract::Limits{.queues = shape.rings, .ring_size = shape.ring_size});
    }
    session.emplace(*device_);
    agreed = must(session->negotiate({.features = features, .capabilities = ~uint64_t{0}}));
    format = ring::Format::of(agreed.features, false);
  }

  void share() {
    const UniqueFd file = must(memory.file());
    const vhost::SharedRegion region{.layout = memory.layout(), .fd = file.get()};
    must(session->map_memory({&region, 1}));
  }
  // What is added to a guest address to have the address that a ring is told by.
  [[nodiscard]] uint64_t base_of_areas() const {
    if (agreed.has_feature(VIRTIO_F_ACCESS_PLATFORM)) return 0;
    return memory.layout().front_end.value - memory.layout().guest.value;
  }
  [[nodiscard]] vhost::Device& device() { return *device_; }

  tools::GuestMemory memory;
  std::optional<vhost::Session> session;
  vhost::Agreement agreed;
  ring::Format format;

 private:
  std::unique_ptr<kernel::KernelDevice> kernel_;
  std::unique_ptr<vhost::Device> device_;
};

}  // namespace ringway::kernel_tests
