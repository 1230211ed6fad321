//! The load of an instance's model that is going on: begun once at a time, told apart from its earlier
//! ones, and given up as a whole.

use std::time::Instant;

use tokio::task::AbortHandle;

use super::Instance;
use crate::children::{ChildProcess, EndReason};
use crate::supervisor::lifecycle::Stage;
use crate::supervisor::measured::Measured;
use crate::supervisor::status::Phase;

/// Tells one load of a model from its other ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) struct LoadNumber(u64);

/// The load that is going on. Dropping it ends its task, so that it starts nothing any more.
pub(super) struct Load {
    number: LoadNumber,
    pub phase: Phase,
    task: AbortHandle,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Instance {
    pub fn is_loading(&self) -> bool {
        matches!(self.life.stage(), Stage::Loading { .. })
    }

    /// Begins a load if one may begin now: the task that `start` returns.
    pub fn begin_load(&mut self, start: impl FnOnce(LoadNumber) -> AbortHandle) {
        if !self.life.begin_load(Instant::now()) {
            return;
        }
        if std::mem::take(&mut self.replaced) {
            self.facts = None;
            self.measured = Measured::default();
        }
        self.loads_begun += 1;
        let number = LoadNumber(self.loads_begun);
        self.load = Some(Load {
            number,
            phase: Phase::Spawning,
            task: start(number),
        });
        self.stage_changed();
    }

    /// Whether it is this load that goes on. What another one tells comes too late.
    pub fn is_loading_as(&self, number: LoadNumber) -> bool {
        let current = self.load.as_ref().map(|load| load.number);
        self.is_loading() && current == Some(number)
    }

    /// A load that was given up turns out to have had a process: its end is waited for.
    pub fn is_stopping_with(&mut self, number: LoadNumber, process: &ChildProcess) {
        let is_it = self.life.stage() == Stage::Stopping && number.0 == self.loads_begun;
        // Of one that has ended nothing more will be told.
        if is_it && process.exit_report().is_none() {
            process.kill(EndReason::Cancelled);
            self.life.spawned(Some(process.pid));
            self.stage_changed();
        }
    }

    /// The task of a load has ended, and all that it had to tell was told.
    pub fn load_stopped(&mut self, number: LoadNumber) {
        if number.0 == self.loads_begun {
            self.life.load_stopped();
        }
    }

    /// `process` is `None` until this attempt at loading has one.
    pub fn phase_reached(&mut self, phase: Phase, process: Option<ChildProcess>) {
        if let (Stage::Loading { .. }, Some(load)) = (self.life.stage(), &mut self.load) {
            load.phase = phase;
            let pid = process.as_ref().map(|process| process.pid);
            if pid != self.life.pid() {
                self.memory = None;
            }
            self.life.spawned(pid);
            self.process = process;
            self.stage_changed();
        }
    }

    /// Gives up a load that is going on. Its process is killed, whose end is reported as that of
    /// any other.
    pub fn cancel_load(&mut self) {
        if self.load.take().is_some() {
            match self.process.take() {
                Some(process) if process.exit_report().is_none() => {
                    process.kill(EndReason::Cancelled);
                }
                // The end of one that was there has been told, or will be of no more interest.
                _ => self.life.spawned(None),
            }
            self.life.cancel_load();
            self.stage_changed();
        }
    }
}
