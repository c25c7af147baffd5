// For tests of network devices as a whole: a machine with one pair of queues of a device in an engine. Frames
// and receive buffers are cut into pieces anywhere; what the device has written is found by comparing.
#pragma once

#include <gtest/gtest.h>
#include <linux/virtio_config.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <semaphore>
#include <set>
#include <span>
#include <vector>

#include "ringway/device/net/net.h"
#include "ringway/device/port/virtio_net.h"
#include "ringway/engine/local_device.h"
#include "ringway/engine/rig_test.h"
#include "ringway/loop/loop_testing.h"
#include "ringway/memory/dirty_log.h"
#include "ringway/ring/driver.h"
#include "ringway/vhost/contract.h"

namespace ringway::tools {

using vhost::bit;
using Bytes = std::vector<std::byte>;
using Pages = std::set<uint64_t>;

struct NetShape {
  const char* name = "";
  bool packed = false;
  bool indirect = false;
  bool iommu = false;
  bool mergeable = false;
  unsigned workers = 1;
};

// Calls f while no worker does anything.
template <class F>
void while_idle(engine::Workers& workers, F&& f) {
  std::counting_semaphore<> idle(0);
  std::counting_semaphore<> go_on(0);
  for (size_t i = 0; i < workers.count(); ++i) {
    workers.worker(i).post([&] {
      idle.release();
      go_on.acquire();
    });
  }
  for (size_t i = 0; i < workers.count(); ++i) idle.acquire();
  f();
  go_on.release(static_cast<ptrdiff_t>(workers.count()));
  for (size_t i = 0; i < workers.count(); ++i) workers.worker(i).run([] {});
}

class NetMachine {
 public:
  static constexpr uint64_t page = 4096;
  static constexpr uint64_t pages = 256;
  static constexpr uint64_t memory_bytes = pages * page;
  static constexpr uint64_t low = 0x10'0000;  // guest address of the memory
  static constexpr uint64_t iova_base = 0x7000'0000;
  static constexpr uint64_t user_base = 0x7000'0000'0000;
  static constexpr uint64_t log_bytes = (low + memory_bytes) / page / 8;
  static constexpr uint32_t ring_size = 64;
  static constexpr uint32_t slots = 16;  // of each queue: places of one buffer each
  static constexpr uint64_t slot_bytes = 3 * page;
  static constexpr uint64_t ring_bytes = 40 * page;
  static constexpr uint64_t first_slot = 2 * ring_bytes;  // of the driver's view
  static constexpr uint32_t header = port::plain_header;
  static constexpr uint32_t longest = 1514;
  static constexpr std::byte untouched{0xee};  // never in a frame or a header

  NetMachine(const NetShape& shape, engine::Workers& workers, std::unique_ptr<port::Port> port, uint64_t seed)
      : shape_(shape), workers_(workers), random_(seed) {
    mac_ = {std::byte{2}, {}, {}, {}, {}, static_cast<std::byte>(seed)};
    EXPECT_EQ(::ftruncate(memory_fd_.get(), memory_bytes), 0);
    order_.resize(pages);
    std::iota(order_.begin(), order_.end(), uint64_t{0});
    if (shape.iommu) std::ranges::shuffle(order_, random_);
    arrange_view();
    open(std::move(port));
  }
  NetMachine(const NetMachine&) = delete;
  NetMachine& operator=(const NetMachine&) = delete;
  ~NetMachine() { device_->disconnect(); }

