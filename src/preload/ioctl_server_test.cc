// kernel::IoctlServer over a real device, by whole sequences of ioctls.
#include <sys/resource.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <random>
#include <set>
#include <utility>

#include "ringway/preload/ioctl_rig_test.h"

namespace ringway::preload {
namespace {

class IoctlServer : public IoctlRig {};

TEST_F(IoctlServer, frames_come_back) {
  start();
  for (int i = 0; i < 100; ++i) echoes("frame number " + std::to_string(i));
}

TEST_F(IoctlServer, frames_come_back_with_every_offered_feature_of_rings) {
  uint64_t offered = 0;
  ASSERT_EQ(call(VHOST_GET_FEATURES, offered), 0);
  start(offered & ~(vhost::bit(VIRTIO_F_ACCESS_PLATFORM) | vhost::bit(VHOST_F_LOG_ALL)));
  for (int i = 0; i < 100; ++i) echoes("frame number " + std::to_string(i));
}

TEST_F(IoctlServer, frames_that_nobody_has_room_for_yet_are_kept) {
  start();
  for (const char* text : {"one", "two", "three"}) send(text);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(take_used(transmit));
  for (const char* text : {"one", "two", "three"}) {
    add_receive_buffer();
    EXPECT_EQ(received(), text);
  }
}

// Ten bytes of header instead of twelve: what was sent is no frame of that kind.
TEST_F(IoctlServer, frames_of_other_features_are_not_received) {
  start();
  send("x");
  EXPECT_TRUE(take_used(transmit));
  for (const uint32_t ring : {receive, transmit}) ASSERT_EQ(unbind(ring), 0);
  ASSERT_EQ(call(VHOST_SET_FEATURES, uint64_t{0}), 0);
  for (const uint32_t ring : {receive, transmit}) {
    std::memset(area(ring), 0, buffers_at);
    make_driver(ring, 0);
    describe(ring);
    ASSERT_EQ(bind(ring), 0);
  }
  add_receive_buffer();
  send("now");
  EXPECT_EQ(take_used(receive), header + 3);
}

TEST_F(IoctlServer, a_merged_frame_says_in_how_many_buffers_it_lies) {
  start(modern | vhost::bit(VIRTIO_NET_F_MRG_RXBUF));
  constexpr uint32_t small = 1024;
  for (int i = 0; i < 4; ++i) add_receive_buffer(small);
  send(std::string(3 * small - header - 1, 'x'));
  EXPECT_EQ(take_used(receive), small);
  EXPECT_EQ(take_used(receive), small);
  EXPECT_EQ(take_used(receive), small - 1);
  port::Header head;
  std::memcpy(static_cast<void*>(&head), buffer(receive, 0), port::plain_header);
  EXPECT_EQ(head.num_buffers, 3);
}

TEST_F(IoctlServer, an_unmerged_frame_that_is_too_long_for_its_buffer_is_dropped) {
  start();
  add_receive_buffer(64);
  send(std::string(200, 'x'));
  EXPECT_TRUE(take_used(transmit));
  send("short");
  EXPECT_EQ(received(), "short");
}

TEST_F(IoctlServer, drivers_are_called) {
  start();
  for (const UniqueFd& call : calls_) {
    eventfd_t count = 0;
    ASSERT_EQ(::eventfd_read(call.get(), &count), 0);  // the one that says: look whether you missed something
  }
  echoes("ring, ring");
  EXPECT_TRUE(signalled(calls_[receive]));
  EXPECT_TRUE(signalled(calls_[transmit]));
}

// ---- owner

TEST_F(IoctlServer, there_is_one_owner) {
  EXPECT_EQ(call(VHOST_SET_OWNER), 0);
  EXPECT_EQ(call(VHOST_SET_OWNER), -EBUSY);
  caller_.process_ += 1;
  EXPECT_EQ(call(VHOST_SET_OWNER), -EBUSY);
}

TEST_F(IoctlServer, who_is_not_the_owner_may_only_ask_for_features) {
  const std::array<unsigned long, 15> of_owner{
      VHOST_RESET_OWNER,    VHOST_SET_MEM_TABLE,   VHOST_SET_LOG_BASE,
      VHOST_SET_LOG_FD,     VHOST_SET_VRING_NUM,   VHOST_SET_VRING_ADDR,
      VHOST_SET_VRING_BASE, VHOST_GET_VRING_BASE,  VHOST_SET_VRING_KICK,
      VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR,   VHOST_SET_VRING_BUSYLOOP_TIMEOUT,
      VHOST_NEW_WORKER,     VHOST_NET_SET_BACKEND, 0xaffe};
  std::array<std::byte, 64> argument{};
  for (const bool owned : {false, true}) {
    if (owned) {
      EXPECT_EQ(call(VHOST_SET_OWNER), 0);
      caller_.process_ += 1;
    }
    for (const unsigned long request : of_owner) EXPECT_EQ(call(request, argument), -EPERM) << request;
    uint64_t features = 0;
    EXPECT_EQ(call(VHOST_GET_FEATURES, features), 0);
    EXPECT_NE(features & modern, 0U);
    features = modern;
    EXPECT_EQ(call(VHOST_SET_FEATURES, features), 0);
    EXPECT_EQ(call(VHOST_GET_BACKEND_FEATURES, features), 0);
    EXPECT_EQ(features, vhost::bit(VHOST_BACKEND_F_IOTLB_MSG_V2));
    EXPECT_EQ(call(VHOST_SET_BACKEND_FEATURES, features), 0);
  }
}

TEST_F(IoctlServer, reset_owner_makes_the_device_new) {
  start();
  echoes("before");
  EXPECT_EQ(call(VHOST_RESET_OWNER), 0);
  EXPECT_EQ(call(VHOST_RESET_OWNER), -EPERM);
  add_receive_buffer();
  send("meanwhile");
  EXPECT_FALSE(take_used(transmit, std::chrono::milliseconds(50)));
  EXPECT_EQ(call(VHOST_SET_OWNER), 0);
  EXPECT_EQ(base(transmit), 0U);
  EXPECT_EQ(unbind(transmit), -EFAULT);  // the memory table is gone too
}

TEST(IoctlServerLife, a_device_that_cannot_be_made_again_is_gone) {
  const auto workers = *engine::Workers::start({.count = 1, .use_io_uring = false});
  bool may_open = true;
  const auto make = [&]() -> Result<kernel::IoctlServer::Served> {
    if (!may_open) return refused("the test says so");
    return make_device("loopback", *workers);
  };
  const auto server = *kernel::IoctlServer::open({}, make);
  kernel::OwnProcess caller;
  EXPECT_EQ(server->ioctl(caller, VHOST_SET_OWNER, 0), 0);
  may_open = false;
  EXPECT_EQ(server->ioctl(caller, VHOST_RESET_OWNER, 0), -ENOMEM);
  EXPECT_EQ(server->ioctl(caller, VHOST_SET_OWNER, 0), -ENODEV);
  const vhost_msg_v2 message{.type = VHOST_IOTLB_MSG_V2};
  EXPECT_FALSE(server->write(caller, std::as_bytes(std::span(&message, 1))));
  EXPECT_FALSE(kernel::IoctlServer::open({}, make));
}

// ---- features

TEST_F(IoctlServer, features_that_are_not_offered_are_refused) {
  for (const unsigned number : {unsigned{VIRTIO_F_RING_PACKED}, 30U, 63U}) {
    uint64_t features = 0;
    EXPECT_EQ(call(VHOST_GET_FEATURES, features), 0);
    EXPECT_EQ(features & vhost::bit(number), 0U) << number;
    EXPECT_EQ(call(VHOST_SET_FEATURES, vhost::bit(number)), -EOPNOTSUPP) << number;
  }
  EXPECT_EQ(call(VHOST_SET_BACKEND_FEATURES, uint64_t{1}), -EOPNOTSUPP);
}

TEST_F(IoctlServer, a_feature_array_has_the_same_features_and_zeros_behind_them) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  uint64_t offered = 0;
  ASSERT_EQ(call(VHOST_GET_FEATURES, offered), 0);
  for (const uint64_t count : {0U, 1U, 2U, 4U}) {
    std::array<uint64_t, 6> array{count, 0xdead, 0xdead, 0xdead, 0xdead, 0xdead};
    EXPECT_EQ(call(VHOST_GET_FEATURES_ARRAY, array), 0);
    EXPECT_EQ(array[0], count);
    for (uint64_t word = 1; word < array.size(); ++word)
      EXPECT_EQ(array[word], word > count ? 0xdead : word == 1 ? offered : 0) << count << ' ' << word;
  }
  std::array<uint64_t, 1> endless{513};
  EXPECT_EQ(call(VHOST_GET_FEATURES_ARRAY, endless), -E2BIG);
  EXPECT_EQ(call(VHOST_SET_FEATURES_ARRAY, endless), -E2BIG);
}

TEST_F(IoctlServer, features_may_be_set_by_an_array) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  EXPECT_EQ(call(VHOST_SET_FEATURES_ARRAY, std::array<uint64_t, 3>{2, 0, 1}), -EOPNOTSUPP);
  EXPECT_EQ(call(VHOST_SET_FEATURES_ARRAY, std::array<uint64_t, 2>{1, vhost::bit(VIRTIO_F_RING_PACKED)}),
            -EOPNOTSUPP);
  EXPECT_EQ(call(VHOST_SET_FEATURES_ARRAY, std::array<uint64_t, 1>{0}), 0);
  EXPECT_EQ(call(VHOST_SET_FEATURES_ARRAY, std::array<uint64_t, 3>{2, modern, 0}), 0);
  ASSERT_EQ(set_memory(), 0);
  for (const uint32_t ring : {receive, transmit}) {
    make_driver(ring, modern);
    describe(ring);
    ASSERT_EQ(bind(ring), 0);
  }
  echoes("modern");
}

