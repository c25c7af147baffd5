// What VHOST_NET_SET_BACKEND takes: a tun or tap device's file, or a raw packet socket. Any thread.
#pragma once

namespace ringway::kernel {

[[nodiscard]] bool is_net_backend(int fd);

}  // namespace ringway::kernel
