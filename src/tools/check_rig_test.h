// For the tests of `ringway check`: our own disk as a target, in every composition that there is, right or
// made wrong.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "ringway/check/meddler.h"
#include "ringway/check/runner.h"
#include "ringway/check/socket_target.h"
#include "ringway/device/backing/memory.h"
#include "ringway/device/blk/blk.h"
#include "ringway/engine/local_device.h"
#include "ringway/tools/proxy_device.h"
#include "ringway/user/listener.h"
#include "ringway/user/remote.h"
#include "ringway/user/server.h"
#include "ringway/user/sockets.h"
#include "ringway/vhost/contract.h"

namespace ringway::tools {

// What stands in front of the device, if anything; the one it is given outlives it.
using Decorate = std::function<std::unique_ptr<vhost::Device>(vhost::Device&)>;

// A disk in memory, its engine, and the contract of a session; a decorator in front.
class TestDisk final : public user::SessionOwner {
 public:
  explicit TestDisk(Decorate decorate = {}) : decorate_(std::move(decorate)) {}
  Result<vhost::Device*> connected() override {
    contract_.emplace(engine_, vhost::Contract::Limits{.queues = 2, .ring_size = 1024});
    if (!decorate_) return &*contract_;
    decorator_ = decorate_(*contract_);
    return decorator_.get();
  }
  void disconnected() override {
    decorator_.reset();
    engine_.disconnect();
    contract_.reset();
  }

 private:
  const Decorate decorate_;
  blk::Blk blk_{backing::open_memory(1 << 20).value(), {.queues = 2, .serial = "check"}};
  std::unique_ptr<engine::Workers> workers_ = engine::Workers::start({.count = 1}).value();
  engine::LocalDevice engine_{blk_, *workers_, {.offer_inband_notifications = true}};
  std::optional<vhost::Contract> contract_;
  std::unique_ptr<vhost::Device> decorator_;
};

// In this process: no messages.
class LocalTarget final : public check::Target {
 public:
  explicit LocalTarget(Decorate decorate = {})
      : LocalTarget(std::make_unique<TestDisk>(std::move(decorate))) {}
  explicit LocalTarget(std::unique_ptr<user::SessionOwner> served) : served_(std::move(served)) {}
  Result<std::unique_ptr<check::Lease>> connect() override { return std::make_unique<Session>(*served_); }

 private:
  class Session final : public check::Lease {
   public:
    explicit Session(user::SessionOwner& served) : served_(served), device_(*served.connected().value()) {}
    ~Session() override { served_.disconnected(); }
    vhost::Device& device() override { return device_; }

   private:
    user::SessionOwner& served_;
    vhost::Device& device_;
  };
  const std::unique_ptr<user::SessionOwner> served_;
};

// Served at a path by a listener.
class ListeningTarget final : public check::Target {
 public:
  explicit ListeningTarget(Decorate decorate = {})
      : ListeningTarget(std::make_unique<TestDisk>(std::move(decorate))) {}
  explicit ListeningTarget(std::unique_ptr<user::SessionOwner> served) : served_(std::move(served)) {
    EXPECT_TRUE(listener_->listen(path_, *served_));
  }
  ~ListeningTarget() override {
    listener_->stop();
    std::filesystem::remove_all(folder_);
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  Result<std::unique_ptr<check::Lease>> connect() override { return socket_.connect(); }
  [[nodiscard]] bool has_frames() const override { return true; }
  Result<std::unique_ptr<check::Wire>> connect_frames() override { return socket_.connect_frames(); }
  [[nodiscard]] int process() const override { return socket_.process(); }

 private:
  const std::string folder_ = [] {
    std::string name = std::filesystem::temp_directory_path() / "ringway-check-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    return name;
  }();
  const std::string path_ = folder_ + "/socket";
  const std::unique_ptr<user::SessionOwner> served_;
  std::unique_ptr<user::Listener> listener_ = user::Listener::start().value();
  check::SocketTarget socket_{path_, std::chrono::seconds(5)};
};

// The disk behind so many proxies.
class ProxiedTarget final : public check::Target {
 public:
  explicit ProxiedTarget(unsigned proxies, vhost::Mask::Taken taken = {}) {
    std::string path = disk_.path();
    for (unsigned i = 0; i < proxies; ++i) {
      proxies_.push_back(
          std::make_unique<ProxyDevice>(ProxyDevice::Options{.back_end = path, .taken = taken}));
      path = fmt::format("{}.{}", disk_.path(), i);
      EXPECT_TRUE(listener_->listen(path, *proxies_.back()));
    }
    socket_ = std::make_unique<check::SocketTarget>(path, std::chrono::seconds(5));
  }
  ~ProxiedTarget() override { listener_->stop(); }
  Result<std::unique_ptr<check::Lease>> connect() override { return socket_->connect(); }
  [[nodiscard]] bool has_frames() const override { return true; }
  Result<std::unique_ptr<check::Wire>> connect_frames() override { return socket_->connect_frames(); }