TEST_F(IoctlServer, the_workers_are_threads_of_the_owner) {
  uint8_t owner = 0xff;
  EXPECT_EQ(call(VHOST_GET_FORK_FROM_OWNER, owner), 0);
  EXPECT_EQ(owner, VHOST_FORK_OWNER_TASK);
  EXPECT_EQ(call(VHOST_SET_FORK_FROM_OWNER, owner), 0);
  EXPECT_EQ(call(VHOST_SET_FORK_FROM_OWNER, uint8_t{VHOST_FORK_OWNER_KTHREAD}), -EINVAL);
  EXPECT_EQ(call(VHOST_SET_FORK_FROM_OWNER, uint8_t{2}), -EINVAL);
  EXPECT_EQ(server_->ioctl(caller_, VHOST_SET_FORK_FROM_OWNER, 1), -EFAULT);
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  EXPECT_EQ(call(VHOST_SET_FORK_FROM_OWNER, owner), -EBUSY);
}

TEST_F(IoctlServer, features_may_change_under_running_rings) {
  start();
  echoes("before");
  EXPECT_EQ(call(VHOST_SET_FEATURES, modern | vhost::bit(VIRTIO_NET_F_MRG_RXBUF)), 0);
  echoes("after");
}

// ---- memory

TEST_F(IoctlServer, memory_tables_are_checked) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  struct {
    kernel::MemoryTableHead head;
    std::array<vhost_memory_region, 65> regions;
  } table{};
  EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), 0);
  table.head.padding = 1;
  EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), -EOPNOTSUPP);
  table.head = {.nregions = 65, .padding = 0};
  EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), -E2BIG);
  table.head.nregions = 1;
  table.regions[0] = {.guest_phys_addr = 0, .memory_size = 0, .userspace_addr = 4096};
  EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), -EFAULT);
  table.regions[0] = {.guest_phys_addr = UINT64_MAX - 1, .memory_size = 4096, .userspace_addr = 4096};
  EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), -EFAULT);
  table.regions[0] = {.guest_phys_addr = 0, .memory_size = 4096, .userspace_addr = uint64_t{1} << 63U};
  EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), 0);  // looked at when a ring is bound
  EXPECT_EQ(unbind(0), -EFAULT);
  table.regions[0] = {.guest_phys_addr = 0, .memory_size = 4096, .userspace_addr = 4096};
  EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), 0);  // not there yet; the kernel does not look either
}

