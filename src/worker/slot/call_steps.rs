//! The steps of what the vendor's API has beside an answer: raw runs, calls that are no runs, questions
//! beside a run.

use std::sync::Arc;
use std::time::Instant;

use rkllm_sys::CallError;

use super::super::active_run::ActiveRun;
use super::super::control_thread::{ControlAnswer, ControlCall};
use super::super::library_call;
use super::super::npu_thread::NpuTask;
use super::super::run_progress::RunProgress;
use super::super::timing::CallTiming;
use super::{Common, Doing, Slot};
use crate::ipc::{CallReply, CallSpec, Question, RawRunSpec, SlotEvent};
use crate::library_calls::{Call, CallFailure, Outcome};

impl Slot {
    pub(super) fn start_raw_run(&mut self, common: &Common, spec: Box<RawRunSpec>) {
        if common.is_batch || !self.is_free() {
            return self.events.send(SlotEvent::RawEnded {
                run: spec.run,
                result: Err(not_possible(common)),
                called_back: None,
                tainted: common.tainted,
            });
        }
        // The client's own limit is the library's to keep.
        let progress = Arc::new(RunProgress::new(u32::MAX, spec.credit));
        let active = ActiveRun::begin_raw(&spec, Arc::clone(&progress));
        self.doing = Doing::Running(Box::new(active));
        self.npu_task(NpuTask::RawRun { spec, progress });
    }

    pub(super) fn start_call(&mut self, common: &Common, spec: Box<CallSpec>) {
        if common.is_batch || !self.is_free() {
            return self.called(spec.id, Err(not_possible(common)));
        }
        self.restores = matches!(spec.call, Call::LoadPromptCache { .. });
        self.doing = Doing::Calling(CallTiming {
            since: Instant::now(),
            deadline: spec.deadline,
            limit: spec.limit,
            call: spec.call.function(),
        });
        self.npu_task(NpuTask::Call(spec));
    }

    pub(super) fn call_returned(&mut self, id: u64, result: Result<Outcome, CallFailure>) {
        self.doing = Doing::Nothing;
        if std::mem::take(&mut self.restores) && result.is_ok() {
            // The next run finds what it did not evaluate.
            self.prompt_counter.cache_restored();
        }
        self.called(id, result.map(CallReply::Outcome));
    }

    pub(super) fn ask(&mut self, id: u64, question: Question) {
        if !self.control.make(ControlCall::Ask { id, question }) {
            self.called(
                id,
                Err(CallFailure::Other {
                    reason: "no question can be asked: no model is loaded, or one hangs".to_owned(),
                }),
            );
        }
    }

    pub(super) fn answered(&mut self, id: u64, result: Result<ControlAnswer, CallError>) {
        let answer = match result {
            Ok(ControlAnswer::IsRunning(running)) => Ok(CallReply::IsRunning(running)),
            Ok(other) => Err(CallFailure::Other {
                reason: format!("an answer to another question: {other:?}"),
            }),
            Err(error) => Err(library_call::failure(error)),
        };
        self.called(id, answer);
    }

    fn called(&mut self, id: u64, result: Result<CallReply, CallFailure>) {
        self.events.send(SlotEvent::Called { id, result });
    }
}

fn not_possible(common: &Common) -> CallFailure {
    let reason = match common.is_batch {
        true => "a sequence of a batch takes no call of its own",
        false => "another call is in progress",
    };
    CallFailure::Other {
        reason: reason.to_owned(),
    }
}
