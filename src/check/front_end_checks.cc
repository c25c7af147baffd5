#include "ringway/check/front_end_checks.h"

#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

namespace ringway::check::front_end {
namespace {

using namespace vhost;

constexpr uint64_t page_bytes = 4096;
constexpr uint64_t no_fd = 0x100;

using Wrong = std::optional<std::string>;

std::string name_of(const Said& one) { return user::message_name<DeviceRequest>(one.header.request); }

// Each message that `picks` picks; not testable where none was said.
template <class Picks, class Judge>
Outcome each(const Conversation& conversation, const char* what, Picks picks, Judge judge) {
  size_t count = 0;
  for (const Said& one : conversation.said()) {
    if (!picks(one)) continue;
    ++count;
    if (const Wrong wrong = judge(one))
      return fail(fmt::format("{}: {} [{}]", name_of(one), *wrong, one.text));
  }
  if (count == 0) return not_testable(fmt::format("{} was not sent", what));
  return fmt::format("{} messages", count);
}

template <class... Requests>
bool is_one_of(const Said& one) {
  return ((one.header.request == id<Requests>) || ...);
}

template <class Request, class Judge>
Outcome each_of(const Conversation& conversation, Judge judge) {
  return each(conversation, catalogue<DeviceRequest>[index_of<DeviceRequest, Request>].name,
              is_one_of<Request>, judge);
}

template <class Judge>
Outcome each_message(const Conversation& conversation, Judge judge) {
  return each(conversation, "a message", [](const Said&) { return true; }, judge);
}

Wrong unless(bool right, std::string otherwise) {
  if (right) return std::nullopt;
  return otherwise;
}

// What must have been agreed on for a message, by the catalogue.
Wrong agreed_upon(const Said& one) {
  const user::Message* message = user::find_message<DeviceRequest>(one.header.request);
  if (message == nullptr) return std::nullopt;
  const Need need = catalogue<DeviceRequest>[message->id - 1].need;
  // Of these the text says "present in GET_PROTOCOL_FEATURES": they need the offer only.
  const bool needs_offer = is_one_of<SetFrontEnd, SendRarp, NetSetMtu, ResetDevice>(one);
  const bool offered = need.kind == Need::Kind::capability && (one.offered_protocol & bit(need.bit)) != 0;
  const bool agreed = one.agreed.allows(need);
  if (agreed || (offered && needs_offer)) return std::nullopt;
  return fmt::format("bit {} is not agreed on", need.bit);
}

template <class... Requests>
Outcome needs_its_feature(const Conversation& conversation, const char* what) {
  return each(conversation, what, is_one_of<Requests...>, agreed_upon);
}

bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) {
  return a < b + b_size && b < a + a_size;
}

template <class Address>
Wrong overlapping(const std::vector<memory::RegionLayout>& regions, Address address) {
  for (size_t i = 0; i < regions.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (overlap(address(regions[i]), regions[i].size, address(regions[j]), regions[j].size))
        return fmt::format("regions at {:#x} and {:#x} overlap", address(regions[j]), address(regions[i]));
    }
  }
  return std::nullopt;
}

uint64_t guest(const memory::RegionLayout& region) { return region.guest.value; }
uint64_t user_address(const memory::RegionLayout& region) { return region.front_end.value; }

// The memory when the message has been done.
std::vector<memory::RegionLayout> memory_after(const Said& one) {
  std::vector<memory::RegionLayout> regions = regions_of(one);
  if (is_one_of<AddMemReg>(one)) regions.insert(regions.end(), one.regions.begin(), one.regions.end());
  return regions;
}

constexpr auto changes_memory = is_one_of<SetMemTable, AddMemReg>;

bool lies_in(const std::vector<memory::RegionLayout>& regions, uint64_t address, uint64_t size = 1) {
  return std::ranges::any_of(regions, [&](const auto& region) {
    const uint64_t offset = address - region.front_end.value;
    return address >= region.front_end.value && offset < region.size && size <= region.size - offset;
  });
}

Wrong fd_matches_bit(const Said& one) {
  const bool says_none = (one.at<uint64_t>(0) & no_fd) != 0;
  return unless(says_none == (one.fds == 0),
                fmt::format("{:#x} came with {} file descriptors", one.at<uint64_t>(0), one.fds));
}

}  // namespace

