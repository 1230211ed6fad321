//! What a handle's client may ask beside a call or a run, and the sink of a call.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::Urgent;
use crate::ipc::{CallReply, Question, SlotCommand, SlotEvent};
use crate::library_calls::{CallFailure, LibraryError, Running, RunningAnswer};
use crate::supervisor::drive::{FromClient, Sink, Step, Stop, Took};
use crate::supervisor::link::Arrived;
use crate::supervisor::worker::Worker;

/// Questions have ids of their own, far from those of calls.
const FIRST_ASK: u64 = 1 << 63;
/// Questions that wait for the library at once. What is asked beyond them the daemon answers: a client
/// that reads no results gets no answers of the library either, and may ask on.
const MOST_QUESTIONS: usize = 16;
/// What the library is asked by a question.
pub(super) const IS_RUNNING: &str = "rkllm_is_running";
/// Never used twice: an answer that comes late belongs to no question.
static NEXT_ASK: AtomicU64 = AtomicU64::new(FIRST_ASK);

type RunningReply = oneshot::Sender<Result<RunningAnswer, LibraryError>>;

/// Whether the handle goes on, and what it is doing now.
#[derive(Debug, Default)]
pub(super) struct Closing {
    pub is_closing: bool,
    /// What the handle is doing now was aborted.
    pub is_aborted: bool,
    pub replies: Vec<oneshot::Sender<()>>,
}

/// What comes of the handle's channels while something goes on.
pub(super) struct Beside<'a> {
    urgent: &'a mut mpsc::Receiver<Urgent>,
    pub closing: &'a mut Closing,
    /// Questions that have not been answered.
    asks: Vec<(u64, RunningReply)>,
    /// Those who wait until the library was told to abort.
    aborts: Vec<oneshot::Sender<Result<(), LibraryError>>>,
    /// What goes on is a run.
    is_run: bool,
    /// The library does not answer questions any more.
    hangs: bool,
}

impl<'a> Beside<'a> {
    pub fn new(
        urgent: &'a mut mpsc::Receiver<Urgent>,
        closing: &'a mut Closing,
        is_run: bool,
    ) -> Self {
        Self {
            urgent,
            closing,
            asks: Vec::new(),
            aborts: Vec::new(),
            is_run,
            hangs: false,
        }
    }

    /// The next thing that is asked; for ever once the handle is being closed.
    pub async fn next(&mut self) -> FromClient {
        if self.closing.is_closing {
            return std::future::pending().await;
        }
        match self.urgent.recv().await {
            Some(Urgent::IsRunning { reply })
                if self.hangs || self.asks.len() >= MOST_QUESTIONS =>
            {
                let _ = reply.send(Ok(self.known()));
                FromClient::Nothing
            }
            Some(Urgent::IsRunning { reply }) => {
                let (id, question) = next_question();
                self.asks.push((id, reply));
                FromClient::Asks(SlotCommand::Ask { id, question })
            }
            Some(Urgent::Abort { reply }) => {
                self.closing.is_aborted = true;
                self.aborts.push(reply);
                FromClient::Stop(Stop::Aborted)
            }
            Some(Urgent::Close { reply }) => {
                self.closing.is_closing = true;
                self.closing.replies.push(reply);
                FromClient::Stop(Stop::Cancelled)
            }
            None => {
                self.closing.is_closing = true;
                FromClient::Stop(Stop::Cancelled)
            }
        }
    }

    /// The library was told to abort, or there was nothing to abort.
    pub fn is_stopped(&mut self) {
        for reply in self.aborts.drain(..) {
            let _ = reply.send(Ok(()));
        }
    }

    /// An answer to a question; given back if it answers none.
    fn answered(
        &mut self,
        id: u64,
        result: Result<CallReply, CallFailure>,
    ) -> Option<Result<CallReply, CallFailure>> {
        if let Some(at) = self.asks.iter().position(|(asked, _)| *asked == id) {
            let (_, reply) = self.asks.swap_remove(at);
            let _ = reply.send(Ok(running_answer(result, self.is_run)));
            return None;
        }
        (id < FIRST_ASK).then_some(result)
    }

    /// Takes in an answer beside a run.
    pub fn answered_beside_run(&mut self, id: u64, result: Result<CallReply, CallFailure>) {
        let _ = self.answered(id, result);
    }

    /// A question hangs.
    pub fn hangs(&mut self) {
        self.hangs = true;
        let known = self.known();
        for (_, reply) in self.asks.drain(..) {
            let _ = reply.send(Ok(known));
        }
    }

    /// Answers what the worker will not answer. `is_over`: what went on has come to its end.
    pub fn end(mut self, is_over: bool) {
        self.is_run &= !is_over;
        self.hangs();
    }

    /// What is known without asking the library.
    fn known(&self) -> RunningAnswer {
        RunningAnswer {
            running: self.is_run,
            answered_by: Running::Daemon,
        }
    }
}

pub(super) fn next_question() -> (u64, Question) {
    (
        NEXT_ASK.fetch_add(1, Ordering::Relaxed),
        Question::IsRunning,
    )
}

/// What the library said, or where it failed what is known here.
pub(super) fn running_answer(
    result: Result<CallReply, CallFailure>,
    known_running: bool,
) -> RunningAnswer {
    match result {
        Ok(CallReply::IsRunning(running)) => RunningAnswer {
            running,
            answered_by: Running::Library,
        },
        other => {
            tracing::warn!(?other, "{IS_RUNNING} was not answered by the library");
            RunningAnswer {
                running: known_running,
                answered_by: Running::Daemon,
            }
        }
    }
}

/// A call that is no run.
pub(super) struct CallSink<'a> {
    pub function: &'static str,
    pub beside: Beside<'a>,
}

impl Sink for CallSink<'_> {
    type End = Result<CallReply, CallFailure>;

    fn call(&self) -> &'static str {
        self.function
    }

    async fn take(
        &mut self,
        arrived: Arrived,
        _worker: &Worker,
        _stop: Option<&Stop>,
    ) -> Result<Took<Self::End>, String> {
        let SlotEvent::Called { id, result } = arrived.event else {
            return Ok(Took::Unexpected(arrived.event));
        };
        Ok(match self.beside.answered(id, result) {
            Some(end) => Took::Over {
                end,
                tainted: false,
            },
            None => Took::Step(Step::Same),
        })
    }

    async fn client(&mut self, _is_stopped: bool) -> FromClient {
        self.beside.next().await
    }

    fn is_stopped(&mut self) {
        self.beside.is_stopped();
    }

    fn call_beside_hangs(&mut self) -> Option<Self::End> {
        self.beside.hangs();
        None
    }
}
