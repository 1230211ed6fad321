//! A real daemon over real sockets.

#[path = "../documents/board_support.rs"]
mod board_support;
#[path = "../cgroup_support/mod.rs"]
mod cgroup_support;
#[path = "../daemon_support/mod.rs"]
mod daemon_support;
#[path = "../fuse_support/mod.rs"]
mod fuse_support;
#[path = "../hub_support/mod.rs"]
mod hub_support;
#[path = "../hung_kernel_support/mod.rs"]
mod hung_kernel_support;
#[path = "../json_judge/mod.rs"]
mod json_judge;
#[path = "../root_support/mod.rs"]
mod root_support;
#[path = "../schema_support/mod.rs"]
mod schema_support;
#[path = "../http_support/sweep.rs"]
mod sweep;
#[path = "../template_support/mod.rs"]
mod template_support;

mod client_sessions;
mod doors;
mod function_calls;
mod log_probabilities;
mod manager;
mod sixty_words;

mod a_board_that_hangs_stops_nothing;
mod a_client_that_goes_away_frees_its_place;
mod a_kernel_that_does_not_answer_holds_nothing_up;
mod a_reload_disturbs_nothing;
mod a_short_probe_proves_nothing;
mod a_stream_survives_its_worker;
mod a_watched_board_costs_nothing;
mod adapters_are_models;
mod administrators_are_looked_at_again;
mod administrators_see_and_change;
mod agents_command_lines_work_unchanged;
mod an_admin_of_one_model_replaces_no_other;
mod an_older_cpu_runtime_is_known;
mod an_unkillable_worker_gets_no_successor;
mod an_unread_log_stops_nothing;
mod answers_keep_their_format;
mod answers_repeat_whatever_runs;
mod answers_with_unprinted_tokens;
mod anthropics_clients_work_unchanged;
mod batches_serve_several;
mod boards_are_measured;
mod bodies_of_public_schemas_are_answered;
mod calls_and_results_reach_the_model;
mod calls_obey;
mod calls_outlive_their_worker;
mod calls_that_cannot_be_kept;
mod clients_of_responses_work_unchanged;
mod clients_requests_are_answered;
mod conversations_go_on_from_their_tokens;
mod conversations_keep_their_slot;
mod crowds_are_served_or_refused;
mod dead_workers_are_replaced;
mod deadlines_are_told_in_time;
mod documents_are_ranked_by_what_the_model_says;
mod draws_are_as_asked;
mod embeddings_order_as_llama_cpp_does;
mod every_dialect_tells_the_same;
mod every_family_serves;
mod faults_of_the_runtime_become_typed_errors;
mod files_that_lie_are_told;
mod formats_beside_calls;
mod formats_outlive_their_workers;
mod formats_support;
mod formats_without_a_hook;
mod hostile_formats_cost_their_request_alone;
mod hostile_templates_cost_their_model_alone;
mod http_idle_crowds_are_bounded;
mod http_timings_tell_the_queue;
mod keys_are_followed_whatever_lies_there;
mod keys_change_without_a_restart;
mod keys_let_in_only_who_may;
mod keys_share_by_weight;
mod killed_pulls_leave_no_model;
mod limits_of_templates_are_settings;
mod long_histories_lose_their_oldest_turns;
mod long_inputs_are_cut;
mod models_are_checked;
mod models_are_pulled;
mod models_are_read_on_while_others_serve;
mod models_are_removed;
mod models_call_functions;
mod models_come_and_go_by_request;
mod models_folder_support;
mod models_folders_stop_nothing;
mod models_say_how_they_reply;
mod models_stay_as_long_as_they_are_kept;
mod no_page_of_another_site_changes_anything;
mod no_request_is_blamed_without_proof;
mod ollamas_clients_work_unchanged;
mod one_daemon_has_a_state_folder;
mod openais_responses_work_unchanged;
mod prefixes_are_swapped;
mod prefixes_are_their_tenants;
mod prefixes_are_whole_or_gone;
mod prefixes_disturb_no_run;
mod prefixes_keep_to_their_bounds;
mod prefixes_support;
mod prompts_are_pinned;
mod pulls_are_killed_between_their_steps;
mod pulls_wait_for_no_share;
mod refusals_have_their_paths_shape;
mod requests_have_several_answers;
mod requests_memory_is_bounded;
mod requests_memory_support;
mod responses_in_the_background_have_an_end;
mod responses_on_disk_outlive_the_daemon;
mod silent_connections_lock_no_client_out;
mod slots_are_lost_together;
mod slots_share_a_worker;
mod slots_support;
mod sockets_outlive_the_daemon;
mod streams_of_events_survive_their_worker;
mod systemd_is_told_the_truth;
mod the_board_is_told_as_it_is;
mod the_demo_serves;
mod the_official_client_works_unchanged;
mod the_real_model_calls_and_thinks_without_a_hook;
mod the_real_model_streams;
mod the_real_model_takes_its_calls_back;
mod the_router_downloads;
mod the_router_loads_and_unloads;
mod the_unix_socket_serves;
mod the_vendors_library_tells_and_bans;
mod the_vendors_oddities_keep_formats;
mod thoughts_keep_their_budget;
mod tiny_models;
mod tokenizers_of_gguf;
mod tokens_of_cut_characters_are_told;
mod tokens_say_how_likely_they_were;
mod typed_clients_get_what_they_ask_for;
mod what_is_made_of_requests_is_charged;
mod whatever_is_asked_is_kept_without_a_hook;
mod worker_memory_is_bounded;
mod workers_are_contained;
mod workers_reach_their_own_files_only;
