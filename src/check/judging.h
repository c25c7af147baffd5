// How a front-end is judged: what the judgements in front_end_*.cc are made of. Any thread.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ringway/check/conversation.h"
#include "ringway/check/finding.h"
#include "ringway/vhost/catalogue.h"

namespace ringway::check::front_end {

using namespace vhost;  // NOLINT(google-build-using-namespace): names of messages, in every line

// What is wrong with a message; nothing: it is right.
using Wrong = std::optional<std::string>;

inline std::string name_of(const Said& one) { return user::message_name<DeviceRequest>(one.header.request); }

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

inline Wrong unless(bool right, std::string otherwise) {
  if (right) return std::nullopt;
  return otherwise;
}

// What must have been agreed on for a message, by the catalogue.
inline Wrong agreed_upon(const Said& one) {
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

// In front-end addresses.
inline bool lies_in(const std::vector<memory::RegionLayout>& regions, uint64_t address, uint64_t size = 1) {
  return std::ranges::any_of(regions, [&](const auto& region) {
    const uint64_t offset = address - region.front_end.value;
    return address >= region.front_end.value && offset < region.size && size <= region.size - offset;
  });
}

}  // namespace ringway::check::front_end
