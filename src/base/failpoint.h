// Failpoints: named places at which a test ends the process as a kill would, without destructors and without
// flushing anything. RINGWAY_FAILPOINT=name:count in the environment of `ringway` arms one: the process is
// gone when it passes there for the count-th time. Any thread; armed once, before there is a second one.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

#include "ringway/base/result.h"

namespace ringway {

// Before, between and after the steps of "Inflight I/O tracking" (vhost-user).
enum class Failpoint : uint8_t {
  make_begin,    // an area that nobody has used yet
  make_written,  // everything but its version
  make_end,
  split_recover_begin,
  split_recover_clearing,  // one of the last batch is not in flight any more
  split_recover_cleared,
  split_recover_repaired,  // the last batch is marked as used
  split_recover_end,
  split_take_begin,
  split_take_counted,  // the counter, but not "in flight"
  split_take_end,
  split_give_begin,  // back, a chain that was not touched
  split_give_end,
  split_use_begin,
  split_use_linked,  // to the one before, by which the last batch does not begin yet
  split_use_end,
  split_publish_begin,
  split_publish_headed,    // the last batch begins with the last of its chains
  split_publish_shown,     // the driver sees the used index
  split_publish_clearing,  // one of the batch is not in flight any more
  split_publish_cleared,
  split_publish_end,
  packed_recover_begin,
  packed_recover_listed,    // the free list is that of before the last batch, or of behind it
  packed_recover_repaired,  // and so is the used index
  packed_recover_freeing,   // an entry of the free list is not in flight any more
  packed_recover_hiding,    // what was written behind the used index, and not shown
  packed_recover_end,
  packed_take_begin,
  packed_take_written,  // the descriptors
  packed_take_marked,   // as in flight, but still in the free list
  packed_take_end,
  packed_give_begin,
  packed_give_linked,  // to the free list, which does not begin with it yet
  packed_give_listed,  // in the free list, but still in flight
  packed_give_end,
  packed_use_begin,
  packed_use_end,
  packed_publish_begin,
  packed_publish_linking,
  packed_publish_listed,   // the batch is in the new free list
  packed_publish_counted,  // the new used index
  packed_publish_shown,    // the driver sees the first descriptor
  packed_publish_clearing,
  packed_publish_cleared,
  packed_publish_freed,  // the old free list is the new one
  packed_publish_end,
};

inline constexpr auto failpoint_names = std::to_array<std::string_view>({
    "make_begin",
    "make_written",
    "make_end",
    "split_recover_begin",
    "split_recover_clearing",
    "split_recover_cleared",
    "split_recover_repaired",
    "split_recover_end",
    "split_take_begin",
    "split_take_counted",
    "split_take_end",
    "split_give_begin",
    "split_give_end",
    "split_use_begin",
    "split_use_linked",
    "split_use_end",
    "split_publish_begin",
    "split_publish_headed",
    "split_publish_shown",
    "split_publish_clearing",
    "split_publish_cleared",
    "split_publish_end",
    "packed_recover_begin",
    "packed_recover_listed",
    "packed_recover_repaired",
    "packed_recover_freeing",
    "packed_recover_hiding",
    "packed_recover_end",
    "packed_take_begin",
    "packed_take_written",
    "packed_take_marked",
    "packed_take_end",
    "packed_give_begin",
    "packed_give_linked",
    "packed_give_listed",
    "packed_give_end",
    "packed_use_begin",
    "packed_use_end",
    "packed_publish_begin",
    "packed_publish_linking",
    "packed_publish_listed",
    "packed_publish_counted",
    "packed_publish_shown",
    "packed_publish_clearing",
    "packed_publish_cleared",
    "packed_publish_freed",
    "packed_publish_end",
});
static_assert(failpoint_names.size() == static_cast<size_t>(Failpoint::packed_publish_end) + 1);

namespace detail {
inline constexpr uint32_t no_failpoint = UINT32_MAX;
inline uint32_t armed_failpoint = no_failpoint;
void count_failpoint();
extern void (*at_failpoint)();  // ends the process; a unit test has something else in its place
}  // namespace detail

// The status of a process that ended at a failpoint.
inline constexpr int failpoint_status = 70;

// Passes a failpoint: one comparison where it is not armed.
inline void pass(Failpoint point) {
  if (detail::armed_failpoint == static_cast<uint32_t>(point)) [[unlikely]]
    detail::count_failpoint();
}

// Arms a failpoint for its `count`-th passing.
void arm(Failpoint point, uint64_t count);
inline void disarm() { detail::armed_failpoint = detail::no_failpoint; }
// Arms what RINGWAY_FAILPOINT says, if it says anything; an error: there is no such failpoint.
Result<> arm_failpoint();

}  // namespace ringway
