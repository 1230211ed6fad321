//! rkllmd, in the order a request passes through it: `http` parses a dialect, `admission` accepts or
//! refuses, `supervisor` owns the worker processes, `children` hosts them, `ipc` carries frames,
//! `worker` is the child that loads the runtime; `hub` brings models;
//! `prompt` makes a conversation into the text it gets,
//! `reply` tells thoughts, content and calls apart in what it answers.
//! `generation`, `conversation` and `library_calls` are the vocabulary they share. Nothing runs back
//! up.

pub mod admission;
mod apart;
mod aside;
pub mod auth;
pub mod bench;
pub mod board;
pub mod chat;
mod children;
pub mod cli;
pub mod confinement;
pub mod constraint;
pub mod conversation;
pub mod daemon;
mod descriptor_limit;
pub mod doctor;
mod durable_write;
pub mod generation;
pub mod http;
pub mod hub;
pub mod ipc;
pub mod library_calls;
mod memory;
pub mod models;
mod printable;
mod process_figures;
pub mod prompt;
pub mod reader;
mod regular_file;
pub mod reply;
pub mod service_manager;
pub mod settings;
mod short_slice;
pub mod supervisor;
pub mod telemetry;
pub mod worker;

/// Has freed memory go back to the kernel. To be called before any other thread starts.
pub fn prepare_allocator() {
    memory::allocator::prepare();
}
