#include "ringway/tools/cuse_device.h"

#define FUSE_USE_VERSION 312
#include <cuse_lowlevel.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/kernel/ioctl_table.h"
#include "ringway/kernel/other_process.h"
#include "ringway/loop/signals.h"

namespace ringway::tools {
namespace {

using kernel::IoctlInfo;
using kernel::IoctlServer;
using kernel::IotlbMessages;
using kernel::OtherProcess;

// What an ioctl's argument is, as far as we have seen of it.
struct Need {
  size_t in = 0;   // bytes
  size_t out = 0;  // bytes
};

// The elements behind the fixed part, once that has been fetched. More than the kernel takes are not fetched.
size_t tail_size(const IoctlInfo& info, std::span<const std::byte> in) {
  constexpr uint64_t most_bytes = 4096;
  const kernel::Tail tail = kernel::tail_of(info.argument);
  if (tail.element == 0 || in.size() < tail.count_offset + tail.count_size) return 0;
  uint64_t count = 0;
  std::memcpy(&count, in.data() + tail.count_offset, tail.count_size);
  return count <= most_bytes / tail.element ? count * tail.element : 0;
}

// Ioctls that are not served are taken for those of a ring, whose index comes first.
Need need_of(const IoctlServer& server, unsigned long request, std::span<const std::byte> in) {
  const IoctlInfo* info = kernel::find_ioctl(request);
  if (info == nullptr || !server.takes(request)) return {.in = sizeof(uint32_t)};
  const size_t fixed = kernel::size_of(info->argument);
  const bool gives =
      info->direction == kernel::Direction::from_kernel || info->direction == kernel::Direction::both;
  const bool takes =
      info->direction == kernel::Direction::to_kernel || info->direction == kernel::Direction::both;
  const size_t tail = takes ? tail_size(*info, in) : 0;
  return {.in = takes ? fixed + (gives ? 0 : tail) : 0, .out = gives ? fixed + tail : 0};
}

// One open of the device.
class OpenFile {
 public:
  static Result<std::unique_ptr<OpenFile>> open(const kernel::IoctlServer::Options& options,
                                                const kernel::IoctlServer::MakeDevice& make_device,
                                                fuse_session* session) {
    auto file = std::make_unique<OpenFile>(session);
    file->server_ = TRY(kernel::IoctlServer::open(options, make_device));
    file->server_->on_readable([raw = file.get()](bool waiting) { raw->tell(waiting); });
    return file;
  }
  explicit OpenFile(fuse_session* session) : session_(session) {}
  ~OpenFile() {
    server_.reset();
    watch(nullptr);
  }

  void ioctl(fuse_req_t request, unsigned long command, uint64_t argument, std::span<const std::byte> in,
             size_t out_size);
  void read(fuse_req_t request, size_t size, bool blocking);
  void write(fuse_req_t request, std::span<const std::byte> from);
  void poll(fuse_req_t request, fuse_pollhandle* handle) {
    if (handle != nullptr) watch(handle);
    fuse_reply_poll(request, server_->readable() ? POLLIN | POLLRDNORM : 0);
  }

 private:
  void tell(bool waiting) {
    if (!waiting) return;
    const std::scoped_lock lock(mutex_);
    if (handle_ != nullptr) fuse_lowlevel_notify_poll(handle_);
    changed_.notify_all();
  }
  // Whom to tell next time.
  void watch(fuse_pollhandle* handle) {
    const std::scoped_lock lock(mutex_);
    if (handle_ != nullptr) fuse_pollhandle_destroy(handle_);
    handle_ = handle;
  }

