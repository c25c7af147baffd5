// Traced messages as blocks of a pcapng file, each message a packet of LINKTYPE_USER5 with a header of our
// own. Any thread. docs/trace.md "pcapng"; the dissector is share/ringway/vhost_user.lua.
#pragma once

#include <string>
#include <vector>

#include "ringway/tools/trace_message.h"

namespace ringway::tools {

inline constexpr uint16_t linktype_user5 = 152;

// What a file begins with.
[[nodiscard]] std::string pcap_begin();
// `comments` are shown beside the packet.
[[nodiscard]] std::string pcap_packet(const SeenMessage& message, const std::vector<std::string>& comments);

}  // namespace ringway::tools
