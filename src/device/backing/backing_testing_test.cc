// The parts of backing_testing.h that need the system.
#include "ringway/device/backing/backing_testing.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>

namespace ringway::backing::testing {

TemporaryDirectory::TemporaryDirectory(const std::string& parent) {
  std::string name = parent + "/ringway-test-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) ADD_FAILURE() << "cannot make " << name;
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() { std::filesystem::remove_all(path_); }

std::string TemporaryDirectory::file(const std::string& name, uint64_t size) const {
  const UniqueFd fd(::open(path(name).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size)), 0);
  return path(name);
}

Mount::Mount(const std::string& directory, const char* type, const char* options) : directory_(directory) {
  std::filesystem::create_directories(directory);
  static const bool own_namespace =
      ::unshare(CLONE_NEWNS) == 0 && ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  mounted_ = own_namespace && ::mount("test", directory.c_str(), type, 0, options) == 0;
}

Mount::~Mount() {
  if (mounted_) ::umount2(directory_.c_str(), MNT_DETACH);
}

LoopDevice::LoopDevice(const std::string& file, uint32_t block_size, bool read_only) {
  const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  const UniqueFd backing(::open(file.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
  if (!control || !backing) return;
  for (int attempt = 0; attempt < 20 && !fd_; ++attempt) {  // others look for a free one too
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return;
    path_ = fmt::format("/dev/loop{}", number);
    UniqueFd device(::open(path_.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    loop_config config{};
    config.fd = static_cast<uint32_t>(backing.get());
    config.block_size = block_size;
    config.info.lo_flags = read_only ? LO_FLAGS_READ_ONLY : 0;
    if (device && ::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) fd_ = std::move(device);
  }
}

LoopDevice::~LoopDevice() {
  if (fd_) ::ioctl(fd_.get(), LOOP_CLR_FD);
}

}  // namespace ringway::backing::testing
