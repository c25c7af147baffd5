// The state of a disk on its way from one back-end to another. vhost-user "Migrating back-end state".
#include "ringway/engine/device_state.h"

#include <poll.h>
#include <sys/socket.h>

#include <thread>

#include "ringway/tools/migration_rig_test.h"

namespace ringway::tools {
namespace {

using Bytes = std::vector<std::byte>;
using std::chrono::milliseconds;
constexpr uint32_t save = 0;
constexpr uint32_t load = 1;
constexpr uint64_t capability =
    bit(vhost::VHOST_USER_PROTOCOL_F_DEVICE_STATE) | bit(vhost::VHOST_USER_PROTOCOL_F_CONFIG);
constexpr uint32_t writeback_at = 32;  // in the configuration space

struct Pipe {
  Pipe() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    read = UniqueFd(ends[0]);
    write = UniqueFd(ends[1]);
  }
  UniqueFd read;
  UniqueFd write;
};

Bytes read_all(const UniqueFd& from) {
  Bytes bytes;
  std::array<std::byte, 4096> buffer;
  ssize_t count = 0;
  while ((count = ::read(from.get(), buffer.data(), buffer.size())) > 0)
    bytes.insert(bytes.end(), buffer.begin(), buffer.begin() + count);
  EXPECT_EQ(count, 0);
  return bytes;
}

void write_all(const UniqueFd& to, const Bytes& bytes) {
  ASSERT_EQ(::write(to.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
}

engine::LocalDevice::Options impatient() { return {.state_patience = milliseconds(200)}; }

class DeviceStateOf : public testing::Test {
 protected:
  void SetUp() override {
    source_.negotiate(capability);
    target_.negotiate(capability);
  }
  Bytes saved() {
    Pipe pipe;
    EXPECT_TRUE(source_.ask(vhost::SetDeviceStateFd{.direction = save, .fd = std::move(pipe.write)}));
    const Bytes bytes = read_all(pipe.read);
    EXPECT_EQ(source_.ask(vhost::CheckDeviceState{}).value_or(1), 0U);
    return bytes;
  }
  // Whether the target takes it.
  bool loads(const Bytes& bytes) {
    Pipe pipe;
    EXPECT_TRUE(target_.ask(vhost::SetDeviceStateFd{.direction = load, .fd = std::move(pipe.read)}));
    write_all(pipe.write, bytes);
    pipe.write.reset();
    return target_.ask(vhost::CheckDeviceState{}).has_value();
  }
  void set_writeback(MigrationRig& rig, uint8_t mode) {
    rig.must(vhost::SetConfig{{.offset = writeback_at, .flags = 1, .bytes = {static_cast<std::byte>(mode)}}});
  }
  int writeback(MigrationRig& rig) {
    return static_cast<int>(rig.ask(vhost::GetConfig{.offset = writeback_at, .size = 1})->bytes[0]);
  }
  MigrationRig source_{{.name = "split"}, 1, impatient()};
  MigrationRig target_{{.name = "split"}, 2, impatient()};
};

TEST_F(DeviceStateOf, N061_N064_N127_the_cache_mode_goes_from_one_disk_to_another) {
  for (const uint8_t mode : {0, 1, 0}) {
    set_writeback(source_, mode);
    set_writeback(target_, 1 - mode);
    ASSERT_TRUE(loads(saved()));
    EXPECT_EQ(writeback(target_), mode);
  }
}

TEST_F(DeviceStateOf, H166_N066_a_state_that_is_cut_off_or_changed_is_refused_whole) {
  set_writeback(source_, 0);
  Bytes state = saved();
  for (size_t size = 0; size < state.size(); ++size)
    EXPECT_FALSE(loads({state.begin(), state.begin() + static_cast<ptrdiff_t>(size)})) << size;
  for (size_t at = 0; at < state.size(); ++at) {
    state[at] ^= std::byte{0x10};
    EXPECT_FALSE(loads(state)) << at;
    state[at] ^= std::byte{0x10};
  }
  EXPECT_EQ(writeback(target_), 1);
  EXPECT_TRUE(loads(state));
  EXPECT_EQ(writeback(target_), 0);
}

// In a whole envelope, so that only the disk itself can refuse it.
TEST_F(DeviceStateOf, H166_a_disk_refuses_a_future_version_an_unknown_mode_and_a_disk_that_was_larger) {
  const Bytes good = source_.blk().save_state();
  const auto with = [&](size_t at, uint8_t value) {
    Bytes changed = good;
    changed[at] = static_cast<std::byte>(value);
    return engine::wrap_state(2, changed);
  };
  EXPECT_TRUE(loads(engine::wrap_state(2, good)));
  EXPECT_FALSE(loads(with(0, 2)));
  EXPECT_FALSE(loads(with(4, 2)));
  EXPECT_FALSE(loads(with(15, 1)));
  EXPECT_FALSE(loads(engine::wrap_state(2, std::span(good).first(15))));
}

TEST_F(DeviceStateOf, H166_H355_an_endless_state_is_refused_and_not_kept) {
  Pipe pipe;
  target_.must(vhost::SetDeviceStateFd{.direction = load, .fd = std::move(pipe.read)});
  ::signal(SIGPIPE, SIG_IGN);
  const Bytes zeros(65536);
  uint64_t taken = 0;
  while (::write(pipe.write.get(), zeros.data(), zeros.size()) > 0) taken += zeros.size();
  EXPECT_EQ(errno, EPIPE);
  EXPECT_LT(taken, 4U << 20);
  EXPECT_FALSE(target_.ask(vhost::CheckDeviceState{}));
}

TEST_F(DeviceStateOf, H167_a_channel_that_is_never_closed_is_waited_for_a_bounded_time) {
  Pipe pipe;
  target_.must(vhost::SetDeviceStateFd{.direction = load, .fd = std::move(pipe.read)});
  write_all(pipe.write, saved());
  const auto before = std::chrono::steady_clock::now();
  EXPECT_FALSE(target_.ask(vhost::CheckDeviceState{}));
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5));
  EXPECT_TRUE(loads(saved()));
}

TEST_F(DeviceStateOf, H167_a_reset_aborts_a_transfer) {
  Pipe pipe;
  target_.must(vhost::SetDeviceStateFd{.direction = load, .fd = std::move(pipe.read)});
  target_.device().disconnect();
  ::signal(SIGPIPE, SIG_IGN);
  const std::byte one{};
  EXPECT_EQ(::write(pipe.write.get(), &one, 1), -1);  // nobody reads any more
}

TEST_F(DeviceStateOf, H169_a_second_transfer_is_refused_while_one_runs) {
  Pipe first;
  Pipe second;
  target_.must(vhost::SetDeviceStateFd{.direction = load, .fd = std::move(first.read)});
  EXPECT_FALSE(target_.ask(vhost::SetDeviceStateFd{.direction = load, .fd = std::move(second.read)}));
  first.write.reset();
  EXPECT_FALSE(target_.ask(vhost::CheckDeviceState{}));  // an empty one
  EXPECT_TRUE(loads(saved()));
}

TEST_F(DeviceStateOf, H164_a_channel_of_the_wrong_direction_is_refused) {
  Pipe pipe;
  EXPECT_FALSE(source_.ask(vhost::SetDeviceStateFd{.direction = save, .fd = std::move(pipe.read)}));
  EXPECT_FALSE(source_.ask(vhost::SetDeviceStateFd{.direction = load, .fd = std::move(pipe.write)}));
  EXPECT_FALSE(source_.ask(vhost::CheckDeviceState{}));
}

TEST_F(DeviceStateOf, a_reader_that_leaves_makes_the_check_fail_and_no_more) {
  Pipe pipe;
  pipe.read.reset();
  source_.must(vhost::SetDeviceStateFd{.direction = save, .fd = std::move(pipe.write)});
  EXPECT_FALSE(source_.ask(vhost::CheckDeviceState{}));
  EXPECT_FALSE(saved().empty());
}

TEST_F(DeviceStateOf, a_socket_serves_as_well_as_a_pipe) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd ours(ends[0]);
  source_.must(vhost::SetDeviceStateFd{.direction = save, .fd = UniqueFd(ends[1])});
  EXPECT_TRUE(loads(read_all(ours)));
}

