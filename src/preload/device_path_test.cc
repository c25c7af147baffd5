#include "ringway/preload/device_path.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "ringway/base/mapping.h"
#include "ringway/base/unique_fd.h"

namespace ringway::preload {
namespace {

TEST(DevicePath, every_way_to_the_directory_is_one_to_the_file) {
  for (const char* path : {"/dev/vhost-net", "//dev/vhost-net", "/dev//vhost-net", "/dev/./vhost-net",
                           "/dev/../dev/vhost-net", "/proc/self/root/dev/vhost-net"}) {
    EXPECT_TRUE(is_net_path(AT_FDCWD, path)) << path;
    EXPECT_TRUE(is_net_path(9999, path)) << path;
  }
}

TEST(DevicePath, a_relative_path_begins_at_the_folder_or_the_working_directory) {
  const UniqueFd dev(::open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const UniqueFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const char* path : {"vhost-net", "./vhost-net", "../dev/vhost-net"}) {
    EXPECT_TRUE(is_net_path(dev.get(), path)) << path;
    EXPECT_FALSE(is_net_path(9999, path)) << path;
  }
  EXPECT_TRUE(is_net_path(root.get(), "dev/vhost-net"));
  EXPECT_FALSE(is_net_path(root.get(), "vhost-net"));
  EXPECT_FALSE(is_net_path(AT_FDCWD, "vhost-net"));
  const auto from_here = std::filesystem::relative("/dev", std::filesystem::current_path()) / "vhost-net";
  EXPECT_TRUE(is_net_path(AT_FDCWD, from_here.native())) << from_here;
}

TEST(DevicePath, other_files_are_not_ours) {
  for (const char* path :
       {"", "/", "/dev", "/dev/", "/vhost-net", "/tmp/vhost-net", "/dev/xvhost-net", "/dev/vhost-netx",
        "/dev/vhost-net/", "/dev/vhost-net/.", "/dev/not-there/../vhost-net"}) {
    EXPECT_FALSE(is_net_path(AT_FDCWD, path)) << path;
  }
  std::string deep = "/dev";
  while (deep.size() < PathText::limit) deep += "/.";
  EXPECT_FALSE(is_net_path(AT_FDCWD, deep + "/vhost-net"));
}

// Two pages, of which the second is there or not.
class PathTextTest : public testing::Test {
 protected:
  static constexpr size_t page = 4096;
  Mapping area_ = *Mapping::anonymous(2 * page);
  void hide_second_page() { ASSERT_EQ(::mprotect(area_.data() + page, page, PROT_NONE), 0); }
  // Where `text`, without a 0, ends so many bytes behind the first page.
  const char* put(std::string_view text, size_t behind) {
    char* at = reinterpret_cast<char*>(area_.data()) + page + behind - text.size();
    std::ranges::copy(text, at);
    return at;
  }
};

TEST_F(PathTextTest, a_path_may_end_with_its_page) {
  hide_second_page();
  EXPECT_EQ(PathText(put(std::string_view("/dev\0", 5), 0)).get(), "/dev");
}

TEST_F(PathTextTest, a_path_may_go_on_in_the_next_page) {
  EXPECT_EQ(PathText(put("/dev/vhost-net", 6)).get(), "/dev/vhost-net");
}

TEST_F(PathTextTest, what_does_not_end_is_no_path) {
  EXPECT_EQ(PathText(put(std::string(PathText::limit - 1, 'x'), 8)).get().size(), PathText::limit - 1);
  EXPECT_EQ(PathText(put(std::string(PathText::limit, 'x'), PathText::limit)).get(), "");
  put("/dev", 0);
  hide_second_page();
  EXPECT_EQ(PathText(reinterpret_cast<const char*>(area_.data()) + page - 4).get(), "");
}

TEST_F(PathTextTest, an_address_may_be_nobodys) {
  for (const uintptr_t address : {uintptr_t{0}, uintptr_t{1}, UINTPTR_MAX - 4}) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    EXPECT_EQ(PathText(reinterpret_cast<const char*>(address)).get(), "") << address;
  }
}

}  // namespace
}  // namespace ringway::preload
