// IoctlServer: the kernel's vhost interface served: one open file of a vhost-net or vhost-vdpa device.
// Decodes ioctls, read and write, holds the kernel's rules and errnos, and asks a vhost::Device to do the
// rest. linux/vhost.h; the rules are those of Linux 6.1. Thread rule: any thread; one call at a time does
// something, the others wait.
//
// Where the two conversations differ:
//   - a ring starts when a backend is bound to it and stops when that is unbound; the device is told all
//   about
//     a ring when it starts, and SET_VRING_KICK and GET_VRING_BASE make it run and stop;
//   - GET_VRING_BASE only reads: a running ring is stopped and started for it;
//   - features, addresses and memory may change under running rings: those are stopped and started;
//   - kernel rings may lie outside the memory table. Here they may not: EFAULT when they start;
//   - a log has no size in an ioctl: here it ends with the memory table and the used rings, and all of that
//     must be there and writable, EFAULT or EINVAL otherwise, when a ring starts with LOG_ALL;
//   - LOG_ALL is offered to callers only who lend their log (Caller::lends_log), by vhost-net;
//   - packed rings are offered by vhost-vdpa only;
//   - whose threads the workers are is what Options says: the other cannot be set.
// Worker ioctls are vhost-scsi's, as in Linux.
// Of vhost-vdpa (ioctl_server_vdpa.cc): rings run while they are enabled, DRIVER_OK is set and the device is
// not suspended; memory and addresses of rings are I/O virtual ones, which the caller maps by write().
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/kernel/caller.h"
#include "ringway/kernel/config_call.h"
#include "ringway/kernel/ioctl_table.h"
#include "ringway/kernel/iotlb_messages.h"
#include "ringway/kernel/iova_map.h"
#include "ringway/vhost/handler.h"

namespace ringway::kernel {

// The fixed part of vhost_memory, whose flexible array keeps it from being a part of anything.
struct MemoryTableHead {
  uint32_t nregions = 0;
  uint32_t padding = 0;
};
static_assert(sizeof(MemoryTableHead) == sizeof(vhost_memory));

class IoctlServer {
 public:
  // What a file of vhost-vdpa tells of its device, and no request does.
  struct Identity {
    uint32_t device_id = 0;  // VIRTIO "Device Types"
    uint16_t ring_size = 0;  // entries, at most
    uint32_t config_bytes = 0;
  };
  // What is behind the file. The device must hold the protocol's contract itself (vhost::Contract). Of
  // vhost-vdpa it must take memory by slots, and be able to be reset.
  struct Served {
    std::unique_ptr<vhost::Device> device;
    Identity identity = {};
    // Told which backend NET_SET_BACKEND has given to a ring, before that starts, and none after it has
    // stopped. Empty: the device does not use any.
    std::function<Result<>(uint32_t ring, UniqueFd backend)> set_backend;
  };
  // Makes it afresh: at open, and again at RESET_OWNER, after the one before it has ended.
  using MakeDevice = std::function<Result<Served>()>;
  struct Options {
    Family family = Family::net;  // or vdpa
    uint32_t rings = 2;           // what a file of vhost-net has; vhost-vdpa: as many as the device
    uint32_t max_regions = 64;    // of a memory table
    uint32_t max_size = 0x8000;   // of a ring, entries
    uint8_t fork_owner = VHOST_FORK_OWNER_TASK;  // KTHREAD: the workers are no threads of the caller's
  };

  static Result<std::unique_ptr<IoctlServer>> open(const Options& options, MakeDevice make_device);
  ~IoctlServer();

  // What ioctl() returns, or minus an errno.
  long ioctl(Caller& caller, unsigned long request, uint64_t argument);
  // Any thread. Others are refused, with an errno that depends on the number that the argument points at.
  [[nodiscard]] bool takes(unsigned long request) const { return find(request) != nullptr; }
  // The same of vhost-net for a child after fork(), which has none of the device's threads: what never
  // changes is told. EBUSY: what anybody may ask for, and nobody can do there. EPERM: what the owner may.
  long ioctl_after_fork(Caller& caller, unsigned long request, uint64_t argument);
  enum class Reader : uint8_t { at_once, waits };
  // IOTLB messages to the caller. EAGAIN: none is there now, and a reader that waits tries again later; it
  // is told EBADFD where none will come.
  Result<size_t> read(std::span<std::byte> to, Reader reader = Reader::at_once);
  // And from it. Takes one message, whatever follows it.
  Result<size_t> write(Caller& caller, std::span<const std::byte> from);
  // Whether read() would give something; and `told` for whenever that changes (it must not call back).
  [[nodiscard]] bool readable() const { return messages_->waiting(); }
  void on_readable(std::function<void(bool)> told) { messages_->on_change(std::move(told)); }

