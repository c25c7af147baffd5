// A front-end truncates its memory while a disk works on it: what we touch afterwards is a fault (SIGBUS),
// what the kernel touches for us is an error (EFAULT). Disks in memory, in a file with io_uring, and in a
// file with threads.
#include <fcntl.h>
#include <linux/virtio_blk.h>

#include "ringway/tools/hostile_rig_test.h"
#include "ringway/tools/served_device.h"

namespace ringway::tools {
namespace {

struct Disk {
  const char* name;
  bool in_file;
  bool io_uring;
};

class TruncatedMemory : public testing::TestWithParam<Disk> {
 protected:
  static constexpr uint64_t disk_size = 4 << 20;
  static constexpr uint64_t data_guest = 0x8000'0000;
  static constexpr uint64_t data_user = 0x7800'0000'0000;
  static constexpr uint64_t data_size = 1 << 20;

  TruncatedMemory() {
    attacked_ = serve("attacked");
    other_ = serve("other");
    EXPECT_TRUE(attacked_->attach(*listener_));
    EXPECT_TRUE(other_->attach(*listener_));
    begin(neighbour_, "other");
    EXPECT_EQ(ask(*neighbour_, VIRTIO_BLK_T_IN), VIRTIO_BLK_S_OK);
    begin(hostile_, "attacked");
    map_data();
    EXPECT_EQ(ask(*hostile_, VIRTIO_BLK_T_OUT), VIRTIO_BLK_S_OK);
    EXPECT_EQ(ask(*hostile_, VIRTIO_BLK_T_OUT, data_guest), VIRTIO_BLK_S_OK);
  }

  // The other disk works, and so does this one for the next front-end.
  void TearDown() override {
    EXPECT_EQ(ask(*neighbour_, VIRTIO_BLK_T_IN), VIRTIO_BLK_S_OK);
    hostile_.reset();
    begin(hostile_, "attacked");
    EXPECT_EQ(ask(*hostile_, VIRTIO_BLK_T_IN), VIRTIO_BLK_S_OK);
    hostile_.reset();
    neighbour_.reset();
    listener_->stop();
    std::filesystem::remove_all(folder_);
  }