// ---- headers

Outcome headers_are_sound(const Conversation& c) {
  return each_message(c, [](const Said& one) {
    return unless(user::find_message<DeviceRequest>(one.header.request) != nullptr,
                  "there is no such message");
  });
}

Outcome headers_have_version_1(const Conversation& c) {
  return each_message(c, [](const Said& one) {
    return unless((one.header.flags & user::version_mask) == user::version,
                  fmt::format("flags are {:#x}", one.header.flags));
  });
}

Outcome requests_have_no_reply_flag(const Conversation& c) {
  return each_message(c, [](const Said& one) {
    return unless(!one.header.is_reply(), fmt::format("flags are {:#x}", one.header.flags));
  });
}

Outcome need_reply_only_when_agreed(const Conversation& c) {
  const auto picks = [](const Said& one) { return one.header.needs_reply(); };
  return each(c, "a message with need_reply", picks, [](const Said& one) {
    uint64_t agreed = one.agreed.capabilities;
    if (is_one_of<SetProtocolFeatures>(one)) agreed = one.at<uint64_t>(0);
    return unless((agreed & bit(VHOST_USER_PROTOCOL_F_REPLY_ACK)) != 0, "need_reply without REPLY_ACK");
  });
}

Outcome requests_have_their_size(const Conversation& c) {
  return each_message(c, [](const Said& one) -> Wrong {
    const user::Message* message = user::find_message<DeviceRequest>(one.header.request);
    if (message == nullptr) return std::nullopt;
    const user::SizeRule rule = user::size_rule(message->request);
    return unless(rule.allows(one.payload.size()),
                  fmt::format("{} bytes; the {}", one.payload.size(), rule.otherwise));
  });
}

// ---- file descriptors, order

Outcome fds_come_with_their_messages(const Conversation& c) {
  return each_message(c, [](const Said& one) -> Wrong {
    const user::Message* message = user::find_message<DeviceRequest>(one.header.request);
    if (message == nullptr) return std::nullopt;
    const user::FdRule rule = user::fd_rule(message->fds);
    return unless(one.fds >= rule.min && one.fds <= rule.max,
                  fmt::format("{} came; {}", one.fds, rule.otherwise));
  });
}

Outcome fds_come_with_the_first_byte(const Conversation& c) {
  const auto picks = [](const Said& one) { return one.fds > 0 || one.fd_fault != nullptr; };
  return each(c, "a file descriptor", picks, [](const Said& one) {
    return unless(one.fd_fault == nullptr, one.fd_fault == nullptr ? "" : one.fd_fault);
  });
}

Outcome nothing_before_it_was_agreed(const Conversation& c) { return each_message(c, agreed_upon); }

Outcome wrong_replies_end_it(const Conversation&) {
  return not_testable("it is seen when replies are wrong: --hostile");
}

Outcome features_are_asked(const Conversation& c) {
  return each_of<SetFeatures>(c, [](const Said& one) {
    const uint64_t strange = one.at<uint64_t>(0) & ~one.offered_features;
    return unless(strange == 0, fmt::format("bits {:#x} were not offered", strange));
  });
}

Outcome protocol_features_need_bit_30(const Conversation& c) {
  return each(c, "a message about protocol features", is_one_of<GetProtocolFeatures, SetProtocolFeatures>,
              [](const Said& one) -> Wrong {
                if ((one.offered_features & bit(VHOST_USER_F_PROTOCOL_FEATURES)) == 0)
                  return "bit 30 was not offered";
                const bool sets = is_one_of<SetProtocolFeatures>(one);
                const uint64_t strange = sets ? one.at<uint64_t>(0) & ~one.offered_protocol : 0;
                return unless(strange == 0, fmt::format("bits {:#x} were not offered", strange));
              });
}

Outcome the_owner_is_set_early(const Conversation& c) {
  bool owned = false;
  return each(c, "SET_OWNER, memory or a ring",
              is_one_of<SetOwner, SetMemTable, AddMemReg, SetVringNum, SetVringAddr, SetVringKick>,
              [owned](const Said& one) mutable {
                if (is_one_of<SetOwner>(one)) owned = true;
                return unless(owned, "SET_OWNER did not come before");
              });
}

