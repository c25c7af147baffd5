#include "ringway/tools/port_kinds.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "ringway/device/port/loop.h"
#include "ringway/device/port/null.h"
#include "ringway/device/port/packet.h"
#include "ringway/device/port/pcap.h"
#include "ringway/device/port/tap.h"
#include "ringway/device/port/user.h"
#include "ringway/device/port/xdp.h"
#include "ringway/tools/switches.h"

namespace ringway::tools {
namespace {

Parsed<std::unique_ptr<port::Port>> opened(Result<std::unique_ptr<port::Port>> port) {
  if (!port) return std::unexpected(port.error().to_string());
  return *std::move(port);
}

Parsed<std::unique_ptr<port::Port>> open_null_port(const PortText& text, uint16_t) {
  const auto send = text.number("send", port::min_frame, port::max_frame, 0);
  if (!send) return std::unexpected(send.error());
  return port::open_null({.send = static_cast<uint32_t>(*send)});
}

Parsed<std::unique_ptr<port::Port>> open_loop_port(const PortText&, uint16_t) { return port::open_loop(); }

Parsed<std::unique_ptr<port::Port>> open_pcap_port(const PortText& text, uint16_t) {
  const std::string loop = text.text("loop");
  if (!loop.empty() && loop != "yes" && loop != "no") return std::unexpected("loop: must be yes or no");
  const auto rate = text.number("rate", 1, 1'000'000'000, 0);
  if (!rate) return std::unexpected(rate.error());
  if (!text.has("write") && !text.has("read")) return std::unexpected("write, read or both are needed");
  return opened(port::open_pcap(
      {.write = text.text("write"), .read = text.text("read"), .again = loop == "yes", .rate = *rate}));
}

Parsed<std::unique_ptr<port::Port>> open_tap_port(const PortText& text, uint16_t pairs) {
  if (text.has("name") == text.has("fd")) return std::unexpected("exactly one of name and fd is needed");
  const auto fd = text.number("fd", 0, INT32_MAX, 0);
  if (!fd) return std::unexpected(fd.error());
  port::TapOptions options{.name = text.text("name"), .fd = {}, .pairs = pairs};
  if (text.has("fd")) options.fd = UniqueFd(static_cast<int>(*fd));
  return opened(port::open_tap(std::move(options)));
}

Parsed<std::unique_ptr<port::Port>> resume_tap_port(const PortText& text, port::HandedPort handed) {
  return opened(port::resume_tap(text.text("name"), std::move(handed)));
}

Parsed<std::unique_ptr<port::Port>> open_packet_port(const PortText& text, uint16_t) {
  if (!text.has("name")) return std::unexpected("name is needed");
  return opened(port::open_packet(text.text("name")));
}

Parsed<std::unique_ptr<port::Port>> open_xdp_port(const PortText& text, uint16_t pairs) {
  if (!text.has("interface")) return std::unexpected("interface is needed");
  const auto queue = text.number("queue", 0, 65535, 0);
  if (!queue) return std::unexpected(queue.error());
  port::XdpOptions options{
      .interface = text.text("interface"), .queue = static_cast<uint32_t>(*queue), .pairs = pairs};
  if (const std::string mode = text.text("mode"); mode == "copy") {
    options.mode = port::XdpMode::copy;
  } else if (mode == "zerocopy") {
    options.mode = port::XdpMode::zero_copy;
  } else if (!mode.empty() && mode != "auto") {
    return std::unexpected("mode: must be auto, copy or zerocopy");
  }
  return opened(port::open_xdp(options));
}

Parsed<std::unique_ptr<port::Port>> resume_packet_port(const PortText& text, port::HandedPort handed) {
  return opened(port::resume_packet(text.text("name"), std::move(handed)));
}

bool parse_address(const std::string& text, in_addr& address) {
  return ::inet_pton(AF_INET, text.c_str(), &address) == 1;
}

// "127.0.0.1:2222", and each of the two may be left out where there is a default.
bool parse_end(std::string_view text, in_addr& address, uint16_t& port) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return false;
  if (colon > 0 && !parse_address(std::string(text.substr(0, colon)), address)) return false;
  const std::string_view digits = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  return error == std::errc{} && end == digits.data() + digits.size() && port != 0;
}

// "tcp:127.0.0.1:2222-:22"
Parsed<port::UserOptions::Forward> parse_forward(std::string_view text) {
  port::UserOptions::Forward forward{.is_udp = text.starts_with("udp:")};
  const size_t dash = text.find('-');
  const bool has_protocol = forward.is_udp || text.starts_with("tcp:");
  if (!has_protocol || dash == std::string_view::npos ||
      !parse_end(text.substr(4, dash - 4), forward.host, forward.host_port) ||
      !parse_end(text.substr(dash + 1), forward.guest, forward.guest_port)) {
    return std::unexpected(fmt::format("hostfwd: '{}' is not like tcp:127.0.0.1:2222-:22", text));
  }
  return forward;
}

Parsed<std::unique_ptr<port::Port>> open_user_port(const PortText& text, uint16_t) {
  port::UserOptions options;
  if (const std::string net = text.text("net"); !net.empty()) {
    const size_t slash = net.find('/');
    const auto prefix = slash == std::string::npos ? Parsed<uint64_t>(24) : parse_size(net.substr(slash + 1));
    if (!parse_address(net.substr(0, slash), options.network) || !prefix || *prefix < 8 || *prefix > 27)
      return std::unexpected("net: must be like 10.0.2.0/24, with 8 to 27 bits");
    options.prefix = static_cast<uint8_t>(*prefix);
  }
  const std::string restricted = text.text("restrict");
  if (!restricted.empty() && restricted != "yes" && restricted != "no")
    return std::unexpected("restrict: must be yes or no");
  options.is_restricted = restricted == "yes";
  const std::string forwards = text.text("hostfwd");
  for (const std::string_view one : split(forwards, '+')) {
    const auto forward = parse_forward(one);
    if (!forward) return std::unexpected(forward.error());
    options.forwards.push_back(*forward);
  }
  return opened(port::open_user(options));
}

}  // namespace

std::span<const PortKind> port_kinds() {
  static const auto kinds = std::to_array<PortKind>({
      {"loop", {}, open_loop_port},
      {"null", {"send"}, open_null_port},
      {"packet", {"name"}, open_packet_port, resume_packet_port},
      {"pcap", {"write", "read", "loop", "rate"}, open_pcap_port},
      {.name = "switch",
       .keys = switch_port_keys,
       .open = open_switch_port,
       .mistake = mistake_in_switch_port},
      {"tap", {"name", "fd"}, open_tap_port, resume_tap_port},
      {"user", {"net", "hostfwd", "restrict"}, open_user_port},
      {"xdp", {"interface", "queue", "mode"}, open_xdp_port},
  });
  return kinds;
}

std::string PortText::text(std::string_view key) const {
  const auto found = settings.find(key);
  return found == settings.end() ? std::string() : found->second;
}

Parsed<uint64_t> PortText::number(std::string_view key, uint64_t least, uint64_t most,
                                  uint64_t otherwise) const {
  const auto found = settings.find(key);
  if (found == settings.end()) return otherwise;
  const std::string& text = found->second;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most) {
    return std::unexpected(fmt::format("{}: must be a number from {} to {}", key, least, most));
  }
  return value;
}

