// ringway serve net: a network device.
#include <fmt/format.h>
#include <sys/random.h>

#include <array>

#include "ringway/device/net/net.h"
#include "ringway/tools/device_kinds.h"
#include "ringway/tools/port_kinds.h"

namespace ringway::tools {
namespace {

std::span<const Option<DeviceOptions>> options() {
  using D = DeviceOptions;
  static const auto table = std::to_array<Option<D>>({
      {"port", "where frames go: KIND or KIND:KEY=VALUE,...", &D::port},
      {"mac", "the address that the driver is told; without it, one by chance", &D::mac},
      {"mtu", "the MTU that the driver is told, 68 to 65535", &D::mtu},
  });
  return table;
}

std::string mistake(const DeviceOptions& options) {
  if (options.port.empty()) return "port is needed";
  if (const auto port = parse_port(options.port); !port) return fmt::format("port: {}", port.error());
  if (options.queues < 1 || options.queues > net::Net::max_pairs) return "queues: must be 1 to 128";
  if (const auto mac = parse_mac(options.mac); !options.mac.empty() && !mac) {
    return fmt::format("mac: {}", mac.error());
  }
  if (options.mtu != 0 && (options.mtu < 68 || options.mtu > 65535)) return "mtu: must be 68 to 65535";
  return {};
}

// Locally administered, of one device.
net::Mac random_mac() {
  net::Mac mac{};
  (void)!::getrandom(mac.data(), mac.size(), 0);
  mac[0] = (mac[0] & std::byte{0xfc}) | std::byte{0x02};
  return mac;
}

Parsed<OpenedDevice> open(const DeviceOptions& options) {
  const auto pairs = static_cast<uint16_t>(options.queues);
  auto port = open_port(options.port, pairs);
  if (!port) return std::unexpected(fmt::format("{}: {}", options.port, port.error()));
  auto device = std::make_unique<net::Net>(
      *std::move(port), net::Net::Options{.pairs = pairs,
                                          .mac = options.mac.empty() ? random_mac() : *parse_mac(options.mac),
                                          .mtu = static_cast<uint16_t>(options.mtu)});
  const net::Net& net = *device;
  return OpenedDevice{.model = std::move(device), .refresh = {}, .hand_over = {}, .counters = [&net] {
                        return net.counters();
                      }};
}

}  // namespace

DeviceKind net_kind() {
  return {.name = "net",
          .help = "serve a network device",
          .options = options,
          .mistake = mistake,
          .open = open,
          .type = "net",
          .features = {}};
}

}  // namespace ringway::tools