 private:
  // One ring as the caller has described it.
  struct Ring {
    uint32_t size = 0;  // 0: not told
    std::optional<vhost::SetVringAddr> addresses;
    uint32_t base = 0;
    UniqueFd kick;
    UniqueFd backend;
    bool enabled = false;  // vhost-vdpa
    bool active = false;
    uint32_t busyloop_timeout = 0;  // microseconds
    uint32_t big_endian = 0;
  };
  // One ioctl on its way.
  struct Call {
    Caller& caller;
    uint64_t argument = 0;
    uint32_t ring = 0;  // checked
  };
  enum class Rule : uint8_t {
    anybody,
    owner,
    ring
  };  // ring: of the owner, with an index that is checked first
  struct Row {
    unsigned long request = 0;
    Rule rule = Rule::owner;
    Result<> (IoctlServer::*serve)(Call&) = nullptr;
    Family family = Family::any;
  };
  [[nodiscard]] const Row* find(unsigned long request) const;
  static const std::array<Row, 50> rows;

  explicit IoctlServer(const Options& options, MakeDevice make_device);
  Result<> open_device();
  [[nodiscard]] std::shared_ptr<vhost::FrontEnd> front_end() const;
  Result<> dispatch(Call& call, unsigned long request);
  [[nodiscard]] Result<> check_owner(const Call& call) const;
  Result<> check_ring(Call& call) const;

  Result<> get_features(Call& call);
  Result<> set_features(Call& call);
  Result<> use_features(Caller& caller, uint64_t wanted);
  Result<> get_features_array(Call& call);
  Result<> set_features_array(Call& call);
  Result<> get_backend_features(Call& call);
  Result<> set_backend_features(Call& call);
  Result<> get_fork_owner(Call& call);
  Result<> set_fork_owner(Call& call);
  Result<> set_owner(Call& call);
  Result<> reset_owner(Call& call);
  Result<> set_mem_table(Call& call);
  Result<> set_log_base(Call& call);
  Result<> set_log_fd(Call& call);
  Result<> set_vring_num(Call& call);
  Result<> set_vring_addr(Call& call);
  Result<> set_vring_base(Call& call);
  Result<> get_vring_base(Call& call);
  Result<> set_vring_endian(Call& call);
  Result<> get_vring_endian(Call& call);
  Result<> set_vring_kick(Call& call);
  Result<> set_vring_call(Call& call);
  Result<> set_vring_err(Call& call);
  Result<> set_busyloop_timeout(Call& call);
  Result<> get_busyloop_timeout(Call& call);
  Result<> net_set_backend(Call& call);

  Result<> vdpa_get_device_id(Call& call);
  Result<> vdpa_get_status(Call& call);
  Result<> vdpa_set_status(Call& call);
  Result<> vdpa_set_features(Call& call);
  Result<> vdpa_get_backend_features(Call& call);
  Result<> vdpa_set_backend_features(Call& call);
  Result<> vdpa_get_config(Call& call);
  Result<> vdpa_set_config(Call& call);
  Result<> vdpa_set_config_call(Call& call);
  Result<> vdpa_get_config_size(Call& call);
  Result<> vdpa_get_vqs_count(Call& call);
  Result<> vdpa_get_vring_num(Call& call);
  Result<> vdpa_get_iova_range(Call& call);
  Result<> vdpa_get_one(Call& call);  // of groups, of address spaces
  Result<> vdpa_suspend(Call& call);
  Result<> vdpa_resume(Call& call);
  Result<> vdpa_set_mem_table(Call& call);
  Result<> vdpa_no_log(Call& call);
  Result<> vdpa_set_vring_enable(Call& call);
  Result<> vdpa_get_vring_group(Call& call);
  Result<> vdpa_get_vring_desc_group(Call& call);
  Result<> vdpa_get_vring_size(Call& call);
  Result<> vdpa_set_group_asid(Call& call);
  Result<> vdpa_forget(const std::vector<IovaMap::Mapping>& gone);
  Result<> vdpa_reset();
  Result<> vdpa_settle(Caller& caller);  // runs what shall run, and nothing else
  Result<> vdpa_map(Caller& caller, const vhost::IotlbMessage& message);
  Result<> vdpa_unmap(const vhost::IotlbMessage& message);
  Result<> vdpa_write(Caller& caller, const vhost::IotlbMessage& message);
  Result<> net_write(const vhost::IotlbMessage& message);
  // The part of the configuration space that an ioctl is about, and where its bytes are in the caller.
  struct ConfigPart {
    uint32_t offset = 0;
    uint32_t size = 0;
    uint64_t at = 0;
  };
  Result<ConfigPart> vdpa_config_part(Call& call) const;

