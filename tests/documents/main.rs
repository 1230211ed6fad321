//! What documents, packages and sources say is what the program does.

#[path = "../daemon_support/mod.rs"]
mod daemon_support;
#[path = "../fuse_support/mod.rs"]
mod fuse_support;
#[path = "../root_support/mod.rs"]
mod root_support;
#[path = "../rpc_support/mod.rs"]
mod rpc_support;

mod a_fresh_machine_gets_its_rust;
mod a_start_that_fails_says_what_to_do;
mod board_support;
mod boards_are_collected;
mod command_line;
mod doctor_command;
mod governors_are_tuned;
mod imports_follow_the_layers;
mod named_paths;
mod one_build_serves_all;
mod readme;
mod rpc_is_documented;
mod settings_default_config;
mod the_doctor_tells_of_the_service;
mod the_doctor_tells_what_is_wrong;
mod the_doctor_waits_for_no_file;
mod the_document_says_what_is_served;
mod the_packages_name_their_licences;
mod the_units_fit_systemd;
