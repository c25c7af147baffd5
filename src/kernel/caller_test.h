// For tests of what serves ioctls: a caller in our own process.
#pragma once

#include <unistd.h>

#include <span>
#include <vector>

#include "ringway/kernel/caller.h"

namespace ringway::kernel::test {

// A caller whose process id can be another, as after fork().
class TestCaller final : public Caller {
 public:
  [[nodiscard]] pid_t process() const override { return process_; }
  Result<> copy_in(std::span<std::byte> to, uint64_t from) override { return own_.copy_in(to, from); }
  Result<> copy_out(uint64_t to, std::span<const std::byte> from) override { return own_.copy_out(to, from); }
  Result<> probe(uint64_t address, uint64_t size, memory::Access access) override {
    return own_.probe(address, size, access);
  }
  [[nodiscard]] bool lends_log() const override { return lends_log_; }
  Result<> probe_log(uint64_t address, uint64_t size) override { return own_.probe_log(address, size); }
  Result<UniqueFd> descriptor(int number) override { return own_.descriptor(number); }
  Result<> share(const memory::RegionLayout& layout, std::vector<vhost::MemoryRegion>& to) override {
    return own_.share(layout, to);
  }
  pid_t process_ = ::getpid();
  bool lends_log_ = true;

 private:
  OwnProcess own_;
};

}  // namespace ringway::kernel::test