// It ended programs without privileges: nothing can be mapped there, so nothing could be put there either.
TEST_F(IoctlServer, a_table_with_a_region_at_the_beginning_of_the_address_space_is_of_no_use) {
  set_up();
  struct {
    kernel::MemoryTableHead head;
    std::array<vhost_memory_region, 2> regions;
  } table{};
  table.head.nregions = 2;
  table.regions[0] = {
      .guest_phys_addr = guest_base, .memory_size = memory_size, .userspace_addr = address(memory_)};
  for (const uint64_t low : {0U, 4096U, 65535U}) {
    table.regions[1] = {.guest_phys_addr = 0, .memory_size = 4096, .userspace_addr = low};
    EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), 0);
    EXPECT_EQ(bind(transmit), -EFAULT) << low;
  }
}

TEST_F(IoctlServer, a_table_of_addresses_that_are_no_users_is_refused_under_running_rings) {
  start();
  struct {
    kernel::MemoryTableHead head;
    vhost_memory_region region;
  } table{};
  table.head.nregions = 1;
  table.region = {.guest_phys_addr = 0, .memory_size = 4096, .userspace_addr = uint64_t{1} << 63U};
  EXPECT_EQ(call(VHOST_SET_MEM_TABLE, table), -EFAULT);
  echoes("still there");
}

