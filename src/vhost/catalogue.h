// The catalogue of requests: what each is called and what must have been negotiated before it may be used.
// Any thread. vhost-user "Front-end message types", "Back-end message types". What a message looks like on a
// socket is user/message.h's.
#pragma once

#include <linux/virtio_config.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <variant>

#include "ringway/vhost/features.h"
#include "ringway/vhost/request.h"

namespace ringway::vhost {

// One bit that a request depends on.
struct Need {
  enum class Kind : uint8_t { nothing, feature, capability };
  Kind kind = Kind::nothing;
  uint8_t bit = 0;  // VIRTIO_F_* or VHOST_USER_PROTOCOL_F_*
};

struct RequestInfo {
  const char* name;  // of the newest specification, without VHOST_USER_ or VHOST_USER_BACKEND_
  Need need;
  const char* older_name = "";  // likewise; empty: never had another
};

// What was negotiated. Protocol features of the device and of the socket alike.
struct Agreement {
  uint64_t features = 0;
  uint64_t capabilities = 0;

  [[nodiscard]] constexpr bool has_feature(unsigned number) const { return (features & bit(number)) != 0; }
  [[nodiscard]] constexpr bool has_capability(unsigned number) const {
    return (capabilities & bit(number)) != 0;
  }
  [[nodiscard]] constexpr bool allows(Need need) const {
    switch (need.kind) {
      case Need::Kind::nothing:
        return true;
      case Need::Kind::feature:
        return has_feature(need.bit);
      case Need::Kind::capability:
        return has_capability(need.bit);
    }
    return false;
  }
};

namespace detail {
constexpr Need capability(unsigned number) { return {Need::Kind::capability, static_cast<uint8_t>(number)}; }
constexpr Need feature(unsigned number) { return {Need::Kind::feature, static_cast<uint8_t>(number)}; }
inline constexpr Need anytime{};
}  // namespace detail

template <class Request>
inline constexpr std::array<RequestInfo, std::variant_size_v<Request>> catalogue;

// In the order of DeviceRequest, which is the order of the message ids from 1.
template <>
inline constexpr std::array<RequestInfo, std::variant_size_v<DeviceRequest>> catalogue<DeviceRequest>{{
    {"GET_FEATURES", detail::anytime},
    {"SET_FEATURES", detail::anytime},
    {"SET_OWNER", detail::anytime},
    {"RESET_OWNER", detail::anytime, "RESET_DEVICE"},
    {"SET_MEM_TABLE", detail::anytime},
    {"SET_LOG_BASE", detail::anytime},
    {"SET_LOG_FD", detail::anytime},
    {"SET_VRING_NUM", detail::anytime},
    {"SET_VRING_ADDR", detail::anytime},
    {"SET_VRING_BASE", detail::anytime},
    {"GET_VRING_BASE", detail::anytime},
    {"SET_VRING_KICK", detail::anytime},
    {"SET_VRING_CALL", detail::anytime},
    {"SET_VRING_ERR", detail::anytime},
    {"GET_PROTOCOL_FEATURES", detail::anytime},
    {"SET_PROTOCOL_FEATURES", detail::anytime},
    {"GET_QUEUE_NUM", detail::anytime},     // MQ must be offered, not negotiated
    {"SET_VRING_ENABLE", detail::anytime},  // bit 30: Contract knows what that means before SET_FEATURES
    {"SEND_RARP", detail::capability(VHOST_USER_PROTOCOL_F_RARP)},
    {"NET_SET_MTU", detail::capability(VHOST_USER_PROTOCOL_F_MTU)},
    {"SET_BACKEND_REQ_FD", detail::capability(VHOST_USER_PROTOCOL_F_BACKEND_REQ), "SET_SLAVE_REQ_FD"},
    {"IOTLB_MSG", detail::feature(VIRTIO_F_ACCESS_PLATFORM)},
    {"SET_VRING_ENDIAN", detail::capability(VHOST_USER_PROTOCOL_F_CROSS_ENDIAN)},
    {"GET_CONFIG", detail::capability(VHOST_USER_PROTOCOL_F_CONFIG)},
    {"SET_CONFIG", detail::capability(VHOST_USER_PROTOCOL_F_CONFIG)},
    {"CREATE_CRYPTO_SESSION", detail::capability(VHOST_USER_PROTOCOL_F_CRYPTO_SESSION)},
    {"CLOSE_CRYPTO_SESSION", detail::capability(VHOST_USER_PROTOCOL_F_CRYPTO_SESSION)},
    {"POSTCOPY_ADVISE", detail::capability(VHOST_USER_PROTOCOL_F_PAGEFAULT)},
    {"POSTCOPY_LISTEN", detail::capability(VHOST_USER_PROTOCOL_F_PAGEFAULT)},
    {"POSTCOPY_END", detail::capability(VHOST_USER_PROTOCOL_F_PAGEFAULT)},
    {"GET_INFLIGHT_FD", detail::capability(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)},
    {"SET_INFLIGHT_FD", detail::capability(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)},
    {"GPU_SET_SOCKET", detail::anytime},
    {"RESET_DEVICE", detail::capability(VHOST_USER_PROTOCOL_F_RESET_DEVICE)},
    {"VRING_KICK", detail::capability(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)},
    {"GET_MAX_MEM_SLOTS", detail::capability(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)},
    {"ADD_MEM_REG", detail::capability(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)},
    {"REM_MEM_REG", detail::capability(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)},
    {"SET_STATUS", detail::capability(VHOST_USER_PROTOCOL_F_STATUS)},
    {"GET_STATUS", detail::capability(VHOST_USER_PROTOCOL_F_STATUS)},
    {"GET_SHARED_OBJECT", detail::capability(VHOST_USER_PROTOCOL_F_SHARED_OBJECT)},
    {"SET_DEVICE_STATE_FD", detail::capability(VHOST_USER_PROTOCOL_F_DEVICE_STATE)},
    {"CHECK_DEVICE_STATE", detail::capability(VHOST_USER_PROTOCOL_F_DEVICE_STATE)},
    {"GET_SHMEM_CONFIG", detail::capability(VHOST_USER_PROTOCOL_F_SHMEM)},
    {"GET_VRING_BASE_SKIP_DRAIN", detail::capability(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN)},
}};

template <>
inline constexpr std::array<RequestInfo, std::variant_size_v<FrontEndRequest>> catalogue<FrontEndRequest>{{
    {"BACKEND_IOTLB_MSG", detail::feature(VIRTIO_F_ACCESS_PLATFORM), "SLAVE_IOTLB_MSG"},
    {"BACKEND_CONFIG_CHANGE_MSG", detail::capability(VHOST_USER_PROTOCOL_F_CONFIG),
     "SLAVE_CONFIG_CHANGE_MSG"},
    {"BACKEND_VRING_HOST_NOTIFIER_MSG", detail::capability(VHOST_USER_PROTOCOL_F_HOST_NOTIFIER),
     "SLAVE_VRING_HOST_NOTIFIER_MSG"},
    {"BACKEND_VRING_CALL", detail::capability(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS),
     "SLAVE_VRING_CALL"},
    {"BACKEND_VRING_ERR", detail::capability(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS), "SLAVE_VRING_ERR"},
    {"BACKEND_SHARED_OBJECT_ADD", detail::capability(VHOST_USER_PROTOCOL_F_SHARED_OBJECT)},
    {"BACKEND_SHARED_OBJECT_REMOVE", detail::capability(VHOST_USER_PROTOCOL_F_SHARED_OBJECT)},
    {"BACKEND_SHARED_OBJECT_LOOKUP", detail::capability(VHOST_USER_PROTOCOL_F_SHARED_OBJECT)},
    {"BACKEND_SHMEM_MAP", detail::capability(VHOST_USER_PROTOCOL_F_SHMEM)},
    {"BACKEND_SHMEM_UNMAP", detail::capability(VHOST_USER_PROTOCOL_F_SHMEM)},
}};

// Of an alternative among the alternatives of Request.
template <class Request, class Alternative>
inline constexpr size_t index_of = []<class... T>(std::type_identity<std::variant<T...>>) {
  size_t index = 0;
  bool found = false;
  ((found = found || std::is_same_v<T, Alternative>, index += found ? 0 : 1), ...);
  return index;
}(std::type_identity<Request>{});

template <class Request>
[[nodiscard]] constexpr const RequestInfo& info_of(const Request& request) {
  return catalogue<Request>[request.index()];
}

}  // namespace ringway::vhost
