#include "ringway/base/unique_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

namespace ringway {
namespace {

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

UniqueFd some_fd() { return UniqueFd(::eventfd(0, 0)); }

TEST(UniqueFd, closes_what_it_owns_when_it_ends) {
  int number = -1;
  {
    const UniqueFd fd = some_fd();
    number = fd.get();
    ASSERT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(UniqueFd, is_empty_after_a_move_and_the_new_owner_closes) {
  UniqueFd first = some_fd();
  const int number = first.get();
  {
    const UniqueFd second = std::move(first);
    EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): that is the question
    EXPECT_EQ(second.get(), number);
  }
  EXPECT_FALSE(is_open(number));
}

TEST(UniqueFd, closes_the_old_one_when_another_is_moved_in) {
  UniqueFd fd = some_fd();
  const int old = fd.get();
  UniqueFd other = some_fd();
  const int kept = other.get();
  fd = std::move(other);
  EXPECT_FALSE(is_open(old));
  EXPECT_EQ(fd.get(), kept);
  EXPECT_TRUE(is_open(kept));
}

TEST(UniqueFd, survives_being_moved_into_itself) {
  UniqueFd fd = some_fd();
  UniqueFd& same = fd;
  fd = std::move(same);
  EXPECT_TRUE(is_open(fd.get()));
}

TEST(UniqueFd, does_not_close_what_was_released) {
  UniqueFd fd = some_fd();
  const UniqueFd holder(fd.release());
  fd.reset();
  EXPECT_TRUE(is_open(holder.get()));
}

TEST(UniqueFd, a_duplicate_lives_on_its_own_and_is_closed_on_exec) {
  UniqueFd fd = some_fd();
  const auto copy = fd.duplicate();
  ASSERT_TRUE(copy);
  fd.reset();
  EXPECT_TRUE(is_open(copy->get()));
  EXPECT_EQ(::fcntl(copy->get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(UniqueFd, an_empty_one_cannot_be_duplicated) {
  const auto copy = UniqueFd().duplicate();
  ASSERT_FALSE(copy);
  EXPECT_EQ(copy.error().fault, Fault::os);
  EXPECT_EQ(copy.error().os_error, EBADF);
}

}  // namespace
}  // namespace ringway