TEST_F(IoctlServer, the_memory_table_may_change_under_running_rings) {
  start();
  echoes("before");
  EXPECT_EQ(set_memory(memory_size - 4096), 0);
  echoes("after");
}

TEST_F(IoctlServer, a_table_that_does_not_hold_a_running_ring_is_refused) {
  start();
  echoes("before");
  EXPECT_EQ(set_memory(memory_size / 2), -EFAULT);  // the second ring lies behind
  echoes("after");
  unbind(transmit);
  EXPECT_EQ(set_memory(memory_size / 2), 0);
}

TEST_F(IoctlServer, memory_that_is_unmapped_breaks_the_ring_and_not_the_process) {
  start();
  echoes("before");
  const ring::Buffer gone{.address = {guest(buffer(transmit, 5))}, .length = 100};
  ASSERT_EQ(::munmap(buffer(transmit, 4), 4 * buffer_size), 0);
  ASSERT_TRUE(drivers_[transmit]->add({.readable = {&gone, 1}, .writable = {}}));
  kick(transmit);
  EXPECT_TRUE(signalled(errors_[transmit]));
  EXPECT_EQ(unbind(transmit), 0);
}

TEST_F(IoctlServer, memory_that_is_protected_breaks_the_ring_and_not_the_process) {
  start();
  echoes("before");
  ASSERT_EQ(::mprotect(buffer(transmit, 4), 4 * buffer_size, PROT_NONE), 0);
  const ring::Buffer gone{.address = {guest(buffer(transmit, 5))}, .length = 100};
  ASSERT_TRUE(drivers_[transmit]->add({.readable = {&gone, 1}, .writable = {}}));
  kick(transmit);
  EXPECT_TRUE(signalled(errors_[transmit]));
  EXPECT_EQ(unbind(transmit), 0);
}

TEST_F(IoctlServer, a_ring_that_is_unmapped_under_the_device_breaks_and_stops) {
  start();
  echoes("before");
  const UniqueFd& err = errors_[transmit];
  ASSERT_EQ(::munmap(area(transmit), buffers_at), 0);
  ASSERT_EQ(::eventfd_write(kicks_[transmit].get(), 1), 0);
  EXPECT_TRUE(signalled(err));
  EXPECT_EQ(unbind(transmit), 0);
  EXPECT_EQ(bind(transmit), -EFAULT);
}