TEST(DeviceStateSource, N067_H320_after_its_state_was_saved_the_source_goes_on) {
  MigrationRig rig({.name = "split"});
  rig.start(capability);
  rig.add_batch();
  rig.publish();
  ASSERT_TRUE(rig.finish());
  Pipe refused_pipe;
  EXPECT_FALSE(rig.ask(
      vhost::SetDeviceStateFd{.direction = save, .fd = std::move(refused_pipe.write)}));  // a ring runs
  const auto base = rig.ask(vhost::GetVringBase{0});
  ASSERT_TRUE(base);
  Pipe pipe;
  rig.must(vhost::SetDeviceStateFd{.direction = save, .fd = std::move(pipe.write)});
  EXPECT_FALSE(read_all(pipe.read).empty());
  rig.must(vhost::CheckDeviceState{});
  rig.describe_ring(base->value);
  rig.add_batch();
  rig.publish();
  EXPECT_TRUE(rig.finish());
}

TEST(DeviceStateSource, N042_N058_a_suspended_device_changes_no_memory_and_calls_nobody) {
  MigrationRig rig({.name = "split"});
  rig.start(capability);
  rig.add_batch();
  rig.publish();
  ASSERT_TRUE(rig.finish());
  const auto base = rig.ask(vhost::GetVringBase{0});
  ASSERT_TRUE(base);
  while (rig.call().arrived(milliseconds(0))) {
  }
  rig.add_batch();
  rig.publish();
  const Bytes before = rig.snapshot();
  Pipe pipe;
  rig.must(vhost::SetDeviceStateFd{.direction = save, .fd = std::move(pipe.write)});
  read_all(pipe.read);
  rig.must(vhost::CheckDeviceState{});
  EXPECT_FALSE(rig.call().arrived(milliseconds(50)));
  EXPECT_TRUE(rig.changed_since(before).empty());
  rig.describe_ring(base->value);
  EXPECT_TRUE(rig.finish());
}

}  // namespace
}  // namespace ringway::tools
