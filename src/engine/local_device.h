// LocalDevice: a vhost::Device that does the work itself, on real rings, for any Model.
// Thread rule: handle() is called by one control thread at a time; config changes may come from any thread.
// vhost-user "Ring states", "Multiple queue support", "IOMMU support", "Device reset".
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/engine/front_end_caller.h"
#include "ringway/engine/iotlb_questions.h"
#include "ringway/engine/model.h"
#include "ringway/engine/postcopy.h"
#include "ringway/engine/running_queue.h"
#include "ringway/engine/state_transfer.h"
#include "ringway/engine/workers.h"
#include "ringway/vhost/handler.h"

namespace ringway::engine {

class LocalDevice final : public vhost::Device {
 public:
  struct Options {
    uint64_t max_mem_slots = 509;
    // Served either way; offered only on demand, because front-ends exist that accept every bit they are
    // offered.
    bool offer_inband_notifications = false;
    // PAGEFAULT instead of CONFIGURE_MEM_SLOTS: the two exclude each other, and front-ends may take both.
    bool offer_postcopy = false;
    // How long CHECK_DEVICE_STATE waits for a transfer that does not end.
    std::chrono::milliseconds state_patience{10'000};
  };

  // `model` and `workers` outlive the device.
  LocalDevice(Model& model, Workers& workers, Options options);
  LocalDevice(Model& model, Workers& workers) : LocalDevice(model, workers, Options{}) {}
  ~LocalDevice() override;

  // Leaves assert what vhost::Contract has checked: it must stand in front.
  Result<vhost::DeviceReply> handle(vhost::DeviceRequest request) override;

  // The front-end left: every ring is stopped, everything it gave us is released, the model is reset.
  void disconnect();
  // Any thread, also while handle() runs: the front-end left, and memory that it has not sent (postcopy) will
  // never come. Whoever waits for it goes on; disconnect() follows.
  void expect_no_more_pages();

  // Live upgrade, on both sides: see standstill.h. A device that is to go on where another process stopped
  // stands still from the beginning: its queues start and take nothing. Nobody else uses the device then.
  class Standstill;
  void stand_still_from_the_start() { born_still_ = true; }
  // What Standstill::state() was there; no queue has started. Refused whole if anything is wrong with it.
  Result<> take_state(std::span<const std::byte> state);
  void go_on();

 private:
  class KickWaiter;

  // One ring as the front-end has described it.
  struct Vring {
    uint32_t size = 0;
    bool has_addresses = false;
    vhost::SetVringAddr addresses;
    uint32_t base = 0;
    std::optional<uint32_t> drained_at;  // where it was stopped here, with nothing in flight
    bool enabled = false;
    bool big_endian = false;
    bool wanted = false;     // SET_VRING_KICK has come and GET_VRING_BASE has not
    bool must_poll = false;  // SET_VRING_KICK without an fd
    std::shared_ptr<const Signal> kick;
    std::shared_ptr<const Notifier> call;
    std::shared_ptr<const Notifier> err;
    std::unique_ptr<RunningQueue> queue;  // while it runs, or is broken and not yet stopped
    // Stopped without waiting: what it has given to the operating system has not ended yet.
    std::unique_ptr<RunningQueue> suspended;
    std::unique_ptr<KickWaiter> kick_waiter;
    std::unique_ptr<KickWaiter> page_waiter;  // postcopy: its pages are being fetched
  };
  static std::array<RunningQueue*, 2> queues_of(const Vring& vring);  // null: none
  enum class Start : uint8_t { running, not_yet };
  // What SET_INFLIGHT_FD brought.
  struct InflightArea {
    std::shared_ptr<const memory::Map> map;  // the area from address 0 on; null: none
    uint16_t queues = 0;
    uint16_t queue_size = 0;
  };

  Result<uint64_t> on(const vhost::GetFeatures&);
  Result<vhost::Done> on(const vhost::SetFeatures& request);
  Result<vhost::Done> on(const vhost::SetOwner&);
  Result<vhost::Done> on(const vhost::ResetOwner&);
  Result<vhost::DeviceReply> on(vhost::SetMemTable& request);
  Result<vhost::Done> on(const vhost::SetLogBase& request);
  Result<vhost::Done> on(vhost::SetLogFd& request);
  Result<vhost::Done> on(const vhost::SetVringNum& request);
  Result<vhost::Done> on(const vhost::SetVringAddr& request);
  Result<vhost::Done> on(const vhost::SetVringBase& request);
  Result<vhost::RingState> on(const vhost::GetVringBase& request);
  Result<vhost::Done> on(vhost::SetVringKick& request);
  Result<vhost::Done> on(vhost::SetVringCall& request);
  Result<vhost::Done> on(vhost::SetVringErr& request);
  Result<vhost::Capabilities> on(const vhost::GetProtocolFeatures&);
  Result<vhost::Done> on(const vhost::SetProtocolFeatures& request);
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
  Result<vhost::InflightArea> on(const vhost::GetInflightFd& request);
  Result<vhost::Done> on(vhost::SetInflightFd& request);
  Result<vhost::Done> on(const vhost::GpuSetSocket&);
  Result<vhost::Done> on(const vhost::ResetDevice&);
  Result<vhost::Done> on(const vhost::VringKick& request);
  Result<uint64_t> on(const vhost::GetMaxMemSlots&);
  Result<vhost::Done> on(vhost::AddMemReg& request);
  Result<vhost::Done> on(const vhost::RemMemReg& request);
  Result<vhost::Done> on(const vhost::SetStatus& request);
  Result<uint64_t> on(const vhost::GetStatus&);
  Result<vhost::SharedObject> on(const vhost::GetSharedObject&);
  Result<vhost::StateChannel> on(vhost::SetDeviceStateFd& request);
  Result<uint64_t> on(const vhost::CheckDeviceState&);
  Result<vhost::ShmemConfig> on(const vhost::GetShmemConfig&);
  Result<vhost::RingState> on(const vhost::GetVringBaseSkipDrain& request);

