// What tuning.h asks of a vhost file, word by word, and what it makes of the answers.
#include "ringway/kernel/tuning.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "ringway/kernel/ioctl_table.h"

namespace ringway::kernel {
namespace {

using std::chrono::microseconds;

// Keeps the last call, and answers with `answer`, or with an errno.
class OneCall final : public Ioctls {
 public:
  Result<> ioctl(unsigned long request, void* argument) override {
    request_ = request;
    const IoctlInfo* info = find_ioctl(request);
    if (info == nullptr) return os_failure("unknown", ENOTTY);
    size_t bytes = size_of(info->argument);
    if (info->argument == Argument::features_array)
      bytes += *static_cast<uint64_t*>(argument) * sizeof(uint64_t);
    if (argument != nullptr) {
      const auto* from = static_cast<const std::byte*>(argument);
      asked_.assign(from, from + bytes);
      std::ranges::copy(std::span(answer_).first(std::min(bytes, answer_.size())),
                        static_cast<std::byte*>(argument));
    }
    if (error_ != 0) return os_failure("told to fail", error_);
    return {};
  }
  Result<> write(std::span<const std::byte>) override { return refused("not a tuning call"); }
  Result<size_t> read(std::span<std::byte>) override { return refused("not a tuning call"); }
  [[nodiscard]] int fd() const override { return -1; }

  template <class T>
  void answers(const T& value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    answer_.assign(bytes.begin(), bytes.end());
  }
  template <class T>
  [[nodiscard]] T asked() const {
    T value{};
    EXPECT_EQ(asked_.size(), sizeof value);
    std::memcpy(&value, asked_.data(), std::min(asked_.size(), sizeof value));
    return value;
  }

  unsigned long request_ = 0;
  std::vector<std::byte> asked_;
  std::vector<std::byte> answer_;
  int error_ = 0;
};

class Tuning : public testing::Test {
 protected:
  void expect_asked(unsigned long request, unsigned index, unsigned number) {
    EXPECT_EQ(file_.request_, request);
    const auto state = file_.asked<vhost_vring_state>();  // a vhost_vring_worker has the same form
    EXPECT_EQ(state.index, index);
    EXPECT_EQ(state.num, number);
  }
  OneCall file_;
};

TEST_F(Tuning, workers_are_made_attached_told_and_freed) {
  file_.answers(vhost_worker_state{.worker_id = 7});
  EXPECT_EQ(*new_worker(file_), 7U);
  EXPECT_EQ(file_.request_, VHOST_NEW_WORKER);
  file_.answer_.clear();
  EXPECT_TRUE(attach_worker(file_, 3, 7));
  expect_asked(VHOST_ATTACH_VRING_WORKER, 3, 7);
  file_.answers(vhost_vring_worker{.index = 3, .worker_id = 7});
  EXPECT_EQ(*worker_of(file_, 3), 7U);
  expect_asked(VHOST_GET_VRING_WORKER, 3, 0);
  file_.error_ = EBUSY;
  const auto freed = free_worker(file_, 7);
  EXPECT_EQ(freed.error().os_error, EBUSY);
  EXPECT_EQ(file_.request_, VHOST_FREE_WORKER);
  EXPECT_EQ(file_.asked<vhost_worker_state>().worker_id, 7U);
}

TEST_F(Tuning, the_fork_owner_is_set_and_told) {
  EXPECT_TRUE(set_fork_owner(file_, ForkOwner::task));
  EXPECT_EQ(file_.request_, VHOST_SET_FORK_FROM_OWNER);
  EXPECT_EQ(file_.asked<uint8_t>(), VHOST_FORK_OWNER_TASK);
  file_.answers(uint8_t{VHOST_FORK_OWNER_KTHREAD});
  EXPECT_EQ(*fork_owner(file_), ForkOwner::kernel_thread);
  EXPECT_EQ(file_.request_, VHOST_GET_FORK_FROM_OWNER);
}

TEST_F(Tuning, features_are_words_behind_their_count) {
  file_.answers(std::array<uint64_t, 4>{3, 0x11, 0x22, 0});
  EXPECT_EQ(*features_array(file_, 3), (std::vector<uint64_t>{0x11, 0x22, 0}));
  EXPECT_EQ(file_.request_, VHOST_GET_FEATURES_ARRAY);
  EXPECT_EQ((file_.asked<std::array<uint64_t, 4>>()), (std::array<uint64_t, 4>{3, 0, 0, 0}));
  file_.answer_.clear();
  EXPECT_TRUE(set_features_array(file_, {0x33, 0x44}));
  EXPECT_EQ(file_.request_, VHOST_SET_FEATURES_ARRAY);
  EXPECT_EQ((file_.asked<std::array<uint64_t, 3>>()), (std::array<uint64_t, 3>{2, 0x33, 0x44}));
}

TEST_F(Tuning, the_owner_is_reset_and_the_byte_order_told) {
  EXPECT_TRUE(reset_owner(file_));
  EXPECT_EQ(file_.request_, VHOST_RESET_OWNER);
  file_.answers(vhost_vring_state{.index = 1, .num = VHOST_VRING_BIG_ENDIAN});
  EXPECT_TRUE(*is_big_endian(file_, 1));
  expect_asked(VHOST_GET_VRING_ENDIAN, 1, 0);
  file_.answers(vhost_vring_state{.index = 1, .num = VHOST_VRING_LITTLE_ENDIAN});
  EXPECT_FALSE(*is_big_endian(file_, 1));
}

TEST_F(Tuning, time_to_poll_is_in_microseconds) {
  EXPECT_TRUE(set_busyloop_timeout(file_, 2, microseconds(50)));
  expect_asked(VHOST_SET_VRING_BUSYLOOP_TIMEOUT, 2, 50);
  file_.request_ = 0;
  EXPECT_FALSE(set_busyloop_timeout(file_, 2, microseconds(-1)));
  EXPECT_FALSE(set_busyloop_timeout(file_, 2, microseconds(int64_t{UINT32_MAX} + 1)));
  EXPECT_EQ(file_.request_, 0U) << "the kernel was asked";
  file_.answers(vhost_vring_state{.index = 2, .num = 60});
  EXPECT_EQ(*busyloop_timeout(file_, 2), microseconds(60));
}

TEST_F(Tuning, vdpa_is_suspended_and_resumed_and_tells_of_groups) {
  EXPECT_TRUE(vdpa_suspend(file_));
  EXPECT_EQ(file_.request_, VHOST_VDPA_SUSPEND);
  EXPECT_TRUE(vdpa_resume(file_));
  EXPECT_EQ(file_.request_, VHOST_VDPA_RESUME);
  file_.answers(vhost_vring_state{.index = 1, .num = 5});
  EXPECT_EQ(*vdpa_group_of(file_, 1), 5U);
  expect_asked(VHOST_VDPA_GET_VRING_GROUP, 1, 0);
  EXPECT_EQ(*vdpa_descriptor_group_of(file_, 1), 5U);
  expect_asked(VHOST_VDPA_GET_VRING_DESC_GROUP, 1, 0);
  EXPECT_EQ(*vdpa_ring_size(file_, 1), 5U);
  expect_asked(VHOST_VDPA_GET_VRING_SIZE, 1, 0);
  file_.answer_.clear();
  EXPECT_TRUE(vdpa_set_address_space(file_, 5, 2));
  expect_asked(VHOST_VDPA_SET_GROUP_ASID, 5, 2);
}

}  // namespace
}  // namespace ringway::kernel