 private:
  ListeningTarget disk_;
  std::vector<std::unique_ptr<ProxyDevice>> proxies_;
  std::unique_ptr<user::Listener> listener_ = user::Listener::start().value();
  std::unique_ptr<check::SocketTarget> socket_;
};

// Served over a pair of sockets, with somebody in between who changes messages.
class MeddledTarget final : public check::Target {
 public:
  explicit MeddledTarget(check::Meddler::Change change, Decorate decorate = {})
      : disk_(std::move(decorate)), change_(std::move(change)) {}
  Result<std::unique_ptr<check::Lease>> connect() override {
    sessions_.clear();
    return std::make_unique<Session>(disk_, change_);
  }
  [[nodiscard]] bool has_frames() const override { return true; }
  Result<std::unique_ptr<check::Wire>> connect_frames() override {
    sessions_.clear();
    sessions_.push_back(std::make_unique<Session>(disk_, change_));
    return check::Wire::over(std::move(sessions_.back()->front_end), std::chrono::milliseconds(500));
  }
  [[nodiscard]] int process() const override { return ::getpid(); }

 private:
  class Session final : public check::Lease {
   public:
    Session(TestDisk& disk, const check::Meddler::Change& change) : disk_(disk) {
      auto outer = user::socket_pair().value();
      auto inner = user::socket_pair().value();
      front_end = std::move(outer[0]);
      server_end_ = user::Connection::adopt(std::move(inner[1])).value();
      meddler_.emplace(user::Connection::adopt(std::move(outer[1])).value(),
                       user::Connection::adopt(std::move(inner[0])).value(), change);
      server_ = std::jthread([this] {
        user::DeviceServer(server_end_, *disk_.connected().value()).serve();
        disk_.disconnected();
      });
    }
    ~Session() override {
      remote_.reset();
      meddler_.reset();
      server_end_->close();
    }
    vhost::Device& device() override {
      remote_ = std::make_unique<user::RemoteDevice>(user::Connection::adopt(std::move(front_end)).value(),
                                                     std::chrono::milliseconds(500));
      return *remote_;
    }
    UniqueFd front_end;

   private:
    TestDisk& disk_;
    std::shared_ptr<user::Connection> server_end_;
    std::optional<check::Meddler> meddler_;
    std::jthread server_;
    std::unique_ptr<user::RemoteDevice> remote_;
  };
  TestDisk disk_;
  const check::Meddler::Change change_;
  std::vector<std::unique_ptr<Session>> sessions_;  // of frames: the wire ends before the next begins
};

inline check::Options options_for(std::set<unsigned> only = {}, std::string_view kind = "blk") {
  return {.kind = check::find_kind(kind),
          .only = std::move(only),
          .patience = {.answer = std::chrono::milliseconds(3'000), .quiet = std::chrono::milliseconds(60)}};
}

}  // namespace ringway::tools
