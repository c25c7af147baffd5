#include "ringway/kernel/iotlb_channel.h"

#include <array>
#include <cstring>
#include <vector>

#include "ringway/vhost/features.h"

namespace ringway::kernel {
namespace {

using vhost::bit;

static_assert(sizeof(vhost_msg) == sizeof(vhost_msg_v2));

template <class Message>
std::span<const std::byte> bytes_of(const Message& message) {
  return std::as_bytes(std::span(&message, 1));
}

constexpr size_t max_pieces = 512;

}  // namespace

// A kernel that does not know GET_BACKEND_FEATURES has none.
Result<> IotlbChannel::negotiate(uint64_t wanted) {
  const Result<uint64_t> offered = get<__u64>(file_, VHOST_GET_BACKEND_FEATURES);
  agreed_ = offered ? *offered & (wanted | bit(VHOST_BACKEND_F_IOTLB_MSG_V2)) : 0;
  if (agreed_ == 0) return {};
  return set<__u64>(file_, VHOST_SET_BACKEND_FEATURES, agreed_);
}

Result<> IotlbChannel::send(const vhost_iotlb_msg& message) {
  if (has(VHOST_BACKEND_F_IOTLB_MSG_V2)) {
    vhost_msg_v2 whole{};
    whole.type = VHOST_IOTLB_MSG_V2;
    whole.iotlb = message;
    return file_.write(bytes_of(whole));
  }
  vhost_msg whole{};
  whole.type = VHOST_IOTLB_MSG;
  whole.iotlb = message;
  return file_.write(bytes_of(whole));
}

Result<> IotlbChannel::update(uint64_t iova, uint64_t size, const std::byte* at, uint8_t permission) {
  return send({.iova = iova,
               .size = size,
               .uaddr = reinterpret_cast<uintptr_t>(at),
               .perm = permission,
               .type = VHOST_IOTLB_UPDATE});
}

Result<> IotlbChannel::update(const memory::Map& map, const memory::IotlbEntry& entry) {
  std::array<iovec, max_pieces> storage;
  memory::Segments pieces{std::span(storage)};
  if (!map.translate(entry.front_end, entry.size, pieces)) {
    return refused("IOTLB update maps outside the memory table", entry.front_end.value);
  }
  uint64_t iova = entry.iova.value;
  for (const iovec& piece : pieces.all()) {
    TRY(update(iova, piece.iov_len, static_cast<const std::byte*>(piece.iov_base),
               static_cast<uint8_t>(entry.access)));
    iova += piece.iov_len;
  }
  return {};
}

Result<> IotlbChannel::invalidate(uint64_t iova, uint64_t size) {
  return send({.iova = iova, .size = size, .type = VHOST_IOTLB_INVALIDATE});
}

Result<std::optional<vhost::IotlbMessage>> IotlbChannel::take() {
  alignas(vhost_msg_v2) std::array<std::byte, sizeof(vhost_msg_v2)> bytes{};
  if (TRY(file_.read(bytes)) != bytes.size()) return std::nullopt;
  vhost_iotlb_msg message{};
  const bool v2 = has(VHOST_BACKEND_F_IOTLB_MSG_V2);
  const size_t at = v2 ? offsetof(vhost_msg_v2, iotlb) : offsetof(vhost_msg, iotlb);
  std::memcpy(&message, bytes.data() + at, sizeof message);
  if (message.type != VHOST_IOTLB_MISS && message.type != VHOST_IOTLB_ACCESS_FAIL) return std::nullopt;
  return vhost::IotlbMessage{.iova = {message.iova},
                             .size = message.size,
                             .permission = message.perm,
                             .type = static_cast<vhost::IotlbType>(message.type)};
}

}  // namespace ringway::kernel
