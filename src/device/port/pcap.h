// A port that writes what it is sent to a capture file, or plays one back: classic pcap, as every tool reads
// it. Our own few lines instead of libpcap, since the format is a header and records, and libpcap exits or
// blocks on a full disk. Thread rule: as Port.
#pragma once

#include <memory>
#include <string>

#include "ringway/device/port/port.h"

namespace ringway::port {

struct PcapOptions {
  std::string write;      // a file that is made anew; or empty
  std::string read;       // a file to play, pcap of Ethernet frames; or empty
  bool again = false;     // when it has been played to the end
  uint64_t rate = 0;      // frames a second; 0: as fast as there are buffers
  uint32_t snap = 65535;  // bytes of a frame that are written at most
};

Result<std::unique_ptr<Port>> open_pcap(const PcapOptions& options);

}  // namespace ringway::port
