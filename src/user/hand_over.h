// What a Listener hands over to one in another process, so that front-ends are served on without noticing:
// its places, and in each the session that is there. Values; any thread.
#pragma once

#include <future>
#include <string>
#include <vector>

#include "ringway/base/unique_fd.h"
#include "ringway/user/frame.h"

namespace ringway::user {

class SessionOwner;

struct HandedPlace {
  enum class Kind : uint8_t { listens, connects, was_connected };  // as Place

  Kind kind = Kind::listens;
  std::string name;  // the path, or "fd N"
  SessionOwner* owner = nullptr;
  bool owns_path = false;      // listens: the socket at `name` was made by us and is removed at the end
  UniqueFd listening;          // listens
  UniqueFd connection;         // of the front-end that is served; may be none
  UniqueFd waiting;            // the next front-end; may be none
  std::vector<Frame> setting;  // with a connection: DeviceServer::setting()
};

// A session that goes on here: what it waits for, and what it has to say. Each of these happens once.
struct Inheritance {
  std::vector<Frame> setting;
  std::promise<Result<>> prepared;         // `setting` was replayed, or why not
  std::promise<std::vector<Frame>> start;  // given when the other process has stopped
  std::promise<Result<>> armed;            // `start` was replayed, or why not
  std::promise<void> go;                   // given when there is no way back: the front-end is read from
};

}  // namespace ringway::user
