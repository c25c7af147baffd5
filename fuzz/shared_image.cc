#include "fuzz/shared_image.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <semaphore>
#include <thread>

namespace ringway::fuzz {
namespace {

// Where each region lies in guest memory; the file behind it begins a little earlier and ends a little later.
struct Place {
  uint64_t guest;
  uint64_t size;
};
constexpr std::array<Place, 3> places{{{0, 0x3000}, {0x3000, 0x2000}, {0x8000, 0x1000}}};
constexpr uint64_t lead = 0x210;  // keeps the alignment of ring areas

std::shared_ptr<const memory::Region> open_region(const Place& place) {
  UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  FUZZ_CHECK(::ftruncate(fd.get(), static_cast<off_t>(place.size + 0x1000)) == 0);
  const memory::RegionLayout layout{.guest = {place.guest},
                                    .size = place.size,
                                    .front_end = {SharedImage::front_end_base + place.guest},
                                    .file_offset = lead};
  auto region = memory::Region::open(layout, std::move(fd));
  FUZZ_CHECK(region.has_value());
  std::byte* const data = (*region)->data();
  ASAN_POISON_MEMORY_REGION(data - lead, lead);
  ASAN_POISON_MEMORY_REGION(data + place.size, 0x1000 - lead);
  return *region;
}

SharedImage* hooked = nullptr;
// The hook may run into itself, through a function that is the same in instrumented code and here.
thread_local bool watched = false;

}  // namespace

// A thread that waits for work; a run cannot afford to start one.
class SharedImage::Mutator {
 public:
  Mutator() : thread_([this](const std::stop_token& stop) { run(stop); }) {}
  ~Mutator() {
    thread_.request_stop();
    start_.release();
  }
  void begin(SharedImage& image, std::vector<Change> changes) {
    image_ = &image;
    todo_ = std::move(changes);
    stop_ = false;
    start_.release();
  }
  void end() {
    stop_ = true;
    done_.acquire();
  }

 private:
  void run(const std::stop_token& ended) {
    while (true) {
      start_.acquire();
      if (ended.stop_requested()) return;
      // Over and over for as long as the run lasts, but never without end.
      for (int round = 0; round < 64 && !stop_; ++round) {
        for (const Change& change : todo_) {
          std::atomic_ref(*image_->at(change.where)).store(change.value ^ static_cast<std::byte>(round & 1));
        }
      }
      done_.release();
    }
  }
  SharedImage* image_ = nullptr;
  std::vector<Change> todo_;
  std::atomic<bool> stop_ = false;
  std::binary_semaphore start_{0};
  std::binary_semaphore done_{0};
  std::jthread thread_;
};

SharedImage& SharedImage::instance() {
  static SharedImage& image = *new SharedImage;
  hooked = &image;
  watched = true;
  return image;
}

SharedImage::SharedImage() {
  std::vector<std::shared_ptr<const memory::Region>> regions;
  uint64_t offset = 0;
  for (const Place& place : places) {
    regions.push_back(open_region(place));
    parts_.push_back({.data = regions.back()->data(), .size = place.size, .offset = offset});
    offset += place.size;
  }
  map_ = memory::Map::of(std::move(regions)).value();
  allowed_.resize(bytes);
  before_.resize(bytes);
}

uint64_t SharedImage::guest(uint64_t offset) {
  for (const Place& place : places) {
    if (offset < place.size) return place.guest + offset;
    offset -= place.size;
  }
  return 0;
}

std::byte* SharedImage::at(uint64_t offset) const {
  for (const Part& part : parts_) {
    if (offset - part.offset < part.size) return part.data + (offset - part.offset);
  }
  return nullptr;
}

const SharedImage::Part* SharedImage::part_of(const std::byte* at) const {
  for (const Part& part : parts_) {
    if (at >= part.data && at < part.data + part.size) return &part;
  }
  return nullptr;
}

void SharedImage::fill(std::span<const std::byte> content) {
  for (const Part& part : parts_) {
    const auto here = content.first(std::min<size_t>(content.size(), part.size));
    if (!here.empty()) std::memcpy(part.data, here.data(), here.size());
    std::memset(part.data + here.size(), 0, part.size - here.size());
    content = content.subspan(here.size());
    std::memcpy(before_.data() + part.offset, part.data, part.size);
  }
  std::memset(allowed_.data(), 0, allowed_.size());
  changes_.clear();
  next_change_ = 0;
  loads_ = load_count_ = 0;
}

std::vector<SharedImage::Change> SharedImage::read_changes(Input& input) const {
  std::vector<Change> changes;
  uint32_t when = 0;
  while (!input.empty()) {
    when += input.take<uint8_t>();
    const uint32_t where = input.take<uint16_t>() % bytes;
    changes.push_back({.when = when, .where = where, .value = input.take<std::byte>()});
  }
  return changes;
}

void SharedImage::script_changes(Input& input) {
  changes_ = read_changes(input);
  for (const Change& change : changes_) allow_offset(change.where, 1);
}

void SharedImage::start_thread(Input& input) {
  static auto& mutator = *new std::shared_ptr<Mutator>(std::make_shared<Mutator>());
  mutator_ = mutator;
  auto changes = read_changes(input);
  for (const Change& change : changes) allow_offset(change.where, 1);
  mutator_->begin(*this, std::move(changes));
}

void SharedImage::stop_thread() {
  if (mutator_) mutator_->end();
  mutator_.reset();
}

void SharedImage::allow(const std::byte* at, size_t length) {
  const Part* part = part_of(at);
  FUZZ_CHECK(part != nullptr);
  allow_offset(part->offset + static_cast<uint64_t>(at - part->data), length);
}

void SharedImage::allow_offset(uint64_t offset, uint64_t length) {
  if (offset < bytes) std::memset(allowed_.data() + offset, 1, std::min(length, bytes - offset));
}

bool SharedImage::contains(const std::byte* at, size_t length) const {
  const Part* part = part_of(at);
  return part != nullptr && length <= part->size - static_cast<uint64_t>(at - part->data);
}

void SharedImage::check() const {
  constexpr uint64_t block = 64;
  for (const Part& part : parts_) {
    for (uint64_t at = 0; at < part.size; at += block) {
      if (std::memcmp(part.data + at, before_.data() + part.offset + at, block) == 0) continue;
      for (uint64_t i = at; i < at + block; ++i) {
        FUZZ_CHECK(part.data[i] == before_[part.offset + i] || allowed_[part.offset + i] != 0);
      }
    }
  }
}

void SharedImage::on_load(const std::byte* at) {
  if (part_of(at) == nullptr) return;
  ++load_count_;
  ++loads_;
  while (next_change_ < changes_.size() && changes_[next_change_].when < loads_)
    apply(changes_[next_change_++]);
}

void SharedImage::apply(const Change& change) { *at(change.where) = change.value; }

}  // namespace ringway::fuzz

// Called before every load of instrumented code.
#define HOOK(size)                                       \
  extern "C" void __sanitizer_cov_load##size(void* at) { \
    using namespace ringway::fuzz;                       \
    if (!watched) return;                                \
    watched = false;                                     \
    hooked->on_load(static_cast<const std::byte*>(at));  \
    watched = true;                                      \
  }
HOOK(1)
HOOK(2)
HOOK(4)
HOOK(8)
HOOK(16)