// ---- rings

TEST_F(IoctlServer, there_are_two_rings) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  for (const unsigned long request : {VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE, VHOST_GET_VRING_BASE,
                                      VHOST_SET_VRING_ENDIAN, VHOST_SET_VRING_BUSYLOOP_TIMEOUT}) {
    EXPECT_EQ(call(request, vhost_vring_state{.index = 2, .num = 8}), -ENOBUFS) << request;
  }
  for (const unsigned long request :
       {VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR, VHOST_NET_SET_BACKEND}) {
    EXPECT_EQ(call(request, vhost_vring_file{.index = 2, .fd = -1}), -ENOBUFS) << request;
  }
}

TEST_F(IoctlServer, descriptions_of_rings_are_checked) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  for (const unsigned num : {0U, 3U, 0x10000U, 0xffffffffU}) {
    EXPECT_EQ(call(VHOST_SET_VRING_NUM, vhost_vring_state{.index = 0, .num = num}), -EINVAL) << num;
  }
  EXPECT_EQ(call(VHOST_SET_VRING_NUM, vhost_vring_state{.index = 0, .num = 0x8000}), 0);
  EXPECT_EQ(call(VHOST_SET_VRING_BASE, vhost_vring_state{.index = 0, .num = 0x10000}), -EINVAL);
  EXPECT_EQ(call(VHOST_SET_VRING_BASE, vhost_vring_state{.index = 0, .num = 0xffff}), 0);
  EXPECT_EQ(base(0), 0xffffU);
  vhost_vring_addr addresses{};
  addresses.flags = 2;
  EXPECT_EQ(call(VHOST_SET_VRING_ADDR, addresses), -EOPNOTSUPP);
  addresses = {.avail_user_addr = 1};
  EXPECT_EQ(call(VHOST_SET_VRING_ADDR, addresses), -EINVAL);
  addresses = {.used_user_addr = 2};
  EXPECT_EQ(call(VHOST_SET_VRING_ADDR, addresses), -EINVAL);
}

TEST_F(IoctlServer, kick_call_and_err_are_eventfds) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  for (const unsigned long request : {VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR}) {
    EXPECT_EQ(call(request, vhost_vring_file{.index = 0, .fd = 9999}), -EBADF) << request;
    EXPECT_EQ(call(request, vhost_vring_file{.index = 0, .fd = socket_.get()}), -EINVAL) << request;
    EXPECT_EQ(call(request, vhost_vring_file{.index = 0, .fd = -1}), 0) << request;
    EXPECT_EQ(call(request, vhost_vring_file{.index = 0, .fd = kicks_[0].get()}), 0) << request;
  }
  EXPECT_EQ(call(VHOST_SET_LOG_FD, 9999), -EBADF);
  EXPECT_EQ(call(VHOST_SET_LOG_FD, socket_.get()), -EINVAL);
  EXPECT_EQ(call(VHOST_SET_LOG_FD, -1), 0);
  EXPECT_EQ(call(VHOST_SET_LOG_BASE, uint64_t{0}), 0);
}

TEST_F(IoctlServer, an_active_ring_keeps_its_size_and_base) {
  start();
  EXPECT_EQ(call(VHOST_SET_VRING_NUM, vhost_vring_state{.index = 0, .num = 8}), -EBUSY);
  EXPECT_EQ(call(VHOST_SET_VRING_BASE, vhost_vring_state{.index = 0, .num = 8}), -EBUSY);
  EXPECT_EQ(call(VHOST_SET_VRING_ENDIAN, vhost_vring_state{.index = 0, .num = 1}), -EBUSY);
  EXPECT_EQ(unbind(0), 0);
  EXPECT_EQ(call(VHOST_SET_VRING_NUM, vhost_vring_state{.index = 0, .num = 8}), 0);
}

TEST_F(IoctlServer, get_vring_base_only_reads) {
  start();
  for (uint32_t i = 1; i <= 5; ++i) {
    echoes("frame");
    EXPECT_EQ(base(receive), i);
    EXPECT_EQ(base(transmit), i);
  }
}

