// vhost-vsock against a listening AF_VSOCK socket of the same kernel. VIRTIO "Socket Device".
#include <linux/virtio_config.h>
#include <linux/vm_sockets.h>
#include <sys/socket.h>

#include <thread>

#include "front_end.h"
#include "ringway/base/endian.h"

namespace ringway::kernel_tests {
namespace {

using vhost::bit;

struct Header {
  le64 from_cid;
  le64 to_cid;
  le32 from_port;
  le32 to_port;
  le32 length;
  le16 type;
  le16 operation;
  le32 flags;
  le32 buffer;     // how much the sender of this header can take
  le32 forwarded;  // how much it has consumed
};
constexpr uint32_t header_bytes = 44;  // what of it is on the ring

enum Operation : uint16_t {
  request = 1,
  response = 2,
  reset = 3,
  shut_down = 4,
  data = 5,
  update = 6,
  ask = 7
};

constexpr uint64_t guest_cid = 42;
constexpr uint32_t guest_port = 5000;
constexpr uint32_t server_port = 1234;
constexpr uint32_t slot_bytes = 8192;
constexpr uint32_t window = 1 << 20;

// Echoes what one client sends, until it has nothing more to say.
class Server {
 public:
  Server() : listening_(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = VMADDR_CID_ANY;
    address.svm_port = server_port;
    if (::bind(listening_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listening_.get(), 1) != 0) {
      throw std::runtime_error("no AF_VSOCK here");
    }
    thread_ = std::thread([this] { echo(); });
  }
  ~Server() {
    ::shutdown(listening_.get(), SHUT_RDWR);
    thread_.join();
  }

 private:
  void echo() const {
    const UniqueFd client(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::array<char, 4096> bytes{};
    ssize_t got = 0;
    while (client && (got = ::recv(client.get(), bytes.data(), bytes.size(), 0)) > 0) {
      ::send(client.get(), bytes.data(), static_cast<size_t>(got), MSG_NOSIGNAL);
    }
  }
  const UniqueFd listening_;
  std::thread thread_;
};

class VsockFrontEnd {
 public:
  VsockFrontEnd()
      : front_end_(
            [] {
              return [&]() -> Result<std::unique_ptr<kernel::KernelDevice>> {
                auto file = TRY(kernel::VhostFile::open("/dev/vhost-vsock"));
                return kernel::KernelDevice::open(std::move(file), TRY(kernel::vsock_endpoint(guest_cid)));
              }();
            },
            bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_RING_F_EVENT_IDX)),
        receive_(front_end_.memory, front_end_.format, 128, 128, slot_bytes),
        transmit_(front_end_.memory, front_end_.format, 128, 1, slot_bytes) {
    front_end_.share();
    for (uint16_t slot = 0; slot < 128; ++slot) receive_.give(slot, {}, {{0, slot_bytes}});
    receive_.start(*front_end_.session, 0, front_end_.base_of_areas());
    transmit_.start(*front_end_.session, 1, front_end_.base_of_areas());
  }

  void send(Operation operation, std::string_view text = {}, uint32_t flags = 0) {
    const Header header{.from_cid = guest_cid,
                        .to_cid = VMADDR_CID_HOST,
                        .from_port = guest_port,
                        .to_port = server_port,
                        .length = static_cast<uint32_t>(text.size()),
                        .type = 1,
                        .operation = operation,
                        .flags = flags,
                        .buffer = window,
                        .forwarded = received_};
    const auto slot = transmit_.slot(0);
    std::memcpy(slot.data(), &header, header_bytes);
    std::memcpy(slot.data() + header_bytes, text.data(), text.size());
    transmit_.give(0, {{0, header_bytes + static_cast<uint32_t>(text.size())}}, {});
    if (!transmit_.take()) throw std::runtime_error("a packet was not taken");
  }

  // The next packet that is not only about buffers; data are added to received().
  Header next() {
    while (true) {
      const auto back = receive_.take();
      if (!back) throw std::runtime_error("no packet comes");
      Header header{};
      const auto slot = receive_.slot(back->slot);
      std::memcpy(static_cast<void*>(&header), slot.data(), header_bytes);
      EXPECT_EQ(header.from_cid, uint64_t{VMADDR_CID_HOST});
      EXPECT_EQ(header.to_cid, guest_cid);
      EXPECT_EQ(back->written, header_bytes + header.length);
      if (header.operation == data) {
        text_.append(reinterpret_cast<const char*>(slot.data()) + header_bytes, header.length);
        received_ += header.length;
      }
      receive_.give(back->slot, {}, {{0, slot_bytes}});
      if (header.operation == ask) send(update);
      if (header.operation != update && header.operation != ask) return header;
    }
  }
  const std::string& received(size_t bytes) {
    while (text_.size() < bytes) {
      const Header header = next();
      EXPECT_EQ(header.operation, data);
    }
    return text_;
  }
  vhost::Session& session() { return *front_end_.session; }

 private:
  FrontEnd front_end_;
  Queue receive_;
  Queue transmit_;
  std::string text_;
  uint32_t received_ = 0;
};

TEST(Vsock, TheDriverIsToldItsAddress) {
  VsockFrontEnd vsock;
  const auto bytes = must(vsock.session().read_config(0, 8));
  le64 cid;
  std::memcpy(&cid, bytes.data(), sizeof cid);
  EXPECT_EQ(cid, guest_cid);
}

TEST(Vsock, AConnectionEchoesEveryByte) {
  const Server server;
  VsockFrontEnd vsock;
  vsock.send(request);
  ASSERT_EQ(vsock.next().operation, response);
  std::string sent;
  for (int i = 0; i < 200; ++i) {
    std::string text(static_cast<size_t>(1 + i * 37 % 4000), static_cast<char>('a' + i % 26));
    text += std::to_string(i);
    vsock.send(data, text);
    sent += text;
    ASSERT_EQ(vsock.received(sent.size()).size(), sent.size());
  }
  EXPECT_EQ(vsock.received(sent.size()), sent);
  vsock.send(shut_down, {}, 3);
  const auto last = vsock.next().operation;
  EXPECT_TRUE(last == reset || last == shut_down) << last;
}

TEST(Vsock, APortWithoutAListenerResets) {
  VsockFrontEnd vsock;
  vsock.send(request);
  EXPECT_EQ(vsock.next().operation, reset);
}

}  // namespace
}  // namespace ringway::kernel_tests
