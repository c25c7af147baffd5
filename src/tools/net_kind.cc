// ringway serve net: a network device.
#include <fmt/format.h>
#include <sys/random.h>

#include <array>
#include <optional>

#include "ringway/device/net/net.h"
#include "ringway/device/port/xdp_socket.h"
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
  if (kind_in(options.port) == "xdp" && options.mtu > port::XdpSocket::max_mtu)
    return fmt::format("mtu: AF_XDP takes {} at most", port::XdpSocket::max_mtu);
  return {};
}

// Locally administered, of one device.
net::Mac random_mac() {
  net::Mac mac{};
  (void)!::getrandom(mac.data(), mac.size(), 0);
  mac[0] = (mac[0] & std::byte{0xfc}) | std::byte{0x02};
  return mac;
}

std::string to_text(const net::Mac& mac) {
  std::string text;
  for (const std::byte byte : mac)
    text += fmt::format("{}{:02x}", text.empty() ? "" : ":", std::to_integer<unsigned>(byte));
  return text;
}

// The user's; else what the driver has been told by the process before, if there was one.
net::Mac mac_of(const DeviceOptions& options, const std::optional<ParceledPort>& parcel) {
  if (!options.mac.empty()) return *parse_mac(options.mac);
  if (parcel) {
    if (const auto mac = parse_mac(parcel->mac)) return *mac;
  }
  return random_mac();
}

Parsed<OpenedDevice> open_device(const DeviceOptions& options, std::optional<ParceledPort> parcel) {
  const auto pairs = static_cast<uint16_t>(options.queues);
  const net::Mac mac = mac_of(options, parcel);
  auto net = std::make_unique<net::Net>(
      TRY(open_port(options.port, pairs, std::move(parcel))),
      net::Net::Options{.pairs = pairs, .mac = mac, .mtu = static_cast<uint16_t>(options.mtu)});
  auto hand_over = [&net = *net, kind = kind_in(options.port)]() -> Result<UniqueFd> {
    auto port = TRY(net.hand_over());
    return wrap_port({.kind = kind, .mac = to_text(net.mac()), .port = std::move(port)});
  };
  const net::Net& device = *net;
  return OpenedDevice{.model = std::move(net), .refresh = {}, .hand_over = hand_over, .counters = [&device] {
                        return device.counters();
                      }};
}

Parsed<OpenedDevice> open(const DeviceOptions& options) {
  UniqueFd inherited(options.inherited);
  std::optional<ParceledPort> parcel;
  if (inherited) {
    auto unwrapped = unwrap_port(std::move(inherited));
    if (!unwrapped) return std::unexpected(fmt::format("{}: {}", options.port, unwrapped.error()));
    parcel = *std::move(unwrapped);
  }
  auto device = open_device(options, std::move(parcel));
  if (!device) return std::unexpected(fmt::format("{}: {}", options.port, device.error()));
  return device;
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
