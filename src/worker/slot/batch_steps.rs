//! The steps of a run that is a sequence of a batch. `WorkerState` sees to what concerns the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::active_run::{ActiveRun, InBatch};
use super::super::model::Member;
use super::super::npu_thread::RunReturned;
use super::super::prepared_input::{PreparedInput, budget_left};
use super::super::run_progress::RunProgress;
use super::super::seat::Seat;
use super::super::token_sink::EndedBy;
use super::{Common, Doing, Slot};
use crate::ipc::{AbortMode, RunSpec};

/// The callback is at a run for no longer than a token takes.
const LEAVE_REPEAT: Duration = Duration::from_millis(5);

impl Slot {
    /// Keeps a run until its batch begins.
    pub(super) fn gather(&mut self, common: &mut Common, spec: Box<RunSpec>) {
        if !self.is_free() {
            eprintln!("W rkllmd-worker: a run was asked for while none can start");
            return;
        }
        let counted = PreparedInput::count(&spec);
        let too_long = counted.is_some_and(|tokens| tokens >= common.context_length);
        self.doing = Doing::Gathered(spec);
        if too_long {
            // The others do not wait for it, nor it for them.
            self.end_unbegun(common, counted, Some(common.context_length));
        }
    }

    pub fn gathered(&self) -> Option<&RunSpec> {
        match &self.doing {
            Doing::Gathered(spec) => Some(spec),
            _ => None,
        }
    }

    /// Ends what was gathered: it is aborted, or too long.
    fn end_unbegun(&mut self, common: &mut Common, counted: Option<u32>, limit: Option<u32>) {
        let Doing::Gathered(spec) = std::mem::replace(&mut self.doing, Doing::Nothing) else {
            return;
        };
        let progress = Arc::new(RunProgress::new(1, spec.credit));
        let mut active = ActiveRun::begin(&spec, progress);
        if limit.is_none() {
            active.request_abort(AbortMode::AtOnce);
        }
        let mut returned = RunReturned::of_run(spec.run);
        returned.input_tokens = counted;
        returned.over_limit_tokens = limit;
        active.returned = Some(Box::new(returned));
        self.doing = Doing::Running(Box::new(active));
        self.end_run(common, None);
    }

    /// Begins the run that was gathered. `bytes`: of the inputs of its whole batch.
    pub fn join_batch(&mut self, common: &Common, bytes: usize) -> Option<Member> {
        let Doing::Gathered(spec) = std::mem::replace(&mut self.doing, Doing::Nothing) else {
            return None;
        };
        let most = budget_left(common.context_length, 1);
        let wanted = spec
            .max_new_tokens
            .or(common.default_max_new_tokens)
            .unwrap_or(most);
        let progress = Arc::new(RunProgress::new(wanted.clamp(1, most), spec.credit));
        let seat = Arc::new(Seat::default());
        let mut active = ActiveRun::begin(&spec, Arc::clone(&progress));
        active.batch = Some(InBatch {
            seat: Arc::clone(&seat),
            bytes,
        });
        self.doing = Doing::Running(Box::new(active));
        Some(Member {
            spec,
            progress,
            seat,
            notes: self.notes.clone(),
            events: self.events.clone(),
        })
    }

    /// The library has it, together with others or alone.
    pub fn is_in_batch(&self) -> bool {
        matches!(&self.doing, Doing::Running(active) if active.batch.is_some())
    }

    /// Whether it is its run's: the next run may have the number of one that has left.
    pub(super) fn has_seat(&self, seat: &Arc<Seat>) -> bool {
        let Doing::Running(active) = &self.doing else {
            return false;
        };
        let batch = active.batch.as_ref();
        batch.is_some_and(|batch| Arc::ptr_eq(&batch.seat, seat))
    }

    pub fn request_abort(&mut self, run: u64, mode: AbortMode) {
        if let Some(active) = self.active(run) {
            active.request_abort(mode);
        }
    }

    /// Ends a run that is not wanted any more, at once where others go on or where it has not begun.
    pub fn leave_batch(&mut self, common: &mut Common, others_go_on: bool) {
        let Doing::Running(active) = &mut self.doing else {
            return;
        };
        let (Some(batch), Some(abort)) = (&active.batch, &mut active.abort) else {
            return;
        };
        if !others_go_on {
            return;
        }
        if batch.seat.leave() {
            let run = active.run;
            return self.end_before_others(common, run, None);
        }
        abort.next_outside = Instant::now() + LEAVE_REPEAT;
    }

    /// What was gathered is not wanted any more. Returns whether it was this run.
    pub fn withdraw(&mut self, common: &mut Common, run: u64) -> bool {
        let is_gathered = self.gathered().is_some_and(|spec| spec.run == run);
        if is_gathered {
            self.end_unbegun(common, None, None);
        }
        is_gathered
    }

    /// Tells its end while the library goes on with others.
    pub fn end_before_others(&mut self, common: &mut Common, run: u64, ended_by: Option<EndedBy>) {
        let Some(active) = self.active(run) else {
            return;
        };
        let mut returned = RunReturned::of_run(run);
        returned.asked_runtime = true;
        returned.input_tokens = active.input_tokens;
        returned.record.ended_by = ended_by;
        active.returned = Some(Box::new(returned));
        self.end_run(common, None);
    }
}
