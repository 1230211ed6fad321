//! The host of child processes: it starts them, speaks with them, drains what they print, measures
//! their memory, ends them and explains their end. What a child is for is its [`ChildKind`]'s.
//!
//! A child is killed when what it belongs to is dropped, and by the kernel when the daemon dies. One
//! that outlives SIGKILL is reported and never waited for by anything that serves.

mod connection;
mod exit_report;
mod host;
mod kind;
mod link;
pub(crate) mod memory;
mod oom_kills;
mod oom_score;
mod printed_lines;
mod process;
pub(crate) mod process_setup;

pub(crate) use connection::{Connection, ConnectionError, Incoming};
#[cfg(test)]
pub(crate) use exit_report::ExitContext;
pub(crate) use exit_report::{EndReason, ExitCause, ExitReport};
pub(crate) use host::{Child, ChildEnvironment, Host, Watched};
pub(crate) use kind::ChildKind;
pub(crate) use link::ChildLink;
pub(crate) use printed_lines::PrintedLines;
pub(crate) use process::{ChildProcess, ProcessEvent};
pub(crate) use process_setup::ChildArguments;