  template <class R>
  auto ask(R request) {
    return vhost::call(*contract_, std::move(request));
  }
  template <class R>
  void must(R request) {
    const auto reply = ask(std::move(request));
    ASSERT_TRUE(reply) << reply.error().to_string();
  }
  [[nodiscard]] uint64_t features() const {
    uint64_t features =
        bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_RING_F_EVENT_IDX) | bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES);
    if (shape_.packed) features |= bit(VIRTIO_F_RING_PACKED);
    if (shape_.indirect) features |= bit(VIRTIO_RING_F_INDIRECT_DESC);
    if (shape_.iommu) features |= bit(VIRTIO_F_ACCESS_PLATFORM);
    if (shape_.mergeable) features |= port::bit(port::VIRTIO_NET_F_MRG_RXBUF);
    return features;
  }
  void start() {
    agree();
    for (uint32_t index : {receive, transmit}) {
      Queue& queue = queues_[index];
      queue.config = {.size = ring_size,
                      .format = ring::Format::of(features(), false),
                      .table_entries = shape_.indirect ? 16U : 0U,
                      .area = view_.data() + index * ring_bytes,
                      .address = {address(index * ring_bytes)}};
      ASSERT_LE(queue.config.layout().bytes, ring_bytes);
      queue.driver.emplace(*ring::make_driver(queue.config));
      describe(index, ring::RingBase{});
    }
    refill();
  }

  // ---- frames

  [[nodiscard]] const net::Mac& mac() const { return mac_; }
  [[nodiscard]] uint64_t below(uint64_t end) { return random_() % end; }
  [[nodiscard]] Bytes frame_to(const net::Mac& to, size_t length) {
    Bytes frame(length);
    for (std::byte& byte : frame) byte = static_cast<std::byte>(random_() % 0xee);
    std::ranges::copy(to, frame.begin());
    std::ranges::copy(mac_, frame.begin() + 6);
    frame[12] = std::byte{0x88};
    frame[13] = std::byte{0xb5};
    return frame;
  }
  // A buffer in every slot that has none. What it holds is nothing that comes.
  void refill() {
    Queue& queue = queues_[receive];
    while (queue.chains.size() < slots) {
      const uint64_t base = first_slot + queue.next_slot++ % slots * slot_bytes;
      std::memset(view_.data() + base, static_cast<int>(untouched), slot_bytes);
      const uint64_t least = shape_.mergeable ? 100 : header + longest;
      const auto bytes = static_cast<uint32_t>(least + below(shape_.mergeable ? 900 : 3000));
      offer(queue, base + below(page), bytes, true);
    }
    publish(receive);
  }
  // How many of the frames, sent in this order, find buffers.
  [[nodiscard]] size_t fitting(std::span<const Bytes> frames) const {
    auto chain = queues_[receive].chains.begin();
    for (size_t i = 0; i < frames.size(); ++i) {
      for (uint64_t room = 0; room < header + frames[i].size(); ++chain) {
        if (chain == queues_[receive].chains.end()) return i;
        room += chain->bytes;
      }
    }
    return frames.size();
  }
  void send(const Bytes& frame) {
    Queue& queue = queues_[transmit];
    const uint64_t at = first_slot + (slots + queue.next_slot++ % slots) * slot_bytes + below(page);
    std::memset(view_.data() + at, 0, header);
    std::ranges::copy(frame, view_.data() + at + header);
    offer(queue, at, static_cast<uint32_t>(header + frame.size()), false);
    publish(transmit);
  }
  // Waits until so many have come back.
  [[nodiscard]] bool are_sent(size_t count) {
    while (count-- > 0) {
      if (!take(queues_[transmit])) return false;
      queues_[transmit].chains.pop_front();
    }
    return true;
  }
  // Waits for the next frame; empty: none comes, or it is not in order.
  [[nodiscard]] Bytes next() {
    Bytes bytes;
    uint16_t buffers = 1;
    for (uint16_t i = 0; i < buffers; ++i) {
      Queue& queue = queues_[receive];
      const auto used = take(queue);
      if (!used) return {};
      const Bytes part = gather(queue.chains.front(), used->written);
      if (i == 0 && part.size() < header) return {};
      if (i == 0) std::memcpy(&buffers, &part[header - sizeof buffers], sizeof buffers);
      bytes.insert(bytes.end(), part.begin() + (i == 0 ? header : 0), part.end());
      for (const Piece& piece : queue.chains.front().pieces) {
        for (uint64_t at = piece.at; at < piece.at + piece.bytes; ++at) used_pages_.insert(order_[at / page]);
      }
      queue.chains.pop_front();
    }
    return bytes;
  }
  // Pages of the file with receive buffers that have come back since this was asked last.
  Pages take_used_pages() { return std::exchange(used_pages_, {}); }
  // Bytes of the receive buffers that the device has.
  [[nodiscard]] uint64_t room() const {
    uint64_t bytes = 0;
    for (const OfferedChain& chain : queues_[receive].chains) bytes += chain.bytes;
    return bytes;
  }

  // ---- the log

  void set_log() {
    const UniqueFd file(::memfd_create("log", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(file.get(), log_bytes), 0);
    log_ = *Mapping::of_file(file.get(), log_bytes, 0);
    must(vhost::SetLogBase{.size = log_bytes, .fd = *file.duplicate()});
    must(vhost::SetFeatures{features() | bit(VHOST_F_LOG_ALL)});
    for (uint32_t index : {receive, transmit}) must(addresses(index, true));
  }
  // Pages of the file that are marked. Forgets them.
  Pages take_marks() {
    Pages marks;
    for (uint64_t number = 0; number < log_bytes * 8; ++number) {
      auto& byte = reinterpret_cast<uint8_t&>(log_.data()[number / 8]);
      const auto one = static_cast<uint8_t>(1U << number % 8);
      if ((std::atomic_ref(byte).fetch_and(static_cast<uint8_t>(~one)) & one) == 0) continue;
      EXPECT_GE(number, low / page) << "outside of all memory";
      marks.insert(number - low / page);
    }
    return marks;
  }
  [[nodiscard]] Bytes snapshot() const { return {memory_.bytes().begin(), memory_.bytes().end()}; }
  [[nodiscard]] Pages changed_since(const Bytes& before) const {
    Pages changed;
    for (uint64_t i = 0; i < pages; ++i) {
      if (std::memcmp(memory_.data() + i * page, before.data() + i * page, page) != 0) changed.insert(i);
    }
    return changed;
  }
  // Without those of the rings, where a device may write what was there before.
  [[nodiscard]] Pages data_pages(Pages of) const {
    for (uint64_t i = 0; i < first_slot / page; ++i) of.erase(order_[i]);
    return of;
  }

  // ---- another back-end

  // What is taken and not used is noted from here on. Before start().
  void track() { tracks_ = true; }
  // The back-end has died, as it is now, and another one goes on: what the old one still does, it does to a
  // memory of its own.
  void crash(std::unique_ptr<port::Port> port) {
    while_idle(workers_, [&] {
      memory_fd_ = copy_of(memory_fd_, memory_bytes);
      if (tracks_) area_.fd = copy_of(area_.fd, area_.offset + area_.size);
      arrange_view();
    });
    device_->disconnect();
    open(std::move(port));
    agree();
    for (uint32_t index : {receive, transmit}) describe(index, restart_base(index));
  }

 private:
  static constexpr uint32_t receive = 0;
  static constexpr uint32_t transmit = 1;
  struct Piece {
    uint64_t at = 0;  // of the view
    uint32_t bytes = 0;
  };
  struct OfferedChain {
    uint16_t token = 0;
    uint32_t bytes = 0;
    std::vector<Piece> pieces;
  };
  struct Queue {
    ring::DriverConfig config;
    std::optional<ring::Driver> driver;
    engine::Event kick, call, err;
    std::deque<OfferedChain> chains;  // the device's, oldest first
    uint64_t next_slot = 0;
  };

  static UniqueFd copy_of(const UniqueFd& file, uint64_t bytes) {
    UniqueFd copy(::memfd_create("net-machine", MFD_CLOEXEC));
    Bytes content(bytes);
    EXPECT_EQ(::pread(file.get(), content.data(), bytes, 0), static_cast<ssize_t>(bytes));
    EXPECT_EQ(::pwrite(copy.get(), content.data(), bytes, 0), static_cast<ssize_t>(bytes));
    return copy;
  }
  // The driver sees its memory as the device's addresses say: behind an IOMMU its pages are anywhere.
  void arrange_view() {
    memory_ = *Mapping::of_file(memory_fd_.get(), memory_bytes, 0);
    if (view_.data() == nullptr) view_ = *Mapping::anonymous(memory_bytes);
    for (uint64_t i = 0; i < pages; ++i) {
      EXPECT_NE(::mmap(view_.data() + i * page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                       memory_fd_.get(), static_cast<off_t>(order_[i] * page)),
                MAP_FAILED);
    }
  }
  void open(std::unique_ptr<port::Port> port) {
    contract_.reset();
    device_.reset();
    net_ = std::make_unique<net::Net>(std::move(port), net::Net::Options{.mac = mac_});
    device_ = std::make_unique<engine::LocalDevice>(*net_, workers_);
    contract_ = std::make_unique<vhost::Contract>(*device_, vhost::Contract::Limits{.queues = 3});
  }
  void agree() {
    must(vhost::SetOwner{});
    must(vhost::SetProtocolFeatures{
        {bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD) | bit(vhost::VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)}});
    must(vhost::SetFeatures{features()});
    vhost::SetMemTable table;
    table.regions.push_back({.layout = {{low}, memory_bytes, {user_base}, 0}, .fd = *memory_fd_.duplicate()});
    must(std::move(table));
    if (shape_.iommu) map_iotlb();
    if (!tracks_) return;
    if (!area_.fd) area_ = *ask(vhost::GetInflightFd{2, ring_size});
    must(vhost::SetInflightFd{{.size = area_.size,
                               .offset = area_.offset,
                               .queues = area_.queues,
                               .queue_size = area_.queue_size,
                               .fd = *area_.fd.duplicate()}});
  }
  void map_iotlb() {
    for (uint64_t i = 0; i < pages; ++i) {
      must(vhost::UpdateIotlb{{.iova = {iova_base + i * page},
                               .size = page,
                               .front_end = {user_base + order_[i] * page},
                               .permission = 3,
                               .type = vhost::IotlbType::update}});
    }
  }
  [[nodiscard]] uint64_t address(uint64_t at) const { return (shape_.iommu ? iova_base : low) + at; }
  [[nodiscard]] vhost::SetVringAddr addresses(uint32_t index, bool logged) const {
    const ring::DriverLayout layout = queues_[index].config.layout();
    const uint64_t base = (shape_.iommu ? iova_base : user_base) + index * ring_bytes;
    return {.ring = index,
            .flags = logged ? 1U << VHOST_VRING_F_LOG : 0,
            .desc = base + layout.desc,
            .used = base + layout.device,
            .avail = base + layout.driver,
            .log = address(index * ring_bytes + layout.device)};
  }
  void describe(uint32_t index, const ring::RingBase& base) {
    const Queue& queue = queues_[index];
    must(vhost::SetVringNum{index, ring_size});
    must(vhost::SetVringBase{index, base.to_wire(shape_.packed)});
    must(addresses(index, false));
    must(vhost::SetVringCall{index, queue.call.copy()});
    must(vhost::SetVringErr{index, queue.err.copy()});
    must(vhost::SetVringEnable{index, 1});
    must(vhost::SetVringKick{index, queue.kick.copy()});
  }
  // All that a front-end knows when its back-end is gone.
  [[nodiscard]] ring::RingBase restart_base(uint32_t index) const {
    if (shape_.packed) return {};
    const std::byte* const at = queues_[index].config.area + queues_[index].config.layout().device + 2;
    uint16_t used = 0;
    std::memcpy(&used, at, sizeof used);
    return {.avail = used, .used = used};
  }

  void offer(Queue& queue, uint64_t at, uint32_t bytes, bool writable) {
    OfferedChain chain{.bytes = bytes, .pieces = {}};
    std::vector<ring::Buffer> buffers;
    const size_t most = shape_.indirect ? 8 : 3;
    for (uint32_t left = bytes; left > 0;) {
      const bool is_last = buffers.size() + 1 == most || left < 2 || below(2) == 0;
      const uint32_t here = is_last ? left : static_cast<uint32_t>(below(left - 1) + 1);
      chain.pieces.push_back({.at = at, .bytes = here});
      buffers.push_back({.address = {address(at)}, .length = here});
      at += here;
      left -= here;
    }
    const std::vector<ring::Buffer> none;
    const ring::Buffers both{.readable = writable ? none : buffers, .writable = writable ? buffers : none};
    const auto token = std::visit([&](auto& driver) { return driver.add(both); }, *queue.driver);
    ASSERT_TRUE(token);
    chain.token = *token;
    queue.chains.push_back(std::move(chain));
  }
  void publish(uint32_t index) {
    Queue& queue = queues_[index];
    if (std::visit([](auto& driver) { return driver.publish(); }, *queue.driver)) queue.kick.signal();
  }
  // Waits for the next that is used, which must be the oldest.
  std::optional<ring::Used> take(Queue& queue) {
    std::optional<ring::Used> used;
    const bool has_come = loop::testing::eventually([&] {
      const auto taken = std::visit([](auto& driver) { return driver.take_used(); }, *queue.driver);
      EXPECT_TRUE(taken);
      if (taken) used = *taken;
      return used || !taken;
    });
    if (!has_come || !used) return std::nullopt;
    EXPECT_FALSE(queue.chains.empty());
    EXPECT_EQ(used->token, queue.chains.front().token) << "not in order";
    return used;
  }
  [[nodiscard]] Bytes gather(const OfferedChain& chain, uint32_t written) const {
    Bytes bytes;
    for (const Piece& piece : chain.pieces) {
      const uint32_t here = std::min<uint32_t>(piece.bytes, written);
      bytes.insert(bytes.end(), view_.data() + piece.at, view_.data() + piece.at + here);
      written -= here;
    }
    EXPECT_EQ(written, 0U);
    return bytes;
  }

  const NetShape shape_;
  engine::Workers& workers_;
  std::mt19937_64 random_;
  net::Mac mac_{};
  UniqueFd memory_fd_{::memfd_create("net-machine", MFD_CLOEXEC)};
  Mapping memory_;
  Mapping view_;
  std::vector<uint64_t> order_;  // page i of the view is page order_[i] of the file
  bool tracks_ = false;
  vhost::InflightArea area_;
  Mapping log_;
  std::array<Queue, 2> queues_;
  Pages used_pages_;
  std::unique_ptr<net::Net> net_;
  std::unique_ptr<engine::LocalDevice> device_;
  std::unique_ptr<vhost::Contract> contract_;
};

}  // namespace ringway::tools