  Vring& vring(vhost::RingIndex index);
  [[nodiscard]] bool has(unsigned feature) const { return (features_ >> feature & 1) != 0; }
  [[nodiscard]] bool capable(unsigned capability) const {
    return (capabilities_.bits >> capability & 1) != 0;
  }
  [[nodiscard]] memory::View view() const;
  Result<memory::Window> open_area(uint64_t address, uint64_t length, memory::Access access);
  Result<ring::RingConfig> open_ring(Vring& vring);
  Result<> check_untracked(uint16_t index, const ring::RingConfig& config);
  // What a ring has to log now; none: nothing.
  [[nodiscard]] std::optional<ring::Logging> logging(const Vring& vring) const;
  [[nodiscard]] std::vector<ring::LoggedRange> guest_ranges(uint64_t address, uint64_t length) const;
  // Where a part of a ring lies in the memory table; incomplete if it does not lie there.
  [[nodiscard]] std::vector<iovec> pieces_of(uint64_t address, uint64_t length) const;
  // Refuses a log that lacks a page of the used ring, as far as both are known.
  [[nodiscard]] Result<> check_log(const Vring& vring) const;
  Result<> set_logs();
  // Postcopy: whether all pages of the ring are here; else they are fetched, and the ring starts then.
  Result<bool> pages_are_here(Vring& vring, uint16_t index);
  Result<vhost::DeviceReply> promise_memory(const std::shared_ptr<const memory::Map>& map);
  void end_postcopy();
  void end_waiters(Vring& vring);
  Result<> resume_model();
  void suspend_model();
  Result<memory::Window> open_inflight(uint64_t queue, const ring::Format& format) const;

  // Starts the ring if everything that it needs has come; an error if what has come cannot run.
  Result<Start> try_start(uint16_t index);
  Result<> start_all();
  void start_all_or_report();
  void stop(Vring& vring);
  void stop_all();
  // Stops, takes nothing new and does not wait for what was taken; the ring's in-flight area tells what that
  // is.
  void suspend(Vring& vring);
  // Waits until what a suspended ring was doing has ended.
  void end_suspended(Vring& vring);
  vhost::RingState forget_start(vhost::RingIndex ring);
  void reset_device();
  // Rings are drained, stopped, and started again with the present map and IOTLB; those that cannot are
  // broken.
  void restart_running();
  void set_views(bool drain);
  [[nodiscard]] Result<memory::IotlbEntry> checked_entry(const vhost::IotlbMessage& message) const;
  void revoke(vhost::GuestAddress iova, uint64_t size);
  [[nodiscard]] bool lies_in(const Vring& vring, vhost::GuestAddress iova, uint64_t size) const;
  Result<> replace_map(std::shared_ptr<const memory::Map> map);
  void break_stopped(Vring& vring, uint16_t index, const Error& error);
  void ask(const memory::Translation& missing);
  RunningQueue::Events events_for(uint16_t index);
  void config_changed();
  void on_waiting_kick(uint16_t index);
  void wait_for_kick(uint16_t index);
  void wait_for_no_kicks();

  Model& model_;
  Workers& workers_;
  const Options options_;
  const size_t first_worker_;
  std::mutex mutex_;  // guards everything below that is not atomic
  bool born_still_ = false;
  uint64_t features_ = 0;
  vhost::Capabilities capabilities_;
  uint64_t status_ = 0;
  std::shared_ptr<const memory::Map> map_ = memory::Map::empty();
  std::shared_ptr<const memory::IotlbTable> iotlb_ = memory::IotlbTable::empty();
  std::vector<Vring> vrings_;
  std::shared_ptr<const memory::DirtyLog> log_;  // in use while LOG_ALL is on
  std::shared_ptr<const Notifier> log_news_;
  std::unique_ptr<StateTransfer> transfer_;
  std::shared_ptr<Postcopy>
      postcopy_;  // from POSTCOPY_ADVISE to POSTCOPY_END; changed under postcopy_mutex_ too
  std::mutex postcopy_mutex_;
  bool resumed_ = false;  // the model
  InflightArea inflight_;
  FrontEndCaller front_end_;
  IotlbQuestions questions_;
  std::atomic<bool> needs_reset_ = false;
  log::Limited limited_;
  std::atomic<unsigned> running_ = 0;  // queues; 0: suspended, so no messages to the front-end
  std::atomic<bool> config_change_waits_ = false;
};

}  // namespace ringway::engine
