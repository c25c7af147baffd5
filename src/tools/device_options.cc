#include "ringway/tools/device_options.h"

#include <fmt/format.h>

#include <array>

namespace ringway::tools {

std::string place_of(const DeviceOptions& device) {
  if (!device.socket_path.empty()) return device.socket_path;
  return device.connect.empty() ? fmt::format("fd {}", device.fd) : device.connect;
}

std::span<const Option<DeviceOptions>> common_option_table() {
  using D = DeviceOptions;
  static const auto table = std::to_array<Option<D>>({
      {"socket-path", "listen on the unix socket PATH", &D::socket_path},
      {"fd", "use the inherited socket FD, listening or connected", &D::fd},
      {"connect", "connect to the front-end that listens on PATH, again whenever it goes", &D::connect},
      {"queues", "offer N queues, of a network device N pairs", &D::queues},
      {"inband-notifications", "offer kicks and calls as messages, for front-ends without eventfds",
       &D::inband_notifications},
      {"postcopy", "offer migration by postcopy, in place of memory slots", &D::postcopy},
  });
  return table;
}

std::span<const Option<ProcessOptions>> process_option_table() {
  using P = ProcessOptions;
  static const auto table = std::to_array<Option<P>>({
      {"workers", "spread queues over N threads", &P::workers},
      {"cpus", "pin workers to the CPUs of LIST, for example 0,2-3", &P::cpus},
      {"poll", "adaptive, always or never", &P::poll},
      {"no-io-uring", "use epoll and a thread pool", &P::no_io_uring},
      {"restart-on-failure", "when it crashes, start it again; its sockets stay", &P::restart_on_failure},
      {"verbose", "log what front-ends do", &P::verbose},
  });
  return table;
}

}  // namespace ringway::tools
