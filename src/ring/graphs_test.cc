// All descriptor graphs of small rings, each judged by the device half and by a simple reading of the
// specification.
#include <gtest/gtest.h>

#include <bitset>
#include <utility>
#include <vector>

#include "ringway/ring/rig_test.h"

namespace ringway::ring {
namespace {

using test::even_lap;
using test::Guest;
using test::HostilePacked;
using test::HostileSplit;
using test::odd_lap;
using test::Shape;

constexpr uint16_t next = VRING_DESC_F_NEXT;
constexpr uint16_t write = VRING_DESC_F_WRITE;
constexpr uint16_t indirect = VRING_DESC_F_INDIRECT;
constexpr uint64_t nowhere = 0xdead'0000'0000;

using Place = std::pair<uint64_t, uint32_t>;  // guest address, bytes

struct Pieces {
  std::vector<Place> readable;
  std::vector<Place> writable;
  bool operator==(const Pieces&) const = default;

  // False: a buffer that breaks the rules.
  bool add(uint64_t address, uint32_t length, bool is_writable, const Guest& guest) {
    if (address < Guest::base || address - Guest::base >= guest.size()) return false;
    if (length > guest.size() - (address - Guest::base)) return false;
    if (is_writable) turned = true;
    if (turned && !is_writable) return false;
    if (length > 0) (is_writable ? writable : readable).emplace_back(address, length);
    return true;
  }
  bool turned = false;
};

Pieces pieces_of(const Chain& chain, const Guest& guest) {
  Pieces pieces;
  const auto append = [&](std::span<const iovec> from, std::vector<Place>& to) {
    for (const iovec& piece : from) {
      const auto offset = static_cast<std::byte*>(piece.iov_base) - guest.data();
      to.emplace_back(Guest::base + static_cast<uint64_t>(offset), piece.iov_len);
    }
  };
  append(chain.reader().pieces(), pieces.readable);
  append(chain.writer().pieces(), pieces.writable);
  return pieces;
}

bool same(const Pieces& a, const Pieces& b) { return a.readable == b.readable && a.writable == b.writable; }

// Sets `entries` to every combination of elements of `alphabet`, one after the other.
template <class Entry>
class Odometer {
 public:
  Odometer(const std::vector<std::vector<Entry>>& alphabets, Entry* entries)
      : alphabets_(alphabets), entries_(entries), digits_(alphabets.size(), 0) {
    for (size_t i = 0; i < digits_.size(); ++i) entries_[i] = alphabets_[i][0];
  }
  bool advance() {
    for (size_t i = 0; i < digits_.size(); ++i) {
      digits_[i] = (digits_[i] + 1) % alphabets_[i].size();
      entries_[i] = alphabets_[i][digits_[i]];
      if (digits_[i] != 0) return true;
    }
    return false;
  }

 private:
  const std::vector<std::vector<Entry>>& alphabets_;
  Entry* entries_;
  std::vector<size_t> digits_;
};

// Nothing here runs on two threads, and to map memory is slow there.
void skip_under_tsan() {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "one thread only";
#endif
}

// The rules of "The Virtqueue Descriptor Table" and "Indirect Descriptors" for split rings.
class SplitOracle {
 public:
  SplitOracle(const Guest& guest, const vring_desc* ring, uint32_t size)
      : guest_(guest), ring_(ring), size_(size) {}
  // Whether the chain is legal; then `pieces` are its buffers.
  bool follow(uint16_t head, Pieces& pieces) const { return follow(ring_, size_, head, false, {}, pieces); }