  fuse_session* const session_;
  std::unique_ptr<kernel::IoctlServer> server_;
  std::mutex mutex_;
  std::condition_variable changed_;
  fuse_pollhandle* handle_ = nullptr;
};

int errno_of(const Error& error, int otherwise) { return error.os_error != 0 ? error.os_error : otherwise; }

void OpenFile::ioctl(fuse_req_t request, unsigned long command, uint64_t argument,
                     std::span<const std::byte> in, size_t out_size) {
  const Need need = need_of(*server_, command, in);
  if (in.size() < need.in || out_size < need.out) {
    void* at =
        reinterpret_cast<void*>(static_cast<uintptr_t>(argument));  // NOLINT(performance-no-int-to-ptr)
    const iovec wanted_in{.iov_base = at, .iov_len = need.in};
    const iovec wanted_out{.iov_base = at, .iov_len = need.out};
    fuse_reply_ioctl_retry(request, &wanted_in, need.in > 0 ? 1 : 0, &wanted_out, need.out > 0 ? 1 : 0);
    return;
  }
  // All of it goes back: what is not answered stays as it is.
  std::vector<std::byte> out(need.out);
  std::ranges::copy(in.first(std::min(in.size(), out.size())), out.begin());
  auto caller =
      OtherProcess::of_thread(fuse_req_ctx(request)->pid, {.address = argument, .in = in, .out = out});
  if (!caller) {
    fuse_reply_err(request, errno_of(caller.error(), ESRCH));
    return;
  }
  const long result = server_->ioctl(*caller, command, argument);
  if (result < 0)
    fuse_reply_err(request, static_cast<int>(-result));
  else
    fuse_reply_ioctl(request, static_cast<int>(result), out.data(), out.size());
}

void OpenFile::read(fuse_req_t request, size_t size, bool blocking) {
  constexpr auto look_again = std::chrono::milliseconds(100);  // whether the reader, or all, shall end
  std::array<std::byte, IotlbMessages::size> message{};
  while (true) {
    const auto reader = blocking ? IoctlServer::Reader::waits : IoctlServer::Reader::at_once;
    const auto got = server_->read(std::span(message).first(std::min(size, message.size())), reader);
    if (got) {
      fuse_reply_buf(request, reinterpret_cast<const char*>(message.data()), *got);
      return;
    }
    const int error = errno_of(got.error(), EIO);
    if (error != EAGAIN || !blocking) {
      fuse_reply_err(request, error);
      return;
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, look_again);
    if (fuse_req_interrupted(request) != 0 || fuse_session_exited(session_) != 0) {
      fuse_reply_err(request, EINTR);
      return;
    }
  }
}

void OpenFile::write(fuse_req_t request, std::span<const std::byte> from) {
  auto caller = OtherProcess::of_thread(fuse_req_ctx(request)->pid, {});
  if (!caller) {
    fuse_reply_err(request, errno_of(caller.error(), ESRCH));
    return;
  }
  const auto written = server_->write(*caller, from);
  if (written)
    fuse_reply_write(request, std::min(*written, from.size()));
  else
    fuse_reply_err(request, errno_of(written.error(), EINVAL));
}

// All open files: those that nobody has closed when the service ends must end before the workers do.
class OpenFiles {
 public:
  OpenFiles(const kernel::IoctlServer::Options& options, kernel::IoctlServer::MakeDevice make_device)
      : options_(options), make_device_(std::move(make_device)) {}
  void set_session(fuse_session* session) { session_ = session; }  // before the first open()

  Result<OpenFile*> open() {
    auto file = TRY(OpenFile::open(options_, make_device_, session_));
    const std::scoped_lock lock(mutex_);
    return files_.emplace_back(std::move(file)).get();
  }
  void close(const OpenFile* file) {
    std::unique_ptr<OpenFile> closed;  // ends without the lock
    const std::scoped_lock lock(mutex_);
    const auto found = std::ranges::find(files_, file, &std::unique_ptr<OpenFile>::get);
    if (found == files_.end()) return;
    closed = std::move(*found);
    files_.erase(found);
  }

