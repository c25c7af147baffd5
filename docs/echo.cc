// A device of one page: it has one queue, and answers each request with the bytes of the request.
#include <ringway/engine/model.h>

#include <algorithm>
#include <array>

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
