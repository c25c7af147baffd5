// For the tests of migration: a disk in an engine, and the guest that uses it: memory in two regions that lie
// far apart, a ring in it, requests cut into pieces anywhere. What the device has written is found by
// comparing.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <semaphore>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "ringway/device/backing/file.h"
#include "ringway/device/backing/memory.h"
#include "ringway/device/blk/blk.h"
#include "ringway/engine/local_device.h"
#include "ringway/engine/rig_test.h"
#include "ringway/memory/dirty_log.h"
#include "ringway/ring/driver.h"
#include "ringway/vhost/contract.h"

namespace ringway::tools {

using vhost::bit;

struct MigrationShape {
  const char* name = "";
  bool packed = false;
  bool indirect = false;
  bool event_idx = true;
  bool iommu = false;
  bool file = false;  // the disk is a file, else memory
};

class MigrationRig {
 public:
  static constexpr uint64_t page = 4096;
  static constexpr uint64_t pages = 1024;
  static constexpr uint64_t memory_bytes = pages * page;
  static constexpr uint64_t half = memory_bytes / 2;
  static constexpr uint64_t low = 0x10'0000;     // guest address of the first half
  static constexpr uint64_t high = 0x4000'0000;  // of the second
  static constexpr uint64_t iova_base = 0x7000'0000;
  static constexpr uint64_t user_base = 0x7000'0000'0000;
  static constexpr uint64_t log_bytes = (high + half) / page / 8;
  static constexpr uint64_t slot_bytes = 48 * page;
  static constexpr uint32_t slots = 16;
  static constexpr uint64_t first_slot = 80 * page;  // of the driver's view; rings are before it
  static constexpr uint64_t slot_sectors = 32;       // of the disk, for each slot
  static constexpr uint64_t disk_bytes = slots * slot_sectors * 512;
  static constexpr uint32_t ring_size = 256;

