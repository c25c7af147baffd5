// Caller: the program that has called ioctl() on a device that we serve: its memory and its descriptors, as
// the kernel would reach them. One call at a time. Nothing that it names can be trusted to be there.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/vhost/request.h"

namespace ringway::kernel {

class Caller {
 public:
  virtual ~Caller() = default;

  // Who it is, for the exclusive owner of a device: a process id, other after fork().
  [[nodiscard]] virtual pid_t process() const = 0;
  // Copies between us and its address space. EFAULT if any part of the range is not there.
  virtual Result<> copy_in(std::span<std::byte> to, uint64_t from) = 0;
  virtual Result<> copy_out(uint64_t to, std::span<const std::byte> from) = 0;
  // EFAULT if a ring could not be at [address, address + size), or could not be written there.
  virtual Result<> probe(uint64_t address, uint64_t size, memory::Access access) = 0;
  // Whether pages can be marked in a log in its memory: by atomic operations, as others mark there too.
  [[nodiscard]] virtual bool lends_log() const = 0;
  // EFAULT if a log could not be at [address, address + size), or could not be written there. Changes nothing
  // there.
  virtual Result<> probe_log(uint64_t address, uint64_t size) = 0;
  // A descriptor of ours for the open file that it knows by that number. EBADF.
  virtual Result<UniqueFd> descriptor(int number) = 0;
  // Appends what a device needs to use [front_end, front_end + size) of its memory, in as many regions as it
  // takes. `layout.file_offset` is not looked at.
  virtual Result<> share(const memory::RegionLayout& layout, std::vector<vhost::MemoryRegion>& to) = 0;

  template <class T>
  Result<T> take(uint64_t from) {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    TRY(copy_in(std::as_writable_bytes(std::span(&value, 1)), from));
    return value;
  }
  template <class T>
  Result<> give(uint64_t to, const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return copy_out(to, std::as_bytes(std::span(&value, 1)));
  }
};

// The program that we live in.
class OwnProcess final : public Caller {
 public:
  [[nodiscard]] pid_t process() const override;
  Result<> copy_in(std::span<std::byte> to, uint64_t from) override;
  Result<> copy_out(uint64_t to, std::span<const std::byte> from) override;
  // Touches the ends of the range: the first two bytes are written as they are.
  Result<> probe(uint64_t address, uint64_t size, memory::Access access) override;
  [[nodiscard]] bool lends_log() const override { return true; }
  Result<> probe_log(uint64_t address, uint64_t size) override;
  Result<UniqueFd> descriptor(int number) override;
  // One region, borrowed.
  Result<> share(const memory::RegionLayout& layout, std::vector<vhost::MemoryRegion>& to) override;
};

}  // namespace ringway::kernel
