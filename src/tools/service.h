// Service: what a supervisor has left for this process, and what it wants to be told. systemd's protocols,
// which are environment variables and datagrams of text: sd_listen_fds(3) for sockets that were opened before
// us, sd_notify(3) for READY, STOPPING, MAINPID, WATCHDOG and FDSTORE. Written here, since the library would
// be a dependency for a few lines. Main thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"

namespace ringway::tools {

class Service {
 public:
  // Takes LISTEN_*, NOTIFY_SOCKET, WATCHDOG_* and what become() has left out of the environment: they are for
  // this process, not for those that it starts. Before the first thread starts.
  static Service from_environment();

  // A socket that listens at `path` already, for listening_at().
  enum class Origin : uint8_t { given, made };  // what we have made is removed by us at the end
  void give(std::string path, UniqueFd listening, Origin origin = Origin::given) {
    sockets_[std::move(path)] = {.listening = std::move(listening), .origin = origin};
  }
  [[nodiscard]] bool has(const std::string& path) const { return sockets_.contains(path); }
  void remove_made() const;
  // Replaces the program of this process by another one, which is given the same sockets and talks to the
  // same manager. Returns why not. No other thread runs.
  std::string become(const std::string& binary, std::vector<std::string> words) const;
  // The socket that somebody has opened at `path` for us, if any. With a manager that keeps sockets one is
  // made if there is none, and handed to it, so that front-ends can wait in it while we are restarted.
  Result<std::optional<UniqueFd>> listening_at(const std::string& path);

  void ready() const { tell("READY=1\n"); }
  void stopping() const { tell("STOPPING=1\n"); }
  // Any thread.
  void alive() const { tell("WATCHDOG=1\n"); }
  // Another process serves instead of this one, which ends now.
  void moved_to(pid_t successor) const;
  // "NAME=value", for such a process: who it shall talk to. The sockets it is given by us.
  [[nodiscard]] std::vector<std::string> environment_of_successor() const;
  // How often alive() must be called at least; nothing: nobody wants to know.
  [[nodiscard]] std::optional<std::chrono::microseconds> watchdog() const { return watchdog_; }

 private:
  // Nobody waits for an answer, and who does not listen misses nothing. `fd` goes along if it is not
  // negative.
  void tell(std::string_view text, int fd = -1) const;

  struct Socket {
    UniqueFd listening;
    Origin origin = Origin::given;
  };
  std::map<std::string, Socket> sockets_;  // by path
  std::string notify_;                     // address; empty: nobody listens
  std::optional<std::chrono::microseconds> watchdog_;
};

}  // namespace ringway::tools
