// The judgements on front-ends, one function for each requirement that shows in what they say. Which is
// which: requirements.cc. Any thread.
#pragma once

#include "ringway/check/conversation.h"
#include "ringway/check/finding.h"

namespace ringway::check::front_end {

Outcome headers_are_sound(const Conversation& conversation);
Outcome headers_have_version_1(const Conversation& conversation);
Outcome requests_have_no_reply_flag(const Conversation& conversation);
Outcome need_reply_only_when_agreed(const Conversation& conversation);
Outcome requests_have_their_size(const Conversation& conversation);
Outcome bases_have_16_bits(const Conversation& conversation);
Outcome ring_addresses_have_40_bytes(const Conversation& conversation);
Outcome ring_addresses_lie_in_memory(const Conversation& conversation);
Outcome gpa_regions_are_the_same(const Conversation& conversation);
Outcome guest_addresses_do_not_overlap(const Conversation& conversation);
Outcome user_addresses_do_not_overlap(const Conversation& conversation);
Outcome added_regions_do_not_overlap(const Conversation& conversation);
Outcome tables_have_8_regions_at_most(const Conversation& conversation);
Outcome iotlb_updates_are_sound(const Conversation& conversation);
Outcome config_flags_are_defined(const Conversation& conversation);
Outcome state_transfers_are_sound(const Conversation& conversation);
Outcome fds_come_with_their_messages(const Conversation& conversation);
Outcome fds_come_with_the_first_byte(const Conversation& conversation);
Outcome wrong_replies_end_it(const Conversation& conversation);
Outcome nothing_before_it_was_agreed(const Conversation& conversation);
Outcome enable_is_0_or_1(const Conversation& conversation);
Outcome no_more_queues_than_told(const Conversation& conversation);
Outcome each_queue_has_its_index(const Conversation& conversation);
Outcome works_without_mq(const Conversation& conversation);
Outcome the_log_covers_memory(const Conversation& conversation);
Outcome used_rings_lie_in_the_log(const Conversation& conversation);
Outcome postcopy_excludes_slots(const Conversation& conversation);
Outcome slots_need_their_feature(const Conversation& conversation);
Outcome iotlb_updates_lie_in_memory(const Conversation& conversation);
Outcome back_channel_needs_its_feature(const Conversation& conversation);
Outcome back_channel_is_a_socket(const Conversation& conversation);
Outcome inflight_area_comes_back(const Conversation& conversation);
Outcome in_band_comes_with_its_channel(const Conversation& conversation);
Outcome features_are_asked(const Conversation& conversation);
Outcome protocol_features_need_bit_30(const Conversation& conversation);
Outcome the_owner_is_set_early(const Conversation& conversation);
Outcome reset_owner_is_not_sent(const Conversation& conversation);
Outcome each_region_has_a_file(const Conversation& conversation);
Outcome log_base_brings_a_file(const Conversation& conversation);
Outcome get_vring_base_asks_with_0(const Conversation& conversation);
Outcome kick_bits_match_its_fd(const Conversation& conversation);
Outcome call_bits_match_its_fd(const Conversation& conversation);
Outcome err_bits_match_its_fd(const Conversation& conversation);
Outcome queue_number_needs_mq(const Conversation& conversation);
Outcome enable_needs_bit_30(const Conversation& conversation);
Outcome rarp_needs_its_feature(const Conversation& conversation);
Outcome mtu_needs_its_feature(const Conversation& conversation);
Outcome iotlb_needs_its_feature(const Conversation& conversation);
Outcome endianness_is_0_or_1(const Conversation& conversation);
Outcome config_requests_are_whole(const Conversation& conversation);
Outcome crypto_needs_its_feature(const Conversation& conversation);
Outcome gpu_socket_comes_alone(const Conversation& conversation);
Outcome reset_needs_its_feature(const Conversation& conversation);
Outcome in_band_kicks_have_0(const Conversation& conversation);
Outcome no_more_regions_than_slots(const Conversation& conversation);
Outcome removal_brings_no_file(const Conversation& conversation);
Outcome status_needs_its_feature(const Conversation& conversation);
Outcome objects_need_their_feature(const Conversation& conversation);
Outcome skip_drain_needs_its_features(const Conversation& conversation);

}  // namespace ringway::check::front_end
