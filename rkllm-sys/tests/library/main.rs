//! The crate and the fake runtimes, each through the real ABI.

#[path = "../common/mod.rs"]
mod common;

mod a_library_is_never_unloaded;
mod answers_go_on_where_the_prompt_ends;
mod faults_of_the_fake_runtime;
mod how_a_run_ends;
mod layouts_match_the_facts;
mod memory_and_progress_are_visible;
mod opening_a_library;
mod parameters_arrive;
mod results_against_the_rules;
mod running_a_model;
