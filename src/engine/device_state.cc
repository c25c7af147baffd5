#include "ringway/engine/device_state.h"

#include <array>
#include <cstring>

#include "ringway/base/endian.h"

namespace ringway::engine {
namespace {

constexpr uint64_t magic = 0x4554'4154'5359'4157;  // "WAYSTATE"
constexpr uint32_t version = 1;

struct Head {
  le64 magic;
  le32 version;
  le32 device_id;
  le64 length;  // bytes of the model's
};
static_assert(sizeof(Head) == 24 && sizeof(Head) + sizeof(uint32_t) + max_model_state == max_state);

// ISO 3309, as in Ethernet and gzip.
uint32_t crc32(std::span<const std::byte> bytes) {
  uint32_t crc = 0xffff'ffff;
  for (const std::byte byte : bytes) {
    crc ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb8'8320 : 0);
  }
  return ~crc;
}

}  // namespace

std::vector<std::byte> wrap_state(uint32_t device_id, std::span<const std::byte> model) {
  Head head;
  head.magic = magic;
  head.version = version;
  head.device_id = device_id;
  head.length = model.size();
  const auto first = std::as_bytes(std::span(&head, 1));
  std::vector<std::byte> state(first.begin(), first.end());
  state.insert(state.end(), model.begin(), model.end());
  le32 sum;
  sum = crc32(state);
  const auto last = std::as_bytes(std::span(&sum, 1));
  state.insert(state.end(), last.begin(), last.end());
  return state;
}

Result<std::span<const std::byte>> unwrap_state(uint32_t device_id, std::span<const std::byte> state) {
  Head head;
  le32 sum;
  if (state.size() < sizeof head + sizeof sum) return refused("device state is cut off", state.size());
  std::memcpy(&head, state.data(), sizeof head);
  if (head.magic != magic) return refused("this is no device state of ours");
  if (head.version != version) return refused("device state is of another version", head.version);
  if (head.device_id != device_id) return refused("device state is of another device", head.device_id);
  const size_t length = state.size() - sizeof head - sizeof sum;
  if (head.length != length || length > max_model_state)
    return refused("device state has another length than it says", length);
  std::memcpy(&sum, state.data() + sizeof head + length, sizeof sum);
  if (sum != crc32(state.first(sizeof head + length))) return refused("device state is corrupt");
  return state.subspan(sizeof head, length);
}

}  // namespace ringway::engine
