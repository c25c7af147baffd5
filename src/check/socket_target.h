// SocketTarget: a back-end that listens at a path. If it is started by a command of the user it is started
// again when it is gone, and how it ended is known. Owned by one thread.
#pragma once

#include <sys/types.h>

#include <string>

#include "ringway/check/target.h"

namespace ringway::check {

class SocketTarget final : public Target {
 public:
  // `command`: for the shell, stays in the foreground or not; empty: the back-end is there and stays.
  SocketTarget(std::string path, milliseconds patience, std::string command = {});
  ~SocketTarget() override;  // ends what it has started
  SocketTarget(const SocketTarget&) = delete;
  SocketTarget& operator=(const SocketTarget&) = delete;

  Result<std::unique_ptr<Lease>> connect() override;
  [[nodiscard]] bool has_frames() const override { return true; }
  Result<std::unique_ptr<Wire>> connect_frames() override;
  [[nodiscard]] int process() const override { return process_; }
  Result<> restart() override;
  std::optional<End> end() override;
  // How the command ended that never brought a back-end, as waitpid() tells; nothing: it did, or may yet.
  [[nodiscard]] std::optional<int> failure() const { return has_served_ ? std::nullopt : failure_; }

 private:
  Result<std::unique_ptr<Wire>> connect_once();
  Result<UniqueFd> reach();
  Result<UniqueFd> start();
  void look_for_end();
  void end_child();
  std::optional<End> end_by(int status);

  const std::string path_;
  const milliseconds patience_;
  const std::string command_;
  pid_t child_ = 0;  // that runs the command, with a process group of its own
  int process_ = 0;
  std::optional<int> status_;  // of the command, since it has ended
  bool outlived_ = false;      // by its back-end
  std::optional<End> end_;
  std::optional<int> failure_;  // of the command that was started last
  bool has_served_ = false;
};

}  // namespace ringway::check
