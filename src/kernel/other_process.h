// OtherProcess: a caller in another process, whose ioctl has come to us by CUSE. What its argument points at
// has been fetched before and is given back afterwards; the rest is reached through /proc and a pidfd, which
// takes the rights of a debugger (CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE). One thread.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "ringway/kernel/caller.h"

namespace ringway::kernel {

// One line of /proc/PID/maps.
struct MappedRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t offset = 0;  // bytes into the file
  dev_t device = 0;     // of the file; memory without one has inode 0
  ino_t inode = 0;
  bool writable = false;
  bool shared = false;
  std::string_view name;  // of the file; may be empty

  // Nothing if the line is not of that form.
  static std::optional<MappedRange> parse(std::string_view line);
};

class OtherProcess final : public Caller {
 public:
  static constexpr size_t max_pieces = 512;

  // `argument`: where the ioctl's argument is in its memory; `in` what is there; `out` for what shall be.
  // They outlive the caller.
  struct Argument {
    uint64_t address = 0;
    std::span<const std::byte> in;
    std::span<std::byte> out;
  };
  // `thread`: any thread of the process. Fails if it has ended.
  static Result<OtherProcess> of_thread(pid_t thread, const Argument& argument);

  [[nodiscard]] pid_t process() const override { return process_; }
  Result<> copy_in(std::span<std::byte> to, uint64_t from) override;
  Result<> copy_out(uint64_t to, std::span<const std::byte> from) override;
  // What a device is given of its memory is mapped by us, and so it is there.
  Result<> probe(uint64_t address, uint64_t size, memory::Access access) override;
  // A log is private memory as a rule, of which we would mark a copy; and which features there are is asked
  // before anybody knows where the log is.
  [[nodiscard]] bool lends_log() const override { return false; }
  Result<> probe_log(uint64_t address, uint64_t size) override;
  Result<UniqueFd> descriptor(int number) override;
  // Shared mappings of regular files only, by these files: private memory, where we would see a copy, is
  // refused, and more than `max_pieces` regions in `to`.
  Result<> share(const memory::RegionLayout& layout, std::vector<vhost::MemoryRegion>& to) override;
  // The file behind a mapping of its; EFAULT if it is another by now.
  [[nodiscard]] Result<UniqueFd> open_file(const MappedRange& range) const;

 private:
  OtherProcess(pid_t process, UniqueFd pidfd, const Argument& argument)
      : process_(process), pidfd_(std::move(pidfd)), argument_(argument) {}

  pid_t process_ = 0;
  UniqueFd pidfd_;
  Argument argument_;
};

}  // namespace ringway::kernel
