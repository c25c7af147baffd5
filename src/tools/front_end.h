// FrontEnd: a back-end behind a vhost-user socket that is driven without a virtual machine, as far as all
// devices are alike: the connection, the guest's memory, rings that run. Owned by the thread that connected
// it.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ringway/base/notifier.h"
#include "ringway/tools/back_end.h"
#include "ringway/tools/driver_ring.h"
#include "ringway/tools/guest_memory.h"
#include "ringway/user/remote.h"
#include "ringway/vhost/session.h"

namespace ringway::tools {

class FrontEnd {
 public:
  // The error is a sentence for the user. `patience` is for each answer.
  static std::expected<std::unique_ptr<FrontEnd>, std::string> connect(const std::string& socket,
                                                                       std::chrono::milliseconds patience);

  [[nodiscard]] const std::string& socket() const { return socket_; }
  [[nodiscard]] pid_t pid() const { return peer_.pid; }
  [[nodiscard]] const std::string& program() const { return peer_.program; }
  [[nodiscard]] vhost::Session& session() { return *session_; }
  // What to say of an error: a wrong answer and a late one are alike.
  [[nodiscard]] std::string explain(const Error& error) const;

  // Memory for all that the drivers need, which is to be taken from memory() and then shared.
  Result<> make_memory(uint64_t bytes, bool huge_pages);
  [[nodiscard]] GuestMemory& memory() { return *memory_; }
  Result<> share_memory();

  // The next ring, counting from 0. The result is its kick.
  Result<Notifier> add_ring(uint32_t size, const ring::Format& format, const RingAddresses& addresses);
  struct Start {
    ring::RingBase base;
    bool logged = false;  // the dirty log shows what the device writes into the ring
  };
  Result<> start_ring(size_t ring, const Start& start);
  Result<> start_ring(size_t ring) { return start_ring(ring, Start{}); }
  [[nodiscard]] const Signal& call_signal(size_t ring) const { return rings_[ring].call; }

  // What has gone wrong beside the rings, if anything: the back-end left, or says that a ring is broken.
  [[nodiscard]] std::optional<std::string> trouble() const;
  [[nodiscard]] bool gone() const { return connection_->hung_up(); }
  // Another session with whoever is at the socket now. Memory and rings are to be shared and started again;
  // the notification fds stay, so that no thread notices that it is another. One try. The drivers may be in
  // use meanwhile.
  std::expected<void, std::string> reconnect();
  // Waits until the back-end has ended what it accepted, and stops all rings. An error is a sentence.
  std::expected<void, std::string> stop();

 private:
  struct Ring {
    uint32_t size = 0;
    ring::Format format;
    RingAddresses addresses;
    UniqueFd kick_fd;
    UniqueFd call_fd;
    UniqueFd err_fd;
    Signal call;
    Signal err;
  };

  FrontEnd(std::string socket, std::chrono::milliseconds patience)
      : socket_(std::move(socket)), patience_(patience) {}
  Result<> open_session();

  const std::string socket_;
  const std::chrono::milliseconds patience_;
  Peer peer_;
  std::shared_ptr<user::Connection> connection_;
  std::unique_ptr<user::RemoteDevice> device_;
  std::unique_ptr<vhost::Session> session_;
  std::unique_ptr<GuestMemory> memory_;
  std::vector<Ring> rings_;
};

}  // namespace ringway::tools
