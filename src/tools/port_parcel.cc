#include "ringway/tools/port_parcel.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

namespace ringway::tools {
namespace {

constexpr size_t most_fds = 253;       // that the kernel passes with one packet (SCM_MAX_FD)
constexpr size_t longest_text = 4096;  // bytes

using Control = std::array<std::byte, CMSG_SPACE(most_fds * sizeof(int))>;

Result<> send(const UniqueFd& to, const std::string& text, const std::vector<UniqueFd>& fds) {
  iovec piece{.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};  // NOLINT: is only read
  alignas(cmsghdr) Control control{};
  msghdr message{.msg_iov = &piece, .msg_iovlen = 1};
  if (!fds.empty()) {
    std::vector<int> numbers;
    for (const UniqueFd& fd : fds) numbers.push_back(fd.get());
    const size_t bytes = numbers.size() * sizeof(int);
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(bytes);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(bytes);
    std::memcpy(CMSG_DATA(header), numbers.data(), bytes);
  }
  if (::sendmsg(to.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
    return os_failure("cannot pack a port for another process");
  return {};
}

std::vector<UniqueFd> fds_in(msghdr& message) {
  std::vector<UniqueFd> fds;
  for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one)) {
    if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (one->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(one) + i * sizeof fd, sizeof fd);
      fds.emplace_back(fd);
    }
  }
  return fds;
}

// Takes a text out of the parcel; false: it is not there.
bool take(nlohmann::json& body, const char* name, std::string& text) {
  const auto found = body.find(name);
  if (found == body.end() || !found->is_string()) return false;
  text = found->get<std::string>();
  body.erase(found);
  return true;
}

}  // namespace

Result<UniqueFd> wrap_port(ParceledPort parcel) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return os_failure("cannot pack a port for another process");
  const UniqueFd in(ends[0]);
  UniqueFd out(ends[1]);
  nlohmann::json body = {{"port", parcel.kind}, {"words", parcel.port.words}};
  if (!parcel.mac.empty()) body["mac"] = parcel.mac;
  TRY(send(in, body.dump(), parcel.port.fds));
  return out;
}

Parsed<ParceledPort> unwrap_port(UniqueFd socket) {
  std::array<char, longest_text> text;
  alignas(cmsghdr) Control control{};
  iovec piece{.iov_base = text.data(), .iov_len = text.size()};
  msghdr message{
      .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
  const ssize_t length = ::recvmsg(socket.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (length < 0) return std::unexpected(os_failure("a handed over port").error().to_string());
  ParceledPort parcel{.port = {.fds = fds_in(message)}};
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
    return std::unexpected("a handed over port is cut off");
  auto body =
      nlohmann::json::parse(std::string_view(text.data(), static_cast<size_t>(length)), nullptr, false);
  if (!body.is_object()) return std::unexpected("a handed over port is not readable");
  if (!take(body, "port", parcel.kind) || !take(body, "words", parcel.port.words))
    return std::unexpected("a handed over port does not say what it is");
  take(body, "mac", parcel.mac);
  if (!body.empty())
    return std::unexpected(fmt::format("a handed over port has an unknown field \"{}\"", body.begin().key()));
  return parcel;
}

std::string kind_in(std::string_view port) { return std::string(port.substr(0, port.find(':'))); }

}  // namespace ringway::tools
