#include "ringway/tools/device_options.h"

#include <array>

namespace ringway::tools {

std::span<const Option<DeviceOptions>> device_option_table() {
  using D = DeviceOptions;
  static const auto table = std::to_array<Option<D>>({
      {"socket-path", "listen on the unix socket PATH", &D::socket_path},
      {"fd", "use the inherited socket FD, listening or connected", &D::fd},
      {"connect", "connect to the front-end that listens on PATH, again whenever it goes", &D::connect},
      {"blk-file", "serve the file or block device PATH, which is taken as raw", &D::blk_file},
      {"memory", "serve SIZE bytes of memory, gone when the program ends", &D::memory, true},
      {"null", "serve SIZE bytes that forget what is written", &D::null, true},
      {"read-only", "refuse whatever would change the disk", &D::read_only},
      {"direct", "bypass the page cache of this machine (O_DIRECT)", &D::direct},
      {"queues", "offer N queues, 1 to 256", &D::queues},
      {"serial", "the identity that the driver is told, at most 20 bytes", &D::serial},
      {"inband-notifications", "offer kicks and calls as messages, for front-ends without eventfds",
       &D::inband_notifications},
      {"witness", "tell in FILE what is written, for ringway bench --witness=FILE", &D::witness},
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
