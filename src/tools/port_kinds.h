// The kinds of ports that `ringway serve net --port=` has, in one table, and how they are written:
// KIND or KIND:KEY=VALUE,... Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringway/device/port/port.h"
#include "ringway/tools/parse.h"
#include "ringway/tools/port_parcel.h"

namespace ringway::tools {

struct PortKind;

// What a user has written, taken apart: the kind is known, and so are the keys.
class PortText {
 public:
  const PortKind* kind = nullptr;
  std::map<std::string, std::string, std::less<>> settings;

  [[nodiscard]] bool has(std::string_view key) const { return settings.contains(key); }
  // Empty if it is not there.
  [[nodiscard]] std::string text(std::string_view key) const;
  // `otherwise` if it is not there; a sentence if it is no number from `least` to `most`.
  [[nodiscard]] Parsed<uint64_t> number(std::string_view key, uint64_t least, uint64_t most,
                                        uint64_t otherwise) const;
};

struct PortKind {
  const char* name;
  std::vector<const char*> keys;
  Parsed<std::unique_ptr<port::Port>> (*open)(const PortText& text, uint16_t pairs);
  // Live upgrade: goes on with what Port::hand_over() has given. Null: there was nothing, and it is opened.
  Parsed<std::unique_ptr<port::Port>> (*resume)(const PortText& text, port::HandedPort handed) = nullptr;
  // Judges values before anything is opened: empty, or what is wrong. Null: that is told by `open`.
  std::string (*mistake)(const PortText& text) = nullptr;
};

// The table.
std::span<const PortKind> port_kinds();

Parsed<PortText> parse_port(std::string_view text);
// For a device with so many pairs of queues.
Parsed<std::unique_ptr<port::Port>> open_port(std::string_view text, uint16_t pairs);
// As open_port(); with a port that another process has handed over, that one.
Parsed<std::unique_ptr<port::Port>> open_port(std::string_view text, uint16_t pairs,
                                              std::optional<ParceledPort> parcel);

}  // namespace ringway::tools