  std::unique_ptr<ServedDevice> serve(const std::string& name) {
    DeviceOptions options{.socket_path = folder_ + "/" + name};
    if (GetParam().in_file) {
      options.blk_file = folder_ + "/" + name + ".disk";
      const UniqueFd file(::open(options.blk_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
      EXPECT_EQ(::ftruncate(file.get(), disk_size), 0);
    } else {
      options.memory = disk_size;
    }
    auto device = ServedDevice::open(options, *workers_);
    EXPECT_TRUE(device) << device.error();
    return *std::move(device);
  }
  void begin(std::unique_ptr<FrontEnd>& front_end, const std::string& name) {
    front_end = std::make_unique<FrontEnd>(folder_ + "/" + name);
    front_end->hello(modern | bit(VIRTIO_BLK_F_FLUSH));
    EXPECT_EQ(front_end->share({FrontEnd::whole()}), 0U);
    front_end->start(0, 64);
  }
  // A second region, in a file of its own, for data.
  void map_data() {
    data_file_.reset(::memfd_create("hostile", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(data_file_.get(), data_size), 0);
    ASSERT_EQ(
        hostile_->ack(add_mem_reg, payload(uint64_t{0}, WireRegion{data_guest, data_size, data_user, 0}),
                      FrontEnd::one(std::move(data_file_.duplicate().value()))),
        0U);
  }

  // Asks for the first 64 KiB of the disk. `data`: guest address of the buffer. The status; -1: none came.
  static int ask(FrontEnd& front_end, uint32_t type, uint64_t data = FrontEnd::guest_base + FrontEnd::data) {
    submit(front_end, type, data);
    return answer(front_end);
  }
  static void submit(FrontEnd& front_end, uint32_t type, uint64_t data) {
    constexpr uint64_t head = 0x70000;
    std::byte* const memory = front_end.memory();
    const Bytes header = payload(type, uint32_t{0}, uint64_t{0});
    std::memcpy(memory + head, header.data(), header.size());
    memory[head + 16] = std::byte{0xff};
    const std::array<ring::Buffer, 2> buffers{
        {{.address = {FrontEnd::guest_base + head}, .length = 16}, {.address = {data}, .length = 64 << 10}}};
    const std::array<ring::Buffer, 2> writable{
        {{.address = {data}, .length = 64 << 10},
         {.address = {FrontEnd::guest_base + head + 16}, .length = 1}}};
    const bool write = type == VIRTIO_BLK_T_OUT;
    FrontEnd::Ring& ring = front_end.ring_at(0);
    std::visit(
        [&](auto& driver) {
          ASSERT_TRUE(driver.add({.readable = std::span(buffers).first(write ? 2 : 1),
                                  .writable = std::span(writable).last(write ? 1 : 2)}));
          (void)driver.publish();
        },
        *ring.driver);
    ring.kick.signal();
  }
  static int answer(FrontEnd& front_end, std::chrono::milliseconds within = 5s) {
    const auto end = std::chrono::steady_clock::now() + within;
    while (std::chrono::steady_clock::now() < end) {
      const auto used =
          std::visit([](auto& driver) { return driver.take_used(); }, *front_end.ring_at(0).driver);
      if (used && *used) return static_cast<int>(front_end.memory()[0x70010]);
      std::this_thread::sleep_for(1ms);
    }
    return -1;
  }

  const std::string folder_ = [] {
    std::string name = std::filesystem::temp_directory_path() / "ringway-truncated-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    return name;
  }();
  std::unique_ptr<engine::Workers> workers_ =
      engine::Workers::start({.count = 1, .use_io_uring = GetParam().io_uring}).value();
  std::unique_ptr<ServedDevice> attacked_;
  std::unique_ptr<ServedDevice> other_;
  std::unique_ptr<user::Listener> listener_ = user::Listener::start().value();
  std::unique_ptr<FrontEnd> neighbour_;
  std::unique_ptr<FrontEnd> hostile_;
  UniqueFd data_file_;
};

TEST_P(TruncatedMemory, H114_under_a_ring_breaks_the_ring) {
  ASSERT_EQ(::ftruncate(hostile_->file().get(), 0), 0);
  hostile_->ring_at(0).kick.signal();
  EXPECT_TRUE(hostile_->broke());
  hostile_->barrier();
  ASSERT_EQ(::ftruncate(hostile_->file().get(), FrontEnd::size), 0) << "for the test's own mapping";
}

TEST_P(TruncatedMemory, H114_under_the_data_of_a_request_ends_the_request_or_the_ring_and_nothing_else) {
  ASSERT_EQ(::ftruncate(data_file_.get(), 0), 0);
  for (const uint32_t type : {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT}) {
    submit(*hostile_, type, data_guest);
    const int status = answer(*hostile_, 500ms);
    if (GetParam().in_file) {
      EXPECT_EQ(status, VIRTIO_BLK_S_IOERR) << "the kernel touched it: EFAULT";
      continue;
    }
    EXPECT_TRUE(hostile_->broke()) << "we touched it";
    break;
  }
  hostile_->barrier();
}

TEST_P(TruncatedMemory, H114_while_requests_are_under_way_ends_them_or_the_ring) {
  for (int i = 0; i < 16; ++i)
    submit(*hostile_, i % 2 == 0 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, data_guest + i * 0x10000);
  ASSERT_EQ(::ftruncate(data_file_.get(), 8192), 0);
  // Whatever came of them: the ring can be stopped, so nothing is left under way.
  hostile_->stop(0);
}

TEST_P(TruncatedMemory, memory_that_is_the_disk_itself_is_the_operators_mistake_and_no_crash) {
  if (!GetParam().in_file) GTEST_SKIP() << "a disk in memory has no file";
  const UniqueFd disk(::open((folder_ + "/attacked.disk").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(disk);
  const WireRegion region{0x9000'0000, disk_size, 0x7900'0000'0000, 0};
  ASSERT_EQ(hostile_->ack(add_mem_reg, payload(uint64_t{0}, region),
                          FrontEnd::one(std::move(disk.duplicate().value()))),
            0U);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(ask(*hostile_, VIRTIO_BLK_T_IN, 0x9000'0000 + 4096), VIRTIO_BLK_S_OK);
    EXPECT_EQ(ask(*hostile_, VIRTIO_BLK_T_OUT, 0x9000'0000 + 8192), VIRTIO_BLK_S_OK);
  }
}

INSTANTIATE_TEST_SUITE_P(Disks, TruncatedMemory,
                         testing::Values(Disk{"in_memory", false, true},
                                         Disk{"in_a_file_with_io_uring", true, true},
                                         Disk{"in_a_file_with_threads", true, false}),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace ringway::tools
