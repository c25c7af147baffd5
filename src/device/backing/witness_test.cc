#include "ringway/device/backing/witness.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

namespace ringway::backing {
namespace {

constexpr WitnessTag first{.magic = 7, .seed = 11, .offset = 4096};

class TestimonyTest : public testing::Test {
 protected:
  ~TestimonyTest() override { ::unlink(path_.c_str()); }
  [[nodiscard]] static WitnessTag tag(uint64_t block, uint64_t generation) {
    return {.magic = 7, .seed = 11, .offset = 4096 + block * 512, .generation = generation};
  }
  const std::string path_ =
      std::filesystem::temp_directory_path() / ("testimony-" + std::to_string(::getpid()));
  Testimony driver_ = *Testimony::make(path_, first, 512, 16);
  Testimony back_end_ = *Testimony::open(path_);
};

TEST_F(TestimonyTest, a_write_that_is_done_before_its_acknowledgement_is_no_repetition) {
  for (int i = 0; i < 3; ++i) back_end_.witness(tag(2, 1));
  driver_.acknowledge(tag(2, 1).offset, 1);
  back_end_.witness(tag(2, 2));
  EXPECT_EQ(driver_.executed(), 4U);
  EXPECT_EQ(driver_.repeated(), 0U);
}

TEST_F(TestimonyTest, a_write_that_is_done_after_its_acknowledgement_or_a_later_one_is) {
  back_end_.witness(tag(2, 1));
  driver_.acknowledge(tag(2, 1).offset, 1);
  back_end_.witness(tag(2, 1));
  driver_.acknowledge(tag(2, 1).offset, 5);
  back_end_.witness(tag(2, 4));
  back_end_.witness(tag(3, 4));
  EXPECT_EQ(driver_.repeated(), 2U);
}

TEST_F(TestimonyTest, what_is_not_of_this_run_or_outside_is_passed_over) {
  back_end_.witness({.magic = 7, .seed = 12, .offset = 4096, .generation = 0});
  back_end_.witness({.magic = 8, .seed = 11, .offset = 4096, .generation = 0});
  back_end_.witness(tag(16, 0));
  back_end_.witness({.magic = 7, .seed = 11, .offset = 0, .generation = 0});
  driver_.acknowledge(0, 1);
  driver_.acknowledge(tag(16, 0).offset, 1);
  EXPECT_EQ(driver_.executed(), 0U);
}

TEST_F(TestimonyTest, a_file_that_is_none_is_refused) {
  std::ofstream(path_, std::ios::trunc) << "short";
  EXPECT_FALSE(Testimony::open(path_));
  std::ofstream(path_, std::ios::trunc) << std::string(4096, '\xff');
  EXPECT_FALSE(Testimony::open(path_));
  EXPECT_FALSE(Testimony::open(path_ + "-nowhere"));
}

}  // namespace
}  // namespace ringway::backing
