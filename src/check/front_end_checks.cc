#include "ringway/check/front_end_checks.h"

#include <fmt/format.h>

#include "ringway/check/judging.h"

namespace ringway::check::front_end {
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
