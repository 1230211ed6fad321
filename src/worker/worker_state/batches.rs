//! Slots that are sequences of one handle. What they are given is gathered until the daemon says that it begins;
//! then those that are alike are one run of the library.
//!
//! ```text
//!  Nothing ─► Gathered ─► Running ─► Nothing   at its own end, or when it is aborted
//!                             └────► Nothing   the last one of a batch: when the library has ended
//! ```
//!
//! So as long as the library is at it, one slot's run is timed, and its abort is the library's.

use super::WorkerState;
use crate::ipc::{AbortMode, RunSpec};
use crate::worker::npu_thread::NpuTask;
use crate::worker::prepared_input::input_bytes;
use crate::worker::slot::Slot;
use crate::worker::token_sink::EndedBy;

impl WorkerState {
    pub(super) fn is_batch(&self) -> bool {
        self.common.as_ref().is_some_and(|common| common.is_batch)
    }

    pub(super) fn begin_batch(&mut self) {
        self.batch_is_due = true;
        self.begin_due_batch();
    }

    /// Begins what has been gathered, once what went before has ended.
    pub(super) fn begin_due_batch(&mut self) {
        if !self.batch_is_due || self.slots.iter().any(Slot::is_in_batch) {
            return;
        }
        let Some(common) = &self.common else { return };
        let gathered: Vec<(usize, &RunSpec)> = (self.slots.iter().enumerate())
            .filter_map(|(number, slot)| Some((number, slot.gathered()?)))
            .collect();
        let Some((_, first)) = gathered.first() else {
            self.batch_is_due = false;
            return;
        };
        let alike: Vec<(usize, usize)> = (gathered.iter())
            .filter(|(_, spec)| is_alike(first, spec))
            .map(|(number, spec)| (*number, input_bytes(spec)))
            .collect();
        // The others begin when these have ended.
        self.batch_is_due = alike.len() < gathered.len();
        let bytes = alike.iter().map(|(_, bytes)| bytes).sum();
        let members = (alike.iter())
            .filter_map(|(number, _)| self.slots[*number].join_batch(common, bytes))
            .collect();
        self.slots[0].npu_task(NpuTask::Batch(members));
    }

    /// The rest of a run is not wanted.
    pub(super) fn abort_in_batch(&mut self, slot: usize, run: u64, mode: AbortMode) {
        if let (Some(slot), Some(common)) = (self.slots.get_mut(slot), &mut self.common) {
            if slot.withdraw(common, run) {
                return;
            }
            slot.request_abort(run, mode);
        }
        self.leave_batch(slot);
    }

    /// Takes a run out that was aborted. The last one ends with the library.
    pub(super) fn leave_batch(&mut self, slot: usize) {
        let others_go_on = self.others_go_on(slot);
        if let (Some(slot), Some(common)) = (self.slots.get_mut(slot), &mut self.common) {
            slot.leave_batch(common, others_go_on);
        }
    }

    /// The callback takes no more of a run, or not for long.
    pub(super) fn idles(
        &mut self,
        slot: usize,
        run: u64,
        (has_ended, ended_by): (bool, Option<EndedBy>),
    ) {
        if !has_ended {
            return self.leave_batch(slot);
        }
        let others_go_on = self.others_go_on(slot);
        if let (Some(slot), Some(common)) = (self.slots.get_mut(slot), &mut self.common)
            && others_go_on
        {
            slot.end_before_others(common, run, ended_by);
        }
    }

    pub(super) fn others_go_on(&self, slot: usize) -> bool {
        let mut others = self.slots.iter().enumerate();
        others.any(|(other, it)| other != slot && it.is_in_batch())
    }
}

/// Whether two runs can be one of the library's.
fn is_alike(one: &RunSpec, other: &RunSpec) -> bool {
    one.sampling == other.sampling && one.adapter == other.adapter
}
