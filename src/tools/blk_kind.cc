// ringway serve blk: a disk.
#include <fmt/format.h>

#include <array>

#include "ringway/device/backing/file.h"
#include "ringway/device/backing/memory.h"
#include "ringway/device/backing/null.h"
#include "ringway/device/backing/witness.h"
#include "ringway/device/blk/blk.h"
#include "ringway/tools/device_kinds.h"

namespace ringway::tools {
namespace {

std::span<const Option<DeviceOptions>> options() {
  using D = DeviceOptions;
  static const auto table = std::to_array<Option<D>>({
      {"blk-file", "serve the file or block device PATH, which is taken as raw", &D::blk_file},
      {"memory", "serve SIZE bytes of memory, gone when the program ends", &D::memory, true},
      {"shared-memory", "with memory: an upgrade can hand it over", &D::shared_memory},
      {"null", "serve SIZE bytes that forget what is written", &D::null, true},
      {"read-only", "refuse whatever would change the disk", &D::read_only},
      {"direct", "bypass the page cache of this machine (O_DIRECT)", &D::direct},
      {"lock-while-running", "lock the disk only while a guest uses it, so that another process may be next",
       &D::lock_while_running},
      {"serial", "the identity that the driver is told, at most 20 bytes", &D::serial},
      {"witness", "tell in FILE what is written, for ringway bench --witness=FILE", &D::witness},
  });
  return table;
}

std::string mistake(const DeviceOptions& options) {
  const int disks = int{!options.blk_file.empty()} + int{options.memory > 0} + int{options.null > 0};
  if (disks != 1) return "exactly one of blk-file, memory and null is needed";
  if (options.queues < 1 || options.queues > blk::Blk::max_queues) return "queues: must be 1 to 256";
  if (options.serial.size() > 20) return "serial: must be at most 20 bytes";
  if (options.direct && options.blk_file.empty()) return "direct: goes with blk-file only";
  if (options.shared_memory && options.memory == 0) return "shared-memory: goes with memory only";
  return {};
}

Result<std::unique_ptr<backing::Backing>> open_disk(const DeviceOptions& options) {
  UniqueFd inherited(options.inherited);
  if (options.memory > 0 && options.shared_memory)
    return backing::open_shared_memory(options.memory, options.read_only, std::move(inherited));
  if (options.memory > 0) return backing::open_memory(options.memory, options.read_only);
  if (options.null > 0) return backing::open_null(options.null, options.read_only);
  return backing::open_file(options.blk_file,
                            {.read_only = options.read_only,
                             .direct = options.direct,
                             .lock_while_running = options.lock_while_running,
                             .lanes = options.queues},
                            std::move(inherited));
}

Result<std::unique_ptr<backing::Backing>> open_backing(const DeviceOptions& options) {
  auto disk = TRY(open_disk(options));
  return options.witness.empty() ? std::move(disk) : backing::with_witness(std::move(disk), options.witness);
}

// What the user calls the disk.
std::string title_of(const DeviceOptions& options) {
  if (!options.blk_file.empty()) return options.blk_file;
  return options.memory > 0 ? "memory" : "null";
}

// Without one of its own a disk is known by the name of its file.
std::string serial_of(const DeviceOptions& options) {
  if (!options.serial.empty()) return options.serial;
  const std::string name = options.blk_file.substr(options.blk_file.rfind('/') + 1);
  return name.empty() ? "ringway" : name.substr(0, 20);
}

Parsed<OpenedDevice> open(const DeviceOptions& options) {
  auto backing = open_backing(options);
  if (!backing) return std::unexpected(fmt::format("{}: {}", title_of(options), backing.error().to_string()));
  auto blk = std::make_unique<blk::Blk>(
      *std::move(backing),
      blk::Blk::Options{.queues = static_cast<uint16_t>(options.queues), .serial = serial_of(options)});
  auto refresh = [&disk = *blk] { return disk.refresh(); };
  auto hand_over = [&disk = *blk] { return disk.hand_over(); };
  return OpenedDevice{.model = std::move(blk), .refresh = refresh, .hand_over = hand_over};
}

}  // namespace

DeviceKind blk_kind() {
  return {.name = "blk",
          .help = "serve a disk",
          .options = options,
          .mistake = mistake,
          .open = open,
          .type = "block",
          .features = {"blk-file", "read-only"}};
}

}  // namespace ringway::tools
