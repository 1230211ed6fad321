//! How a child ended and why: what waitpid reported, what we had asked for, and what it was doing.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::generation::Deadline;
use crate::ipc::{EXIT_DEADLINE, EXIT_LOAD_FAILED};

/// Why we end a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Asked to unload: its place is needed, or it is not.
    Unload,
    /// A call went past this deadline.
    Deadline(Deadline),
    /// It must not be used again: a call beside a run hung, or its runtime failed.
    Tainted,
    /// Above the soft memory limit and idle.
    Recycled,
    /// Above the hard memory limit.
    MemoryLimit,
    /// The run it was busy with is not wanted any more and did not end.
    Cancelled,
    /// It could not load its model.
    LoadFailed,
}

impl EndReason {
    /// Whether the request it was serving may be to blame. A worker that is not even scheduled was
    /// stopped by an operator or starved.
    pub fn is_fault(self) -> bool {
        matches!(self, Self::Deadline(name) if name != Deadline::Heartbeat)
    }
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// As we wanted it.
    Wanted(EndReason),
    /// A signal that a program raises by what it does.
    Crash(i32),
    /// It called exit.
    ExitCode(i32),
    /// A signal that only another process sends, and not the daemon.
    KilledFromOutside(i32),
    /// SIGKILL, of the kernel for want of memory or of another process: its counters could not be read.
    Killed,
    /// The kernel ended it because memory was short.
    OutOfMemory,
    /// waitpid failed.
    Unobserved,
}

impl ExitCause {
    /// The cause's name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wanted(EndReason::Unload) => "unloaded",
            Self::Wanted(EndReason::Deadline(_)) => "deadline",
            Self::Wanted(EndReason::Tainted) => "tainted",
            Self::Wanted(EndReason::Recycled) => "recycled",
            Self::Wanted(EndReason::MemoryLimit) => "memory-limit",
            Self::Wanted(EndReason::Cancelled) => "cancelled",
            Self::Wanted(EndReason::LoadFailed) => "load-failed",
            Self::Crash(libc::SIGSEGV) => "sigsegv",
            Self::Crash(libc::SIGABRT) => "sigabrt",
            Self::Crash(libc::SIGILL) => "sigill",
            Self::Crash(libc::SIGBUS) => "sigbus",
            Self::Crash(libc::SIGFPE) => "sigfpe",
            Self::Crash(_) => "signal",
            Self::ExitCode(_) => "exit-code",
            Self::KilledFromOutside(_) => "killed-from-outside",
            Self::Killed => "killed",
            Self::OutOfMemory => "oom-kill",
            Self::Unobserved => "unobserved",
        }
    }

    /// Whether the request it was serving may be to blame.
    pub fn is_fault(self) -> bool {
        match self {
            Self::Crash(_) | Self::ExitCode(_) => true,
            Self::Wanted(reason) => reason.is_fault(),
            Self::KilledFromOutside(_) | Self::Killed | Self::OutOfMemory | Self::Unobserved => {
                false
            }
        }
    }

    /// Whether something that ran may be behind it, though it cannot be blamed for that: memory is short
    /// because of all that is there.
    pub fn is_suspicious(self) -> bool {
        let is_about_memory = matches!(
            self,
            Self::Wanted(EndReason::MemoryLimit) | Self::OutOfMemory | Self::Killed
        );
        is_about_memory || self.is_fault()
    }

    /// Whether the model would still be loaded if this had not happened.
    pub fn leaves_a_gap(self) -> bool {
        !matches!(
            self,
            Self::Wanted(EndReason::Unload | EndReason::LoadFailed)
        )
    }

    /// Whether it counts towards a crash loop: the daemon did not want the model to go.
    pub fn is_failure(self) -> bool {
        match self {
            Self::Wanted(reason) => {
                matches!(reason, EndReason::Deadline(_) | EndReason::MemoryLimit)
            }
            _ => true,
        }
    }
}

/// Something that a child is busy with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The call in progress, such as `rkllm_run`.
    pub call: &'static str,
    /// The request it is made for.
    pub request: Option<String>,
}

/// The end of a process.
#[derive(Clone, Debug)]
pub struct ExitReport {
    /// `None`: waitpid failed.
    status: Option<ExitStatus>,
    pub cause: ExitCause,
    /// When waitpid reported it.
    pub at: Instant,
    pub uptime: Duration,
    /// What it was doing; nothing: it was idle.
    pub activities: Vec<Activity>,
}

/// What is known besides the status when a process ends.
pub struct ExitContext {
    pub reason: Option<EndReason>,
    /// For want of memory; `None`: not known.
    pub killed_by_kernel: Option<bool>,
    pub started_at: Instant,
    pub activities: Vec<Activity>,
}

impl ExitReport {
    /// The calls it was making, for the log.
    pub fn calls(&self) -> String {
        match &self.activities[..] {
            [] => "none".to_owned(),
            activities => joined(activities.iter().map(|activity| activity.call)),
        }
    }

    /// The requests they were made for; `None`: for none.
    pub fn requests(&self) -> Option<String> {
        let requests = self.activities.iter();
        let requests = joined(requests.filter_map(|activity| activity.request.as_deref()));
        (!requests.is_empty()).then_some(requests)
    }

    pub fn new(status: Option<ExitStatus>, context: ExitContext) -> Self {
        let at = Instant::now();
        Self {
            status,
            cause: cause(status, &context),
            at,
            uptime: at.saturating_duration_since(context.started_at),
            activities: context.activities,
        }
    }
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(" ")
}

