// Front-ends: memory, the IOMMU, migration.
#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <algorithm>
#include <map>
#include <vector>

#include "ringway/check/front_end_checks.h"
#include "ringway/check/judging.h"

namespace ringway::check::front_end {
namespace {

constexpr uint64_t page_bytes = 4096;

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

}  // namespace

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

}  // namespace ringway::check::front_end