 private:
  const kernel::IoctlServer::Options options_;
  const kernel::IoctlServer::MakeDevice make_device_;
  fuse_session* session_ = nullptr;
  std::mutex mutex_;
  std::vector<std::unique_ptr<OpenFile>> files_;
};

// ---- what libfuse calls

OpenFiles& files_of(fuse_req_t request) { return *static_cast<OpenFiles*>(fuse_req_userdata(request)); }

OpenFile& file_of(const fuse_file_info* info) {
  return *reinterpret_cast<OpenFile*>(static_cast<uintptr_t>(info->fh));  // NOLINT(performance-no-int-to-ptr)
}

std::span<const std::byte> bytes_of(const void* from, size_t size) {
  return {static_cast<const std::byte*>(from), size};
}

void on_open(fuse_req_t request, fuse_file_info* info) {
  const loop::SignalsBlocked blocked;  // the threads of a device take none
  auto& files = files_of(request);     // a reply ends the request
  auto file = files.open();
  if (!file) {
    log::error("cannot make a device: {}", file.error().to_string());
    fuse_reply_err(request, errno_of(file.error(), ENOMEM));
    return;
  }
  info->fh = reinterpret_cast<uintptr_t>(*file);
  if (fuse_reply_open(request, info) != 0) files.close(*file);
}

void on_release(fuse_req_t request, fuse_file_info* info) {
  files_of(request).close(&file_of(info));
  fuse_reply_err(request, 0);
}

void on_read(fuse_req_t request, size_t size, off_t, fuse_file_info* info) {
  file_of(info).read(request, size, (info->flags & O_NONBLOCK) == 0);
}

void on_write(fuse_req_t request, const char* from, size_t size, off_t, fuse_file_info* info) {
  file_of(info).write(request, bytes_of(from, size));
}

void on_ioctl(fuse_req_t request, int command, void* argument, fuse_file_info* info, unsigned, const void* in,
              size_t in_size, size_t out_size) {
  const loop::SignalsBlocked blocked;
  file_of(info).ioctl(request, static_cast<unsigned>(command), reinterpret_cast<uintptr_t>(argument),
                      bytes_of(in, in_size), out_size);
}

void on_poll(fuse_req_t request, fuse_file_info* info, fuse_pollhandle* handle) {
  file_of(info).poll(request, handle);
}

constexpr cuse_lowlevel_ops operations{.init = nullptr,
                                       .init_done = nullptr,
                                       .destroy = nullptr,
                                       .open = on_open,
                                       .read = on_read,
                                       .write = on_write,
                                       .flush = nullptr,
                                       .release = on_release,
                                       .fsync = nullptr,
                                       .ioctl = on_ioctl,
                                       .poll = on_poll};

}  // namespace

int serve_by_cuse(const std::string& name, const kernel::IoctlServer::Options& options,
                  kernel::IoctlServer::MakeDevice make_device) {
  const std::string device_name = fmt::format("DEVNAME={}", name);
  std::array<const char*, 1> device_info{device_name.c_str()};
  const cuse_info info{.dev_major = 0,
                       .dev_minor = 0,
                       .dev_info_argc = device_info.size(),
                       .dev_info_argv = device_info.data(),
                       .flags = CUSE_UNRESTRICTED_IOCTL};
  std::string program = "ringway";
  std::string foreground = "-f";
  std::array<char*, 2> arguments{program.data(), foreground.data()};
  int threads = 0;
  auto files = std::make_unique<OpenFiles>(options, std::move(make_device));
  fuse_session* session =
      cuse_lowlevel_setup(arguments.size(), arguments.data(), &info, &operations, &threads, files.get());
  if (session == nullptr) {
    fmt::print(stderr, "ringway cuse: cannot make /dev/{} (is the module cuse loaded, and are you root?)\n",
               name);
    return 1;
  }
  files->set_session(session);
  log::info("serving /dev/{}", name);
  fuse_loop_config* config = fuse_loop_cfg_create();
  const int result = fuse_session_loop_mt(session, config);
  fuse_loop_cfg_destroy(config);
  files.reset();  // they wake pollers by the session
  cuse_lowlevel_teardown(session);
  return result < 0 ? 1 : 0;
}

}  // namespace ringway::tools
