#include "ringway/base/failpoint.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

namespace ringway {
namespace {

std::atomic<uint64_t> passes_left = 1;

}  // namespace

void (*detail::at_failpoint)() = [] { ::_exit(failpoint_status); };

void detail::count_failpoint() {
  if (passes_left.fetch_sub(1) == 1) at_failpoint();
}

void arm(Failpoint point, uint64_t count) {
  passes_left = count;
  detail::armed_failpoint = static_cast<uint32_t>(point);
}

Result<> arm_failpoint() {
  const char* const said = std::getenv("RINGWAY_FAILPOINT");
  if (said == nullptr) return {};
  const std::string_view text(said);
  const size_t colon = std::min(text.find(':'), text.size());
  const auto* const name = std::ranges::find(failpoint_names, text.substr(0, colon));
  if (name == failpoint_names.end()) return refused("RINGWAY_FAILPOINT names no failpoint");
  uint64_t count = 1;
  if (colon < text.size()) {
    const char* const end = text.data() + text.size();
    const auto [at, wrong] = std::from_chars(text.data() + colon + 1, end, count);
    if (wrong != std::errc() || at != end || count == 0)
      return refused("RINGWAY_FAILPOINT has no count behind its colon");
  }
  arm(static_cast<Failpoint>(name - failpoint_names.begin()), count);
  return {};
}

}  // namespace ringway
