//! Where the callbacks of a handle's run go: to the client that reads them.

use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};

use super::RunEvent;
use super::beside::Beside;
use super::results::callback_result;
use crate::ipc::{RawSlot, SlotEvent};
use crate::library_calls::{CallFailure, CallState, CallbackResult, CallbackThread};
use crate::memory::Account;
use crate::supervisor::drive::{FromClient, Sink, Step, Stop, Took};
use crate::supervisor::link::Arrived;
use crate::supervisor::worker::Worker;
use std::os::fd::OwnedFd;

pub(super) struct ResultSink<'a> {
    pub run: u64,
    pub results: Results,
    pub beside: Beside<'a>,
    pub events: &'a mpsc::Sender<RunEvent>,
    /// Sent before the first result.
    pub started: Option<RunEvent>,
    /// Whether something was sent, and so that before all else.
    pub is_told: bool,
    pub slow_reader: Duration,
    /// What the reader had no room for, and how the run has got on with it.
    pub waiting: Option<(RunEvent, Progress)>,
    /// Known at the run's end.
    pub called_back: Option<CallbackThread>,
}

/// How the callbacks of a run are read.
#[derive(Debug)]
pub(super) struct Results {
    /// All tensors of a result together.
    pub tensor_limit_bytes: u64,
    /// Where its tensors' files are charged.
    pub tensors: Option<Account>,
    /// The run is for a tensor: until that is there the library works on the input.
    pub awaits_tensor: bool,
}

impl Results {
    /// Reads a callback, and how the run has got on with it. The inner error is the step where it cannot
    /// go on.
    pub fn read(
        &mut self,
        worker: &Worker,
        state: CallState,
        (slots, files): (Vec<RawSlot>, Vec<OwnedFd>),
    ) -> Result<Result<(CallbackResult, Progress), Step>, String> {
        let limits = (self.tensor_limit_bytes, self.tensors.as_ref());
        let result = match callback_result(state, slots, files, limits)? {
            Ok(result) => result,
            Err(error) => return Ok(Err(Step::Stop(Stop::Failed(error)))),
        };
        if let Some(perf) = result.results.first().and_then(|slot| slot.perf.as_ref()) {
            worker.learn(|measured| measured.perf(perf));
        }
        // For hidden states it calls back once before they are there.
        let mut slots = result.results.iter();
        let is_empty = result.state == CallState::Normal
            && slots.all(|slot| slot.last_hidden_layer.is_none() && slot.logits.is_none());
        self.awaits_tensor &= is_empty;
        let progress = match self.awaits_tensor {
            true => Progress::InInput,
            false => Progress::PastInput,
        };
        Ok(Ok((result, progress)))
    }
}

/// Where the library is in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    InInput,
    PastInput,
}

impl Progress {
    /// What a callback that is read or handed over means for the run's deadline.
    pub fn step(self) -> Step {
        match self {
            Self::PastInput => Step::Moved,
            Self::InInput => Step::Same,
        }
    }
}

impl Sink for ResultSink<'_> {
    type End = Result<(), CallFailure>;

    fn call(&self) -> &'static str {
        "rkllm_run"
    }

    fn run(&self) -> Option<u64> {
        Some(self.run)
    }

    async fn take(
        &mut self,
        arrived: Arrived,
        worker: &Worker,
        stop: Option<&Stop>,
    ) -> Result<Took<Self::End>, String> {
        Ok(Took::Step(match arrived.event {
            SlotEvent::RawResult {
                run,
                state,
                results,
            } => {
                let read = self.results.read(worker, state, (results, arrived.files))?;
                let (result, progress) = match read {
                    Ok(read) => read,
                    Err(step) => return Ok(Took::Step(step)),
                };
                let is_read = matches!(stop, None | Some(Stop::Aborted));
                match is_read && run == self.run {
                    true => self.deliver(result, progress),
                    false => Step::Same,
                }
            }
            SlotEvent::RawEnded {
                run,
                result: end,
                called_back,
                tainted,
            } if run == self.run => {
                self.called_back = called_back;
                return Ok(Took::Over { end, tainted });
            }
            SlotEvent::Called { id, result } => {
                self.beside.answered_beside_run(id, result);
                Step::Same
            }
            other => return Ok(Took::Unexpected(other)),
        }))
    }

    async fn client(&mut self, is_stopped: bool) -> FromClient {
        if self.waiting.is_some() {
            tokio::select! {
                permit = self.events.reserve() => {
                    let (Ok(permit), Some((event, progress))) = (permit, self.waiting.take()) else {
                        return FromClient::Stop(Stop::Cancelled);
                    };
                    permit.send(event);
                    self.is_told = true;
                    return FromClient::HasRoom(progress.step());
                }
                said = self.beside.next() => return said,
            }
        }
        tokio::select! {
            biased;
            said = self.beside.next() => said,
            () = self.events.closed(), if !is_stopped => FromClient::Stop(Stop::Cancelled),
        }
    }

    fn is_stopping(&mut self, why: &Stop) {
        if !matches!(why, Stop::Aborted) {
            self.waiting = None;
        }
    }

    fn is_stopped(&mut self) {
        self.beside.is_stopped();
    }

    fn call_beside_hangs(&mut self) -> Option<Self::End> {
        self.beside.hangs();
        None
    }
}

impl ResultSink<'_> {
    fn deliver(&mut self, result: CallbackResult, progress: Progress) -> Step {
        // The first of its events, so there is room.
        if let Some(started) = self.started.take() {
            self.is_told |= self.events.try_send(started).is_ok();
        }
        match self.events.try_send(RunEvent::Result(result)) {
            Ok(()) => {
                self.is_told = true;
                progress.step()
            }
            Err(TrySendError::Closed(_)) => Step::Stop(Stop::Cancelled),
            Err(TrySendError::Full(event)) => {
                self.waiting = Some((event, progress));
                let patience = self.slow_reader;
                Step::Full { patience }
            }
        }
    }
}
