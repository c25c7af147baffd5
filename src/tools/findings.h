// Findings: what `ringway probe` has learnt of a back-end; plain data, and what is odd about it. Any thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ringway/tools/device_names.h"

namespace ringway::tools {

struct Findings {
  std::string socket;
  pid_t pid = 0;        // 0: not to be seen from here
  std::string program;  // its name; empty: unknown

  uint64_t features = 0;
  std::optional<uint64_t> protocol;      // nothing: no protocol features
  std::vector<const DeviceType*> types;  // likeliest first, or the one that the user named
  bool type_is_certain = false;

  // Nothing: it cannot be asked, or the answer was an error, which then is among `failures`.
  std::optional<uint64_t> queues;
  std::optional<uint64_t> memory_slots;
  std::optional<uint32_t> queue_size;  // the largest that is acknowledged, entries
  std::vector<std::byte> config;       // as much as there is
  bool config_failed = false;
  bool takes_bit_21_for_shmem = false;

  std::vector<std::string> failures;  // requests that did not end as they should
  // Requests that no back-end should acknowledge, and this one did. Only if the user allowed to ask.
  std::vector<std::string> wrongly_acknowledged;

  [[nodiscard]] const DeviceType* type() const { return types.empty() ? nullptr : types.front(); }
};

// Each a sentence: what a user or an author of a back-end might trip over.
[[nodiscard]] std::vector<std::string> oddities(const Findings& findings);

}  // namespace ringway::tools
