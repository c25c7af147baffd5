#include <sys/wait.h>

#include <functional>

#include "ringway/preload/ioctl_rig_test.h"
#include "ringway/preload/served_file_test.h"

namespace ringway::preload {
namespace {

class DeviceFileAfterFork : public testing::Test {
 protected:
  DeviceFileAfterFork() {
    std::tie(file_, fd_) =
        *DeviceFile::open([this] { return make_device("loopback", *workers_); }, O_CLOEXEC);
  }
  template <class T>
  long call(unsigned long request, T& argument) {
    return file_->ioctl(request, reinterpret_cast<uintptr_t>(&argument));
  }
  // Whether `is_so` holds in a child.
  static bool in_child(const std::function<bool()>& is_so) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(is_so() ? 0 : 1);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status == 0;
  }
  bool answers(unsigned long request, long wanted) {
    return in_child([&] {
      std::array<uint64_t, 8> argument{};
      return call(request, argument) == wanted;
    });
  }

  std::unique_ptr<engine::Workers> workers_ = *engine::Workers::start({.count = 1, .use_io_uring = false});
  std::shared_ptr<DeviceFile> file_;
  UniqueFd fd_;
};

TEST_F(DeviceFileAfterFork, what_never_changes_is_told) {
  struct FeatureArray {
    uint64_t count = 2;
    std::array<uint64_t, 2> words = {1, 1};
    bool operator==(const FeatureArray&) const = default;
  };
  uint64_t features = 0;
  uint64_t backend_features = 0;
  uint8_t fork_owner = 0xff;
  FeatureArray array;
  ASSERT_EQ(call(VHOST_GET_FEATURES, features), 0);
  ASSERT_EQ(call(VHOST_GET_BACKEND_FEATURES, backend_features), 0);
  ASSERT_EQ(call(VHOST_GET_FORK_FROM_OWNER, fork_owner), 0);
  ASSERT_EQ(call(VHOST_GET_FEATURES_ARRAY, array), 0);
  const auto same = [&](unsigned long request, auto told, const auto& wanted) {
    return in_child([&] { return call(request, told) == 0 && told == wanted; });
  };
  EXPECT_TRUE(same(VHOST_GET_FEATURES, uint64_t{0}, features));
  EXPECT_TRUE(same(VHOST_GET_BACKEND_FEATURES, uint64_t{0}, backend_features));
  EXPECT_TRUE(same(VHOST_GET_FORK_FROM_OWNER, uint8_t{0xff}, fork_owner));
  EXPECT_TRUE(same(VHOST_GET_FEATURES_ARRAY, FeatureArray{}, array));
  EXPECT_TRUE(in_child([&] { return file_->ioctl(VHOST_GET_FEATURES, 0) == -EFAULT; }));
}

TEST_F(DeviceFileAfterFork, what_anybody_may_set_is_busy_owned_or_not) {
  for (const bool owned : {false, true}) {
    if (owned) {
      ASSERT_EQ(file_->ioctl(VHOST_SET_OWNER, 0), 0);
    }
    for (const unsigned long request :
         {static_cast<unsigned long>(VHOST_SET_OWNER), VHOST_SET_FEATURES, VHOST_SET_FEATURES_ARRAY,
          VHOST_SET_BACKEND_FEATURES, VHOST_SET_FORK_FROM_OWNER}) {
      EXPECT_TRUE(answers(request, -EBUSY)) << request;
    }
  }
  EXPECT_EQ(file_->ioctl(VHOST_SET_OWNER, 0), -EBUSY);
}

TEST_F(DeviceFileAfterFork, the_rest_is_the_owners) {
  ASSERT_EQ(file_->ioctl(VHOST_SET_OWNER, 0), 0);
  for (const unsigned long request : {static_cast<unsigned long>(VHOST_RESET_OWNER), VHOST_SET_MEM_TABLE,
                                      VHOST_GET_VRING_BASE, VHOST_NET_SET_BACKEND, 0xaf99UL}) {
    EXPECT_TRUE(answers(request, -EPERM)) << request;
  }
  EXPECT_TRUE(in_child([&] { return file_->write({}) == -EPERM && file_->read({}, false) == -EPERM; }));
}

// The kernel's ioctls have numbers of 32 bits, whatever a caller's sign extension makes of them.
TEST_F(DeviceFileAfterFork, the_upper_half_of_a_request_is_nothing) {
  constexpr unsigned long high = 0xffff'ffff'0000'0000;
  EXPECT_TRUE(answers(high | VHOST_GET_FEATURES, 0));
  EXPECT_TRUE(answers(high | VHOST_SET_OWNER, -EBUSY));
}

}  // namespace
}  // namespace ringway::preload
