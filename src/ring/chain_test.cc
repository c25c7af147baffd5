#include "ringway/ring/chain.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace ringway::ring {
namespace {

// Bytes of a "peer", cut into pieces of the given lengths.
struct Cut {
  explicit Cut(std::string bytes, std::initializer_list<size_t> lengths) : text(std::move(bytes)) {
    size_t at = 0;
    for (const size_t length : lengths) {
      pieces.push_back({.iov_base = text.data() + at, .iov_len = length});
      at += length;
    }
  }
  std::string text;
  std::vector<iovec> pieces;
};

template <size_t N>
std::string take(Reader& reader) {
  std::array<char, N> to{};
  return reader.read(to) ? std::string(to.data(), N) : "refused";
}

TEST(Reader, reads_across_pieces_and_stops_at_the_end) {
  Cut cut("abcdefgh", {1, 2, 5});
  Reader reader(cut.pieces);
  EXPECT_EQ(reader.remaining(), 8U);
  EXPECT_EQ(take<2>(reader), "ab");
  EXPECT_EQ(take<4>(reader), "cdef");
  EXPECT_EQ(take<3>(reader), "refused");
  EXPECT_EQ(reader.remaining(), 2U);
  EXPECT_EQ(take<2>(reader), "gh");
  EXPECT_TRUE(reader.pieces().empty());
  EXPECT_EQ(take<1>(reader), "refused");
}

TEST(Reader, reads_nothing_from_nothing) {
  Reader reader;
  EXPECT_TRUE(reader.read(std::span<std::byte>()));
  EXPECT_TRUE(reader.skip(0));
  EXPECT_FALSE(reader.skip(1));
}

TEST(Reader, skips_whole_and_partial_pieces) {
  Cut cut("abcdefgh", {3, 3, 2});
  Reader reader(cut.pieces);
  EXPECT_TRUE(reader.skip(4));
  EXPECT_EQ(reader.pieces().size(), 2U);
  EXPECT_EQ(take<2>(reader), "ef");
  EXPECT_FALSE(reader.skip(3));
  EXPECT_TRUE(reader.skip(2));
  EXPECT_EQ(reader.remaining(), 0U);
}

TEST(Cursor, truncates_from_the_end) {
  Cut cut("abcdefgh", {3, 3, 2});
  Reader reader(cut.pieces);
  reader.truncate(9);
  EXPECT_EQ(reader.remaining(), 8U);
  reader.truncate(6);
  EXPECT_EQ(reader.pieces().size(), 2U);
  reader.truncate(4);
  EXPECT_EQ(reader.remaining(), 4U);
  EXPECT_EQ(take<4>(reader), "abcd");
  EXPECT_TRUE(reader.pieces().empty());
}

TEST(Writer, writes_across_pieces_or_not_at_all) {
  Cut cut("........", {3, 1, 4});
  Writer writer(cut.pieces);
  EXPECT_FALSE(writer.write(std::array<char, 9>{}));
  EXPECT_EQ(cut.text, "........");
  EXPECT_TRUE(writer.write(std::array{'a', 'b'}));
  EXPECT_TRUE(writer.write(std::array{'c', 'd', 'e'}));
  EXPECT_EQ(cut.text, "abcde...");
  EXPECT_EQ(writer.remaining(), 3U);
}

TEST(Writer, takes_the_last_byte_off) {
  Cut cut("........", {4, 3, 1});
  Writer writer(cut.pieces);
  const ByteSlot status = writer.take_last_byte();
  EXPECT_EQ(writer.remaining(), 7U);
  EXPECT_EQ(writer.pieces().size(), 2U);
  const ByteSlot before = writer.take_last_byte();
  EXPECT_EQ(writer.pieces().size(), 2U);
  status.write('S');
  before.write('B');
  EXPECT_TRUE(writer.write(std::array{'a', 'b', 'c', 'd', 'e', 'f'}));
  EXPECT_EQ(cut.text, "abcdefBS");
}

}  // namespace
}  // namespace ringway::ring
