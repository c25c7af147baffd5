#include "ringway/engine/device_state.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ringway::engine {
namespace {

using Bytes = std::vector<std::byte>;

Bytes bytes_of(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + 1);
  return bytes;
}

TEST(DeviceState, what_a_model_saves_comes_out_of_its_envelope_as_it_was) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{16}, size_t{4096}, max_model_state}) {
    const Bytes model = bytes_of(size);
    const Bytes state = wrap_state(2, model);
    EXPECT_LE(state.size(), max_state);
    const auto out = unwrap_state(2, state);
    ASSERT_TRUE(out) << out.error().to_string();
    EXPECT_TRUE(std::ranges::equal(*out, model));
  }
}

TEST(DeviceState, H166_a_state_that_is_cut_off_at_any_byte_is_refused) {
  const Bytes state = wrap_state(2, bytes_of(40));
  for (size_t size = 0; size < state.size(); ++size)
    EXPECT_FALSE(unwrap_state(2, std::span(state).first(size))) << size;
}

TEST(DeviceState, H166_a_state_with_any_bit_changed_is_refused) {
  Bytes state = wrap_state(2, bytes_of(40));
  for (size_t bit = 0; bit < state.size() * 8; ++bit) {
    const auto mask = static_cast<std::byte>(1U << bit % 8);
    state[bit / 8] ^= mask;
    EXPECT_FALSE(unwrap_state(2, state)) << bit;
    state[bit / 8] ^= mask;
  }
  EXPECT_TRUE(unwrap_state(2, state));
}

TEST(DeviceState, H166_more_than_the_state_is_refused) {
  Bytes state = wrap_state(2, bytes_of(40));
  state.push_back({});
  EXPECT_FALSE(unwrap_state(2, state));
  EXPECT_FALSE(unwrap_state(2, wrap_state(2, bytes_of(max_model_state + 1))));
}

TEST(DeviceState, the_state_of_another_kind_of_device_is_refused) {
  EXPECT_FALSE(unwrap_state(1, wrap_state(2, bytes_of(4))));
}

}  // namespace
}  // namespace ringway::engine