  Result<UniqueFd> take_eventfd(Call& call);
  static Result<UniqueFd> eventfd_of(Caller& caller, int number);
  Result<> bind(Call& call, UniqueFd backend);
  Result<> unbind(uint32_t index);
  Result<> hand_over(uint32_t index, const UniqueFd& backend);
  Result<> start(Caller& caller, uint32_t index);
  Result<> stop(uint32_t index);
  // Runs `change` while no ring runs, and starts again those that did.
  using Table = std::vector<vhost_memory_region>;
  static Result<vhost::SetMemTable> share(Caller& caller, const Table& told);
  Result<Table> take_table(Call& call);
  Result<> move_to(Caller& caller, Table told);
  Result<> use(vhost::SetMemTable request);
  // The device is given the log that rings which run, and `starting`, need. EFAULT if a part is not there.
  Result<> lend_log(Caller& caller, const Ring* starting = nullptr);
  // How long a log they need; it has been probed.
  Result<uint64_t> log_bytes(Caller& caller, const Ring* starting = nullptr) const;
  Result<std::vector<uint32_t>> stop_all();  // those that ran
  // Tries all; the first failure.
  Result<> start_all(Caller& caller, const std::vector<uint32_t>& rings);
  template <class Change>
  Result<> with_rings_stopped(Caller& caller, Change change);
  static Result<> check_areas(Caller& caller, const vhost::SetVringAddr& at, uint32_t size);
  // Where the device finds a ring.
  Result<vhost::SetVringAddr> place(Caller& caller, vhost::SetVringAddr at, uint32_t size) const;
  [[nodiscard]] bool is_vdpa() const { return options_.family == Family::vdpa; }
  [[nodiscard]] bool is_packed() const;
  [[nodiscard]] bool has_iotlb() const;
  [[nodiscard]] bool logs() const;
  [[nodiscard]] uint64_t offered_to(const Caller& caller) const;
  [[nodiscard]] bool any_active() const;
  template <class Request>
  Result<typename Request::Reply> ask(Request request) {
    return vhost::call(*served_.device, std::move(request));
  }

  const Options options_;
  const MakeDevice make_device_;
  const std::shared_ptr<IotlbMessages> messages_ = std::make_shared<IotlbMessages>();
  log::Limited limited_;
  std::mutex mutex_;          // guards everything below
  Served served_;             // no device: RESET_OWNER could not make another
  uint64_t offered_ = 0;      // features
  bool swaps_bytes_ = false;  // the device serves SET_VRING_ENDIAN
  uint64_t features_ = 0;
  pid_t owner_ = 0;          // 0: none
  Table table_;              // as it was told; empty if it may not be used
  bool has_table_ = false;   // that may be used
  bool has_memory_ = false;  // and it is not empty
  uint64_t log_base_ = 0;    // in the caller; looked at when it is used
  std::vector<Ring> rings_;
  // vhost-vdpa
  const std::shared_ptr<ConfigCall> config_call_ = std::make_shared<ConfigCall>();
  uint8_t status_ = 0;  // VIRTIO_CONFIG_S_*
  bool suspended_ = false;
  IovaMap mapped_;
};

}  // namespace ringway::kernel
