// ringway bridge: a vhost-user back-end that is served by the kernel's vhost.
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <memory>
#include <optional>
#include <string>

#include "ringway/base/log.h"
#include "ringway/kernel/kernel_device.h"
#include "ringway/tools/command.h"
#include "ringway/tools/parse.h"
#include "ringway/tools/termination.h"
#include "ringway/user/listener.h"
#include "ringway/vhost/contract.h"

namespace ringway::tools {
namespace {

struct Arguments {
  std::string file;
  std::string socket_path;
  int fd = -1;
  std::string tap;
  int tap_fd = -1;
  std::string wwpn;
  uint32_t queues = 1;
  uint64_t guest_cid = 0;
  bool verbose = false;
};

// The family of a file is in its name: what the kernel's drivers give it is how it begins.
std::optional<kernel::Family> family_of(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  if (name.starts_with("vhost-net")) return kernel::Family::net;
  if (name.starts_with("vhost-scsi")) return kernel::Family::scsi;
  if (name.starts_with("vhost-vsock")) return kernel::Family::vsock;
  if (name.starts_with("vhost-vdpa")) return kernel::Family::vdpa;
  return std::nullopt;
}

// A file of the kernel's vhost, opened anew for every front-end: what one leaves behind ends with its file.
class Bridge final : public user::SessionOwner {
 public:
  Bridge(const Arguments& arguments, kernel::Family family, UniqueFd tap)
      : arguments_(arguments), family_(family), tap_(std::move(tap)) {}

  Result<vhost::Device*> connected() override {
    device_ = TRY(open());
    const kernel::Shape& shape = device_->shape();
    contract_.emplace(*device_, vhost::Contract::Limits{.queues = shape.rings, .ring_size = shape.ring_size});
    return &*contract_;
  }
  void disconnected() override {
    contract_.reset();
    device_.reset();
  }

  Result<std::unique_ptr<kernel::KernelDevice>> open() {
    auto file = TRY(kernel::VhostFile::open(arguments_.file));
    return kernel::KernelDevice::open(std::move(file), TRY(endpoint()));
  }

 private:
  Result<std::unique_ptr<kernel::Endpoint>> endpoint() const {
    switch (family_) {
      case kernel::Family::scsi:
        return kernel::scsi_endpoint(arguments_.wwpn, arguments_.queues);
      case kernel::Family::vsock:
        return kernel::vsock_endpoint(arguments_.guest_cid);
      case kernel::Family::vdpa:
        return kernel::vdpa_endpoint();
      default:
        return kernel::net_endpoint(TRY(tap_.duplicate()));
    }
  }

