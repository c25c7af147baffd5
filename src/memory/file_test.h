// For tests of memory: files, and regions of them.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "ringway/memory/map.h"

namespace ringway::memory {

inline constexpr uint64_t test_page = 4096;

inline UniqueFd test_file(uint64_t size) {
  UniqueFd fd(::memfd_create("ringway_test", MFD_CLOEXEC));
  EXPECT_TRUE(fd);
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size)), 0);
  return fd;
}

inline UniqueFd copy_of(const UniqueFd& fd) { return std::move(fd.duplicate().value()); }

// Front-end addresses that differ from guest addresses in every bit that matters.
inline RegionLayout layout_at(uint64_t guest, uint64_t size, uint64_t file_offset = 0) {
  return {
      .guest = {guest}, .size = size, .front_end = {guest + 0x7f00'0000'0000}, .file_offset = file_offset};
}

inline std::shared_ptr<const Region> test_region(uint64_t guest, uint64_t size) {
  auto region = Region::open(layout_at(guest, size), test_file(size));
  EXPECT_TRUE(region);
  return *region;
}

inline std::shared_ptr<const Map> map_of(std::vector<std::shared_ptr<const Region>> regions) {
  auto map = Map::of(std::move(regions));
  EXPECT_TRUE(map);
  return *map;
}

inline uint64_t bytes_of(std::span<const iovec> pieces) {
  uint64_t sum = 0;
  for (const iovec& piece : pieces) sum += piece.iov_len;
  return sum;
}

}  // namespace ringway::memory
