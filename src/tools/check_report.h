// What `ringway check` prints and writes of what it found. Any thread.
#pragma once

#include <string>
#include <vector>

#include "ringway/check/hostile.h"
#include "ringway/check/runner.h"

namespace ringway::tools {

struct ReportOptions {
  bool json = false;
  std::string junit;  // path; empty: none
  std::string name;   // of what was checked
};

// Whether there is a place for the report at `junit`, known before anything is checked; empty: none is
// wanted.
[[nodiscard]] bool can_write_report(const std::string& junit);
// A line on stdout; requirements that bind the other side are left out.
void print_row(const check::Row& row);
void print_attack(const check::HostileRow& row);
// The end of the report, or all of it as JSON. The exit status: 1 if a MUST has failed or an attack
// succeeded, 2 if the report cannot be written.
int report(const std::vector<check::Row>& rows, const std::vector<check::HostileRow>& attacks,
           const ReportOptions& options);
// A sentence for the user: nothing there, or no back-end.
[[nodiscard]] std::string why_not_checked(const std::string& path, const Error& error, double seconds);

}  // namespace ringway::tools
