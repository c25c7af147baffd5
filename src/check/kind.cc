#include "ringway/check/kind.h"

#include <fmt/format.h>
#include <linux/fuse.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_scsi.h>
#include <linux/virtio_vsock.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "ringway/vhost/features.h"

namespace ringway::check {
namespace {

using memory::GuestAddress;
using Slot = std::span<std::byte>;
using Seen = std::span<const std::byte>;

constexpr std::byte untouched{0xee};

ring::Buffer part(GuestAddress slot, size_t offset, size_t length) {
  return {.address = {slot.value + offset}, .length = static_cast<uint32_t>(length)};
}

template <class T>
void put(Slot slot, size_t offset, const T& value) {
  std::memcpy(slot.data() + offset, &value, sizeof value);
}

// ---- a disk: sector 0 is read

constexpr size_t blk_data = 1024;
constexpr size_t blk_status = 2048;
constexpr size_t sector_bytes = 512;

Request write_blk(Slot slot, GuestAddress at, uint64_t) {
  std::ranges::fill(slot, untouched);
  put(slot, 0, virtio_blk_outhdr{.type = VIRTIO_BLK_T_IN, .ioprio = 0, .sector = 0});
  return {.readable = {part(at, 0, sizeof(virtio_blk_outhdr))},
          .writable = {part(at, blk_data, sector_bytes), part(at, blk_status, 1)}};
}

std::optional<std::string> judge_blk(Seen slot, uint32_t) {
  const auto status = static_cast<unsigned>(slot[blk_status]);
  if (status <= VIRTIO_BLK_S_UNSUPP) return std::nullopt;
  return fmt::format("a read of sector 0 was used with status {:#x}", status);
}

// ---- a network interface: a frame of an experimental type, to nobody, is transmitted

// linux/virtio_net.h is no C++.
constexpr unsigned VIRTIO_NET_F_MRG_RXBUF = 15;
constexpr size_t short_net_header = 10;
constexpr size_t long_net_header = 12;

Request write_net(Slot slot, GuestAddress at, uint64_t features) {
  std::ranges::fill(slot, std::byte{0});
  const bool long_header =
      (features & (vhost::bit(VIRTIO_F_VERSION_1) | vhost::bit(VIRTIO_NET_F_MRG_RXBUF))) != 0;
  const size_t header = long_header ? long_net_header : short_net_header;
  constexpr std::array<uint8_t, 14> ethernet{0x02, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0x01, 0x88, 0xb5};
  put(slot, header, ethernet);
  return {.readable = {part(at, 0, header + 60)}, .writable = {}};
}

// Nothing is written.
std::optional<std::string> judge_any(Seen, uint32_t) { return std::nullopt; }

// ---- a file system: the attributes of its root are asked for; without FUSE_INIT that is an error, which
// will do

constexpr size_t fs_out = 1024;

Request write_fs(Slot slot, GuestAddress at, uint64_t) {
  std::ranges::fill(slot, std::byte{0});
  const fuse_in_header header{.len = sizeof(fuse_in_header) + sizeof(fuse_getattr_in),
                              .opcode = FUSE_GETATTR,
                              .unique = 2 + at.value,
                              .nodeid = FUSE_ROOT_ID};
  put(slot, 0, header);
  return {.readable = {part(at, 0, header.len)},
          .writable = {part(at, fs_out, sizeof(fuse_out_header) + sizeof(fuse_attr_out))}};
}

std::optional<std::string> judge_fs(Seen slot, uint32_t) {
  uint64_t asked = 0;
  uint64_t answered = 0;
  std::memcpy(&asked, slot.data() + offsetof(fuse_in_header, unique), sizeof asked);
  std::memcpy(&answered, slot.data() + fs_out + offsetof(fuse_out_header, unique), sizeof answered);
  if (asked == answered) return std::nullopt;
  return fmt::format("the answer to FUSE_GETATTR {} is to {}", asked, answered);
}

// ---- entropy: some is taken

constexpr size_t rng_bytes = 16;

Request write_rng(Slot slot, GuestAddress at, uint64_t) {
  std::ranges::fill(slot, std::byte{0});
  return {.readable = {}, .writable = {part(at, 0, rng_bytes)}};
}

std::optional<std::string> judge_rng(Seen, uint32_t written) {
  if (written > 0 && written <= rng_bytes) return std::nullopt;
  return fmt::format("{} of 16 bytes were given", written);
}

// ---- a SCSI host: a logical unit is asked whether it is ready; that there is none will do

constexpr size_t scsi_response = 1024;
constexpr uint8_t flat_space = 0x40;  // of addresses of units

Request write_scsi(Slot slot, GuestAddress at, uint64_t) {
  std::ranges::fill(slot, untouched);
  // Of zeros the command is TEST UNIT READY.
  put(slot, 0, virtio_scsi_cmd_req{.lun = {1, 1, flat_space}, .tag = at.value});
  return {.readable = {part(at, 0, sizeof(virtio_scsi_cmd_req))},
          .writable = {part(at, scsi_response, sizeof(virtio_scsi_cmd_resp))}};
}

std::optional<std::string> judge_scsi(Seen slot, uint32_t) {
  const auto response = static_cast<unsigned>(slot[scsi_response + offsetof(virtio_scsi_cmd_resp, response)]);
  if (response <= VIRTIO_SCSI_S_INCORRECT_LUN) return std::nullopt;
  return fmt::format("TEST UNIT READY was used with response {:#x}", response);
}

// ---- a socket: a connection that was never there is reset, by an address that is nobody's

Request write_vsock(Slot slot, GuestAddress at, uint64_t) {
  std::ranges::fill(slot, std::byte{0});
  virtio_vsock_hdr header{};
  header.type = VIRTIO_VSOCK_TYPE_STREAM;
  header.op = VIRTIO_VSOCK_OP_RST;
  put(slot, 0, header);
  return {.readable = {part(at, 0, sizeof header)}, .writable = {}};
}

constexpr std::array<Kind, 7> table{{
    {.name = "any"},
    {.name = "blk",
     .request = "a read of sector 0",
     .write = write_blk,
     .judge = judge_blk,
     .written_at = blk_data,
     .written_bytes = sector_bytes,
     .config_bytes = 24,  // to the end of blk_size
     .read_only_field = 0},
    {.name = "net",
     .request = "a frame to nobody",
     .ring = 1,
     .write = write_net,
     .judge = judge_any,
     .config_bytes = 6},  // mac
    {.name = "fs",
     .request = "FUSE_GETATTR of the root",
     .ring = 1,
     .write = write_fs,
     .judge = judge_fs,
     .written_at = fs_out,
     .written_bytes = sizeof(fuse_out_header)},
    {.name = "scsi",
     .request = "TEST UNIT READY",
     .ring = 2,
     .write = write_scsi,
     .judge = judge_scsi,
     .written_at = scsi_response,
     .written_bytes = offsetof(virtio_scsi_cmd_resp, sense),
     .config_bytes = 36},
    {.name = "vsock", .request = "a reset by nobody", .ring = 1, .write = write_vsock, .judge = judge_any},
    {.name = "rng",
     .request = "16 bytes of entropy",
     .write = write_rng,
     .judge = judge_rng,
     .written_at = 0,
     .written_bytes = 1},
}};

}  // namespace

std::span<const Kind> kinds() { return table; }

const Kind* find_kind(std::string_view name) {
  const auto found = std::ranges::find(table, name, &Kind::name);
  return found == table.end() ? nullptr : &*found;
}

}  // namespace ringway::check