TEST_F(IoctlServer, receive_buffers_that_wait_are_no_part_of_the_base) {
  start();
  for (int i = 0; i < 3; ++i) add_receive_buffer();
  EXPECT_EQ(unbind(receive), 0);
  EXPECT_EQ(base(receive), 0U);
  EXPECT_EQ(bind(receive), 0);
  send("late");
  EXPECT_EQ(received(), "late");
}

// A device that is told of backends, and what it was told.
class IoctlServerBackend : public IoctlServer {
 protected:
  void SetUp() override {
    server_ = *kernel::IoctlServer::open({}, [this]() -> Result<kernel::IoctlServer::Served> {
      auto served = make_device("loopback", *workers_);
      served->set_backend = [this](uint32_t ring, UniqueFd backend) -> Result<> {
        if (backend && refuses_) return os_failure("the test says so", EBADFD);
        if (backend) files_.insert(inode_of(backend));
        told_.push_back(std::to_string(ring) + (backend ? " bound" : " unbound"));
        backends_[ring] = std::move(backend);
        return {};
      };
      return served;
    });
  }
  static ino_t inode_of(const UniqueFd& fd) {
    struct stat status{};
    EXPECT_EQ(::fstat(fd.get(), &status), 0);
    return status.st_ino;
  }
  std::vector<std::string> told() { return std::exchange(told_, {}); }
  bool refuses_ = false;
  std::set<ino_t> files_;
  std::array<UniqueFd, 2> backends_;

 private:
  std::vector<std::string> told_;
};

TEST_F(IoctlServerBackend, the_device_is_told_before_a_ring_starts_and_after_it_has_stopped) {
  start();
  EXPECT_EQ(told(), (std::vector<std::string>{"0 bound", "1 bound"}));
  EXPECT_EQ(files_, std::set<ino_t>{inode_of(socket_)});
  echoes("frames go on as ever");
  EXPECT_EQ(unbind(transmit), 0);
  EXPECT_EQ(unbind(transmit), 0);
  EXPECT_EQ(told(), std::vector<std::string>{"1 unbound"});
}

TEST_F(IoctlServerBackend, another_one_under_a_running_ring_is_taken) {
  start();
  told();
  socket_ = UniqueFd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  EXPECT_EQ(bind(transmit), 0);
  EXPECT_EQ(told(), (std::vector<std::string>{"1 unbound", "1 bound"}));
  EXPECT_EQ(files_.size(), 2U);
  echoes("and the ring goes on where it was");
}

TEST_F(IoctlServerBackend, what_the_device_refuses_the_program_is_refused) {
  set_up();
  refuses_ = true;
  EXPECT_EQ(bind(transmit), -EBADFD);
  refuses_ = false;
  EXPECT_EQ(bind(transmit), 0);
}

TEST_F(IoctlServerBackend, a_ring_that_cannot_start_leaves_none_behind) {
  set_up();
  ASSERT_EQ(set_memory(4096), 0);
  EXPECT_NE(bind(transmit), 0);
  EXPECT_EQ(told(), (std::vector<std::string>{"1 bound", "1 unbound"}));
}

TEST_F(IoctlServer, unbinding_stops_a_ring_and_binding_goes_on_with_it) {
  start();
  echoes("before");
  EXPECT_EQ(unbind(transmit), 0);
  EXPECT_EQ(unbind(transmit), 0);
  add_receive_buffer();
  send("meanwhile");
  EXPECT_FALSE(take_used(transmit, std::chrono::milliseconds(50)));
  EXPECT_EQ(bind(transmit), 0);
  EXPECT_EQ(received(), "meanwhile");
}