  const Arguments arguments_;
  const kernel::Family family_;
  const UniqueFd tap_;
  std::unique_ptr<kernel::KernelDevice> device_;
  std::optional<vhost::Contract> contract_;  // of the present session
};

int fail(std::string_view sentence) {
  fmt::print(stderr, "ringway bridge: {}\n", sentence);
  return 1;
}

std::string module_of(kernel::Family family) {
  switch (family) {
    case kernel::Family::scsi:
      return "vhost_scsi";
    case kernel::Family::vsock:
      return "vhost_vsock";
    case kernel::Family::vdpa:
      return "vhost_vdpa";
    default:
      return "vhost_net";
  }
}

// Of a file that cannot be opened or does not answer as vhost does.
std::string why_not(const Arguments& arguments, kernel::Family family, const Error& error) {
  const std::string& path = arguments.file;
  switch (error.fault == Fault::os ? error.os_error : 0) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
      return fmt::format("there is no {}: is the module {} loaded?", path, module_of(family));
    case EACCES:
    case EPERM:
      return fmt::format("you may not use {}: {}", path, error.to_string());
    case EBUSY:
      return fmt::format("{} is in use by another: {}", path, error.to_string());
    case EADDRINUSE:
      return fmt::format("the guest CID {} is in use", arguments.guest_cid);
    case ENOTTY:
      return fmt::format("{} is not a file of the kernel's vhost, or of an older kernel: {}", path,
                         error.to_string());
    default:
      return fmt::format("{}: {}", path, error.to_string());
  }
}

Parsed<kernel::Family> checked(const Arguments& arguments) {
  const auto family = family_of(arguments.file);
  if (!family) {
    return std::unexpected(fmt::format(
        "{}: known are files whose names begin with vhost-net, vhost-scsi, vhost-vsock or vhost-vdpa",
        arguments.file));
  }
  if (arguments.socket_path.empty() == (arguments.fd < 0))
    return std::unexpected("exactly one of --socket-path and --fd is needed");
  const bool is_net = *family == kernel::Family::net;
  if (is_net && arguments.tap.empty() == (arguments.tap_fd < 0))
    return std::unexpected("vhost-net needs exactly one of --tap and --tap-fd");
  if (!is_net && (!arguments.tap.empty() || arguments.tap_fd >= 0))
    return std::unexpected("--tap and --tap-fd are for vhost-net");
  if ((*family == kernel::Family::scsi) != !arguments.wwpn.empty())
    return std::unexpected("--wwpn is for vhost-scsi, which needs it");
  if ((*family == kernel::Family::vsock) != (arguments.guest_cid != 0))
    return std::unexpected("--guest-cid is for vhost-vsock, which needs it");
  return *family;
}

Result<UniqueFd> tap_of(const Arguments& arguments) {
  if (!arguments.tap.empty()) return kernel::open_tap(arguments.tap);
  return UniqueFd(arguments.tap_fd);
}

int bridge(const Arguments& arguments) {
  const auto family = checked(arguments);
  if (!family) return fail(family.error());
  if (arguments.verbose) log::set_level(log::Level::debug);
  const auto termination = Termination::make();
  if (!termination) return fail(termination.error().to_string());
  if (auto file = kernel::VhostFile::open(arguments.file); !file)
    return fail(why_not(arguments, *family, file.error()));
  auto tap = tap_of(arguments);
  if (!tap) return fail(fmt::format("tap {}: {}", arguments.tap, tap.error().to_string()));
  Bridge owner(arguments, *family, *std::move(tap));
  // What is wrong is said now, not when the first front-end comes.
  if (auto tried = owner.open(); !tried) return fail(why_not(arguments, *family, tried.error()));
  auto listener = user::Listener::start({.finished = [] { ::kill(::getpid(), SIGTERM); }});
  if (!listener) return fail(listener.error().to_string());
  auto reachable = arguments.socket_path.empty() ? (*listener)->adopt(UniqueFd(arguments.fd), owner)
                                                 : (*listener)->listen(arguments.socket_path, owner);
  if (!reachable) {
    const std::string place = arguments.socket_path.empty() ? "--fd" : arguments.socket_path;
    return fail(fmt::format("{}: {}", place, reachable.error().to_string()));
  }
  log::info("{} is served", arguments.file);
  termination->wait();
  (*listener)->stop();
  return 0;
}

}  // namespace

void add_bridge(CLI::App& app, Run& run) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* bridge_app =
      app.add_subcommand("bridge", "serve a device of the kernel's vhost to front-ends over vhost-user");
  bridge_app->add_option("file", arguments->file, "/dev/vhost-net, -scsi, -vsock or /dev/vhost-vdpa-N")
      ->required();
  bridge_app->add_option("--socket-path", arguments->socket_path, "listen on the unix socket PATH");
  bridge_app->add_option("--fd", arguments->fd, "use the inherited socket FD, listening or connected");
  bridge_app->add_option("--tap", arguments->tap, "net: the tap NAME, which is made if there is none");
  bridge_app->add_option("--tap-fd", arguments->tap_fd,
                         "net: the inherited FD of a tap, a macvtap or a packet socket");
  bridge_app->add_option("--wwpn", arguments->wwpn, "scsi: the name of the target, as naa.5001405...");
  bridge_app->add_option("--queues", arguments->queues, "scsi: N request queues, 1 to 254");
  bridge_app->add_option("--guest-cid", arguments->guest_cid, "vsock: the guest's address, 3 or more");
  bridge_app->add_flag("--verbose", arguments->verbose, "log what front-ends do");
  bridge_app->final_callback([arguments, &run] { run = [arguments] { return bridge(*arguments); }; });
}

}  // namespace ringway::tools