Parsed<PortText> parse_port(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const auto kinds = port_kinds();
  const auto kind =
      std::ranges::find(kinds, name, [](const PortKind& one) { return std::string_view(one.name); });
  if (kind == kinds.end()) {
    std::vector<std::string_view> names;
    for (const PortKind& one : kinds) names.emplace_back(one.name);
    return std::unexpected(fmt::format("there is no port '{}'; there are {}", name, fmt::join(names, ", ")));
  }
  PortText port{.kind = &*kind, .settings = {}};
  const std::string_view settings = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  for (const std::string_view setting : split(settings, ',')) {
    const size_t equals = setting.find('=');
    const std::string_view key = setting.substr(0, equals);
    if (equals == std::string_view::npos || equals + 1 == setting.size())
      return std::unexpected(fmt::format("'{}' is not KEY=VALUE", setting));
    if (std::ranges::find(kind->keys, key) == kind->keys.end())
      return std::unexpected(fmt::format("{}: a {} port has no such key", key, name));
    if (!port.settings.emplace(key, setting.substr(equals + 1)).second)
      return std::unexpected(fmt::format("{}: is there twice", key));
  }
  if (kind->mistake != nullptr) {
    if (std::string wrong = kind->mistake(port); !wrong.empty()) return std::unexpected(std::move(wrong));
  }
  return port;
}

Parsed<std::unique_ptr<port::Port>> open_port(std::string_view text, uint16_t pairs) {
  const auto port = parse_port(text);
  if (!port) return std::unexpected(port.error());
  return port->kind->open(*port, pairs);
}

Parsed<std::unique_ptr<port::Port>> open_port(std::string_view text, uint16_t pairs,
                                              std::optional<ParceledPort> parcel) {
  if (!parcel) return open_port(text, pairs);
  const auto port = parse_port(text);
  if (!port) return std::unexpected(port.error());
  const PortKind& kind = *port->kind;
  if (parcel->kind != kind.name)
    return std::unexpected(fmt::format("is configured as {}, and is {} now", kind.name, parcel->kind));
  if (kind.resume != nullptr) return kind.resume(*port, std::move(parcel->port));
  if (!parcel->port.words.empty() || !parcel->port.fds.empty())
    return std::unexpected("was handed over in an unknown way");
  return kind.open(*port, pairs);
}

}  // namespace ringway::tools
