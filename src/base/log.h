// Log: one line per event on standard error, through spdlog. Any thread. Never blocks: a line that standard
// error cannot take at once is dropped. Lines that a peer can cause go through Limited.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <string_view>
#include <utility>

namespace ringway::log {

enum class Level { debug, info, warning, error };

void set_level(Level level);
[[nodiscard]] bool enabled(Level level);
void write(Level level, std::string_view line);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::debug)) write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::info)) write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::warning)) write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::error)) write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

// Lets at most `burst` lines through in each second and says how many it held back. One per place and peer.
class Limited {
 public:
  explicit Limited(unsigned burst = 5) : burst_(burst) {}
  template <class... Args>
  void warning(fmt::format_string<Args...> format, Args&&... args) {
    if (admit()) write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  bool admit();
  const unsigned burst_;
  std::atomic<int64_t> second_ = 0;
  std::atomic<unsigned> used_ = 0;
  std::atomic<unsigned> held_back_ = 0;
};

}  // namespace ringway::log
