//! rkllmd, in the order a request passes through it: `http` parses a dialect, `admission` accepts or
//! refuses, `supervisor` owns the worker processes, `ipc` carries frames, `worker` is the child that
//! loads the runtime. `generation` and `library_calls` are the vocabulary they share. Nothing runs
//! back up.

pub mod admission;
pub mod auth;
pub mod board;
pub mod cli;
pub mod daemon;
mod descriptor_limit;
pub mod generation;
pub mod http;
pub mod ipc;
pub mod library_calls;
pub mod models;
mod process_figures;
pub mod service_manager;
pub mod settings;
pub mod supervisor;
pub mod telemetry;
pub mod tokenizers;
pub mod worker;