  explicit MigrationRig(const MigrationShape& shape, uint64_t seed = 1,
                        engine::LocalDevice::Options options = {})
      : shape_(shape), random_(seed) {
    EXPECT_EQ(::ftruncate(memory_fd_.get(), memory_bytes), 0);
    memory_ = *Mapping::of_file(memory_fd_.get(), memory_bytes, 0);
    arrange_view();
    open_disk();
    blk_ =
        std::make_unique<blk::Blk>(std::move(backing_), blk::Blk::Options{.queues = 1, .serial = "a serial"});
    device_ = std::make_unique<engine::LocalDevice>(*blk_, *workers_, options);
    contract_ = std::make_unique<vhost::Contract>(*device_, vhost::Contract::Limits{.queues = 1});
    disk_.resize(disk_bytes);
  }
  MigrationRig(const MigrationRig&) = delete;
  MigrationRig& operator=(const MigrationRig&) = delete;
  ~MigrationRig() {
    device_->disconnect();
    if (!path_.empty()) ::unlink(path_.c_str());
  }

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
        bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_BLK_F_FLUSH) | bit(vhost::VHOST_USER_F_PROTOCOL_FEATURES);
    if (shape_.packed) features |= bit(VIRTIO_F_RING_PACKED);
    if (shape_.indirect) features |= bit(VIRTIO_RING_F_INDIRECT_DESC);
    if (shape_.event_idx) features |= bit(VIRTIO_RING_F_EVENT_IDX);
    if (shape_.iommu) features |= bit(VIRTIO_F_ACCESS_PLATFORM);
    return features;
  }
  void negotiate(uint64_t capabilities) {
    must(vhost::SetOwner{});
    must(vhost::SetProtocolFeatures{{capabilities}});
    must(vhost::SetFeatures{features()});
  }
  [[nodiscard]] vhost::SetMemTable table(const UniqueFd& file) const {
    vhost::SetMemTable table;
    table.regions.push_back({.layout = {{low}, half, {user_base}, 0}, .fd = *file.duplicate()});
    // The second half is the first one's neighbour in user addresses too, or not far from it.
    table.regions.push_back({.layout = {{high}, half, {user_base + half}, half}, .fd = *file.duplicate()});
    return table;
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
  void make_driver() {
    const ring::Format format = ring::Format::of(features(), false);
    config_ = {.size = ring_size,
               .format = format,
               .table_entries = shape_.indirect ? 64U : 0U,
               .area = view_.data(),
               .address = {shape_.iommu ? iova_base : low}};
    ASSERT_LT(config_.layout().bytes, first_slot);
    driver_.emplace(*ring::make_driver(config_));
  }
  [[nodiscard]] vhost::SetVringAddr addresses(bool logged) const {
    const ring::DriverLayout layout = config_.layout();
    const uint64_t base = shape_.iommu ? iova_base : user_base;
    return {.ring = 0,
            .flags = logged ? 1U << VHOST_VRING_F_LOG : 0,
            .desc = base + layout.desc,
            .used = base + layout.device,
            .avail = base + layout.driver,
            .log = (shape_.iommu ? iova_base : low) + layout.device};
  }
  void describe_ring(uint32_t base, bool logged = false) {
    must(vhost::SetVringNum{0, ring_size});
    must(vhost::SetVringBase{0, base});
    must(addresses(logged));
    must(vhost::SetVringCall{0, call_.copy()});
    must(vhost::SetVringErr{0, err_.copy()});
    must(vhost::SetVringKick{0, kick_.copy()});
    must(vhost::SetVringEnable{0, 1});
  }
  // All that comes before requests.
  void start(uint64_t capabilities = bit(vhost::VHOST_USER_PROTOCOL_F_LOG_SHMFD)) {
    negotiate(capabilities);
    must(table(memory_fd_));
    make_driver();
    if (shape_.iommu) map_iotlb();
    describe_ring(ring::RingBase{}.to_wire(shape_.packed));
  }

  // ---- the log

  void set_log(uint64_t offset = 0) {
    log_offset_ = offset;
    const UniqueFd file(::memfd_create("log", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(log_bytes + offset)), 0);
    log_ = *Mapping::of_file(file.get(), log_bytes + offset, 0);
    must(vhost::SetLogBase{.size = log_bytes, .offset = offset, .fd = *file.duplicate()});
  }
  void log_all(bool on) { must(vhost::SetFeatures{features() | (on ? bit(VHOST_F_LOG_ALL) : 0)}); }
  void log_ring(bool on) { must(addresses(on)); }
  // Pages of the file that are marked; others that are make the test fail. Forgets them.
  std::set<uint64_t> take_marks() {
    std::set<uint64_t> marks;
    for (uint64_t index = 0; index < log_bytes; ++index) {
      auto& byte = reinterpret_cast<uint8_t&>(log_.data()[log_offset_ + index]);
      const uint8_t bits = std::atomic_ref(byte).exchange(0);
      for (uint64_t number = 0; number < 8; ++number) {
        if ((bits >> number & 1) == 0) continue;
        const uint64_t address = (index * 8 + number) * page;
        if (address >= low && address < low + half) {
          marks.insert((address - low) / page);
        } else if (address >= high && address < high + half) {
          marks.insert((address - high + half) / page);
        } else {
          ADD_FAILURE() << fmt::format("a page outside of all memory is marked: {:#x}", address);
        }
      }
    }
    return marks;
  }

  // ---- requests

  enum class Kind : uint8_t { read, write, id, flush };
  // Makes one request for the slot, whose part of the disk nobody else uses, and which the disk can answer.
  // What it will write is made to be something else before.
  void add(uint32_t slot, Kind kind) {
    const uint64_t base = first_slot + slot * slot_bytes;
    const uint64_t sectors = below(slot_sectors) + 1;
    const uint64_t sector = slot * slot_sectors + below(slot_sectors - sectors + 1);
    const uint64_t bytes = kind == Kind::flush ? 0 : kind == Kind::id ? VIRTIO_BLK_ID_BYTES : sectors * 512;
    const virtio_blk_outhdr header{.type = type_of(kind), .ioprio = 0, .sector = sector};
    const uint64_t header_at = base + below(page - sizeof header);
    std::memcpy(view(header_at), &header, sizeof header);
    // Data, and the status somewhere behind it: mostly on another page.
    const uint64_t data_at = base + page + below(page);
    const uint64_t status_at = data_at + bytes + (below(4) == 0 ? 0 : below(2 * page));
    std::byte* const data = view(data_at);
    std::span content(disk_.data() + sector * 512, kind == Kind::id ? 0 : bytes);
    if (kind == Kind::write) {
      for (std::byte& byte : content) byte = static_cast<std::byte>(random_());
      std::ranges::copy(content, data);
    } else if (kind == Kind::read) {
      std::ranges::transform(content, data, [](std::byte byte) { return ~byte; });
    } else if (kind == Kind::id) {
      std::memset(data, 0xee, bytes);
    }
    *view(status_at) = std::byte{0xff};
    std::vector<ring::Buffer> readable;
    std::vector<ring::Buffer> writable;
    cut(header_at, sizeof header, readable);
    cut(data_at, bytes, kind == Kind::write ? readable : writable);
    cut(status_at, 1, writable);
    ASSERT_TRUE(std::visit([&](auto& driver) { return driver.add({readable, writable}); }, *driver_));
    pending_.push_back(
        {.status = view(status_at), .data = data, .content = content, .is_read = kind == Kind::read});
  }
  void add_random(uint32_t slot) { add(slot, static_cast<Kind>(std::min<uint64_t>(below(6), 5) % 4)); }
  void publish() {
    std::visit([](auto& driver) { static_cast<void>(driver.publish()); }, *driver_);
    kick_.signal();
  }
  // Waits for all that was added; each must have succeeded and brought what the disk holds.
  [[nodiscard]] bool finish(std::chrono::milliseconds wait = std::chrono::seconds(10)) {
    const auto end = std::chrono::steady_clock::now() + wait;
    size_t left = pending_.size();
    while (left > 0) {
      const auto used = std::visit([](auto& driver) { return driver.take_used(); }, *driver_);
      if (!used) {
        ADD_FAILURE() << used.error().to_string();
        return false;
      }
      if (*used) {
        --left;
      } else if (std::chrono::steady_clock::now() > end) {
        return false;
      }
    }
    bool good = true;
    for (const Pending& request : pending_) {
      good = good && *request.status == std::byte{VIRTIO_BLK_S_OK};
      good = good && (!request.is_read ||
                      std::ranges::equal(request.content, std::span(request.data, request.content.size())));
    }
    EXPECT_TRUE(good) << "a request failed, or brought something else than the disk holds";
    pending_.clear();
    return good;
  }
  // One request of a random kind in every slot.
  void add_batch() {
    for (uint32_t slot = 0; slot < slots; ++slot) add_random(slot);
  }
  // Where in the file the status of each request is that was added.
  [[nodiscard]] std::vector<uint64_t> status_offsets() const {
    std::vector<uint64_t> offsets;
    for (const Pending& request : pending_)
      offsets.push_back(file_offset(static_cast<uint64_t>(request.status - view_.data())));
    return offsets;
  }
  // Pages of the file that hold the data of the request that was added as number `index`.
  [[nodiscard]] std::set<uint64_t> data_pages(size_t index) const {
    std::set<uint64_t> all;
    const Pending& request = pending_[index];
    const auto begin = static_cast<uint64_t>(request.data - view_.data());
    for (uint64_t at = begin; at < begin + request.content.size(); ++at) all.insert(file_offset(at) / page);
    return all;
  }

  // ---- what changed

  // Calls f while the worker does nothing.
  template <class F>
  void while_idle(F&& f) {
    std::binary_semaphore idle(0);
    std::binary_semaphore go_on(0);
    workers_->worker(0).post([&] {
      idle.release();
      go_on.acquire();
    });
    idle.acquire();
    f();
    go_on.release();
    workers_->worker(0).run([] {});
  }
  [[nodiscard]] std::vector<std::byte> snapshot() const {
    return {memory_.bytes().begin(), memory_.bytes().end()};
  }
  [[nodiscard]] std::set<uint64_t> changed_since(std::span<const std::byte> before) const {
    std::set<uint64_t> changed;
    for (uint64_t i = 0; i < pages; ++i) {
      if (std::memcmp(memory_.data() + i * page, before.data() + i * page, page) != 0) changed.insert(i);
    }
    return changed;
  }
  // Pages of the file that hold the ring: a ring may write there what was there before.
  [[nodiscard]] std::set<uint64_t> ring_pages() const {
    std::set<uint64_t> all;
    for (uint64_t i = 0; i < first_slot / page; ++i) all.insert(order_[i]);
    return all;
  }

  [[nodiscard]] ring::Driver& driver() { return *driver_; }
  [[nodiscard]] blk::Blk& blk() { return *blk_; }
  [[nodiscard]] engine::LocalDevice& device() { return *device_; }
  [[nodiscard]] engine::Workers& workers() { return *workers_; }
  [[nodiscard]] const MigrationShape& shape() const { return shape_; }
  [[nodiscard]] const UniqueFd& memory_fd() const { return memory_fd_; }
  [[nodiscard]] std::span<std::byte> memory() const { return memory_.bytes(); }
  [[nodiscard]] std::vector<std::byte>& disk() { return disk_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const engine::Event& call() const { return call_; }
  uint64_t below(uint64_t end) { return random_() % end; }

 private:
  struct Pending {
    const std::byte* status;
    const std::byte* data;
    std::span<const std::byte> content;
    bool is_read;
  };

  // The driver sees its memory as the device's addresses say: behind an IOMMU its pages are anywhere.
  void arrange_view() {
    order_.resize(pages);
    std::iota(order_.begin(), order_.end(), uint64_t{0});
    if (shape_.iommu) std::ranges::shuffle(order_, random_);
    view_ = *Mapping::anonymous(memory_bytes);
    for (uint64_t i = 0; i < pages; ++i) {
      EXPECT_NE(::mmap(view_.data() + i * page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                       memory_fd_.get(), static_cast<off_t>(order_[i] * page)),
                MAP_FAILED);
    }
  }
  void open_disk() {
    if (!shape_.file) {
      backing_ = *backing::open_memory(disk_bytes);
      return;
    }
    path_ = fmt::format("{}/ringway-migration-{}-{}", testing::TempDir(), ::getpid(), random_());
    const UniqueFd file(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_EQ(::ftruncate(file.get(), disk_bytes), 0);
    backing_ = *backing::open_file(path_, {});
  }
  [[nodiscard]] uint64_t file_offset(uint64_t at) const { return order_[at / page] * page + at % page; }
  [[nodiscard]] std::byte* view(uint64_t at) const { return view_.data() + at; }
  static uint32_t type_of(Kind kind) {
    constexpr uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_FLUSH};
    return types[static_cast<size_t>(kind)];
  }
  [[nodiscard]] memory::GuestAddress address(uint64_t at) const {
    if (shape_.iommu) return {iova_base + at};
    return {at < half ? low + at : high + at - half};
  }
  // Cuts bytes of the view into buffers, anywhere, and where the regions meet.
  void cut(uint64_t at, uint64_t bytes, std::vector<ring::Buffer>& to) {
    const uint64_t most = shape_.indirect ? 8 : 2;
    while (bytes > 0) {
      uint64_t here = below(most) == 0 || bytes < 2 ? bytes : below(bytes - 1) + 1;
      if (to.size() > 20) here = bytes;
      if (!shape_.iommu && at < half) here = std::min(here, half - at);
      to.push_back({.address = address(at), .length = static_cast<uint32_t>(here)});
      at += here;
      bytes -= here;
    }
  }

  const MigrationShape shape_;
  std::mt19937_64 random_;
  UniqueFd memory_fd_{::memfd_create("migration-test", MFD_CLOEXEC)};
  Mapping memory_;
  Mapping view_;
  std::vector<uint64_t> order_;  // page i of the view is page order_[i] of the file
  std::string path_;
  std::unique_ptr<backing::Backing> backing_;
  engine::Event kick_, call_, err_;
  std::unique_ptr<engine::Workers> workers_ = *engine::Workers::start({.count = 1});
  std::unique_ptr<blk::Blk> blk_;
  std::unique_ptr<engine::LocalDevice> device_;
  std::unique_ptr<vhost::Contract> contract_;
  ring::DriverConfig config_;
  std::optional<ring::Driver> driver_;
  Mapping log_;
  uint64_t log_offset_ = 0;
  std::vector<std::byte> disk_;
  std::vector<Pending> pending_;
};

}  // namespace ringway::tools
