// KernelDevice: a vhost::Device that answers by asking the kernel: a client of /dev/vhost-net, -scsi, -vsock
// and /dev/vhost-vdpa-*. vhost-user semantics outside, ioctls inside. linux/vhost.h.
// Thread rule: one call at a time, from any thread; the kernel's own messages are told on another
// (notices.h).
//
// What is translated:
//   - memory is mapped here, and the kernel is given our pointers; ring addresses follow them. When memory
//     moves under a ring, the ring stops and starts again;
//   - a ring is described to the kernel when it is complete (size, addresses, kick) and enabled, and started
//     by what the family has for that (endpoint.h). The kernel begins work at a kick only, so there is one
//     more;
//   - a disabled ring is stopped; but vhost-net's transmit ring goes on, to a socket that leads nowhere;
//   - a ring without a kick is kicked from here: the kernel does not poll (polled_rings.h);
//   - GetVringBase stops the ring first;
//   - the log must cover all that the kernel may write to it: the kernel does not look.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "ringway/base/notifier.h"
#include "ringway/kernel/endpoint.h"
#include "ringway/kernel/iotlb_channel.h"
#include "ringway/kernel/notices.h"
#include "ringway/kernel/polled_rings.h"
#include "ringway/memory/view.h"
#include "ringway/vhost/features.h"
#include "ringway/vhost/handler.h"

namespace ringway::kernel {

class KernelDevice final : public vhost::Device {
 public:
  // Becomes the owner of the file; refused with EBUSY if it has one. `max_mem_slots`: what the kernel takes.
  static Result<std::unique_ptr<KernelDevice>> open(std::unique_ptr<Ioctls> file,
                                                    std::unique_ptr<Endpoint> endpoint,
                                                    uint64_t max_mem_slots = kernel_mem_slots());
  // Stops all rings.
  ~KernelDevice() override;

  // Leaves assert what vhost::Contract has checked: it must stand in front.
  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override;

  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] Ioctls& file() { return *file_; }  // for tuning.h

  // vhost's module parameter max_mem_regions, 64 where it cannot be read.
  [[nodiscard]] static uint64_t kernel_mem_slots();

 private:
  KernelDevice(std::unique_ptr<Ioctls> file, std::unique_ptr<Endpoint> endpoint, uint64_t max_mem_slots)
      : file_(std::move(file)),
        endpoint_(std::move(endpoint)),
        iotlb_(*file_),
        max_mem_slots_(max_mem_slots) {}

  // Where the kernel finds a ring while it runs.
  struct Areas {
    memory::Window desc;
    memory::Window avail;
    memory::Window used;
  };

  // One ring as the front-end has described it.
  struct Vring {
    uint32_t size = 0;
    std::optional<vhost::SetVringAddr> addresses;
    uint32_t base = 0;
    uint32_t big_endian = 0;
    bool enabled = false;
    UniqueFd kick;  // there is one from SetVringKick to GetVringBase
    UniqueFd call;
    UniqueFd err;
    Areas areas;
    std::optional<uint64_t> asked;  // the I/O virtual address that it waits for
    [[nodiscard]] bool is_complete() const { return size > 0 && addresses && kick; }
  };