TEST_F(IoctlServer, the_kick_of_an_active_ring_may_be_replaced_and_unbound) {
  start();
  echoes("before");
  kicks_[transmit] = *make_eventfd();
  EXPECT_EQ(call(VHOST_SET_VRING_KICK, vhost_vring_file{.index = transmit, .fd = kicks_[transmit].get()}), 0);
  echoes("after");
  EXPECT_EQ(call(VHOST_SET_VRING_KICK, vhost_vring_file{.index = transmit, .fd = -1}), 0);
  EXPECT_EQ(unbind(transmit), 0);
}

TEST_F(IoctlServer, addresses_of_an_active_ring_may_change_to_what_can_be_used) {
  start();
  echoes("before");
  EXPECT_EQ(call(VHOST_SET_VRING_ADDR, addresses(transmit)), 0);
  echoes("after");
  vhost_vring_addr bad = addresses(transmit);
  bad.desc_user_addr = 4096;
  EXPECT_EQ(call(VHOST_SET_VRING_ADDR, bad), -EINVAL);
  echoes("still");
}

TEST_F(IoctlServer, a_ring_that_is_not_described_cannot_be_bound) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  EXPECT_EQ(unbind(0), -EFAULT);
  ASSERT_EQ(set_memory(), 0);
  EXPECT_EQ(unbind(0), 0);
  EXPECT_EQ(bind(0), -EFAULT);
  make_driver(0, modern);
  vhost_vring_addr bad = addresses(0);
  bad.used_user_addr = 4096;
  ASSERT_EQ(call(VHOST_SET_VRING_NUM, vhost_vring_state{.index = 0, .num = ring_size}), 0);
  ASSERT_EQ(call(VHOST_SET_VRING_ADDR, bad), 0);
  EXPECT_EQ(bind(0), -EFAULT);
}

TEST_F(IoctlServer, a_backend_is_a_tap_or_a_packet_socket) {
  set_up();
  const UniqueFd other(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  for (const int fd : {9999, kicks_[0].get(), other.get()}) {
    EXPECT_EQ(call(VHOST_NET_SET_BACKEND, vhost_vring_file{.index = 0, .fd = fd}), -ENOTSOCK) << fd;
  }
  EXPECT_EQ(bind(0), 0);
}

TEST_F(IoctlServer, the_busy_loop_timeout_is_what_was_set) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  EXPECT_EQ(call(VHOST_SET_VRING_BUSYLOOP_TIMEOUT, vhost_vring_state{.index = 1, .num = 50}), 0);
  vhost_vring_state state{.index = 1, .num = 0};
  EXPECT_EQ(call(VHOST_GET_VRING_BUSYLOOP_TIMEOUT, state), 0);
  EXPECT_EQ(state.num, 50U);
  EXPECT_EQ(call(VHOST_SET_VRING_ENDIAN, vhost_vring_state{.index = 1, .num = 2}), -EINVAL);
  EXPECT_EQ(call(VHOST_SET_VRING_ENDIAN, vhost_vring_state{.index = 1, .num = 1}), 0);
  EXPECT_EQ(call(VHOST_GET_VRING_ENDIAN, state), 0);
  EXPECT_EQ(state.num, 1U);
}

// ---- what nobody should do

TEST_F(IoctlServer, bad_pointers_are_noticed) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  void* page = ::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  // Not unmapped: another thread could map something of its own there.
  ASSERT_EQ(::mprotect(static_cast<std::byte*>(page) + 4096, 4096, PROT_NONE), 0);
  const uint64_t edge = address(page) + 4096 - 2;
  for (const kernel::IoctlInfo& info : kernel::ioctl_table()) {
    if (info.argument == kernel::Argument::nothing || info.request == VHOST_SET_FORK_FROM_OWNER) continue;
    for (const uint64_t bad : {uint64_t{0}, uint64_t{1}, edge, ~uint64_t{0}, uint64_t{1} << 62U}) {
      if (bad == edge && size_of(info.argument) <= 2) continue;
      EXPECT_EQ(server_->ioctl(caller_, info.request, bad), -EFAULT) << info.name << ' ' << bad;
    }
  }
  auto* table = static_cast<std::byte*>(page) + 4096 - sizeof(kernel::MemoryTableHead);
  const kernel::MemoryTableHead head{.nregions = 1};  // which is not there
  std::memcpy(table, &head, sizeof head);
  EXPECT_EQ(server_->ioctl(caller_, VHOST_SET_MEM_TABLE, address(table)), -EFAULT);
  ASSERT_EQ(::munmap(page, 8192), 0);
}