 private:
  bool follow(const vring_desc* table, uint32_t size, uint16_t index, bool inside, std::bitset<64> seen,
              Pieces& pieces) const {
    if (index >= size || seen[index]) return false;
    seen.set(index);
    const vring_desc& entry = table[index];
    if ((entry.flags & indirect) != 0) {
      if (inside || (entry.flags & next) != 0 || entry.len == 0 || entry.len % 16 != 0) return false;
      if (entry.addr < Guest::base || entry.addr >= Guest::base + guest_.size()) return false;
      const auto* inner = reinterpret_cast<const vring_desc*>(guest_.at(entry.addr));
      return follow(inner, entry.len / 16, 0, true, {}, pieces);
    }
    if (!pieces.add(entry.addr, entry.len, (entry.flags & write) != 0, guest_)) return false;
    return (entry.flags & next) == 0 || follow(table, size, entry.next, inside, seen, pieces);
  }
  const Guest& guest_;
  const vring_desc* ring_;
  uint32_t size_;
};

class Graphs : public testing::Test {
 protected:
  void SetUp() override { skip_under_tsan(); }
  // Offers `head` of the graph that is in the ring, and compares.
  void judge(HostileSplit& rig, uint16_t head) {
    Pieces expected;
    const bool legal = SplitOracle(guest, rig.descriptors(), rig.shape.size).follow(head, expected);
    rig.offer({head});
    Result<Chain> chain = rig.device.try_pop();
    ASSERT_EQ(chain.has_value(), legal) << (chain ? "" : chain.error().what);
    (legal ? legal_ : illegal_) += 1;
    if (legal) {
      ASSERT_TRUE(*chain);
      ASSERT_TRUE(same(pieces_of(*chain, guest), expected));
      rig.device.push_used(*std::move(chain), 0);
      return;
    }
    rig.avail_index = 0;
    rig.avail()->idx = 0;
    rig.restart();
  }
  void judge_all(HostileSplit& rig, const std::vector<std::vector<vring_desc>>& alphabets,
                 vring_desc* entries, uint16_t heads) {
    Odometer<vring_desc> graph(alphabets, entries);
    do {
      for (uint16_t head = 0; head < heads; ++head) {
        judge(rig, head);
        if (HasFatalFailure()) return;
      }
    } while (graph.advance());
  }

