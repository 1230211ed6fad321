//! Parts of the daemon, and its command line where no daemon runs.

#[path = "../constraint_support/mod.rs"]
mod constraint_support;
#[path = "../schema_support/generated.rs"]
mod generated_schemas;
#[path = "../hub_support/mod.rs"]
mod hub_support;
#[path = "../../benches/common/intervals.rs"]
mod intervals;
#[path = "../json_judge/mod.rs"]
mod json_judge;
#[path = "../reader_support/mod.rs"]
mod reader_support;
#[path = "../reply_support/mod.rs"]
mod reply_support;
#[path = "../root_support/mod.rs"]
mod root_support;
#[path = "../../benches/common/statistics.rs"]
mod statistics;
#[path = "../template_support/mod.rs"]
mod template_support;

mod a_stopped_journal_delays_nothing;
mod answers_are_rendered_as_they_were_written;
mod benchmarks_say_how_sure_they_are;
mod calls_are_kept_in_every_form;
mod calls_support;
mod chat_templates_render_as_transformers_does;
mod clients_chats_render_as_transformers_does;
mod conversations_fit_every_template;
mod formats_beside_calls;
mod grammars_are_kept_as_llama_cpp_reads_them;
mod keys_command_line;
mod keys_survive_a_power_cut;
mod models_are_found_on_disk;
mod models_files_tell_how_to_speak_with_them;
mod models_folder_support;
mod models_keep_control_tokens_out;
mod models_render_as_transformers_does;
mod no_template_makes_tokens_of_client_text;
mod odd_schemas_are_kept_or_told;
mod official_templates_with_other_markers;
mod pulls_are_whole_or_not_at_all;
mod pulls_lead_nowhere_else;
mod pulls_support;
mod pulls_take_hubs_as_they_come;
mod pulls_take_little_memory;
mod pulls_take_no_hub_at_its_word;
mod pulls_take_what_was_said;
mod pulls_trust_whom_they_are_told;
mod random_draws_keep_random_formats;
mod random_replies_are_read_whole;
mod random_templates_keep_client_text_apart;
mod references_lead_where_they_say;
mod replies_are_read_as_they_stream;
mod replies_keep_what_is_no_call;
mod replies_lose_nothing;
mod replies_of_a_real_vocabulary;
mod replies_take_linear_time;
mod schemas_are_kept_as_the_suite_says;
mod schemas_of_programs_are_kept;
mod settings_sources;
mod settings_survive_any_source;
mod templates_say_whose_fault_it_is;
mod templates_tell_how_their_models_reply;
mod texts_beside_calls;
mod tokens_apart_support;
mod transformers_support;
