// StateTransfer: device state on its way through a file descriptor, by a thread of its own, so that a peer
// that neither reads nor writes blocks nobody. Control thread. vhost-user "Migrating back-end state".
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "ringway/base/result.h"
#include "ringway/base/unique_fd.h"

namespace ringway::engine {

class StateTransfer {
 public:
  // Writes all of `state`, then closes the channel. Refuses one that cannot be written to.
  static Result<std::unique_ptr<StateTransfer>> save(UniqueFd channel, std::vector<std::byte> state);
  // Reads until the end of file. More than `most` bytes are an error. Refuses a channel that cannot be read.
  static Result<std::unique_ptr<StateTransfer>> load(UniqueFd channel, size_t most);
  // Aborts what is under way.
  ~StateTransfer();

  [[nodiscard]] bool is_load() const { return is_load_; }
  [[nodiscard]] bool running();
  // Waits for the end, at most `patience`. What was read, or nothing after save().
  Result<std::vector<std::byte>> finish(std::chrono::milliseconds patience);

 private:
  StateTransfer(UniqueFd channel, UniqueFd stop, bool is_load, std::vector<std::byte> state, size_t most);
  Result<> start();
  Result<> write_all();
  Result<> read_all();
  Result<> wait_for(short events);

  UniqueFd channel_;
  UniqueFd stop_;  // an event: abort
  const bool is_load_;
  std::vector<std::byte> state_;  // the thread's until it has ended
  const size_t most_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::optional<Result<>> outcome_;  // guarded
  std::thread thread_;
};

}  // namespace ringway::engine
