//! What the settings say of readers.

use std::time::Duration;

use crate::generation::Deadline;
use crate::ipc::ReaderLimits;
use crate::prompt::RenderLimits;
use crate::settings::{ReaderSandbox, Settings};

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From starting a process to what its files say.
    pub open: Duration,
    /// One request, and the wait for a place.
    pub call: Duration,
    pub idle: Duration,
    pub kill: Duration,
    /// How often memory is measured while any runs.
    pub measure: Duration,
    pub reader: ReaderLimits,
}

impl Limits {
    pub fn of(&self, deadline: Deadline) -> Duration {
        match deadline {
            Deadline::ReaderOpen => self.open,
            _ => self.call,
        }
    }
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        Self {
            open: settings.deadlines.reader_open,
            call: settings.deadlines.reader_call,
            idle: settings.reader.idle_timeout,
            kill: settings.deadlines.kill,
            measure: settings.memory.check_interval,
            reader: ReaderLimits {
                memory_bytes: settings.reader.memory_limit_bytes,
                // One answer must not use up what is left to its reader.
                cpu: (settings.reader.cpu_limit).max(2 * settings.deadlines.reader_call),
                control_token_bytes: settings.reader.control_tokens_limit_bytes,
                render: RenderLimits {
                    steps: settings.reader.template_steps,
                    output_bytes: settings.reader.template_output_bytes,
                },
                confined: settings.reader.sandbox == ReaderSandbox::Required,
            },
        }
    }
}
