#include "ringway/vhost/features.h"

#include <array>

namespace ringway::vhost {

std::string_view protocol_feature_name(unsigned number) {
  static constexpr auto names = std::to_array<std::string_view>({"MQ",
                                                                 "LOG_SHMFD",
                                                                 "RARP",
                                                                 "REPLY_ACK",
                                                                 "MTU",
                                                                 "BACKEND_REQ",
                                                                 "CROSS_ENDIAN",
                                                                 "CRYPTO_SESSION",
                                                                 "PAGEFAULT",
                                                                 "CONFIG",
                                                                 "BACKEND_SEND_FD",
                                                                 "HOST_NOTIFIER",
                                                                 "INFLIGHT_SHMFD",
                                                                 "RESET_DEVICE",
                                                                 "INBAND_NOTIFICATIONS",
                                                                 "CONFIGURE_MEM_SLOTS",
                                                                 "STATUS",
                                                                 "XEN_MMAP",
                                                                 "SHARED_OBJECT",
                                                                 "DEVICE_STATE",
                                                                 "GET_VRING_BASE_INFLIGHT",
                                                                 "GPA_ADDRESSES",
                                                                 "SHMEM",
                                                                 "GET_VRING_BASE_SKIP_DRAIN"});
  static_assert(names.size() == protocol_feature_count);
  return number < names.size() ? names[number] : std::string_view{};
}

}  // namespace ringway::vhost
