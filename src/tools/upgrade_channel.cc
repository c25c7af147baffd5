#include "ringway/tools/upgrade_channel.h"

#include <fmt/format.h>

#include <algorithm>

namespace ringway::tools {
namespace {

constexpr uint64_t most_frames = 100'000;  // of one conversation: slots, IOTLB entries, rings
constexpr std::chrono::seconds send_time_out{10};

user::Frame frame_of(Letter letter) {
  const std::string text = letter.body.dump();
  user::Frame frame{
      .header = {.request = static_cast<uint32_t>(letter.kind), .size = static_cast<uint32_t>(text.size())}};
  const auto bytes = std::as_bytes(std::span(text));
  frame.payload.assign(bytes.begin(), bytes.end());
  frame.fds = std::move(letter.fds);
  return frame;
}

Parsed<Letter> letter_of(user::Frame frame) {
  if (frame.fd_fault != nullptr) return std::unexpected(std::string(frame.fd_fault));
  const std::string_view text(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size());
  Letter letter{.kind = static_cast<LetterKind>(frame.header.request),
                .body = nlohmann::json::parse(text, nullptr, false),
                .fds = std::move(frame.fds)};
  if (!letter.body.is_object())
    return std::unexpected(fmt::format("letter {} is not readable", frame.header.request));
  return letter;
}

std::string reason_in(const Letter& refusal) {
  const auto why = refusal.body.find("why");
  return why != refusal.body.end() && why->is_string() ? why->get<std::string>() : "without a reason";
}

std::unexpected<std::string> sentence(const Error& error) { return std::unexpected(error.to_string()); }

}  // namespace

// ---- Fields

template <class T>
T Fields::take(const char* name, bool (nlohmann::json::*is)() const noexcept) {
  const auto field = letter_.body.find(name);
  if (field == letter_.body.end() || !((*field).*is)()) {
    fail(fmt::format("the field \"{}\" is missing or of another type", name));
    return T{};
  }
  T value = field->get<T>();
  letter_.body.erase(field);
  return value;
}

uint64_t Fields::number(const char* name) {
  return take<uint64_t>(name, &nlohmann::json::is_number_unsigned);
}
std::string Fields::text(const char* name) { return take<std::string>(name, &nlohmann::json::is_string); }
bool Fields::flag(const char* name) { return take<bool>(name, &nlohmann::json::is_boolean); }

UniqueFd Fields::fd(const char* name) {
  const auto names = letter_.body.find("fds");
  if (names == letter_.body.end() && letter_.fds.empty()) return {};
  if (names == letter_.body.end() || !names->is_array() || names->size() != letter_.fds.size()) {
    fail("\"fds\" does not name the file descriptors that came");
    return {};
  }
  const auto found = std::ranges::find(*names, nlohmann::json(name));
  if (found == names->end()) return {};
  const auto index = found - names->begin();
  UniqueFd fd = std::move(letter_.fds[static_cast<size_t>(index)]);
  letter_.fds.erase(letter_.fds.begin() + index);
  names->erase(static_cast<size_t>(index));
  return fd;
}

void Fields::fail(std::string mistake) {
  if (mistake_.empty()) mistake_ = std::move(mistake);
}

Parsed<void> Fields::finish() {
  const auto fds = letter_.body.find("fds");
  if (fds != letter_.body.end() && fds->is_array() && fds->empty()) letter_.body.erase(fds);
  for (const auto& [name, value] : letter_.body.items())
    fail(name == "fds" ? fmt::format("unknown file descriptors {}", value.dump())
                       : fmt::format("unknown field \"{}\"", name));
  if (!letter_.fds.empty()) fail("unknown file descriptors came");
  if (mistake_.empty()) return {};
  return std::unexpected(
      fmt::format("letter {} of the hand-over: {}", static_cast<uint32_t>(letter_.kind), mistake_));
}

// ---- UpgradeChannel

Parsed<UpgradeChannel> UpgradeChannel::over(UniqueFd socket) {
  auto connection = user::Connection::adopt(std::move(socket), {.name = "upgrade"});
  if (!connection) return sentence(connection.error());
  return UpgradeChannel(*std::move(connection));
}

Parsed<void> UpgradeChannel::send(Letter letter) {
  const user::Frame frame = frame_of(std::move(letter));
  if (frame.payload.size() > user::max_payload) return std::unexpected("a letter is too long");
  if (const auto sent = connection_->send(frame, Clock::now() + send_time_out); !sent)
    return sentence(sent.error());
  return {};
}

Parsed<void> UpgradeChannel::send(const std::vector<user::Frame>& frames) {
  for (const user::Frame& frame : frames) {
    if (const auto sent = connection_->send(frame, Clock::now() + send_time_out); !sent)
      return sentence(sent.error());
  }
  return {};
}

Parsed<Letter> UpgradeChannel::receive(LetterKind expected, Clock::time_point deadline) {
  return receive_any({expected}, deadline);
}

Parsed<Letter> UpgradeChannel::receive_any(std::initializer_list<LetterKind> expected,
                                           Clock::time_point deadline) {
  Result<user::Frame> frame = connection_->receive(deadline);
  if (!frame) return sentence(frame.error());
  Letter letter = TRY(letter_of(*std::move(frame)));
  if (std::ranges::find(expected, letter.kind) != expected.end()) return letter;
  if (letter.kind == LetterKind::refused) return std::unexpected(reason_in(letter));
  return std::unexpected(fmt::format("letter {} came where {} was expected",
                                     static_cast<uint32_t>(letter.kind),
                                     static_cast<uint32_t>(*expected.begin())));
}

Parsed<std::vector<user::Frame>> UpgradeChannel::receive_frames(uint64_t count, Clock::time_point deadline) {
  if (count > most_frames) return std::unexpected(fmt::format("{} messages are too many", count));
  std::vector<user::Frame> frames;
  for (uint64_t i = 0; i < count; ++i) {
    Result<user::Frame> frame = connection_->receive(deadline);
    if (!frame) return sentence(frame.error());
    frames.push_back(*std::move(frame));
  }
  return frames;
}

}  // namespace ringway::tools
