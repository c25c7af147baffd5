// For tests of the kernel's client: a vhost file that records what it is asked, in words. Tests only.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ringway/kernel/ioctls.h"
#include "ringway/vhost/features.h"

namespace ringway::kernel::testing {

// What outlives the file: a device owns its file, and the test looks at it.
struct Kernel {
  std::vector<std::string> asked;  // "SET_VRING_NUM 0 256"; pointers and fds are left out
  std::vector<vhost_memory_region> memory;
  std::map<unsigned, vhost_vring_addr> addresses;
  std::map<unsigned, ino_t> backends;           // NET_SET_BACKEND: the socket's inode, 0: none
  std::map<unsigned, unsigned> bases;           // what GET_VRING_BASE answers, else what was set
  std::map<unsigned long, int> failures;        // errno by ioctl
  std::vector<std::vector<std::byte>> written;  // IOTLB messages
  uint64_t writes_that_succeed = UINT64_MAX;    // before one that fails
  std::deque<std::vector<std::byte>> to_read;
  UniqueFd readable = UniqueFd(make_eventfd().value().release());  // what poll() sees
  uint64_t features = 0;
  uint64_t backend_features = vhost::bit(VHOST_BACKEND_F_IOTLB_MSG_V2);
  uint64_t set_features = 0;
  uint64_t log_base = 0;
  unsigned config_bytes = 8;
  uint8_t status = 0;

  void forget() {
    asked.clear();
    written.clear();
  }
};

class FakeFile final : public Ioctls {
 public:
  explicit FakeFile(Kernel& kernel) : kernel_(kernel) {}

  Result<> ioctl(unsigned long request, void* argument) override {
    const IoctlInfo* info = find_ioctl(request);
    if (info == nullptr) return os_failure("unknown", ENOTTY);
    kernel_.asked.push_back(words(*info, argument));
    if (const auto failure = kernel_.failures.find(request); failure != kernel_.failures.end())
      return os_failure("told to fail", failure->second);
    answer(request, argument);
    return {};
  }
  Result<> write(std::span<const std::byte> bytes) override {
    if (kernel_.writes_that_succeed == 0) {
      kernel_.writes_that_succeed = UINT64_MAX;
      return os_failure("told to fail", ENOMEM);
    }
    --kernel_.writes_that_succeed;
    kernel_.written.emplace_back(bytes.begin(), bytes.end());
    return {};
  }
  Result<size_t> read(std::span<std::byte> bytes) override {
    if (kernel_.to_read.empty()) return size_t{0};
    const auto message = std::move(kernel_.to_read.front());
    kernel_.to_read.pop_front();
    uint64_t events = 0;
    EXPECT_EQ(::read(kernel_.readable.get(), &events, sizeof events), 8);
    std::memcpy(bytes.data(), message.data(), std::min(bytes.size(), message.size()));
    return message.size();
  }
  [[nodiscard]] int fd() const override { return kernel_.readable.get(); }

 private:
  template <class T>
  static T& as(void* argument) {
    return *static_cast<T*>(argument);
  }

  static std::string words(const IoctlInfo& info, void* argument) {
    switch (info.argument) {
      case Argument::vring_state: {
        const auto& state = as<vhost_vring_state>(argument);
        if (info.direction == Direction::both) return fmt::format("{} {}", info.name, state.index);
        return fmt::format("{} {} {}", info.name, state.index, state.num);
      }
      case Argument::vring_file: {
        const auto& file = as<vhost_vring_file>(argument);
        return fmt::format("{} {} {}", info.name, file.index, file.fd < 0 ? "none" : "fd");
      }
      case Argument::vring_addr:
        return fmt::format("{} {}", info.name, as<vhost_vring_addr>(argument).index);
      case Argument::number:
        if (info.direction != Direction::to_kernel) return info.name;
        return fmt::format("{} {}", info.name, as<int>(argument));
      case Argument::u8:
        if (info.direction != Direction::to_kernel) return info.name;
        return fmt::format("{} {}", info.name, as<uint8_t>(argument));
      default:
        return info.name;
    }
  }

  void answer(unsigned long request, void* argument) {
    switch (request) {
      case VHOST_GET_FEATURES:
        as<uint64_t>(argument) = kernel_.features;
        break;
      case VHOST_SET_FEATURES:
        kernel_.set_features = as<uint64_t>(argument);
        break;
      case VHOST_GET_BACKEND_FEATURES:
        as<uint64_t>(argument) = kernel_.backend_features;
        break;
      case VHOST_SET_LOG_BASE:
        kernel_.log_base = as<uint64_t>(argument);
        break;
      case VHOST_SET_MEM_TABLE: {
        const auto& head = as<vhost_memory>(argument);
        const auto* regions =
            reinterpret_cast<const vhost_memory_region*>(static_cast<std::byte*>(argument) + sizeof head);
        kernel_.memory.assign(regions, regions + head.nregions);
        break;
      }
      case VHOST_SET_VRING_ADDR:
        kernel_.addresses[as<vhost_vring_addr>(argument).index] = as<vhost_vring_addr>(argument);
        break;
      case VHOST_SET_VRING_BASE:
        kernel_.bases[as<vhost_vring_state>(argument).index] = as<vhost_vring_state>(argument).num;
        break;
      case VHOST_GET_VRING_BASE:
        as<vhost_vring_state>(argument).num = kernel_.bases[as<vhost_vring_state>(argument).index];
        break;
      case VHOST_NET_SET_BACKEND: {
        struct stat status{};
        const auto& file = as<vhost_vring_file>(argument);
        kernel_.backends[file.index] = ::fstat(file.fd, &status) == 0 ? status.st_ino : 0;
        break;
      }
      case VHOST_SCSI_GET_ABI_VERSION:
        as<int>(argument) = VHOST_SCSI_ABI_VERSION;
        break;
      case VHOST_VDPA_GET_VQS_COUNT:
        as<uint32_t>(argument) = 2;
        break;
      case VHOST_VDPA_GET_VRING_NUM:
        as<uint16_t>(argument) = 256;
        break;
      case VHOST_VDPA_GET_CONFIG_SIZE:
        as<uint32_t>(argument) = kernel_.config_bytes;
        break;
      case VHOST_VDPA_GET_IOVA_RANGE:
        as<vhost_vdpa_iova_range>(argument) = {.first = 0, .last = UINT64_MAX};
        break;
      case VHOST_VDPA_GET_STATUS:
        as<uint8_t>(argument) = kernel_.status;
        break;
      case VHOST_VDPA_SET_STATUS:
        kernel_.status = as<uint8_t>(argument);
        break;
      case VHOST_VDPA_GET_CONFIG:
        for (unsigned i = 0; i < static_cast<unsigned*>(argument)[1]; ++i)
          static_cast<unsigned char*>(argument)[8 + i] =
              static_cast<unsigned char>(*static_cast<unsigned*>(argument) + i);
        break;
      default:
        break;
    }
  }

  Kernel& kernel_;
};

}  // namespace ringway::kernel::testing
