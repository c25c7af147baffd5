#include "ringway/device/backing/witness.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "ringway/base/log.h"
#include "ringway/base/unique_fd.h"
#include "ringway/memory/shared_bytes.h"

namespace ringway::backing {
namespace {

Result<Mapping> map_all(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return os_failure("cannot look at the testimony");
  if (status.st_size < 4096) return refused("testimony is too short", static_cast<uint64_t>(status.st_size));
  return Mapping::of_file(fd, static_cast<size_t>(status.st_size), 0);
}

void add_one(std::byte* at) {
  std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(at)).fetch_add(1);  // NOLINT
}

// The first bytes of what is written, however it is cut.
std::optional<WitnessTag> tag_of(std::span<const iovec> pieces) {
  WitnessTag tag;
  auto* to = reinterpret_cast<std::byte*>(&tag);
  size_t wanted = sizeof tag;
  for (const iovec& piece : pieces) {
    const size_t here = std::min(wanted, piece.iov_len);
    memory::copy_out(to, piece.iov_base, here);
    to += here;
    wanted -= here;
    if (wanted == 0) return tag;
  }
  return std::nullopt;
}

class WitnessBacking final : public Backing {
 public:
  WitnessBacking(std::unique_ptr<Backing> next, std::string path)
      : next_(std::move(next)), path_(std::move(path)) {
    capacity_ = next_->capacity();
    geometry_ = next_->geometry();
    read_only_ = next_->read_only();
  }
  std::unique_ptr<Lane> open_lane(loop::Loop& loop) override {
    auto testimony = Testimony::open(path_);
    if (!testimony) log::warning("nothing is witnessed: {}", testimony.error().to_string());
    std::optional<Testimony> account;
    if (testimony) account.emplace(*std::move(testimony));
    return std::make_unique<WitnessLane>(next_->open_lane(loop), std::move(account));
  }
  Result<bool> refresh() override {
    const bool changed = TRY(next_->refresh());
    capacity_ = next_->capacity();
    return changed;
  }
  Result<> flush_now() override { return next_->flush_now(); }
  Result<> resume() override {
    TRY(next_->resume());
    TRY(refresh());
    return {};
  }
  void suspend() override { next_->suspend(); }
  [[nodiscard]] Result<UniqueFd> hand_over() const override { return next_->hand_over(); }

 private:
  class WitnessLane final : public Lane {
   public:
    WitnessLane(std::unique_ptr<Lane> next, std::optional<Testimony> account)
        : next_(std::move(next)), account_(std::move(account)) {}
    Outcome submit(Request& request) override {
      if (account_ && request.operation == Operation::write) {
        if (const auto tag = tag_of(request.pieces)) account_->witness(*tag);
      }
      return next_->submit(request);
    }

   private:
    const std::unique_ptr<Lane> next_;
    std::optional<Testimony> account_;
  };

  const std::unique_ptr<Backing> next_;
  const std::string path_;
};

}  // namespace

Result<Testimony> Testimony::make(const std::string& path, const WitnessTag& first, uint32_t block_bytes,
                                  uint64_t blocks) {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file) return os_failure("cannot make a testimony");
  const uint64_t bytes = (first_block + blocks) * sizeof(uint64_t);
  if (::ftruncate(file.get(), static_cast<off_t>(std::max<uint64_t>(bytes, 4096))) != 0)
    return os_failure("cannot make a testimony");
  Testimony self(TRY(map_all(file.get())));
  memory::store(self.at(seed), first.seed);
  memory::store(self.at(offset), first.offset);
  memory::store(self.at(Word::block_bytes), uint64_t{block_bytes});
  memory::store(self.at(Word::blocks), blocks);
  memory::store(self.at(magic), first.magic, std::memory_order_release);
  return self;
}

Result<Testimony> Testimony::open(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) return os_failure("cannot open the testimony");
  Testimony self(TRY(map_all(file.get())));
  const uint64_t room = self.mapping_.size() / sizeof(uint64_t) - first_block;
  if (self.word(Word::block_bytes) == 0 || self.word(Word::blocks) > room)
    return refused("testimony contradicts itself", self.word(Word::blocks));
  return self;
}

uint64_t Testimony::word(size_t index) const { return memory::load<uint64_t>(at(index)); }
uint64_t Testimony::executed() const { return word(executions); }
uint64_t Testimony::repeated() const { return word(repetitions); }

std::byte* Testimony::block_at(uint64_t disk_offset) const {
  const uint64_t block = (disk_offset - word(offset)) / word(Word::block_bytes);
  return block < word(Word::blocks) ? at(first_block + block) : nullptr;
}

void Testimony::acknowledge(uint64_t disk_offset, uint64_t generation) {
  std::byte* const at = block_at(disk_offset);
  if (at != nullptr) memory::store(at, generation, std::memory_order_release);
}

void Testimony::witness(const WitnessTag& tag) {
  if (tag.magic != word(magic) || tag.seed != word(seed)) return;
  const std::byte* const at = block_at(tag.offset);
  if (at == nullptr) return;
  add_one(this->at(executions));
  if (memory::load<uint64_t>(at, std::memory_order_acquire) >= tag.generation) add_one(this->at(repetitions));
}

std::unique_ptr<Backing> with_witness(std::unique_ptr<Backing> next, std::string path) {
  return std::make_unique<WitnessBacking>(std::move(next), std::move(path));
}

}  // namespace ringway::backing
