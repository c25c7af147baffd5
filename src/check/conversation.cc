#include "ringway/check/conversation.h"

#include <sys/stat.h>

#include <algorithm>

#include "ringway/user/message.h"

namespace ringway::check {
namespace {

constexpr size_t region_bytes = 32;
constexpr size_t regions_at = 8;

void look_at_fds(const user::Frame& frame, Said& one) {
  one.fds = frame.fds.size();
  one.fd_fault = frame.fd_fault;
  for (const UniqueFd& fd : frame.fds) {
    struct stat status{};
    const bool known = ::fstat(fd.get(), &status) == 0;
    one.file_sizes.push_back(known && S_ISREG(status.st_mode) ? static_cast<uint64_t>(status.st_size) : 0);
    if (&fd == &frame.fds.front()) one.fd_is_socket = known && S_ISSOCK(status.st_mode);
  }
}

bool same_place(const memory::RegionLayout& a, const memory::RegionLayout& b) {
  return a.guest == b.guest && a.front_end == b.front_end && a.size == b.size;
}

}  // namespace

std::vector<memory::RegionLayout> regions_of(const Said& one) {
  std::vector<memory::RegionLayout> regions;
  for (size_t at = regions_at; at + region_bytes <= one.payload.size(); at += region_bytes) {
    regions.push_back({.guest = {one.at<uint64_t>(at)},
                       .size = one.at<uint64_t>(at + 8),
                       .front_end = {one.at<uint64_t>(at + 16)},
                       .file_offset = one.at<uint64_t>(at + 24)});
  }
  return regions;
}

void Conversation::hear(user::Direction direction, const user::Frame& frame) {
  if (direction == user::Direction::sent) return learn_from_reply(frame);
  Said one = now_;
  one.header = frame.header;
  one.payload = frame.payload;
  one.text = describe(frame);
  look_at_fds(frame, one);
  said_.push_back(one);
  learn_from(said_.back());
}

void Conversation::learn_from(const Said& request) {
  switch (request.header.request) {
    case id<vhost::SetFeatures>:
      now_.agreed.features = request.at<uint64_t>(0);
      now_.features_set = true;
      break;
    case id<vhost::SetProtocolFeatures>:
      now_.agreed.capabilities = request.at<uint64_t>(0);
      break;
    case id<vhost::SetMemTable>:
      now_.regions = regions_of(request);
      break;
    case id<vhost::AddMemReg>:
      std::ranges::copy(regions_of(request), std::back_inserter(now_.regions));
      break;
    case id<vhost::RemMemReg>:
      for (const auto& gone : regions_of(request))
        std::erase_if(now_.regions, [&](const auto& region) { return same_place(region, gone); });
      break;
    default:
      break;
  }
}

void Conversation::learn_from_reply(const user::Frame& reply) {
  if (reply.payload.size() != sizeof(uint64_t)) return;
  uint64_t value = 0;
  std::memcpy(&value, reply.payload.data(), sizeof value);
  switch (reply.header.request) {
    case id<vhost::GetFeatures>:
      now_.offered_features = value;
      break;
    case id<vhost::GetProtocolFeatures>:
      now_.offered_protocol = value;
      break;
    case id<vhost::GetQueueNum>:
      now_.queues = value;
      break;
    case id<vhost::GetMaxMemSlots>:
      now_.slots = value;
      break;
    default:
      break;
  }
}

}  // namespace ringway::check
