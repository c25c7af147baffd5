#include "ringway/user/place.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <random>
#include <system_error>

#include "ringway/base/log.h"
#include "ringway/base/short_slices.h"
#include "ringway/user/server.h"

namespace ringway::user {

// ---- Session

Result<std::unique_ptr<Session>> Session::start(std::shared_ptr<Connection> connection, SessionOwner& owner,
                                                log::Limited& limited, std::function<void()> on_end,
                                                std::shared_ptr<Inheritance> inheritance) {
  std::unique_ptr<Session> session(new Session(std::move(connection), owner, limited, std::move(on_end)));
  session->inheritance_ = std::move(inheritance);
  try {
    session->thread_ = std::thread([self = session.get()] { self->run(); });
  } catch (const std::system_error& error) {
    return os_failure("cannot start a thread for a session", error.code().value());
  }
  return session;
}

void Session::run() {
  take_short_slices();
  serve();
  ended_ = true;
  on_end_();
}

void Session::serve() {
  const std::string& name = connection_->options().name;
  owner_.arrived(connection_);
  const Result<vhost::Device*> device = owner_.connected();
  if (!device) {
    limited_.warning("{}: front-end sent away: {}", name, device.error().to_string());
    if (inheritance_) return inheritance_->prepared.set_value(std::unexpected(device.error()));
    return connection_->close();
  }
  server_.emplace(connection_, **device, owner_.socket_features());
  if (inheritance_)
    go_on();
  else
    log::info("{}: front-end connected", name);
  const Error why = server_->serve();
  server_.reset();
  owner_.disconnected();
  if (why.fault == Fault::gone) return log::info("{}: front-end disconnected: {}", name, why.to_string());
  limited_.warning("{}: connection closed: {}", name, why.to_string());
}

// After an error nothing more comes: whoever waits for it ends this process.
void Session::go_on() {
  inheritance_->prepared.set_value(replay(std::move(inheritance_->setting)));
  inheritance_->armed.set_value(replay(inheritance_->start.get_future().get()));
  inheritance_->go.get_future().wait();
  log::debug("{}: front-end inherited", connection_->options().name);
}

Result<> Session::replay(std::vector<Frame> frames) {
  assert(server_);
  DeviceServer& server = *server_;
  for (Frame& frame : frames) TRY(server.replay(std::move(frame)));
  return {};
}

// ---- BackOff

std::chrono::milliseconds BackOff::next() {
  thread_local std::minstd_rand random{std::random_device{}()};
  const auto delay = next_;
  next_ = std::min(next_ * 2, limit_);
  return delay -
         std::chrono::milliseconds(std::uniform_int_distribution<int64_t>(0, delay.count() / 4)(random));
}

// ---- SocketFile

Result<SocketFile> SocketFile::of(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return os_failure("cannot examine the socket path");
  return SocketFile{.path = path, .device = status.st_dev, .inode = status.st_ino};
}

bool SocketFile::is_there() const {
  const Result<SocketFile> now = of(path);
  return now && now->device == device && now->inode == inode;
}

void SocketFile::remove() const {
  if (is_there()) ::unlink(path.c_str());
}

}  // namespace ringway::user
