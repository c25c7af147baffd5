#include "ringway/preload/settings.h"

#include <array>
#include <charconv>
#include <utility>

#include "ringway/preload/devices.h"

namespace ringway::preload {
namespace {

template <class T, size_t N>
using Names = std::array<std::pair<std::string_view, T>, N>;

constexpr Names<loop::Polling, 3> pollings{{{"adaptive", loop::Polling::adaptive},
                                            {"always", loop::Polling::always},
                                            {"never", loop::Polling::never}}};
constexpr Names<log::Level, 4> levels{{{"debug", log::Level::debug},
                                       {"info", log::Level::info},
                                       {"warning", log::Level::warning},
                                       {"error", log::Level::error}}};

template <class T, size_t N>
Result<T> named(const Names<T, N>& names, std::string_view name, const char* otherwise) {
  for (const auto& [known, value] : names) {
    if (known == name) return value;
  }
  return refused(otherwise);
}

Result<> set(Settings& settings, std::string_view name, std::string_view value) {
  if (name == "net") {
    if (value != "none" && !is_device_name(value)) return refused("net is neither a device nor none");
    settings.net = value;
  } else if (name == "workers") {
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), settings.workers);
    const bool whole = error == std::errc() && end == value.data() + value.size();
    if (!whole || settings.workers == 0 || settings.workers > 64) return refused("workers is not 1 to 64");
  } else if (name == "poll") {
    settings.polling = TRY(named(pollings, value, "poll is none of adaptive, always, never"));
  } else if (name == "log") {
    settings.level = TRY(named(levels, value, "log is none of debug, info, warning, error"));
  } else {
    return refused("there are only net, workers, poll, log");
  }
  return {};
}

}  // namespace

Result<Settings> Settings::parse(std::string_view text) {
  Settings settings;
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    const size_t equals = one.find('=');
    if (equals == std::string_view::npos) return refused("a setting is name=value");
    TRY(set(settings, one.substr(0, equals), one.substr(equals + 1)));
  }
  return settings;
}

}  // namespace ringway::preload
