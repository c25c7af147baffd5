// Feature bits of the protocol by name, and the two virtio bits that it borrows. Any thread.
// vhost-user "Protocol features". The kernel's UAPI headers do not have them, so this is the table.
#pragma once

#ifndef VIRTIO_RING_NO_LEGACY
#define VIRTIO_RING_NO_LEGACY 1  // the helpers in linux/virtio_ring.h are not C++
#endif
#include <linux/vhost_types.h>  // VHOST_F_LOG_ALL

#include <cstdint>
#include <string_view>

namespace ringway::vhost {

inline constexpr unsigned VHOST_USER_F_PROTOCOL_FEATURES = 30;

inline constexpr unsigned VHOST_USER_PROTOCOL_F_MQ = 0;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_RARP = 2;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_REPLY_ACK = 3;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_MTU = 4;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5;  // older name: SLAVE_REQ
inline constexpr unsigned VHOST_USER_PROTOCOL_F_CROSS_ENDIAN = 6;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_CRYPTO_SESSION = 7;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_PAGEFAULT = 8;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_CONFIG = 9;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD = 10;  // older name: SLAVE_SEND_FD
inline constexpr unsigned VHOST_USER_PROTOCOL_F_HOST_NOTIFIER = 11;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS = 14;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_STATUS = 16;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_XEN_MMAP = 17;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_SHARED_OBJECT = 18;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_DEVICE_STATE = 19;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT = 20;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_GPA_ADDRESSES = 21;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_SHMEM = 22;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN = 23;

inline constexpr uint32_t VHOST_CONFIG_WRITABLE = 0;   // SET_CONFIG flags: the driver writes
inline constexpr uint32_t VHOST_CONFIG_MIGRATION = 1;  // the front-end restores what it migrated

[[nodiscard]] constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }

inline constexpr unsigned protocol_feature_count = 24;  // bits that the specification names
inline constexpr uint64_t known_protocol_features = (uint64_t{1} << protocol_feature_count) - 1;
// Those that belong to the socket: never seen by a device. Bit 30 of the virtio features does as well.
inline constexpr uint64_t transport_protocol_features = bit(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
                                                        bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
                                                        bit(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD);

// "REPLY_ACK"; empty for a number that the specification does not name.
[[nodiscard]] std::string_view protocol_feature_name(unsigned number);

}  // namespace ringway::vhost