  Guest guest{uint64_t{1} << 20};
  uint64_t legal_ = 0;
  uint64_t illegal_ = 0;
};

// Two tables for indirect descriptors to point to: a readable and a writable buffer; a writable buffer.
std::pair<uint64_t, uint64_t> make_split_tables(HostileSplit& rig) {
  rig.table(1024)[0] = {rig.data + 2048, 8, next, 1};
  rig.table(1024)[1] = {rig.data + 2064, 8, write, 0};
  rig.table(1280)[0] = {rig.data + 2080, 8, write, 0};
  return {rig.data + 1024, rig.data + 1280};
}

TEST_F(Graphs, of_split_rings_of_one_and_two_entries) {
  for (const uint32_t size : {1U, 2U}) {
    HostileSplit rig(guest, {.size = size, .format = {.indirect = true}});
    const auto [both, writable] = make_split_tables(rig);
    std::vector<std::vector<vring_desc>> alphabets(size);
    for (uint32_t i = 0; i < size; ++i) {
      for (uint16_t flags = 0; flags < 8; ++flags) {
        const auto last = static_cast<uint16_t>((flags & next) != 0 ? size : 0);
        for (uint16_t link = 0; link <= last; ++link) {
          for (const uint32_t length : {0U, 24U, 32U}) {
            for (const uint64_t address : {rig.data + 64 * i, both, nowhere}) {
              alphabets[i].push_back({address, length, flags, link});
            }
          }
        }
      }
    }
    judge_all(rig, alphabets, rig.descriptors(), static_cast<uint16_t>(size + 1));
    ASSERT_FALSE(HasFatalFailure());
  }
  EXPECT_GT(legal_, 1'000U);
  EXPECT_GT(illegal_, 10'000U);
}

TEST_F(Graphs, of_split_rings_of_four_entries) {
  HostileSplit rig(guest, {.size = 4, .format = {.indirect = true}});
  const auto [both, writable] = make_split_tables(rig);
  std::vector<std::vector<vring_desc>> alphabets(4);
  for (uint32_t i = 0; i < 4; ++i) {
    const uint64_t place = rig.data + 64 * i;
    std::vector<vring_desc>& entries = alphabets[i];
    for (uint16_t link = 0; link <= 4; ++link) entries.push_back({place, 8, next, link});
    for (uint16_t link = 0; link < 4; ++link) {
      entries.push_back({place, 8, next | write, link});
      entries.push_back({place, 0, next, link});
    }
    entries.push_back({nowhere, 8, next, static_cast<uint16_t>((i + 1) % 4)});
    entries.push_back({place, 8, 0, 0});
    entries.push_back({place, 8, write, 0});
    entries.push_back({place, 0, 0, 0});
    entries.push_back({both, 32, indirect, 0});
    entries.push_back({writable, 16, indirect | write, 0});
    entries.push_back({both, 32, indirect | next, 0});
  }
  judge_all(rig, alphabets, rig.descriptors(), 1);  // all heads are alike
  EXPECT_GT(legal_, 10'000U);
  EXPECT_GT(illegal_, 10'000U);
}

TEST_F(Graphs, of_split_indirect_tables_of_one_to_three_entries) {
  HostileSplit rig(guest, {.size = 1, .format = {.indirect = true}});
  for (uint32_t size = 1; size <= 3; ++size) {
    rig.descriptors()[0] = {rig.data + 1024, 16 * size, indirect, 0};
    std::vector<std::vector<vring_desc>> alphabets(size);
    for (uint32_t i = 0; i < size; ++i) {
      for (const uint16_t flags : {0, 1, 2, 3, 4, 5}) {
        const auto last = static_cast<uint16_t>((flags & next) != 0 ? size : 0);
        for (uint16_t link = 0; link <= last; ++link) {
          for (const uint32_t length : {0U, 16U})
            alphabets[i].push_back({rig.data + 64 * i, length, flags, link});
        }
      }
      alphabets[i].push_back({nowhere, 8, 0, 0});
    }
    judge_all(rig, alphabets, rig.table(1024), 1);
    ASSERT_FALSE(HasFatalFailure());
  }
  EXPECT_GT(legal_, 1'000U);
  EXPECT_GT(illegal_, 1'000U);
}

// What a device finds in a packed ring that it looks at for the first time, up to the first chain that breaks
// it.
struct PackedOutcome {
  std::vector<std::pair<uint16_t, Pieces>> chains;  // by buffer id
  bool breaks = false;
};

// The rules of "Packed Virtqueues" for entries in their first lap; nothing is used meanwhile.
PackedOutcome read_packed(const Guest& guest, const vring_packed_desc* ring, uint32_t size) {
  PackedOutcome outcome;
  std::vector<bool> taken(size, false);
  uint32_t at = 0;
  const auto available = [&] { return at < size && (ring[at].flags & (odd_lap | even_lap)) == odd_lap; };
  while (available()) {
    outcome.breaks = true;  // until the chain has been found to be right
    Pieces pieces;
    const uint32_t first = at;
    bool more = true;
    uint16_t id = 0;
    while (more) {
      if (!available()) return outcome;
      const vring_packed_desc& entry = ring[at++];
      more = (entry.flags & next) != 0;
      id = entry.id;
      if ((entry.flags & indirect) == 0) {
        if (!pieces.add(entry.addr, entry.len, (entry.flags & write) != 0, guest)) return outcome;
        continue;
      }
      if (more || at - first > 1 || entry.len == 0 || entry.len % 16 != 0) return outcome;
      if (entry.addr < Guest::base || entry.addr >= Guest::base + guest.size()) return outcome;
      const auto* inner = reinterpret_cast<const vring_packed_desc*>(guest.at(entry.addr));
      for (uint32_t i = 0; i < entry.len / 16; ++i) {
        if (!pieces.add(inner[i].addr, inner[i].len, (inner[i].flags & write) != 0, guest)) return outcome;
      }
    }
    if (id >= size || taken[id]) return outcome;
    taken[id] = true;
    outcome.chains.emplace_back(id, std::move(pieces));
    outcome.breaks = false;
  }
  return outcome;
}

class PackedGraphs : public testing::Test {
 protected:
  void SetUp() override { skip_under_tsan(); }
  void judge(HostilePacked& rig) {
    rig.restart();
    const PackedOutcome expected = read_packed(guest, rig.descriptors(), rig.shape.size);
    for (const auto& [id, pieces] : expected.chains) {
      Chain chain = rig.device.pop();
      ASSERT_TRUE(chain);
      ASSERT_EQ(chain.index(), id);
      ASSERT_TRUE(same(pieces_of(chain, guest), pieces));
      rig.device.abandon(std::move(chain));
      ++chains_;
    }
    const std::string end = rig.failure();
    ASSERT_NE(end, "a chain");
    ASSERT_EQ(end != "nothing", expected.breaks) << end;
    breaks_ += expected.breaks;
  }
  void judge_all(HostilePacked& rig, const std::vector<std::vector<vring_packed_desc>>& alphabets) {
    Odometer<vring_packed_desc> graph(alphabets, rig.descriptors());
    do {
      judge(rig);
    } while (!HasFatalFailure() && graph.advance());
  }
  static Shape of_size(uint32_t size) { return {.size = size, .format = {.packed = true, .indirect = true}}; }
  // A table with a readable and a writable buffer.
  static uint64_t make_table(HostilePacked& rig) {
    rig.table(1024)[0] = {rig.data + 2048, 8, 0, 0};
    rig.table(1024)[1] = {rig.data + 2064, 8, 0, write};
    return rig.data + 1024;
  }
  Guest guest{uint64_t{1} << 20};
  uint64_t chains_ = 0;
  uint64_t breaks_ = 0;
};

TEST_F(PackedGraphs, of_rings_of_one_and_two_entries) {
  for (const uint32_t size : {1U, 2U}) {
    HostilePacked rig(guest, of_size(size));
    const uint64_t table = make_table(rig);
    std::vector<std::vector<vring_packed_desc>> alphabets(size);
    for (uint32_t i = 0; i < size; ++i) {
      for (uint16_t flags = 0; flags < 8; ++flags) {
        for (const uint16_t id : {uint16_t{0}, uint16_t{1}, uint16_t{2}}) {
          for (const auto& [address, length] :
               {std::pair{rig.data + 64 * i, 8U}, std::pair{rig.data + 64 * i, 0U}, std::pair{nowhere, 8U},
                std::pair{table, 32U}}) {
            alphabets[i].push_back({address, length, id, static_cast<uint16_t>(flags | odd_lap)});
          }
        }
      }
      for (const uint16_t lap : {uint16_t{0}, even_lap, uint16_t{odd_lap | even_lap}}) {
        alphabets[i].push_back({rig.data + 64 * i, 8, 0, lap});
        alphabets[i].push_back({rig.data + 64 * i, 8, 0, static_cast<uint16_t>(lap | next)});
      }
    }
    judge_all(rig, alphabets);
    ASSERT_FALSE(HasFatalFailure());
  }
  EXPECT_GT(chains_, 1'000U);
  EXPECT_GT(breaks_, 1'000U);
}

TEST_F(PackedGraphs, of_rings_of_three_entries) {
  HostilePacked rig(guest, of_size(3));
  const uint64_t table = make_table(rig);
  std::vector<std::vector<vring_packed_desc>> alphabets(3);
  for (uint32_t i = 0; i < 3; ++i) {
    const uint64_t place = rig.data + 64 * i;
    std::vector<vring_packed_desc>& entries = alphabets[i];
    for (const uint16_t flags : {0, 1, 2, 3}) {
      for (const uint16_t id : {0, 1, 2, 3})
        entries.push_back({place, 8, id, static_cast<uint16_t>(flags | odd_lap)});
    }
    for (const uint16_t flags : {0, 1, 3})
      entries.push_back({place, 0, 1, static_cast<uint16_t>(flags | odd_lap)});
    for (const uint16_t id : {0, 1}) entries.push_back({table, 32, id, indirect | odd_lap});
    entries.push_back({table, 32, 0, indirect | next | odd_lap});
    entries.push_back({table, 24, 0, indirect | odd_lap});
    entries.push_back({nowhere, 8, 0, odd_lap});
    for (const uint16_t lap : {uint16_t{0}, even_lap, uint16_t{odd_lap | even_lap}}) {
      entries.push_back({place, 8, 0, lap});
    }
  }
  judge_all(rig, alphabets);
  EXPECT_GT(chains_, 10'000U);
  EXPECT_GT(breaks_, 10'000U);
}

}  // namespace
}  // namespace ringway::ring
