// A device of one page: it has one queue, and answers each request with the bytes of the request.
#include <ringway/engine/local_device.h>
#include <ringway/engine/model.h>
#include <ringway/user/listener.h>
#include <ringway/vhost/contract.h>

#include <algorithm>
#include <array>
#include <optional>

using namespace ringway;

// One running queue. It lives on its worker's thread, so it needs no lock.
class EchoQueue : public engine::Queue {
 public:
  explicit EchoQueue(engine::QueueLoop& loop) : loop_(loop) {}

  void process(ring::Chain chain) override {
    ring::Reader request = chain.reader();
    ring::Writer answer = chain.writer();
    std::array<std::byte, 4096> copy;
    uint32_t written = 0;
    while (size_t size = std::min({request.remaining(), answer.remaining(), uint64_t{copy.size()}})) {
      const auto bytes = std::span(copy).first(size);
      request.read(bytes);
      answer.write(std::as_bytes(bytes));
      written += size;
    }
    loop_.complete(std::move(chain), written);
  }

 private:
  engine::QueueLoop& loop_;
};

class Echo : public engine::Model {
 public:
  uint32_t device_id() const override { return 0x3f; }  // of no device that VIRTIO knows
  uint64_t features() const override { return 0; }
  uint16_t queue_count() const override { return 1; }
  std::unique_ptr<engine::Queue> start_queue(engine::QueueLoop& loop) override {
    return std::make_unique<EchoQueue>(loop);
  }
};

// The device as it is served: a listener brings front-ends to it, one after another. The contract holds each
// of them to the protocol.
class ServedEcho : public user::SessionOwner {
 public:
  explicit ServedEcho(engine::Workers& workers) : device_(echo_, workers) {}
  Result<vhost::Device*> connected() override {
    return &contract_.emplace(device_, vhost::Contract::Limits{.queues = 1});
  }
  void disconnected() override { device_.disconnect(); }

 private:
  Echo echo_;
  engine::LocalDevice device_;
  std::optional<vhost::Contract> contract_;
};
