//! Where a command's events go: the four kinds of things a worker does for a client differ in this
//! and in nothing else.

use std::time::Duration;

use crate::generation::{Deadline, GenerationError};
use crate::ipc::{AbortMode, SlotCommand, SlotEvent};
use crate::supervisor::link::Arrived;
use crate::supervisor::worker::Worker;

pub(in crate::supervisor) trait Sink {
    /// What a command of this kind comes to.
    type End;

    /// The library's function, for reports.
    fn call(&self) -> &'static str;

    /// The run, which can be ended early; `None`: a call, which cannot.
    fn run(&self) -> Option<u64> {
        None
    }

    /// Takes in what the worker told. `Err`: it is impossible, so the worker is lost.
    fn take(
        &mut self,
        arrived: Arrived,
        worker: &Worker,
        stop: Option<&Stop>,
    ) -> impl Future<Output = Result<Took<Self::End>, String>> + Send;

    /// The next thing that the client does; for ever where there is none. It can be dropped at any
    /// time without losing anything. `is_stopped`: that the client has gone is known or does not
    /// matter any more.
    fn client(&mut self, _is_stopped: bool) -> impl Future<Output = FromClient> + Send {
        std::future::pending()
    }

    /// All that was wanted is there, and only the end is missing.
    fn is_complete(&self) -> bool {
        false
    }

    /// The run is about to be ended: what waits for room is dropped unless it was only aborted.
    fn is_stopping(&mut self, _why: &Stop) {}

    /// The worker was told so.
    fn is_stopped(&mut self) {}

    /// A call beside it hangs in the library. Returns the end where that was all there is.
    fn call_beside_hangs(&mut self) -> Option<Self::End> {
        None
    }
}

/// What came of an event.
pub(in crate::supervisor) enum Took<E> {
    Step(Step),
    /// The slot is ready for the next command.
    Over {
        end: E,
        tainted: bool,
    },
    Unexpected(SlotEvent),
}

/// What an event means for the waiting.
#[derive(Debug)]
pub(in crate::supervisor) enum Step {
    /// Nothing.
    Same,
    /// The run has got on: the next token is waited for.
    Moved,
    /// The first token may take so long in all.
    Prefill(Duration),
    /// Something else than the next token is waited for, for so long.
    GoesBack {
        deadline: Deadline,
        limit: Duration,
    },
    /// There is nothing more to come but the end.
    Complete,
    /// The client has no room, and is waited for so long.
    Full {
        patience: Duration,
    },
    Stop(Stop),
}

/// What a client does while it waits.
#[derive(Debug)]
pub(in crate::supervisor) enum FromClient {
    /// What waited for room has got it.
    HasRoom(Step),
    Stop(Stop),
    /// A question that is answered beside what goes on.
    Asks(SlotCommand),
    /// What concerns the sink alone.
    Nothing,
}

/// Why a run is ended early.
#[derive(Clone, Debug)]
pub(in crate::supervisor) enum Stop {
    /// Its client has stopped waiting for it.
    Cancelled,
    /// The client asked for it, and reads on until its end.
    Aborted,
    /// Its answer is complete.
    Complete,
    /// The thought has used its budget; the answer goes on behind it.
    ThoughtUsedUp,
    Failed(GenerationError),
}

impl Stop {
    /// Whether the counts of what was generated are still wanted.
    pub fn mode(&self) -> AbortMode {
        match self {
            Self::Complete | Self::ThoughtUsedUp => AbortMode::BetweenTokens,
            Self::Cancelled | Self::Aborted | Self::Failed(_) => AbortMode::AtOnce,
        }
    }
}
