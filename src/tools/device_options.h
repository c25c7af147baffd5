// What a served device is, as its command line or its table in a configuration file says. Plain data, and the
// tables of names from which both are read; those of one kind of device are in device_kinds.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace ringway::tools {

struct DeviceOptions {
  std::string type = "blk";
  // Where front-ends are: exactly one of these.
  std::string socket_path;
  std::string connect;
  int64_t fd = -1;
  uint64_t queues = 1;  // of a network device: pairs
  bool inband_notifications = false;
  bool postcopy = false;
  // blk: what the disk is, exactly one of these.
  std::string blk_file;
  uint64_t memory = 0;  // bytes
  bool shared_memory = false;
  uint64_t null = 0;  // bytes
  bool read_only = false;
  bool direct = false;
  bool lock_while_running = false;
  std::string serial;
  std::string witness;
  // net
  std::string port;  // "tap:name=tap0": see port_kinds.h
  std::string mac;
  uint64_t mtu = 0;  // bytes
  // Live upgrade: what the process before has given for it, owned by who opens the device; -1: nothing.
  int inherited = -1;
  bool takes_over = false;  // it goes on where the process before stops
};

// Where it is served: a path, or "fd 3".
[[nodiscard]] std::string place_of(const DeviceOptions& device);

// What the whole process shares.
struct ProcessOptions {
  uint64_t workers = 1;
  std::string cpus;  // "0,2-3"
  std::string poll = "adaptive";
  bool no_io_uring = false;
  bool verbose = false;
  bool restart_on_failure = false;
};

template <class Options>
struct Option {
  using Member =
      std::variant<std::string Options::*, bool Options::*, int64_t Options::*, uint64_t Options::*>;
  const char* name;  // "socket-path": --socket-path on the command line, socket-path in a file
  const char* help;
  Member member;
  bool is_size = false;  // a number of bytes that may carry a suffix: 512K, 1G
};

// What every kind of device has.
std::span<const Option<DeviceOptions>> common_option_table();
std::span<const Option<ProcessOptions>> process_option_table();

}  // namespace ringway::tools
