// What a running ring marks in the log, and when.
#include "ringway/ring/ring_log.h"

#include <set>

#include "ringway/base/failpoint.h"
#include "ringway/ring/inflight.h"
#include "ringway/ring/rig_test.h"

namespace ringway::ring::test {
namespace {

using Pages = std::set<uint64_t>;
constexpr uint64_t page = memory::DirtyLog::page_bytes;
constexpr uint64_t elsewhere = 64 << 20;  // another guest address of the same memory

// A log as the front-end sees it.
class Log {
 public:
  [[nodiscard]] std::shared_ptr<const memory::DirtyLog> share() const {
    return must(memory::DirtyLog::open(file_, bytes, 0));
  }
  // All that is marked, which it is no more.
  Pages take() {
    Pages pages;
    for (uint64_t bit = 0; bit < bytes * 8; ++bit) {
      if ((static_cast<uint8_t>(view_.bytes()[bit / 8]) >> bit % 8 & 1) != 0) pages.insert(bit);
    }
    std::ranges::fill(view_.bytes(), std::byte{0});
    return pages;
  }

 private:
  static constexpr uint64_t bytes = 4096;
  UniqueFd file_ = make_memfd(bytes);
  Mapping view_ = must(Mapping::of_file(file_.get(), bytes, 0));
};

class RingLogOf : public testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] Logging logging(const Log& log) const {
    const uint64_t written = shape_.format.packed ? layout_.desc : layout_.device;
    const uint64_t bytes = shape_.format.packed ? RingConfig::desc_bytes(shape_.size, shape_.format)
                                                : RingConfig::device_bytes(shape_.size, shape_.format);
    Logging all{.log = log.share(), .news = nullptr, .desc = {}, .device = {}};
    (shape_.format.packed ? all.desc : all.device) = {{.offset = 0, .length = bytes, .guest = {written}}};
    return all;
  }
  void start_device() {
    RingConfig config = layout_.ring_config();
    config.inflight = guest_.window(area_, inflight_bytes(shape_.size, shape_.format.packed));
    ring_.emplace(must(ring::start(std::move(config), guest_.view())));
    std::visit([&](auto& ring) { ring.set_log(must(RingLog::create(shape_.size, logging(log_)))); }, *ring_);
  }
  Chain take_request(uint64_t address, uint32_t length) {
    EXPECT_TRUE(front_.add({}, {{.address = {address}, .length = length}}));
    (void)front_.publish();
    return std::visit([](auto& ring) { return must(ring.pop()); }, *ring_);
  }
  void push(Chain chain) {
    std::visit([&](auto& ring) { ring.push_used(std::move(chain), 1); }, *ring_);
  }
  void publish() {
    std::visit([](auto& ring) { (void)ring.publish(); }, *ring_);
    while (front_.take_used()) {
    }
  }
  void set_map(std::shared_ptr<const memory::Map> map) {
    std::visit([&](auto& ring) { ring.set_view(memory::View(std::move(map))); }, *ring_);
  }
  // A page that the ring itself marks.
  [[nodiscard]] uint64_t ring_page() const {
    return (shape_.format.packed ? layout_.desc : layout_.device) / page;
  }

  Shape shape_{.size = 8, .format = {.packed = GetParam(), .event_idx = true}};
  Guest guest_{1 << 20};
  Layout layout_{guest_, shape_};
  Front front_{layout_.driver_config()};
  uint64_t area_ = guest_.allocate(inflight_bytes(shape_.size, shape_.format.packed), page);
  uint64_t data_ = guest_.allocate(16 * page, page);
  Log log_;
  std::optional<Ring> ring_;
};

TEST_P(RingLogOf, what_the_driver_is_shown_has_been_marked_before) {
  static Log* log;
  static Pages marked;
  log = &log_;
  start_device();
  push(take_request(data_ + 3 * page, 2 * page));
  const auto before = std::exchange(detail::at_failpoint, [] { marked = log->take(); });
  arm(GetParam() ? Failpoint::packed_publish_begin : Failpoint::split_publish_begin, 1);
  publish();
  disarm();
  detail::at_failpoint = before;
  const uint64_t first = data_ / page + 3;
  EXPECT_EQ(marked, Pages({first, first + 1, ring_page()}));
  EXPECT_EQ(log_.take(), Pages({ring_page()})) << "the index, which came afterwards";
}

TEST_P(RingLogOf, pages_are_named_by_the_table_under_which_their_chain_was_taken) {
  start_device();
  const auto file = make_memfd(guest_.size());
  for (uint64_t round = 0; round < 50; ++round) {
    // Tables come and go, and with luck one lies where another has lain.
    const uint64_t base = elsewhere + round * guest_.size();
    const auto region =
        must(memory::Region::open({{base}, guest_.size(), {base}, 0}, must(file.duplicate())));
    Chain early = take_request(data_, 1);
    set_map(must(memory::Map::of({region})));
    Chain late = take_request(base + 5 * page, 1);
    push(std::move(late));
    push(std::move(early));
    publish();
    ASSERT_EQ(log_.take(), Pages({data_ / page, base / page + 5, ring_page()})) << round;
    set_map(must(memory::Map::of({guest_.map()->regions()[0]})));
  }
}

TEST_P(RingLogOf, what_was_used_and_not_shown_is_marked_in_the_log_that_was_there) {
  start_device();
  Log next;
  push(take_request(data_, 1));
  std::visit([&](auto& ring) { ring.change_log(logging(next)); }, *ring_);
  EXPECT_EQ(log_.take(), Pages({data_ / page, ring_page()}));
  publish();
  EXPECT_TRUE(next.take().contains(ring_page()));
  push(take_request(data_ + page, 1));
  std::visit([](auto& ring) { ring.set_log(nullptr); }, *ring_);
  EXPECT_EQ(next.take(), Pages({data_ / page + 1, ring_page()}));
  publish();
  EXPECT_EQ(next.take(), Pages());
}

INSTANTIATE_TEST_SUITE_P(Formats, RingLogOf, testing::Values(false, true),
                         [](const auto& instance) { return instance.param ? "packed" : "split"; });

}  // namespace
}  // namespace ringway::ring::test