Outcome reset_owner_is_not_sent(const Conversation& c) {
  return each_message(
      c, [](const Said& one) { return unless(!is_one_of<ResetOwner>(one), "it is deprecated"); });
}

// ---- memory

Outcome guest_addresses_do_not_overlap(const Conversation& c) {
  return each(c, "memory", changes_memory,
              [](const Said& one) { return overlapping(memory_after(one), guest); });
}

Outcome user_addresses_do_not_overlap(const Conversation& c) {
  return each(c, "memory", changes_memory,
              [](const Said& one) { return overlapping(memory_after(one), user_address); });
}

Outcome added_regions_do_not_overlap(const Conversation& c) {
  return each_of<AddMemReg>(c, [](const Said& one) { return overlapping(memory_after(one), guest); });
}

Outcome tables_have_8_regions_at_most(const Conversation& c) {
  return each_of<SetMemTable>(c, [](const Said& one) {
    return unless(one.at<uint32_t>(0) <= user::max_fds, fmt::format("{} regions", one.at<uint32_t>(0)));
  });
}

Outcome each_region_has_a_file(const Conversation& c) {
  return each(c, "memory", changes_memory, [](const Said& one) -> Wrong {
    const auto regions = regions_of(one);
    if (regions.size() != one.fds)
      return fmt::format("{} regions came with {} file descriptors", regions.size(), one.fds);
    for (size_t i = 0; i < regions.size(); ++i) {
      const uint64_t file = one.file_sizes[i];
      if (file == 0) continue;  // a device
      if (regions[i].file_offset > file || regions[i].size > file - regions[i].file_offset)
        return fmt::format("region {} ends behind its file of {} bytes", i, file);
    }
    return std::nullopt;
  });
}

Outcome gpa_regions_are_the_same(const Conversation& c) {
  const auto picks = [](const Said& one) {
    return changes_memory(one) && one.agreed.has_capability(VHOST_USER_PROTOCOL_F_GPA_ADDRESSES);
  };
  return each(c, "memory with GPA_ADDRESSES", picks, [](const Said& one) -> Wrong {
    for (const auto& region : regions_of(one)) {
      if (region.guest.value != region.front_end.value)
        return fmt::format("user address {:#x}, guest address {:#x}", region.front_end.value,
                           region.guest.value);
    }
    return std::nullopt;
  });
}

Outcome slots_need_their_feature(const Conversation& c) {
  return needs_its_feature<AddMemReg, RemMemReg, GetMaxMemSlots>(c, "a message about memory slots");
}

Outcome no_more_regions_than_slots(const Conversation& c) {
  return each_of<AddMemReg>(c, [](const Said& one) {
    return unless(one.slots == 0 || one.regions.size() < one.slots,
                  fmt::format("{} slots are taken", one.regions.size()));
  });
}

Outcome removal_brings_no_file(const Conversation& c) {
  return each_of<RemMemReg>(c, [](const Said& one) {
    return unless(one.fds == 0, fmt::format("{} file descriptors came", one.fds));
  });
}

// ---- rings

Outcome bases_have_16_bits(const Conversation& c) {
  const auto picks = [](const Said& one) {
    return is_one_of<SetVringBase>(one) && !one.agreed.has_feature(VIRTIO_F_RING_PACKED);
  };
  return each(c, "SET_VRING_BASE of a split ring", picks, [](const Said& one) {
    return unless(one.at<uint32_t>(4) <= 0xffff, fmt::format("{:#x}", one.at<uint32_t>(4)));
  });
}

Outcome ring_addresses_have_40_bytes(const Conversation& c) {
  return each_of<SetVringAddr>(c, [](const Said& one) {
    return unless(one.payload.size() == 40, fmt::format("{} bytes", one.payload.size()));
  });
}

Outcome ring_addresses_lie_in_memory(const Conversation& c) {
  const auto picks = [](const Said& one) {
    return is_one_of<SetVringAddr>(one) && !one.regions.empty() &&
           !one.agreed.has_feature(VIRTIO_F_ACCESS_PLATFORM);
  };
  return each(c, "SET_VRING_ADDR", picks, [](const Said& one) -> Wrong {
    for (const size_t at : {8U, 16U, 24U}) {
      if (!lies_in(one.regions, one.at<uint64_t>(at)))
        return fmt::format("{:#x} is in no region", one.at<uint64_t>(at));
    }
    return std::nullopt;
  });
}

