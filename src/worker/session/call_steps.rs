//! The steps of a client's own handle: raw runs, calls that are no runs, questions beside a run, and
//! the description of a library.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rkllm_sys::CallError;

use super::super::active_run::ActiveRun;
use super::super::control_thread::{ControlAnswer, ControlCall};
use super::super::library_call;
use super::super::npu_thread::NpuTask;
use super::super::process_setup;
use super::super::run_progress::RunProgress;
use super::super::timing::CallTiming;
use super::{Loaded, Session, Stage};
use crate::ipc::{Answer, CallSpec, Event, LibraryFacts, Question, RawRunSpec, WorkerDeadlines};
use crate::library_calls::{CallFailure, Outcome};

impl Session {
    pub(super) fn start_raw_run(&mut self, spec: Box<RawRunSpec>) {
        if !matches!(self.stage, Stage::Ready) {
            return self.events.send(Event::RawEnded {
                run: spec.run,
                result: Err(busy()),
                tainted: self.tainted,
            });
        }
        // The client's own limit is the library's to keep.
        let progress = Arc::new(RunProgress::new(u32::MAX));
        let active = ActiveRun::begin_raw(&spec, Arc::clone(&progress));
        self.stage = Stage::Running(Box::new(active));
        self.npu_task(NpuTask::RawRun { spec, progress });
    }

    pub(super) fn start_call(&mut self, spec: Box<CallSpec>) {
        if !matches!(self.stage, Stage::Ready) {
            return self.called(spec.id, Err(busy()));
        }
        self.stage = Stage::Calling(CallTiming {
            since: Instant::now(),
            deadline: spec.deadline.name(),
            limit: spec.limit,
            call: spec.call.function(),
        });
        self.npu_task(NpuTask::Call(spec));
    }

    pub(super) fn call_returned(&mut self, id: u64, result: Result<Outcome, CallFailure>) {
        self.stage = Stage::Ready;
        self.called(id, result.map(Answer::Outcome));
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
            Ok(ControlAnswer::IsRunning(running)) => Ok(Answer::IsRunning(running)),
            Ok(other) => Err(CallFailure::Other {
                reason: format!("an answer to another question: {other:?}"),
            }),
            Err(error) => Err(library_call::failure(error)),
        };
        self.called(id, answer);
    }

    fn called(&mut self, id: u64, result: Result<Answer, CallFailure>) {
        self.events.send(Event::Called { id, result });
    }

    pub(super) fn describe(
        &mut self,
        library: PathBuf,
        assume_family: Option<String>,
        deadlines: WorkerDeadlines,
    ) {
        if !matches!(self.stage, Stage::WaitingForLoad) {
            return;
        }
        self.loaded = Some(Loaded {
            deadlines,
            context_length: 0,
            default_max_new_tokens: None,
        });
        self.stage = Stage::Opening {
            since: Instant::now(),
        };
        self.npu_task(NpuTask::Describe {
            library,
            assume_family,
        });
    }

    /// The process has told all it was started for.
    pub(super) fn described(&mut self, result: anyhow::Result<LibraryFacts>) {
        self.events.send(match result {
            Ok(facts) => Event::LibraryOpened(facts),
            Err(error) => load_failed(error),
        });
        self.events.flush();
        process_setup::exit_now(0)
    }
}

fn busy() -> CallFailure {
    CallFailure::Other {
        reason: "another call is in progress".to_owned(),
    }
}

pub(super) fn load_failed(error: anyhow::Error) -> Event {
    let reason = format!("{error:#}");
    let failure = error.downcast::<CallError>().ok();
    Event::LoadFailed {
        reason,
        failure: failure.map(library_call::failure),
    }
}
