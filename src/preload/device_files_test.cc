#include "ringway/preload/device_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace ringway::preload {
namespace {

TEST(DeviceFiles, the_device_is_there_already_and_is_no_directory) {
  DeviceFiles& files = DeviceFiles::instance();
  EXPECT_EQ(files.open("/dev/vhost-net", O_RDWR | O_CREAT | O_EXCL), -EEXIST);
  EXPECT_EQ(files.open("/dev/vhost-net", O_RDWR | O_DIRECTORY), -ENOTDIR);
}

}  // namespace
}  // namespace ringway::preload
