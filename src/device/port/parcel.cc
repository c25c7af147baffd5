#include "ringway/device/port/parcel.h"

namespace ringway::port {

void ParcelInbox::push(ParcelList parcels) {
  // Turned round, so that the newest comes first, as in the whole stack.
  Parcel* newest = nullptr;
  Parcel* const oldest = parcels.first_;
  for (Parcel* parcel = parcels.first_; parcel != nullptr;) {
    Parcel* const next = std::exchange(parcel->link, newest);
    newest = std::exchange(parcel, next);
  }
  oldest->link = newest_.load(std::memory_order_relaxed);
  while (!newest_.compare_exchange_weak(oldest->link, newest, std::memory_order_seq_cst)) {
  }
}

ParcelList ParcelInbox::take_all() {
  if (newest_.load(std::memory_order_relaxed) == nullptr) return {};
  Parcel* parcel = newest_.exchange(nullptr, std::memory_order_acq_rel);
  Parcel* oldest = nullptr;
  while (parcel != nullptr) {
    Parcel* const older = std::exchange(parcel->link, oldest);
    oldest = std::exchange(parcel, older);
  }
  ParcelList list;
  while (oldest != nullptr) list.push(*std::exchange(oldest, oldest->link));
  return list;
}

}  // namespace ringway::port
