//! Handles of the vendor's API, and workers driven without a daemon.

#[path = "../daemon_support/mod.rs"]
mod daemon_support;
#[path = "../handle_support/mod.rs"]
mod handle_support;
#[path = "../root_support/mod.rs"]
mod root_support;
#[path = "../worker_support/mod.rs"]
mod worker_support;

mod a_saved_prompt_is_whole_or_gone;
mod batches_are_left_in_any_order;
mod batches_are_left_one_by_one;
mod batches_support;
mod batches_tell_each_its_own;
mod clients_take_turns_whatever_they_ask;
mod closed_handles_leave_nothing;
mod handles_give_what_the_library_gives;
mod handles_outlive_their_workers;
mod handles_serve_only_who_waits;
mod handles_share_the_places;
mod hung_calls_pass_their_deadlines;
mod inputs_are_refused_alike_in_company;
mod prompt_caches_spare_prefill;
mod raw_runs_leave_counts_right;
mod sizes_of_another_run_shorten_no_answer;
mod slots_run_side_by_side;
mod tensors_of_handles_are_exact;
mod the_worker_keeps_answers_exact;
mod the_worker_times_its_calls;
