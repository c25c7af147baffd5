#include "ringway/base/log.h"

#include <poll.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <climits>
#include <memory>
#include <mutex>
#include <span>

#include "ringway/base/quiet_write.h"

namespace ringway::log {
namespace {

class StderrSink final : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    // More than this a writable pipe need not take at once.
    if (line.size() > PIPE_BUF) {
      line.resize(PIPE_BUF);
      line[PIPE_BUF - 1] = '\n';
    }
    pollfd writable{.fd = STDERR_FILENO, .events = POLLOUT};
    if (::poll(&writable, 1, 0) != 1 || (writable.revents & POLLOUT) == 0) return;
    quiet_write(STDERR_FILENO, std::as_bytes(std::span(line.data(), line.size())));
  }
  void flush_() override {}
};

spdlog::logger& logger() {
  static spdlog::logger* const instance = [] {
    auto* created = new spdlog::logger("ringway", std::make_shared<StderrSink>());
    created->set_pattern("%H:%M:%S.%e %^%l%$ %v");
    return created;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warning:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

void set_level(Level level) { logger().set_level(to_spdlog(level)); }
bool enabled(Level level) { return logger().should_log(to_spdlog(level)); }
void write(Level level, std::string_view line) { logger().log(to_spdlog(level), line); }

bool Limited::admit() {
  const int64_t now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count();
  int64_t last = second_.load(std::memory_order_relaxed);
  if (last != now && second_.compare_exchange_strong(last, now)) {
    used_ = 0;
    if (const unsigned held = held_back_.exchange(0); held > 0) {
      log::write(Level::warning, fmt::format("{} similar lines were held back", held));
    }
  }
  if (used_.fetch_add(1) < burst_) return true;
  held_back_.fetch_add(1);
  return false;
}

}  // namespace ringway::log
