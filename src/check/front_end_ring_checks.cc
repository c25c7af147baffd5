// Front-ends: rings.
#include <fmt/format.h>
#include <linux/virtio_config.h>

#include <map>

#include "ringway/check/front_end_checks.h"
#include "ringway/check/judging.h"

namespace ringway::check::front_end {
namespace {

constexpr uint64_t no_fd = 0x100;

Wrong fd_matches_bit(const Said& one) {
  const bool says_none = (one.at<uint64_t>(0) & no_fd) != 0;
  return unless(says_none == (one.fds == 0),
                fmt::format("{:#x} came with {} file descriptors", one.at<uint64_t>(0), one.fds));
}

}  // namespace

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

}  // namespace ringway::check::front_end
