//! What comes of a run that saves, beside no client.

use crate::ipc::{RunEnd, SlotEvent};
use crate::supervisor::drive::{Sink, Step, Stop, Took};
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
}
