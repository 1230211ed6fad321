//! The HTTP layers over a scripted engine, and a few tests that put a daemon beside it. `make check` runs these.

#[path = "../daemon_support/mod.rs"]
mod daemon_support;
#[path = "../http_support/mod.rs"]
mod http_support;

mod administrators_follow_what_changes;
mod anthropic_answers_are_blocks;
mod anthropic_errors_are_in_its_words;
mod anthropic_fields_may_hold_anything;
mod anthropic_prompts_are_counted;
mod anthropic_requests_are_checked;
mod anthropic_streams_have_one_end;
mod calls_that_are_cut_invent_nothing;
mod connections_are_kept_and_closed_in_order;
mod embeddings_are_the_models_hidden_states;
mod http_abuse_is_bounded;
mod http_bodies_are_answered_whatever_they_are;
mod http_coded_bodies_are_read;
mod http_connections_are_guarded;
mod http_counts_every_request;
mod http_failures_have_their_status;
mod http_functions_are_bounded;
mod http_queries_name_models;
mod http_requests_are_checked;
mod http_requests_reach_the_engine;
mod http_says_what_it_does_not_speak;
mod http_shows_the_daemons_state;
mod http_streams_are_exact;
mod http_streams_are_told_in_time;
mod keys_take_turns;
mod llama_servers_models;
mod llama_servers_texts;
mod ollama_answers_are_lines;
mod ollama_fields_forge_nothing;
mod ollama_fields_may_hold_anything;
mod ollama_models_are_made_of_others;
mod ollama_models_are_told_as_they_are;
mod ollama_refusals_are_in_its_words;
mod ollama_requests_are_checked;
mod ollama_streams_have_one_end;
mod pages_of_other_sites_are_admitted_by_name;
mod random_replies;
mod requests_are_aborted;
mod responses_are_kept_for_their_keys;
mod responses_are_made_in_the_background;
mod responses_are_made_shorter;
mod responses_background_support;
mod responses_fields_may_hold_anything;
mod responses_in_the_background_are_followed;
mod responses_requests_are_checked;
mod responses_streams_have_one_end;
mod rpc_websockets_end_as_the_protocol_says;
mod the_prompt_of_a_chat_can_be_seen;
mod the_status_agrees_with_the_other_pages;
mod tokens_are_made_without_a_run;
