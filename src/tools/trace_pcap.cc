#include "ringway/tools/trace_pcap.h"

#include <algorithm>
#include <string_view>

#include "ringway/base/endian.h"

namespace ringway::tools {
namespace {

// Block types and options of pcapng ("PCAP Next Generation Capture File Format").
constexpr uint32_t section_header = 0x0a0d0d0a;
constexpr uint32_t interface_description = 1;
constexpr uint32_t enhanced_packet = 6;
constexpr uint32_t byte_order_magic = 0x1a2b3c4d;
constexpr uint16_t option_comment = 1;
constexpr uint16_t option_application = 4;  // of a section
constexpr uint16_t option_name = 2;         // of an interface
constexpr uint16_t option_resolution = 9;   // likewise: 10 to the minus n seconds
constexpr uint16_t option_flags = 2;        // of a packet: 1 in, 2 out
constexpr char nanoseconds = 9;

class Bytes {
 public:
  template <class T>
  Bytes& put(T value) {
    const Fixed<T, std::endian::little> fixed(value);
    text_.append(reinterpret_cast<const char*>(&fixed), sizeof fixed);
    return *this;
  }
  Bytes& put_text(std::string_view text) {
    text_ += text;
    return *this;
  }
  Bytes& align() {
    text_.resize((text_.size() + 3) / 4 * 4);
    return *this;
  }
  Bytes& option(uint16_t code, std::string_view value) {
    return put(code).put(static_cast<uint16_t>(value.size())).put_text(value).align();
  }
  Bytes& end_of_options() { return put(uint32_t{0}); }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string block(uint32_t type, const Bytes& body) {
  const auto size = static_cast<uint32_t>(body.text().size() + 12);
  return Bytes().put(type).put(size).put_text(body.text()).put(size).text();
}

// Our own header: docs/trace.md.
void put_header(Bytes& to, const SeenMessage& message) {
  constexpr uint8_t format = 1;
  const size_t fds = std::min<size_t>(message.fds.size(), 255);
  to.put(format)
      .put(static_cast<uint8_t>(message.channel))
      .put(static_cast<uint8_t>(message.from))
      .put(static_cast<uint8_t>(fds))
      .put(message.session)
      .put(static_cast<uint32_t>(message.answers.value_or(0)))
      .put(static_cast<uint32_t>(message.number));
  for (size_t i = 0; i < fds; ++i) {
    const FdInfo& what = message.fds[i].what;
    const std::string_view name = std::string_view(what.name).substr(0, 255);
    to.put(static_cast<uint8_t>(what.kind)).put(static_cast<uint8_t>(name.size()));
    to.put(what.id).put(what.bytes.value_or(0)).put_text(name);
  }
}

}  // namespace

std::string pcap_begin() {
  constexpr uint64_t unknown_length = ~uint64_t{0};
  Bytes section;
  section.put(byte_order_magic).put(uint16_t{1}).put(uint16_t{0}).put(unknown_length);
  section.option(option_application, "ringway trace").end_of_options();
  Bytes interface;
  interface.put(linktype_user5).put(uint16_t{0}).put(uint32_t{0});
  interface.option(option_name, "vhost-user").option(option_resolution, std::string_view(&nanoseconds, 1));
  interface.end_of_options();
  return block(section_header, section) + block(interface_description, interface);
}

std::string pcap_packet(const SeenMessage& message, const std::vector<std::string>& comments) {
  Bytes data;
  put_header(data, message);
  const size_t missing = message.size - message.bytes.size();
  data.put_text({reinterpret_cast<const char*>(message.bytes.data()), message.bytes.size()});
  const auto time = static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(message.time.time_since_epoch()).count());
  const size_t size = data.text().size();
  Bytes packet;
  packet.put(uint32_t{0}).put(static_cast<uint32_t>(time >> 32)).put(static_cast<uint32_t>(time));
  packet.put(static_cast<uint32_t>(size))
      .put(static_cast<uint32_t>(size + missing))
      .put_text(data.text())
      .align();
  const uint32_t direction = message.from == Side::front_end ? 1 : 2;
  packet.put(option_flags).put(uint16_t{4}).put(direction);
  for (const std::string& comment : comments) packet.option(option_comment, comment);
  packet.end_of_options();
  return block(enhanced_packet, packet);
}

}  // namespace ringway::tools
