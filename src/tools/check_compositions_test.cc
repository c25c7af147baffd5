// Our own devices, put to the whole suite in every composition: the same suite, unchanged.
#include <fcntl.h>
#include <sys/socket.h>

#include "ringway/device/net/net.h"
#include "ringway/device/port/null.h"
#include "ringway/kernel/kernel_device.h"
#include "ringway/preload/devices.h"
#include "ringway/preload/served_file_test.h"
#include "ringway/tools/check_rig_test.h"
#include "ringway/tools/vdpa_device.h"
#include "ringway/vhost/fault.h"
#include "ringway/vhost/mask.h"
#include "ringway/vhost/trace.h"

namespace ringway::tools {
namespace {

using check::Row;
using check::Verdict;

// All decorators, with nothing to do: they pass everything on.
class Decorated final : public vhost::Device {
 public:
  explicit Decorated(vhost::Device& next) : faulty_(next, {}), mask_(faulty_, {}), trace_(mask_, {}) {}
  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override {
    return trace_.handle(std::move(request));
  }

 private:
  vhost::Faulty<vhost::DeviceRequest> faulty_;
  vhost::Mask mask_;
  vhost::Trace<vhost::DeviceRequest> trace_;
};

// Both ends of the kernel's interface: a network device behind ioctls, and the kernel's client in front.
class BehindIoctls final : public user::SessionOwner {
 public:
  Result<vhost::Device*> connected() override {
    UniqueFd backend(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    device_ = TRY(kernel::KernelDevice::open(std::make_unique<preload::ServedFile>(*workers_),
                                             TRY(kernel::net_endpoint(std::move(backend)))));
    const kernel::Shape& shape = device_->shape();
    contract_.emplace(*device_, vhost::Contract::Limits{.queues = shape.rings, .ring_size = shape.ring_size});
    return &*contract_;
  }
  void disconnected() override {
    contract_.reset();
    device_.reset();
  }

 private:
  std::unique_ptr<engine::Workers> workers_ =
      engine::Workers::start({.count = 2, .use_io_uring = false}).value();
  std::unique_ptr<kernel::KernelDevice> device_;
  std::optional<vhost::Contract> contract_;
};

// Both ends of the kernel's other interface: a disk or a network device behind vhost-vdpa.
class BehindVdpa final : public user::SessionOwner {
 public:
  explicit BehindVdpa(std::unique_ptr<engine::Model> model) : device_(std::move(model), *workers_) {}

  Result<vhost::Device*> connected() override {
    auto file = std::make_unique<preload::ServedFile>(
        [this] { return device_.open(); }, kernel::IoctlServer::Options{.family = kernel::Family::vdpa});
    kernel_ = TRY(kernel::KernelDevice::open(std::move(file), kernel::vdpa_endpoint()));
    const kernel::Shape& shape = kernel_->shape();
    contract_.emplace(*kernel_, vhost::Contract::Limits{.queues = shape.rings, .ring_size = shape.ring_size});
    return &*contract_;
  }
  void disconnected() override {
    contract_.reset();
    kernel_.reset();
  }