Outcome enable_is_0_or_1(const Conversation& c) {
  return each_of<SetVringEnable>(c, [](const Said& one) {
    return unless(one.at<uint32_t>(4) <= 1, fmt::format("{}", one.at<uint32_t>(4)));
  });
}

Outcome enable_needs_bit_30(const Conversation& c) {
  return each_of<SetVringEnable>(c, [](const Said& one) -> Wrong {
    if ((one.offered_features & bit(VHOST_USER_F_PROTOCOL_FEATURES)) == 0) return "bit 30 was not offered";
    // QEMU enables the rings of network devices before it sets features.
    return unless(!one.features_set || one.agreed.has_feature(VHOST_USER_F_PROTOCOL_FEATURES),
                  "bit 30 was not set");
  });
}

Outcome no_more_queues_than_told(const Conversation& c) {
  const auto picks = [](const Said& one) {
    return is_one_of<SetVringNum, SetVringAddr, SetVringBase>(one) && one.queues > 0;
  };
  return each(c, "a ring after GET_QUEUE_NUM", picks, [](const Said& one) {
    return unless(one.at<uint32_t>(0) < one.queues,
                  fmt::format("ring {} of {}", one.at<uint32_t>(0), one.queues));
  });
}

Outcome each_queue_has_its_index(const Conversation& c) {
  std::map<uint64_t, uint32_t> rings;
  const auto forget = [&](uint32_t ring) {
    std::erase_if(rings, [&](const auto& known) { return known.second == ring; });
  };
  // Whoever stops a ring, or the device, may put another one in its place.
  const auto picks = [&](const Said& one) {
    if (is_one_of<GetVringBase, GetVringBaseSkipDrain>(one)) forget(one.at<uint32_t>(0));
    const bool resets = is_one_of<SetStatus>(one) && one.at<uint64_t>(0) == 0;
    if (resets || is_one_of<ResetDevice, ResetOwner>(one)) rings.clear();
    return is_one_of<SetVringAddr>(one);
  };
  return each(c, "SET_VRING_ADDR", picks, [&](const Said& one) {
    const auto ring = one.at<uint32_t>(0);
    forget(ring);
    const auto [known, is_new] = rings.emplace(one.at<uint64_t>(8), ring);
    return unless(is_new, fmt::format("rings {} and {} are at one place", known->second, ring));
  });
}

Outcome works_without_mq(const Conversation& c) {
  const auto picks = [](const Said& one) {
    return is_one_of<SetVringKick>(one) && (one.offered_protocol & bit(VHOST_USER_PROTOCOL_F_MQ)) == 0;
  };
  if (!c.said().empty() && (c.said().back().offered_protocol & bit(VHOST_USER_PROTOCOL_F_MQ)) != 0)
    return not_testable("MQ was offered");
  return each(c, "a ring's start without MQ", picks, [](const Said&) -> Wrong { return std::nullopt; });
}

Outcome queue_number_needs_mq(const Conversation& c) {
  return each_of<GetQueueNum>(c, [](const Said& one) {
    return unless((one.offered_protocol & bit(VHOST_USER_PROTOCOL_F_MQ)) != 0, "MQ is not offered");
  });
}

Outcome get_vring_base_asks_with_0(const Conversation& c) {
  return each_of<GetVringBase>(c, [](const Said& one) {
    return unless(one.at<uint32_t>(4) == 0, fmt::format("{}", one.at<uint32_t>(4)));
  });
}

Outcome kick_bits_match_its_fd(const Conversation& c) { return each_of<SetVringKick>(c, fd_matches_bit); }
Outcome call_bits_match_its_fd(const Conversation& c) { return each_of<SetVringCall>(c, fd_matches_bit); }
Outcome err_bits_match_its_fd(const Conversation& c) { return each_of<SetVringErr>(c, fd_matches_bit); }

