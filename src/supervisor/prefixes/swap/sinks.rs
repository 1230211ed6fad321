//! What comes of a run that saves and of a call, beside no client.

use crate::ipc::{CallReply, RunEnd, SlotEvent};
use crate::library_calls::CallFailure;
use crate::supervisor::drive::{FromClient, Sink, Step, Stop, Took};
use crate::supervisor::link::Arrived;
use crate::supervisor::worker::Worker;

pub(super) struct SaveSink {
    pub run: u64,
}

impl Sink for SaveSink {
    type End = Box<RunEnd>;

    fn call(&self) -> &'static str {
        "rkllm_run"
    }

    fn run(&self) -> Option<u64> {
        Some(self.run)
    }

    /// All of it is under one deadline, so nothing is progress.
    async fn take(
        &mut self,
        arrived: Arrived,
        _worker: &Worker,
        _stop: Option<&Stop>,
    ) -> Result<Took<Box<RunEnd>>, String> {
        Ok(match arrived.event {
            SlotEvent::RunEnded(end) if end.run == self.run => {
                let tainted = end.tainted;
                Took::Over { end, tainted }
            }
            SlotEvent::Token { .. }
            | SlotEvent::AnswerComplete { .. }
            | SlotEvent::PromptCounted { .. } => Took::Step(Step::Same),
            other => Took::Unexpected(other),
        })
    }

    async fn client(&mut self, _is_stopped: bool) -> FromClient {
        std::future::pending().await
    }
}

pub(super) struct CallSink {
    pub id: u64,
    pub function: &'static str,
}

impl Sink for CallSink {
    type End = Result<CallReply, CallFailure>;

    fn call(&self) -> &'static str {
        self.function
    }

    fn run(&self) -> Option<u64> {
        None
    }

    async fn take(
        &mut self,
        arrived: Arrived,
        _worker: &Worker,
        _stop: Option<&Stop>,
    ) -> Result<Took<Self::End>, String> {
        Ok(match arrived.event {
            SlotEvent::Called { id, result } if id == self.id => Took::Over {
                end: result,
                tainted: false,
            },
            other => Took::Unexpected(other),
        })
    }

    async fn client(&mut self, _is_stopped: bool) -> FromClient {
        std::future::pending().await
    }
}
