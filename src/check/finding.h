// Finding: what a check has found out, and how checks end early. Values; any thread.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

#include "ringway/base/result.h"

namespace ringway::check {

enum class Verdict : uint8_t { pass, fail, not_offered, not_testable };

[[nodiscard]] constexpr std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass:
      return "pass";
    case Verdict::fail:
      return "fail";
    case Verdict::not_offered:
      return "not offered";
    case Verdict::not_testable:
      return "not testable here";
  }
  return "";
}

struct Finding {
  Verdict verdict = Verdict::pass;
  std::string detail;         // a sentence; the values that show it, if it is a failure
  bool before_check = false;  // it ended on the way to what it is about
};

// A check passes with a remark, which may be empty, or ends with a finding.
using Outcome = std::expected<std::string, Finding>;
template <class T = void>
using Or = std::expected<T, Finding>;

[[nodiscard]] inline std::unexpected<Finding> fail(std::string detail) {
  return std::unexpected(Finding{Verdict::fail, std::move(detail)});
}
[[nodiscard]] inline std::unexpected<Finding> not_offered(std::string what) {
  return std::unexpected(Finding{Verdict::not_offered, std::move(what)});
}
[[nodiscard]] inline std::unexpected<Finding> not_testable(std::string why) {
  return std::unexpected(Finding{Verdict::not_testable, std::move(why)});
}

// What must work for the check to begin, and is the matter of another one.
template <class T>
Or<T> reach(Result<T> result, const char* what) {
  if (result) {
    if constexpr (std::is_void_v<T>) {
      return {};
    } else {
      return std::move(*result);
    }
  }
  return std::unexpected(
      Finding{Verdict::not_testable,
              std::string("did not get that far: ") + what + ": " + result.error().to_string(), true});
}

// What the check is about.
template <class T>
Or<T> expect(Result<T> result, const char* otherwise) {
  if (result) {
    if constexpr (std::is_void_v<T>) {
      return {};
    } else {
      return std::move(*result);
    }
  }
  return fail(std::string(otherwise) + ": " + result.error().to_string());
}

}  // namespace ringway::check
