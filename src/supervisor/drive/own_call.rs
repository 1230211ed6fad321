//! A call or a question of the daemon's own: no client does anything beside it.

use super::{Sink, Step, Stop, Took};
use crate::ipc::{CallReply, SlotEvent};
use crate::library_calls::CallFailure;
use crate::supervisor::link::Arrived;
use crate::supervisor::worker::Worker;

pub(in crate::supervisor) struct OwnCall {
    /// As the command has it.
    pub id: u64,
    pub function: &'static str,
}

impl Sink for OwnCall {
    /// `None`: it hangs in the library.
    type End = Option<Result<CallReply, CallFailure>>;

    fn call(&self) -> &'static str {
        self.function
    }

    async fn take(
        &mut self,
        arrived: Arrived,
        _worker: &Worker,
        _stop: Option<&Stop>,
    ) -> Result<Took<Self::End>, String> {
        Ok(match arrived.event {
            SlotEvent::Called { id, result } if id == self.id => Took::Over {
                end: Some(result),
                tainted: false,
            },
            // What was asked earlier, and is not waited for any more.
            SlotEvent::Called { .. } => Took::Step(Step::Same),
            other => Took::Unexpected(other),
        })
    }

    fn call_beside_hangs(&mut self) -> Option<Self::End> {
        Some(None)
    }
}
