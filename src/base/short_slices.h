// take_short_slices: for threads that others wait for. Any thread.
#pragma once

namespace ringway {

// The calling thread works little at a time, and guests or operators wait for it: when it has something to do
// it takes its CPU from a thread that polls, instead of waiting until that one's share of time is used up.
// Threads and processes that it starts have ordinary shares. Kernels before 6.12 do not know of it, and
// nothing changes.
void take_short_slices();

}  // namespace ringway
