#include "ringway/ring/chains.h"

#include <sys/mman.h>

#include <algorithm>

namespace ringway::ring {
namespace {

// Room for the pieces of long chains, per ring; address space, which becomes memory when a driver makes use
// of it. One block per ring entry up to rings of 2048, fewer but always some for larger ones.
constexpr uint64_t max_block_bytes = uint64_t{128} << 20;
constexpr uint64_t smallest_page = 4096;

}  // namespace

Result<Chains> Chains::create(uint32_t size, bool in_order, memory::View view) {
  Chains chains;
  chains.size_ = size;
  chains.max_pieces_ = std::max(size, max_chain_pieces);
  const uint64_t block_bytes = uint64_t{chains.max_pieces_} * 2 * sizeof(iovec);
  const uint64_t blocks = std::min<uint64_t>(uint64_t{size} + 1, max_block_bytes / block_bytes);
  const uint64_t slot_bytes = uint64_t{size} * sizeof(Slot);
  const uint64_t order_bytes =
      (uint64_t{size} * sizeof(uint16_t) + alignof(Slot) - 1) / alignof(Slot) * alignof(Slot);
  chains.storage_ = TRY(Mapping::anonymous(slot_bytes + order_bytes + blocks * block_bytes));
  // A huge page would commit 2 MiB for the first slot.
  ::madvise(chains.storage_.data(), chains.storage_.size(), MADV_NOHUGEPAGE);

  std::byte* const base = chains.storage_.data();
  chains.slots_ = reinterpret_cast<Slot*>(base);
  if (in_order) chains.order_ = reinterpret_cast<uint16_t*>(base + slot_bytes);
  chains.fresh_blocks_ = reinterpret_cast<iovec*>(base + slot_bytes + order_bytes);
  chains.end_of_blocks_ = chains.fresh_blocks_ + blocks * chains.max_pieces_ * 2;
  chains.scratch_ = chains.new_block();
  chains.table_room_.resize(uint64_t{chains.max_pieces_} * descriptor_bytes / smallest_page + 2);
  chains.generations_.push_back({.view = view});
  chains.view_ = std::move(view);
  return chains;
}

Result<> Chains::begin_fill() {
  missing_.reset();
  next_ready_ = end_ready_ = 0;
  return end_fill();
}

void Chains::make_ready(uint16_t index, const Gatherer& gathered, uint32_t descriptors) {
  Slot& slot = slots_[index];
  const std::span<const iovec> pieces = gathered.pieces();
  slot.readable = static_cast<uint16_t>(gathered.readable());
  slot.writable = static_cast<uint16_t>(pieces.size() - gathered.readable());
  if (pieces.size() <= Slot::inline_pieces) [[likely]] {
    copy_pieces(pieces, slot.place);
  } else {
    slot.spilled = true;
    slot.place[0].iov_base = std::exchange(scratch_, new_block());
  }
  show(slot, index, descriptors);
}

void Chains::stop(const Verdict& verdict, const Gatherer& gathered) {
  if (verdict.flaw == Flaw::no_room) return;
  if (verdict.flaw != Flaw::miss) {
    failure_ = to_error(verdict);
  } else if (!any_ready()) {
    missing_ = gathered.missing();
  }
}

Result<> Chains::end_fill() {
  if (!failure_ || any_ready()) return {};
  broken_ = true;
  return std::unexpected(*failure_);
}

void Chains::prefetch_table(const Descriptor& descriptor) {
  if (view_.has_iotlb()) return;
  iovec place;
  memory::Segments piece(std::span(&place, 1));
  const auto translation =
      view_.translate({descriptor.address}, descriptor.length, memory::Access::read, piece);
  if (translation.outcome != memory::Translation::ok || piece.size() == 0) return;
  const auto* table = static_cast<const std::byte*>(place.iov_base);
  __builtin_prefetch(table);
  __builtin_prefetch(table + std::min<size_t>(place.iov_len, 64) - 1);
}

uint32_t Chains::drop_ready() {
  uint32_t entries = 0;
  for (; next_ready_ != end_ready_; ++next_ready_) {
    entries += ready_[next_ready_]->descriptors;
    release(*ready_[next_ready_]);
  }
  missing_.reset();
  if (!broken_) failure_.reset();
  return entries;
}

void Chains::abandon(Slot& slot) {
  end(slot, 0);
  for (; order_ != nullptr && ordered_ > 0; order_begin_ = behind(order_begin_), --ordered_) {
    Slot& waiting = slots_[order_[order_begin_]];
    if (waiting.state == Slot::done) end(waiting, 0);
  }
  order_ = nullptr;
}

void Chains::set_view(memory::View view) {
  Generation& now = generations_[current_];
  const bool same_memory = &now.view.map() == &view.map();
  view_ = std::move(view);
  if (log_ != nullptr) log_->forget_map();
  if (same_memory || now.in_flight == 0) {
    now.view = view_;
    return;
  }
  const auto unused = std::ranges::find(generations_, 0U, &Generation::in_flight);
  current_ = static_cast<uint16_t>(unused - generations_.begin());
  if (unused == generations_.end()) generations_.emplace_back();
  generations_[current_].view = view_;
}

void Chains::set_log(std::unique_ptr<RingLog> log) {
  assert(log_ != nullptr || log == nullptr || in_flight_ == 0);
  log_ = std::move(log);
}

iovec* Chains::new_block() {
  if (free_blocks_ != nullptr)
    return std::exchange(free_blocks_, static_cast<iovec*>(free_blocks_->iov_base));
  if (fresh_blocks_ == end_of_blocks_) return nullptr;
  return std::exchange(fresh_blocks_, fresh_blocks_ + size_t{max_pieces_} * 2);
}

void Chains::free_block(iovec* block) {
  if (scratch_ == nullptr) {
    scratch_ = block;
    return;
  }
  block->iov_base = free_blocks_;
  free_blocks_ = block;
}

}  // namespace ringway::ring
