//! JSON-RPC on every transport.

#[path = "../daemon_support/mod.rs"]
mod daemon_support;
#[path = "../rpc_support/mod.rs"]
mod rpc_support;

mod administrators_abort_runs;
mod handles_are_charged_for_what_they_keep;
mod rpc_asks_for_keys;
mod rpc_conforms_on_every_family;
mod rpc_connections_are_bounded;
mod rpc_handles_belong_to_their_owner;
mod rpc_known_failures_of_other_servers;
mod rpc_results_are_exact;
mod rpc_serves_the_real_model;
mod rpc_speaks_json_rpc_on_every_transport;
mod tensors_held_are_bounded;
mod tensors_reach_clients_in_windows;
mod the_python_rpc_client_works;
mod websockets_hold_little;
mod what_a_request_causes_is_its_own_fault;