Outcome endianness_is_0_or_1(const Conversation& c) {
  return each_of<SetVringEndian>(c, [](const Said& one) -> Wrong {
    if (const Wrong wrong = agreed_upon(one)) return wrong;
    return unless(one.at<uint32_t>(4) <= 1, fmt::format("{}", one.at<uint32_t>(4)));
  });
}

Outcome in_band_kicks_have_0(const Conversation& c) {
  return each_of<VringKick>(c, [](const Said& one) {
    return unless(one.at<uint32_t>(4) == 0, fmt::format("{}", one.at<uint32_t>(4)));
  });
}

// ---- IOMMU

Outcome iotlb_needs_its_feature(const Conversation& c) {
  return needs_its_feature<UpdateIotlb>(c, "IOTLB_MSG");
}

Outcome iotlb_updates_are_sound(const Conversation& c) {
  return each_of<UpdateIotlb>(c, [](const Said& one) -> Wrong {
    const auto permission = one.at<uint8_t>(24);
    const auto type = one.at<uint8_t>(25);
    if (permission > 3) return fmt::format("permission {}", permission);
    return unless(type == 2 || type == 3, fmt::format("type {}", type));
  });
}

Outcome iotlb_updates_lie_in_memory(const Conversation& c) {
  const auto picks = [](const Said& one) { return is_one_of<UpdateIotlb>(one) && one.at<uint8_t>(25) == 2; };
  return each(c, "an IOTLB update", picks, [](const Said& one) {
    return unless(
        lies_in(one.regions, one.at<uint64_t>(16), one.at<uint64_t>(8)),
        fmt::format("{} bytes at {:#x} are in no region", one.at<uint64_t>(8), one.at<uint64_t>(16)));
  });
}

// ---- migration

Outcome log_base_brings_a_file(const Conversation& c) {
  return each_of<SetLogBase>(c, [](const Said& one) {
    const bool shared = one.agreed.has_capability(VHOST_USER_PROTOCOL_F_LOG_SHMFD);
    return unless(one.fds == (shared ? 1U : 0U), fmt::format("{} file descriptors came", one.fds));
  });
}

Outcome the_log_covers_memory(const Conversation& c) {
  return each_of<SetLogBase>(c, [](const Said& one) -> Wrong {
    uint64_t most = 0;
    for (const auto& region : one.regions) most = std::max(most, region.guest.value + region.size);
    const uint64_t needed = (most + page_bytes * 8 - 1) / (page_bytes * 8);
    return unless(one.at<uint64_t>(0) >= needed, fmt::format("{} bytes of {}", one.at<uint64_t>(0), needed));
  });
}

Outcome used_rings_lie_in_the_log(const Conversation& c) {
  // The log in force; rings may be described shortly before the first.
  const auto first = std::ranges::find_if(c.said(), is_one_of<SetLogBase>);
  uint64_t log_size = first == c.said().end() ? 0 : first->at<uint64_t>(0);
  std::map<uint32_t, uint64_t> entries;
  const auto picks = [&](const Said& one) {
    if (is_one_of<SetLogBase>(one)) log_size = one.at<uint64_t>(0);
    if (is_one_of<SetVringNum>(one)) entries[one.at<uint32_t>(0)] = one.at<uint32_t>(4);
    return log_size > 0 && is_one_of<SetVringAddr>(one) &&
           (one.at<uint32_t>(4) & (1U << VHOST_VRING_F_LOG)) != 0;
  };
  return each(c, "a ring that is logged", picks, [&](const Said& one) {
    const bool packed = one.agreed.has_feature(VIRTIO_F_RING_PACKED);
    const uint64_t bytes = packed ? 4 : 4 + 8 * entries[one.at<uint32_t>(0)];
    const uint64_t at = one.at<uint64_t>(32);
    return unless(at + bytes > at && (at + bytes - 1) / page_bytes / 8 < log_size,
                  fmt::format("{} bytes at {:#x}, and a log of {} bytes", bytes, at, log_size));
  });
}

Outcome postcopy_excludes_slots(const Conversation& c) {
  return each(c, "a message of postcopy", is_one_of<PostcopyAdvise, PostcopyListen, PostcopyEnd>,
              [](const Said& one) {
                return unless(!one.agreed.has_capability(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS),
                              "CONFIGURE_MEM_SLOTS is agreed on");
              });
}

