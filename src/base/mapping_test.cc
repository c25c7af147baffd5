#include "ringway/base/mapping.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "ringway/base/unique_fd.h"

namespace ringway {
namespace {

bool is_mapped(const std::byte* page) {
  unsigned char resident = 0;
  return ::mincore(const_cast<std::byte*>(page), 1, &resident) == 0;
}

UniqueFd memory_file(off_t size) {
  UniqueFd fd(::memfd_create("mapping_test", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(fd.get(), size), 0);
  return fd;
}

TEST(Mapping, unmaps_when_its_owner_ends) {
  std::byte* page = nullptr;
  {
    const auto mapping = Mapping::anonymous(4096);
    ASSERT_TRUE(mapping);
    page = mapping->data();
    ASSERT_TRUE(is_mapped(page));
  }
  EXPECT_FALSE(is_mapped(page));
}

TEST(Mapping, moves_and_unmaps_once) {
  auto first = Mapping::anonymous(4096);
  ASSERT_TRUE(first);
  Mapping second;
  second = std::move(*first);
  EXPECT_EQ(first->data(), nullptr);
  EXPECT_TRUE(is_mapped(second.data()));
}

TEST(Mapping, of_a_file_shows_the_file_from_the_offset) {
  const UniqueFd fd = memory_file(8192);
  const char letter = 'x';
  ASSERT_EQ(::pwrite(fd.get(), &letter, 1, 4096), 1);
  const auto mapping = Mapping::of_file(fd.get(), 4096, 4096);
  ASSERT_TRUE(mapping);
  EXPECT_EQ(mapping->data()[0], std::byte{'x'});
}

TEST(Mapping, a_child_process_does_not_inherit_the_memory_of_a_peer) {
  const UniqueFd fd = memory_file(4096);
  const auto mapping = Mapping::of_file(fd.get(), 4096, 0);
  ASSERT_TRUE(mapping);
  EXPECT_EXIT({ ::_exit(is_mapped(mapping->data()) ? 1 : 0); }, testing::ExitedWithCode(0), "");
}

// Two letters for each property of the mapping that begins at `page`; proc(5), VmFlags.
std::string flags_of(const std::byte* page) {
  std::ifstream mappings("/proc/self/smaps");
  const std::string begin = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(page));
  bool found = false;
  for (std::string line; std::getline(mappings, line);) {
    found = found || line.starts_with(begin);
    if (found && line.starts_with("VmFlags:")) return line + " ";
  }
  return {};
}

TEST(Mapping, H328_the_memory_of_a_peer_is_in_no_core_dump_and_in_no_child) {
  const UniqueFd fd = memory_file(4096);
  const auto mapping = Mapping::of_file(fd.get(), 4096, 0);
  ASSERT_TRUE(mapping);
  const std::string flags = flags_of(mapping->data());
  EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;
  EXPECT_NE(flags.find(" dc "), std::string::npos) << flags;
}

TEST(Mapping, of_a_file_that_is_not_writable_is_an_error_and_not_a_mapping) {
  const UniqueFd fd = memory_file(4096);
  const std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  const UniqueFd read_only(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const auto mapping = Mapping::of_file(read_only.get(), 4096, 0);
  ASSERT_FALSE(mapping);
  EXPECT_EQ(mapping.error().os_error, EACCES);
}

}  // namespace
}  // namespace ringway