// The kernel takes what it does not know for an ioctl about a ring until the last moment.
TEST_F(IoctlServer, unknown_ioctls_are_refused) {
  ASSERT_EQ(call(VHOST_SET_OWNER), 0);
  for (const unsigned long request : {0xaffeUL, 0UL, VHOST_VSOCK_SET_RUNNING, VHOST_SCSI_SET_ENDPOINT,
                                      VHOST_VDPA_GET_DEVICE_ID, VHOST_NEW_WORKER}) {
    std::array<uint32_t, 64> argument{};
    EXPECT_EQ(call(request, argument), -ENOTTY) << request;
    argument[0] = 2;
    EXPECT_EQ(call(request, argument), -ENOBUFS) << request;
    EXPECT_EQ(call(request), -EFAULT) << request;
  }
}

// Anything at any time, by numbers that repeat: what comes out is 0 or an errno, and the process lives.
TEST_F(IoctlServer, random_ioctls_with_random_arguments_are_survived) {
  std::mt19937_64 random(20260101);  // NOLINT(cert-msc51-cpp): the same every time
  const auto pick = [&](const auto& from) { return from[random() % std::size(from)]; };
  const std::array<int, 6> files{-1, kicks_[0].get(), calls_[0].get(), errors_[0].get(), socket_.get(), 9999};
  make_driver(receive, modern);
  make_driver(transmit, modern);
  unsigned succeeded = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::array<uint64_t, 16> argument{};
    const std::array<uint64_t, 13> numbers{modern,
                                           modern | vhost::bit(VIRTIO_F_ACCESS_PLATFORM),
                                           modern | vhost::bit(VHOST_F_LOG_ALL),
                                           0,
                                           1,
                                           2,
                                           16,
                                           256,
                                           0xffffffff,
                                           4096,
                                           guest_base,
                                           memory_size,
                                           address(memory_)};
    for (uint64_t& word : argument) word = pick(numbers);
    const kernel::IoctlInfo info = pick(kernel::ioctl_table());
    const auto ring = static_cast<uint32_t>(random() % 3);
    if (info.argument == kernel::Argument::vring_file)
      argument[0] = static_cast<uint64_t>(pick(files)) << 32U | ring;
    if (info.argument == kernel::Argument::vring_state) argument[0] = pick(numbers) << 32U | ring;
    if (info.argument == kernel::Argument::vring_addr && random() % 2 == 0) {
      const vhost_vring_addr sound = addresses(ring % 2);
      std::memcpy(argument.data(), &sound, sizeof sound);
    }
    if (info.argument == kernel::Argument::memory && random() % 2 == 0) {
      argument = {1, guest_base, memory_size, address(memory_)};
    }
    if (info.argument == kernel::Argument::features_array && argument[0] < 512) argument[0] %= 15;
    if (info.request == VHOST_RESET_OWNER && random() % 8 != 0) continue;
    const long result = call(info.request, argument);
    ASSERT_LE(result, 0);
    ASSERT_GT(result, -4096);
    succeeded += result == 0 ? 1 : 0;
    const auto written = server_->write(caller_, std::as_bytes(std::span(argument)));
    const auto got = server_->read(std::as_writable_bytes(std::span(argument)));
    ASSERT_TRUE(written || written.error().os_error > 0);
    ASSERT_TRUE(got || got.error().os_error > 0);
  }
  EXPECT_GT(succeeded, 1000U);
}

TEST_F(IoctlServer, threads_that_all_call_at_once_wait_for_each_other) {
  start();
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        EXPECT_EQ(set_memory(), 0);
        (void)base(receive);
      }
    });
  }
  for (int i = 0; i < 50; ++i) echoes("frame " + std::to_string(i));
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace ringway::preload