Outcome state_transfers_are_sound(const Conversation& c) {
  return each_of<SetDeviceStateFd>(c, [](const Said& one) {
    return unless(one.at<uint32_t>(0) <= 1 && one.at<uint32_t>(4) == 0 && one.fds == 1,
                  fmt::format("direction {}, phase {}, {} file descriptors", one.at<uint32_t>(0),
                              one.at<uint32_t>(4), one.fds));
  });
}

Outcome inflight_area_comes_back(const Conversation& c) {
  return each(c, "an in-flight area", is_one_of<GetInflightFd, SetInflightFd>, [](const Said& one) -> Wrong {
    if (const Wrong wrong = agreed_upon(one)) return wrong;
    return unless(one.at<uint16_t>(16) > 0 && one.at<uint16_t>(18) > 0, "no queues, or no entries");
  });
}

// ---- the rest

Outcome config_flags_are_defined(const Conversation& c) {
  return each(c, "a message about configuration", is_one_of<GetConfig, SetConfig>, [](const Said& one) {
    return unless(one.at<uint32_t>(8) <= 1, fmt::format("flags {:#x}", one.at<uint32_t>(8)));
  });
}

Outcome config_requests_are_whole(const Conversation& c) {
  return each(
      c, "a message about configuration", is_one_of<GetConfig, SetConfig>, [](const Said& one) -> Wrong {
        if (const Wrong wrong = agreed_upon(one)) return wrong;
        return unless(one.payload.size() == 12 + uint64_t{one.at<uint32_t>(4)},
                      fmt::format("size {} in {} bytes of payload", one.at<uint32_t>(4), one.payload.size()));
      });
}

Outcome back_channel_needs_its_feature(const Conversation& c) {
  return needs_its_feature<SetFrontEnd>(c, "SET_BACKEND_REQ_FD");
}

Outcome back_channel_is_a_socket(const Conversation& c) {
  return each_of<SetFrontEnd>(
      c, [](const Said& one) { return unless(one.fds == 1 && one.fd_is_socket, "no socket came"); });
}

Outcome in_band_comes_with_its_channel(const Conversation& c) {
  return each_of<SetProtocolFeatures>(c, [](const Said& one) {
    const Agreement after{.capabilities = one.at<uint64_t>(0)};
    return unless(!after.has_capability(VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS) ||
                      (after.has_capability(VHOST_USER_PROTOCOL_F_BACKEND_REQ) &&
                       after.has_capability(VHOST_USER_PROTOCOL_F_REPLY_ACK)),
                  "INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK");
  });
}

Outcome skip_drain_needs_its_features(const Conversation& c) {
  return each_of<SetProtocolFeatures>(c, [](const Said& one) {
    const Agreement after{.capabilities = one.at<uint64_t>(0)};
    return unless(!after.has_capability(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN) ||
                      (after.has_capability(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT) &&
                       after.has_capability(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)),
                  "GET_VRING_BASE_SKIP_DRAIN without what it needs");
  });
}

Outcome rarp_needs_its_feature(const Conversation& c) { return needs_its_feature<SendRarp>(c, "SEND_RARP"); }
Outcome mtu_needs_its_feature(const Conversation& c) {
  return needs_its_feature<NetSetMtu>(c, "NET_SET_MTU");
}
Outcome crypto_needs_its_feature(const Conversation& c) {
  return needs_its_feature<CreateCryptoSession, CloseCryptoSession>(c, "a crypto session");
}
Outcome reset_needs_its_feature(const Conversation& c) {
  return needs_its_feature<ResetDevice>(c, "RESET_DEVICE");
}
Outcome status_needs_its_feature(const Conversation& c) {
  return needs_its_feature<SetStatus, GetStatus>(c, "a status");
}
Outcome objects_need_their_feature(const Conversation& c) {
  return needs_its_feature<GetSharedObject>(c, "GET_SHARED_OBJECT");
}
Outcome gpu_socket_comes_alone(const Conversation& c) {
  return each_of<GpuSetSocket>(
      c, [](const Said& one) { return unless(one.fds == 1 && one.fd_is_socket, "no socket came"); });
}

}  // namespace ringway::check::front_end