  Result<uint64_t> on(const vhost::GetFeatures&);
  Result<vhost::Done> on(const vhost::SetFeatures& request);
  Result<vhost::Done> on(const vhost::SetOwner&);
  Result<vhost::Done> on(const vhost::ResetOwner&);
  Result<vhost::Done> on(vhost::SetMemTable& request);
  Result<vhost::Done> on(vhost::SetLogBase& request);
  Result<vhost::Done> on(const vhost::SetLogFd& request);
  Result<vhost::Done> on(const vhost::SetVringNum& request);
  Result<vhost::Done> on(const vhost::SetVringAddr& request);
  Result<vhost::Done> on(const vhost::SetVringBase& request);
  Result<vhost::RingState> on(const vhost::GetVringBase& request);
  Result<vhost::Done> on(vhost::SetVringKick& request);
  Result<vhost::Done> on(vhost::SetVringCall& request);
  Result<vhost::Done> on(vhost::SetVringErr& request);
  Result<vhost::Capabilities> on(const vhost::GetProtocolFeatures&);
  Result<vhost::Done> on(const vhost::SetProtocolFeatures&);
  Result<uint64_t> on(const vhost::GetQueueNum&);
  Result<vhost::Done> on(const vhost::SetVringEnable& request);
  Result<vhost::Done> on(const vhost::SendRarp&);
  Result<vhost::Done> on(const vhost::NetSetMtu&);
  Result<vhost::Done> on(vhost::SetFrontEnd& request);
  Result<vhost::Done> on(const vhost::UpdateIotlb& request);
  Result<vhost::Done> on(const vhost::SetVringEndian& request);
  Result<vhost::ConfigBytes> on(const vhost::GetConfig& request);
  Result<vhost::Done> on(const vhost::SetConfig& request);
  Result<vhost::CryptoSession> on(const vhost::CreateCryptoSession&);
  Result<vhost::Done> on(const vhost::CloseCryptoSession&);
  Result<UniqueFd> on(const vhost::PostcopyAdvise&);
  Result<vhost::Done> on(const vhost::PostcopyListen&);
  Result<vhost::Done> on(const vhost::PostcopyEnd&);
  Result<vhost::InflightArea> on(const vhost::GetInflightFd&);
  Result<vhost::Done> on(const vhost::SetInflightFd&);
  Result<vhost::Done> on(const vhost::GpuSetSocket&);
  Result<vhost::Done> on(const vhost::ResetDevice&);
  Result<vhost::Done> on(const vhost::VringKick&);
  Result<uint64_t> on(const vhost::GetMaxMemSlots&);
  Result<vhost::Done> on(vhost::AddMemReg& request);
  Result<vhost::Done> on(const vhost::RemMemReg& request);
  Result<vhost::Done> on(const vhost::SetStatus& request);
  Result<uint64_t> on(const vhost::GetStatus&);
  Result<vhost::SharedObject> on(const vhost::GetSharedObject&);
  Result<vhost::StateChannel> on(const vhost::SetDeviceStateFd&);
  Result<uint64_t> on(const vhost::CheckDeviceState&);
  Result<vhost::ShmemConfig> on(const vhost::GetShmemConfig&);
  Result<vhost::RingState> on(const vhost::GetVringBaseSkipDrain&);

  Result<> begin();
  Vring& vring(vhost::RingIndex index);
  [[nodiscard]] bool has(unsigned feature) const { return (features_ >> feature & 1) != 0; }
  [[nodiscard]] bool is_packed() const;
  // Rings and descriptors have I/O virtual addresses, which the front-end translates.
  [[nodiscard]] bool translates(uint64_t features) const;
  [[nodiscard]] bool translates() const { return translates(features_); }

  [[nodiscard]] RingSet ready();
  [[nodiscard]] RingSet enabled() const;
  // Whether the kernel can write to the ring's used area; what is missing is asked for.
  bool is_mapped(Vring& vring);

  // Starts what is ready and stops what is not any more.
  Result<> settle();
  // For rings that need not lie in the memory table now: they wait for one where they do.
  void settle_or_wait();
  Result<> start(RingSet rings);
  // With effects or without, as they are enabled.
  Result<> engage(const RingSet& rings);
  Result<> stop(RingSet rings);
  Result<> stop_all();
  void abandon(RingSet rings);
  Result<> describe(vhost::RingIndex index);
  Result<> tell_addresses(vhost::RingIndex index);
  Result<> tell_file(unsigned long request, vhost::RingIndex index, const UniqueFd& fd);
  Result<Areas> place(const Vring& vring, vhost_vring_addr& addresses) const;
  [[nodiscard]] Result<uint64_t> guest_address(uint64_t front_end, uint64_t length) const;
  void kick(vhost::RingIndex index) const;

  Result<> replace_map(std::shared_ptr<const memory::Map> map);
  Result<> fill_iotlb();  // with what we know, and nothing else
  Result<> update_by_guest_address(const memory::Region& region);
  [[nodiscard]] Result<> check_log(uint64_t features, const memory::Map& map,
                                   const memory::Region* log) const;

  // What the kernel may still use comes first, so that it goes last.
  std::shared_ptr<const memory::Map> map_ = memory::Map::empty();
  std::shared_ptr<const memory::Region> log_;
  std::vector<Vring> vrings_;
  const std::unique_ptr<Ioctls> file_;
  const std::unique_ptr<Endpoint> endpoint_;
  IotlbChannel iotlb_;
  const uint64_t max_mem_slots_;
  Shape shape_;
  bool can_swap_endian_ = false;
  uint64_t features_ = 0;     // as the front-end sent them and the kernel has taken them
  uint64_t status_ = 0;       // as the front-end sent it
  bool iotlb_lives_ = false;  // since ACCESS_PLATFORM was set first, for as long as the file is open
  std::shared_ptr<const memory::IotlbTable> iotlb_table_ = memory::IotlbTable::empty();
  PolledRings polled_;
  RingSet running_;
  RingSet engaged_;  // of these, those that have effects
  std::shared_ptr<vhost::FrontEnd> front_end_;
  std::optional<Signal> config_changes_;
  std::unique_ptr<Notices> notices_;  // ends before what it reads
};

}  // namespace ringway::kernel
