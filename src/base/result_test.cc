#include "ringway/base/result.h"

#include <gtest/gtest.h>

#include <memory>

namespace ringway {
namespace {

Result<int> half(int number) {
  if (number % 2 != 0) return refused("number is odd", static_cast<uint64_t>(number));
  return number / 2;
}

Result<int> quarter(int number) { return half(TRY(half(number))); }

Result<> only_checks(int number) {
  TRY(half(number));
  return {};
}

Result<std::unique_ptr<int>> passes_on(Result<std::unique_ptr<int>> from) { return TRY(std::move(from)); }

TEST(Result, TRY_gives_the_value) {
  ASSERT_TRUE(quarter(12));
  EXPECT_EQ(*quarter(12), 3);
  EXPECT_TRUE(only_checks(2));
}

TEST(Result, TRY_returns_the_first_error_from_the_enclosing_function) {
  const auto result = quarter(6);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().fault, Fault::refused);
  EXPECT_EQ(result.error().value, 3U);
  EXPECT_FALSE(only_checks(1));
}

TEST(Result, TRY_moves_what_cannot_be_copied) {
  const auto result = passes_on(std::make_unique<int>(7));
  ASSERT_TRUE(result);
  EXPECT_EQ(**result, 7);
}

TEST(Result, an_error_is_small_and_trivially_copyable) {
  static_assert(std::is_trivially_copyable_v<Error>);
  EXPECT_LE(sizeof(Error), 64U);
}

TEST(Result, an_error_reads_as_subject_reason_value_and_errno) {
  EXPECT_EQ(refused("ring size is not a power of two", 300).error().about("SET_VRING_NUM").to_string(),
            "SET_VRING_NUM: ring size is not a power of two (300, 0x12c)");
  EXPECT_EQ(gone("the peer has closed the connection").error().to_string(),
            "the peer has closed the connection");
  EXPECT_EQ(os_failure("cannot map memory", ENOMEM).error().to_string(),
            "cannot map memory: Cannot allocate memory");
  EXPECT_EQ(violation("reply flag is set", 0).error().to_string(), "reply flag is set (0, 0x0)");
}

TEST(Result, the_subject_that_was_set_first_stays) {
  const Error inner = refused("no").error().about("SET_VRING_NUM");
  EXPECT_EQ(inner.about("connection").to_string(), "SET_VRING_NUM: no");
}

}  // namespace
}  // namespace ringway
