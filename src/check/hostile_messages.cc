// docs/robustness.md, part B 2.1 and 2.2: headers, sizes, file descriptors, order.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "ringway/base/notifier.h"
#include "ringway/check/hostile_inputs.h"

namespace ringway::check {
namespace {

constexpr uint32_t last_message = 45;

std::vector<UniqueFd> one(UniqueFd fd) {
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(fd));
  return fds;
}

std::vector<UniqueFd> eventfds(size_t count) {
  std::vector<UniqueFd> fds;
  for (size_t i = 0; i < count; ++i) {
    if (auto fd = make_eventfd()) fds.push_back(*std::move(fd));
  }
  return fds;
}

std::string name_of(uint32_t request) { return user::message_name<vhost::DeviceRequest>(request); }

void add_headers(std::vector<HostileInput>& to) {
  for (const uint32_t version : {0U, 2U, 3U}) {
    to.push_back({"N002", fmt::format("a message of version {}", version), [version](Assault& a) -> Or<> {
                    user::Frame frame = Wire::frame(id<vhost::GetFeatures>);
                    frame.header.flags = version;
                    a.say_raw({reinterpret_cast<const std::byte*>(&frame.header), sizeof frame.header});
                    return {};
                  }});
  }
  to.push_back({"N001", "a header in the other byte order", [](Assault& a) -> Or<> {
                  a.say_raw(payload(uint32_t{0x01000000}, uint32_t{0x01000000}, uint32_t{0}));
                  return {};
                }});
  to.push_back({"H010", "a request with the reply flag", [](Assault& a) -> Or<> {
                  a.say_raw(payload(id<vhost::GetFeatures>, uint32_t{5}, uint32_t{0}));
                  return {};
                }});
  to.push_back({"H011", "a message with undefined flags", [](Assault& a) -> Or<> {
                  a.say_raw(payload(id<vhost::GetFeatures>, uint32_t{0xfffffff1}, uint32_t{0}));
                  return {};
                }});
  for (const uint32_t size : {uint32_t{1} << 20, uint32_t{0x7fffffff}, uint32_t{0xffffffff}}) {
    to.push_back(
        {"H004", fmt::format("a payload of {} bytes that does not come", size), [size](Assault& a) -> Or<> {
           a.say_raw(payload(id<vhost::SetMemTable>, uint32_t{1}, size));
           return {};
         }});
  }
  to.push_back({"H001", "half a header, and the end", [](Assault& a) -> Or<> {
                  a.say_raw(payload(id<vhost::GetFeatures>, uint16_t{1}));
                  a.sent = false;
                  return {};
                }});
  to.push_back({"H014", "half a payload, and the end", [](Assault& a) -> Or<> {
                  a.say_raw(payload(id<vhost::SetVringNum>, uint32_t{1}, uint32_t{8}, uint32_t{0}));
                  a.sent = false;
                  return {};
                }});
  for (const uint32_t number : {0U, 46U, 1000U, 0xffffffffU}) {
    to.push_back({"H013", fmt::format("message {}, which is none", number), [number](Assault& a) -> Or<> {
                    a.say(number);
                    return {};
                  }});
  }
}

// Every message with payloads that are none of its own.
void add_sizes(std::vector<HostileInput>& to) {
  for (uint32_t number = 1; number <= last_message; ++number) {
    for (const size_t size : {0U, 1U, 13U, 4096U}) {
      to.push_back({"H007", fmt::format("{} with {} bytes of 0xff", name_of(number), size),
                    [number, size](Assault& a) -> Or<> {
                      a.say(number, Bytes(size, std::byte{0xff}));
                      return {};
                    }});
    }
  }
}

UniqueFd odd_fd(int kind) {
  switch (kind) {
    case 0:
      return UniqueFd(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    case 1:
      return UniqueFd(::open("/dev/zero", O_RDWR | O_CLOEXEC));
    case 2:
      return UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    default:
      return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
}

constexpr std::array odd_names{"a directory", "/dev/zero", "a datagram socket", "/dev/null for reading"};

void add_fds(std::vector<HostileInput>& to) {
  for (const size_t count : {1U, 9U, 253U}) {
    for (const uint32_t number : {id<vhost::SetOwner>, id<vhost::SetVringNum>, id<vhost::SetVringEnable>}) {
      to.push_back({"H020", fmt::format("{} with {} file descriptors", name_of(number), count),
                    [number, count](Assault& a) -> Or<> {
                      const bool bare = number == id<vhost::SetOwner>;
                      a.say(number, bare ? Bytes{} : payload(uint32_t{0}, uint32_t{1}), eventfds(count));
                      return {};
                    }});
    }
  }
  for (const uint32_t number : {id<vhost::SetVringKick>, id<vhost::SetVringCall>, id<vhost::SetVringErr>}) {
    to.push_back({"H064", name_of(number) + " without its file descriptor", [number](Assault& a) -> Or<> {
                    a.say(number, payload(uint64_t{0}));
                    return {};
                  }});
    to.push_back({"H022", name_of(number) + " with three file descriptors", [number](Assault& a) -> Or<> {
                    a.say(number, payload(uint64_t{0}), eventfds(3));
                    return {};
                  }});
    for (size_t kind = 0; kind < odd_names.size(); ++kind) {
      to.push_back({"H028", fmt::format("{} with {}", name_of(number), odd_names[kind]),
                    [number, kind](Assault& a) -> Or<> {
                      a.say(number, payload(uint64_t{0}), one(odd_fd(static_cast<int>(kind))));
                      return {};
                    }});
    }
  }
  to.push_back({"H037", "SET_BACKEND_REQ_FD with a directory", [](Assault& a) -> Or<> {
                  a.say(id<vhost::SetFrontEnd>, {}, one(odd_fd(0)));
                  return {};
                }});
  to.push_back({"H019", "file descriptors that come after the header", [](Assault& a) -> Or<> {
                  a.say_raw(payload(id<vhost::SetVringKick>, uint32_t{9}, uint32_t{8}));
                  const auto fds = eventfds(1);
                  a.say_raw(payload(uint64_t{0}), fds);
                  return {};
                }});
}

void add_order(std::vector<HostileInput>& to) {
  to.push_back({"N088", "features that were not offered", [](Assault& a) -> Or<> {
                  a.say(id<vhost::SetFeatures>, payload(~uint64_t{0}));
                  return {};
                }});
  to.push_back({"N089", "protocol features that were not offered", [](Assault& a) -> Or<> {
                  a.say(id<vhost::SetProtocolFeatures>, payload(~uint64_t{0}));
                  return {};
                }});
  to.push_back({"H071", "a ring that is started before anything else", [](Assault& a) -> Or<> {
                  a.say(id<vhost::SetVringEnable>, payload(uint32_t{0}, uint32_t{1}));
                  (void)a.wire.receive();
                  auto fds = eventfds(1);
                  const uint64_t event = 1;
                  (void)!::write(fds[0].get(), &event, sizeof event);
                  a.say(id<vhost::SetVringKick>, payload(uint64_t{0}), std::move(fds));
                  return {};
                }});
  to.push_back({"N096", "GET_VRING_BASE of a ring that was never set up", [](Assault& a) -> Or<> {
                  a.say(id<vhost::GetVringBase>, payload(uint32_t{1}, uint32_t{0}));
                  return {};
                }});
  to.push_back({"N039", "an undefined value of SET_VRING_ENABLE", [](Assault& a) -> Or<> {
                  a.say(id<vhost::SetVringEnable>, payload(uint32_t{0}, uint32_t{0xffffffff}));
                  return {};
                }});
}

void add_config(std::vector<HostileInput>& to) {
  struct Space {
    uint32_t offset, size;
  };
  for (const Space at :
       {Space{0, 256}, Space{255, 256}, Space{0xffffffff, 1}, Space{0, 0xffffffff}, Space{0x80000000, 8}}) {
    for (const uint32_t number : {id<vhost::GetConfig>, id<vhost::SetConfig>}) {
      to.push_back({"H148", fmt::format("{} of {} bytes from {:#x}", name_of(number), at.size, at.offset),
                    [at, number](Assault& a) -> Or<> {
                      Bytes bytes = payload(at.offset, at.size, uint32_t{0});
                      bytes.resize(bytes.size() + std::min<uint32_t>(at.size, 256), std::byte{0xff});
                      a.say(number, std::move(bytes));
                      return {};
                    }});
    }
  }
  // Not both at once: a back-end that believes it would fill the memory of the machine.
  struct Area {
    uint16_t queues, entries;
  };
  for (const Area area : {Area{0, 0}, Area{0xffff, 16}, Area{16, 0xffff}, Area{0xffff, 0}}) {
    to.push_back({"H131", fmt::format("GET_INFLIGHT_FD for {} queues of {}", area.queues, area.entries),
                  [area](Assault& a) -> Or<> {
                    a.say(id<vhost::GetInflightFd>,
                          payload(uint64_t{0}, uint64_t{0}, area.queues, area.entries, uint32_t{0}));
                    return {};
                  }});
  }
}

}  // namespace

void Assault::say(uint32_t request, Bytes payload, std::vector<UniqueFd> fds) {
  user::Frame frame = Wire::frame(request, std::move(payload), std::move(fds));
  const user::Message* message = user::find_message<vhost::DeviceRequest>(request);
  const bool may_ask = message == nullptr || message->reply == user::Reply::ack ||
                       message->reply == user::Reply::memory || message->reply == user::Reply::log_status;
  if (may_ask) frame.header.flags |= user::need_reply_flag;
  (void)wire.send(frame);  // it may have closed the connection, which is right
  sent = true;
}

void Assault::say_raw(std::span<const std::byte> bytes, std::span<const UniqueFd> fds) {
  (void)wire.send_raw(bytes, fds);
  sent = true;
}

std::vector<HostileInput> hostile_messages() {
  std::vector<HostileInput> all;
  add_headers(all);
  add_sizes(all);
  add_fds(all);
  add_order(all);
  add_config(all);
  return all;
}

}  // namespace ringway::check
