#include "ringway/kernel/other_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>

#include "ringway/base/log.h"

namespace ringway::kernel {
namespace {

std::unexpected<Error> bad_address() { return os_failure("bad address", EFAULT); }

// Takes a hexadecimal number off the front.
bool take_hex(std::string_view& text, uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return error == std::errc();
}

bool take_character(std::string_view& text, char wanted) {
  if (!text.starts_with(wanted)) return false;
  text.remove_prefix(1);
  return true;
}

// The process that a thread belongs to.
Result<pid_t> process_of(pid_t thread) {
  std::ifstream status(fmt::format("/proc/{}/status", thread));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Tgid:")) return std::atoi(line.c_str() + 5);  // NOLINT(cert-err34-c): the kernel's
  }
  return os_failure("the caller has ended", ESRCH);
}

}  // namespace

// 7f0000000000-7f0000001000 rw-s 00000000 00:01 1025    /memfd:name
std::optional<MappedRange> MappedRange::parse(std::string_view line) {
  MappedRange range;
  if (!take_hex(line, range.begin) || !take_character(line, '-') || !take_hex(line, range.end) ||
      !take_character(line, ' ') || line.size() < 5) {
    return std::nullopt;
  }
  range.writable = line[0] == 'r' && line[1] == 'w';
  range.shared = line[3] == 's';
  line.remove_prefix(5);
  uint64_t major = 0;
  uint64_t minor = 0;
  if (!take_hex(line, range.offset) || !take_character(line, ' ') || !take_hex(line, major) ||
      !take_character(line, ':') || !take_hex(line, minor) || !take_character(line, ' ')) {
    return std::nullopt;
  }
  range.device = ::makedev(static_cast<unsigned>(major), static_cast<unsigned>(minor));
  if (std::from_chars(line.data(), line.data() + line.size(), range.inode).ec != std::errc())
    return std::nullopt;
  const size_t name = line.find('/');
  if (name != std::string_view::npos) range.name = line.substr(name);
  return range;
}

Result<OtherProcess> OtherProcess::of_thread(pid_t thread, const Argument& argument) {
  const pid_t process = TRY(process_of(thread));
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
  if (!pidfd) return os_failure("cannot reach the caller");
  return OtherProcess(process, std::move(pidfd), argument);
}

Result<> OtherProcess::copy_in(std::span<std::byte> to, uint64_t from) {
  const uint64_t offset = from - argument_.address;
  if (offset > argument_.in.size() || to.size() > argument_.in.size() - offset) return bad_address();
  std::ranges::copy(argument_.in.subspan(offset, to.size()), to.begin());
  return {};
}

Result<> OtherProcess::copy_out(uint64_t to, std::span<const std::byte> from) {
  const uint64_t offset = to - argument_.address;
  if (offset > argument_.out.size() || from.size() > argument_.out.size() - offset) return bad_address();
  std::ranges::copy(from, argument_.out.begin() + static_cast<ptrdiff_t>(offset));
  return {};
}

Result<> OtherProcess::probe(uint64_t, uint64_t, memory::Access) { return {}; }

Result<> OtherProcess::probe_log(uint64_t, uint64_t) { return bad_address(); }

Result<UniqueFd> OtherProcess::descriptor(int number) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd_.get(), number, 0)));
  if (!fd) return os_failure("cannot take over a descriptor");
  return fd;
}

// We open with rights that the caller need not have, so it is only what its mapping has proved.
Result<UniqueFd> OtherProcess::open_file(const MappedRange& range) const {
  const std::string path = fmt::format("/proc/{}/map_files/{:x}-{:x}", process_, range.begin, range.end);
  const UniqueFd named(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!named) return os_failure("cannot find the file behind the caller's memory");
  struct stat status{};
  if (::fstat(named.get(), &status) != 0) return os_failure("cannot examine the caller's memory");
  if (!S_ISREG(status.st_mode) || status.st_dev != range.device || status.st_ino != range.inode)
    return bad_address();
  UniqueFd fd(::open(fmt::format("/proc/self/fd/{}", named.get()).c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return os_failure("cannot open the file behind the caller's memory");
  return fd;
}

Result<> OtherProcess::share(const memory::RegionLayout& layout, std::vector<vhost::MemoryRegion>& to) {
  uint64_t at = layout.front_end.value;
  const uint64_t end = at + layout.size;
  std::ifstream maps(fmt::format("/proc/{}/maps", process_));
  for (std::string line; at < end && std::getline(maps, line);) {
    const auto range = MappedRange::parse(line);
    if (!range || range->end <= at) continue;
    if (range->begin > at) break;
    if (!range->shared || !range->writable || range->name.empty()) {
      static log::Limited limited;
      limited.warning(
          "the memory of process {} at {:#x} is not shared memory (memfd, hugetlbfs, tmpfs): it cannot be "
          "served",
          process_, at);
      return bad_address();
    }
    if (to.size() >= max_pieces) return bad_address();
    const uint64_t done = at - layout.front_end.value;
    const uint64_t here = std::min(end, range->end) - at;
    to.push_back({.layout = {.guest = {layout.guest.value + done},
                             .size = here,
                             .front_end = {at},
                             .file_offset = range->offset + (at - range->begin)},
                  .fd = TRY(open_file(*range))});
    at += here;
  }
  if (at < end) return bad_address();
  return {};
}

}  // namespace ringway::kernel