fn cause(status: Option<ExitStatus>, context: &ExitContext) -> ExitCause {
    let Some(status) = status else {
        return ExitCause::Unobserved;
    };
    match (status.signal(), status.code(), context.reason) {
        // Whatever we wanted then, it did this by itself.
        (Some(signal), _, _) if is_crash(signal) => ExitCause::Crash(signal),
        // It ended itself; which deadline it was it has said with an event, if that arrived.
        (None, Some(EXIT_DEADLINE), reason) => {
            ExitCause::Wanted(EndReason::Deadline(match reason {
                Some(EndReason::Deadline(name)) => name,
                Some(EndReason::Unload) => Deadline::Unload,
                _ => Deadline::Worker,
            }))
        }
        (None, Some(EXIT_LOAD_FAILED), _) => ExitCause::Wanted(EndReason::LoadFailed),
        (_, _, Some(reason)) => ExitCause::Wanted(reason),
        (Some(libc::SIGKILL), _, None) => match context.killed_by_kernel {
            Some(true) => ExitCause::OutOfMemory,
            Some(false) => ExitCause::KilledFromOutside(libc::SIGKILL),
            None => ExitCause::Killed,
        },
        (Some(signal), _, None) => ExitCause::KilledFromOutside(signal),
        (None, code, None) => ExitCause::ExitCode(code.unwrap_or(-1)),
    }
}

fn is_crash(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGSEGV
            | libc::SIGABRT
            | libc::SIGILL
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGTRAP
            | libc::SIGSYS
            | libc::SIGXCPU
            | libc::SIGXFSZ
    )
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(status) = self.status else {
            return f.write_str("ended unobserved");
        };
        if let Some(signal) = status.signal() {
            write!(f, "killed by signal {signal}")?;
            if let Some(name) = signal_name(signal) {
                write!(f, " ({name})")?;
            }
            match self.cause {
                ExitCause::OutOfMemory => f.write_str(" by the kernel, because memory was short"),
                ExitCause::Killed => f.write_str("; whether memory was short is not known"),
                ExitCause::Wanted(EndReason::MemoryLimit) => {
                    f.write_str(" for exceeding `memory.worker-hard-limit-bytes`")
                }
                ExitCause::Wanted(EndReason::Deadline(name)) => {
                    write!(f, " because the `{name}` deadline had passed")
                }
                _ => Ok(()),
            }
        } else {
            write!(f, "exited with code {}", status.code().unwrap_or(-1))
        }
    }
}

/// The names of the signals that end a child: crashes, kills and its own resource limits.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGABRT => "SIGABRT",
        libc::SIGILL => "SIGILL",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGSYS => "SIGSYS",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGHUP => "SIGHUP",
        libc::SIGXCPU => "SIGXCPU",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(
        raw: i32,
        reason: Option<EndReason>,
        killed_by_kernel: impl Into<Option<bool>>,
    ) -> ExitReport {
        let context = ExitContext {
            reason,
            killed_by_kernel: killed_by_kernel.into(),
            started_at: Instant::now(),
            activities: Vec::new(),
        };
        ExitReport::new(Some(ExitStatus::from_raw(raw)), context)
    }

    #[test]
    fn a_kill_is_told_by_who_wanted_it() {
        let ours = report(
            libc::SIGKILL,
            Some(EndReason::Deadline(Deadline::Prefill)),
            false,
        );
        assert_eq!(ours.cause.name(), "deadline");
        assert!(ours.cause.is_fault() && ours.cause.is_failure());
        let operator = report(libc::SIGKILL, None, false);
        assert_eq!(operator.cause.name(), "killed-from-outside");
        assert!(!operator.cause.is_fault() && operator.cause.is_failure());
        let kernel = report(libc::SIGKILL, None, true);
        assert_eq!(kernel.cause.name(), "oom-kill");
        assert!(!kernel.cause.is_fault());
        assert!(kernel.to_string().contains("memory"), "{kernel}");
        let either = report(libc::SIGKILL, None, None);
        assert_eq!(either.cause.name(), "killed");
        assert!(!either.cause.is_fault() && either.cause.is_failure());
        assert!(either.to_string().contains("not known"), "{either}");
        let unload = report(0, Some(EndReason::Unload), false);
        assert!(!unload.cause.is_failure());
    }

    #[test]
    fn a_crash_is_a_crash_whatever_was_asked_for() {
        let crash = report(libc::SIGSEGV, Some(EndReason::Unload), false);
        assert_eq!(crash.cause.name(), "sigsegv");
        assert_eq!(crash.to_string(), "killed by signal 11 (SIGSEGV)");
        assert!(crash.cause.is_fault());
    }

    #[test]
    fn exit_codes_are_told_apart() {
        assert_eq!(report(3 << 8, None, false).cause, ExitCause::ExitCode(3));
        let own_deadline = report(EXIT_DEADLINE << 8, None, false);
        assert_eq!(own_deadline.cause.name(), "deadline");
        let in_unload = report(EXIT_DEADLINE << 8, Some(EndReason::Unload), false);
        let unload = EndReason::Deadline(Deadline::Unload);
        assert_eq!(in_unload.cause, ExitCause::Wanted(unload));
        // Whether its message or its end is noticed first.
        for reason in [None, Some(EndReason::LoadFailed)] {
            let load = report(EXIT_LOAD_FAILED << 8, reason, false);
            assert_eq!(load.cause.name(), "load-failed");
        }
    }
}