 private:
  std::unique_ptr<engine::Workers> workers_ =
      engine::Workers::start({.count = 2, .use_io_uring = false}).value();
  VdpaDevice device_;
  std::unique_ptr<kernel::KernelDevice> kernel_;
  std::optional<vhost::Contract> contract_;
};

std::unique_ptr<user::SessionOwner> vdpa_disk() {
  return std::make_unique<BehindVdpa>(std::make_unique<blk::Blk>(
      backing::open_memory(1 << 20).value(), blk::Blk::Options{.queues = 2, .serial = "check"}));
}

std::unique_ptr<user::SessionOwner> vdpa_network() {
  return std::make_unique<BehindVdpa>(
      std::make_unique<net::Net>(port::open_null({}), net::Net::Options{.pairs = 1}));
}

struct Composition {
  const char* name;
  std::unique_ptr<check::Target> (*make)();
  size_t passes;  // at least
  std::string_view kind = "blk";
  unsigned cannot = 0;  // the one requirement that it cannot meet
};

const Composition compositions[] = {
    {"in_this_process", [] { return std::unique_ptr<check::Target>(std::make_unique<LocalTarget>()); }, 40},
    {"over_a_socket", [] { return std::unique_ptr<check::Target>(std::make_unique<ListeningTarget>()); }, 55},
    {"behind_trace_mask_and_fault",
     [] {
       return std::unique_ptr<check::Target>(std::make_unique<ListeningTarget>(
           [](vhost::Device& next) { return std::make_unique<Decorated>(next); }));
     },
     55},
    {"behind_trace_mask_and_fault_in_this_process",
     [] {
       return std::unique_ptr<check::Target>(std::make_unique<LocalTarget>(
           [](vhost::Device& next) { return std::make_unique<Decorated>(next); }));
     },
     40},
    {"behind_a_contract_of_its_own",
     [] {
       return std::unique_ptr<check::Target>(std::make_unique<ListeningTarget>([](vhost::Device& next) {
         return std::make_unique<vhost::Contract>(next,
                                                  vhost::Contract::Limits{.queues = 2, .ring_size = 1024});
       }));
     },
     55},
    {"behind_a_proxy", [] { return std::unique_ptr<check::Target>(std::make_unique<ProxiedTarget>(1)); }, 55},
    {"without_acknowledgements",
     [] {
       return std::unique_ptr<check::Target>(std::make_unique<ProxiedTarget>(
           1, vhost::Mask::Taken{.capabilities = vhost::bit(vhost::VHOST_USER_PROTOCOL_F_REPLY_ACK)}));
     },
     45},
    {"behind_two_proxies", [] { return std::unique_ptr<check::Target>(std::make_unique<ProxiedTarget>(2)); },
     55},
    {"frames_passed_on",
     [] {
       return std::unique_ptr<check::Target>(std::make_unique<MeddledTarget>(
           [](user::Direction, user::Frame frame) { return check::just(std::move(frame)); }));
     },
     55},
    {"behind_ioctls_in_this_process",
     [] {
       return std::unique_ptr<check::Target>(std::make_unique<LocalTarget>(std::make_unique<BehindIoctls>()));
     },
     30, "net"},
    {"behind_ioctls_and_a_bridge",
     [] {
       return std::unique_ptr<check::Target>(
           std::make_unique<ListeningTarget>(std::make_unique<BehindIoctls>()));
     },
     45, "net"},
    {"a_disk_behind_vdpa_in_this_process",
     [] { return std::unique_ptr<check::Target>(std::make_unique<LocalTarget>(vdpa_disk())); }, 30},
    {"a_disk_behind_vdpa_and_a_bridge",
     [] { return std::unique_ptr<check::Target>(std::make_unique<ListeningTarget>(vdpa_disk())); }, 45},
    // Nothing of vhost-vdpa makes a ring run without effects: one that is disabled rests.
    {"a_network_behind_vdpa_and_a_bridge",
     [] { return std::unique_ptr<check::Target>(std::make_unique<ListeningTarget>(vdpa_network())); }, 45,
     "net", 31},
};

class CheckOfOurOwn : public testing::TestWithParam<Composition> {};

TEST_P(CheckOfOurOwn, meets_every_requirement_that_can_be_seen) {
  const std::unique_ptr<check::Target> target = GetParam().make();
  const auto rows = check::check_back_end(*target, options_for({}, GetParam().kind));
  ASSERT_TRUE(rows) << rows.error().to_string();
  EXPECT_EQ(rows->size(), check::requirement_count);
  size_t passes = 0;
  for (const Row& row : *rows) {
    EXPECT_EQ(row.finding.verdict == Verdict::fail, row.requirement->number == GetParam().cannot)
        << "N" << row.requirement->number << " " << row.requirement->sentence << ": " << row.finding.detail;
    EXPECT_FALSE(row.finding.before_check) << "N" << row.requirement->number << ": " << row.finding.detail;
    passes += row.finding.verdict == Verdict::pass ? 1 : 0;
  }
  EXPECT_GE(passes, GetParam().passes);
}

INSTANTIATE_TEST_SUITE_P(compositions, CheckOfOurOwn, testing::ValuesIn(compositions),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace ringway::tools
