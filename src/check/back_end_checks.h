// The checks of back-ends, one function for each requirement that can be seen from outside. Which is which:
// requirements.cc. Those of frames need a Target that has them. Each opens sessions of its own.
#pragma once

#include "ringway/check/trial.h"

namespace ringway::check {

// checks_of_messages.cc: frames
Outcome headers_are_native(Trial& trial);
Outcome replies_have_version_1(Trial& trial);
Outcome replies_have_the_reply_flag(Trial& trial);
Outcome need_reply_asks_for_a_reply(Trial& trial);
Outcome replies_have_their_size(Trial& trial);
Outcome replies_come_where_owed(Trial& trial);
Outcome bit_30_announces_protocol_features(Trial& trial);
Outcome features_are_answered(Trial& trial);
Outcome protocol_features_precede_features(Trial& trial);
Outcome works_without_protocol_features(Trial& trial);
Outcome acknowledgements_tell_the_truth(Trial& trial);
Outcome own_replies_come_once(Trial& trial);
Outcome in_band_needs_its_channel(Trial& trial);

// checks_of_single_messages.cc: frames
Outcome log_base_is_answered(Trial& trial);
Outcome config_replies_match(Trial& trial);
Outcome undefined_config_flags_are_refused(Trial& trial);
Outcome state_transfers_are_checked(Trial& trial);
Outcome state_replies_have_one_meaning(Trial& trial);
Outcome state_is_checked(Trial& trial);
Outcome shmem_config_is_sound(Trial& trial);
Outcome shmem_config_stays(Trial& trial);
Outcome unknown_objects_have_no_fd(Trial& trial);
Outcome stray_fds_are_closed(Trial& trial);

// checks_of_rings.cc
Outcome split_base_has_16_bits(Trial& trial);
Outcome packed_base_has_both_indices(Trial& trial);
Outcome stopped_rings_rest(Trial& trial);
Outcome enabling_is_remembered(Trial& trial);
Outcome disabled_rings_discard(Trial& trial);
Outcome running_rings_are_served(Trial& trial);
Outcome kick_message_starts(Trial& trial);
Outcome get_vring_base_stops(Trial& trial);
Outcome rings_start_again(Trial& trial);
Outcome no_kick_is_needed_to_start(Trial& trial);
Outcome enabling_works_at_any_time(Trial& trial);
Outcome without_bit_30_rings_are_enabled(Trial& trial);
Outcome things_change_under_running_rings(Trial& trial);
Outcome suspended_memory_stays(Trial& trial);
Outcome suspended_is_silent(Trial& trial);
Outcome suspended_sends_nothing(Trial& trial);
Outcome suspended_answers(Trial& trial);
Outcome base_is_taken(Trial& trial);
Outcome stop_waits_for_requests(Trial& trial);
Outcome rings_without_kick_are_polled(Trial& trial);
Outcome call_is_signalled(Trial& trial);
Outcome err_is_taken(Trial& trial);
Outcome reset_owner_keeps_the_session(Trial& trial);
Outcome in_band_calls_come(Trial& trial);

// checks_of_memory.cc
Outcome ring_addresses_have_40_bytes(Trial& trial);
Outcome addresses_are_user_addresses(Trial& trial);
Outcome guest_addresses_may_be_used(Trial& trial);
Outcome eight_regions_are_taken(Trial& trial);
Outcome fds_go_with_their_regions(Trial& trial);
Outcome slots_are_as_many_as_told(Trial& trial);
Outcome added_memory_is_used(Trial& trial);
Outcome removal_ignores_the_offset(Trial& trial);
Outcome iotlb_payload_is_taken(Trial& trial);
Outcome iotlb_translates(Trial& trial);
Outcome iotlb_is_acknowledged(Trial& trial);
Outcome iotlb_misses_are_told(Trial& trial);

// checks_of_logs.cc
Outcome logging_is_switched(Trial& trial);
Outcome written_pages_are_marked(Trial& trial);
Outcome used_rings_are_marked(Trial& trial);
Outcome log_begins_at_its_offset(Trial& trial);
Outcome log_marks_are_atomic(Trial& trial);
Outcome log_fd_is_taken(Trial& trial);

// checks_of_postcopy.cc: frames
Outcome postcopy_advise_brings_a_userfaultfd(Trial& trial);
Outcome postcopy_ends(Trial& trial);
Outcome postcopy_waits_for_pages(Trial& trial);
Outcome postcopy_tells_its_addresses(Trial& trial);
Outcome postcopy_asks_for_pages(Trial& trial);

// checks_of_transfers.cc
Outcome loads_to_the_end(Trial& trial);
Outcome goes_on_after_a_save(Trial& trial);

// checks_of_devices.cc
Outcome queue_number_is_told(Trial& trial);
Outcome inflight_area_is_given(Trial& trial);
Outcome fresh_inflight_area_is_taken(Trial& trial);
Outcome skip_drain_stops_at_once(Trial& trial);
Outcome mtu_is_judged(Trial& trial);
Outcome back_channel_is_taken(Trial& trial);
Outcome endianness_is_taken(Trial& trial);
Outcome read_only_config_stays(Trial& trial);
Outcome device_is_reset(Trial& trial);
Outcome status_is_kept(Trial& trial);

}  // namespace ringway::check
