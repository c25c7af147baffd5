#include "ringway/engine/workers.h"

#include <fmt/format.h>

namespace ringway::engine {

Result<std::unique_ptr<Workers>> Workers::start(const Options& options) {
  if (options.count == 0) return refused("at least one worker is needed");
  auto workers = std::make_unique<Workers>();
  for (unsigned i = 0; i < options.count; ++i) {
    loop::Options one{
        .polling = options.polling, .use_io_uring = options.use_io_uring, .name = fmt::format("worker{}", i)};
    if (!options.cpus.empty()) one.cpu = options.cpus[i % options.cpus.size()];
    workers->loops_.push_back(TRY(loop::Loop::start(std::move(one))));
  }
  // It never carries file I/O; epoll is the cheaper way to wait.
  loop::Options control{
      .polling = loop::Polling::never, .use_io_uring = false, .cpu = std::nullopt, .name = "control"};
  workers->control_ = TRY(loop::Loop::start(std::move(control)));
  return workers;
}

}  // namespace ringway::engine
