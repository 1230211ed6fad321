//! Where the tokens of a chat go: through the stop strings to the client, and into what the next
//! worker would be handed over.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, OwnedPermit, error::TrySendError};

use super::answer_so_far::AnswerSoFar;
use super::drive::{FromClient, RunDeadlines, Sink, Step, Stop, Took};
use super::link::Arrived;
use super::reading::{Next, ReadToken, Reading};
use super::repeated::{self, Made, Repeated};
use super::unread::Unread;
use super::worker::Worker;
use crate::conversation::{ReplyPiece, TokenLogprobs};
use crate::generation::{Deadline, FinishReason, ReplyEvent};
use crate::ipc::{RunEnd, RunOutcome, RunSpec, SlotEvent, TokenKind, WaitsFor};

/// What one attempt works on.
pub(super) struct TextSink<'a> {
    pub run: u64,
    /// Whether text is passed on at all.
    pub wants_text: bool,
    pub prefill: Prefill,
    pub reading: &'a mut Reading,
    pub answer: &'a mut AnswerSoFar,
    /// Whether the answer can be handed over by its tokens.
    pub ids_are_trusted: bool,
    /// The prompt's tokens, once a tokenizer has counted them.
    pub prompt_tokens: &'a mut Option<u32>,
    pub events: &'a mpsc::Sender<ReplyEvent>,
    /// The place of the reader's last event, until it is told of an error.
    pub last: &'a mut Option<OwnedPermit<ReplyEvent>>,
    /// How long the reader has held the run up.
    pub stalled: &'a mut Duration,
    pub deadlines: RunDeadlines,
    /// What is known of an answer that had all its tokens before its run ended.
    pub complete: Option<Complete>,
    /// Called at the first token that its reader does not have.
    pub on_first_token: &'a (dyn Fn() + Sync),
    /// Called before the reader is told that another token was made than it has.
    pub on_difference: &'a (dyn Fn() + Sync),
    pub has_token: bool,
    /// There was such a token.
    pub has_new: bool,
    /// The tokens that come first and were made before, by a worker that was lost.
    pub repeated: &'a mut Repeated,
    pub waiting: Option<Waiting>,
    /// `None`: its run waits for its reader.
    pub unread: Option<&'a mut Unread>,
    pub prompt_logprobs: PromptLogprobs<'a>,
    /// Of the token that comes next.
    pub logprobs: Option<TokenLogprobs>,
}

/// How many of the prompt's tokens it was told of how likely they were: what an attempt tells again its
/// reader knows.
pub(super) struct PromptLogprobs<'a> {
    pub told: &'a mut usize,
    pub in_attempt: usize,
}

/// What the first token's deadline follows from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefill {
    per_token: Duration,
    bytes: usize,
    /// All prompts of a batch, which are evaluated before the first token of any.
    batch_bytes: Option<usize>,
}

/// Text that the reader had no room for.
#[derive(Debug)]
pub(super) struct Waiting {
    event: ReplyEvent,
    since: Instant,
    then: Step,
}

/// An answer that had all its tokens before its run ended.
pub(super) struct Complete {
    pub reason: FinishReason,
    /// Without any figure of the runtime.
    pub end: Box<RunEnd>,
}

impl Prefill {
    /// On a worker with so many slots.
    pub fn of(spec: &RunSpec, slots: u8) -> Self {
        let begun_bytes = spec.begun.as_ref().map_or(0, |begun| begun.text.len());
        Self {
            per_token: spec.prefill_per_token.saturating_mul(slots.into()),
            bytes: spec.prompt.len() + begun_bytes,
            batch_bytes: None,
        }
    }

    /// `bytes`: of all prompts of its batch; `None`: it is in none, or alone.
    pub fn in_batch(self, bytes: Option<usize>) -> Self {
        Self {
            batch_bytes: bytes,
            ..self
        }
    }

    pub fn limit(self, deadlines: &RunDeadlines, tokens: Option<u32>) -> Duration {
        let deadlines = &deadlines.worker;
        match self.batch_bytes {
            Some(bytes) => deadlines.prefill(self.per_token, self.bytes.max(bytes), None),
            None => deadlines.prefill(self.per_token, self.bytes, tokens),
        }
    }
}

impl Sink for TextSink<'_> {
    type End = Box<RunEnd>;

    fn call(&self) -> &'static str {
        "rkllm_run"
    }

    fn run(&self) -> Option<u64> {
        Some(self.run)
    }

    async fn take(
        &mut self,
        arrived: Arrived,
        _worker: &Worker,
        stop: Option<&Stop>,
    ) -> Result<Took<Box<RunEnd>>, String> {
        Ok(Took::Step(match arrived.event {
            SlotEvent::Token {
                run,
                kind,
                id,
                text,
            } if run == self.run => match stop {
                Some(_) => Step::Same,
                None => self.deliver(kind, id, &text),
            },
            SlotEvent::Logprobs {
                run,
                of_prompt,
                mut tokens,
            } if run == self.run => match (stop, of_prompt) {
                (Some(_), _) => Step::Same,
                (None, true) => self.of_prompt(tokens),
                (None, false) => {
                    self.logprobs = tokens.pop();
                    Step::Same
                }
            },
            SlotEvent::GoesBack { run, waits_for } if run == self.run => self.goes_back(waits_for),
            SlotEvent::AnswerComplete {
                run,
                reason,
                generated_tokens,
            } if run == self.run => {
                self.complete = Some(Complete {
                    reason,
                    end: Box::new(end_of_complete(run, reason, generated_tokens)),
                });
                Step::Complete
            }
            SlotEvent::RunEnded(end) if end.run == self.run => {
                let tainted = end.tainted;
                return Ok(Took::Over { end, tainted });
            }
            SlotEvent::PromptCounted { run, tokens } if run == self.run => {
                *self.prompt_tokens = Some(tokens);
                if self.has_token {
                    return Ok(Took::Step(Step::Same));
                }
                let in_all = tokens.saturating_add(self.answer.tokens());
                Step::Prefill(self.prefill.limit(&self.deadlines, Some(in_all)))
            }
            other => return Ok(Took::Unexpected(other)),
        }))
    }

    async fn client(&mut self, is_stopped: bool) -> FromClient {
        if is_stopped {
            return std::future::pending().await;
        }
        if let Some(unread) = self.unread.as_mut().filter(|unread| !unread.is_empty()) {
            return match unread.give(self.events).await {
                Ok(()) => FromClient::Nothing,
                Err(stop) => FromClient::Stop(stop),
            };
        }
        if self.waiting.is_none() {
            self.events.closed().await;
            return FromClient::Stop(Stop::Cancelled);
        }
        let permit = self.events.reserve().await;
        let (Ok(permit), Some(waiting)) = (permit, self.waiting.take()) else {
            return FromClient::Stop(Stop::Cancelled);
        };
        permit.send(waiting.event);
        *self.stalled += waiting.since.elapsed();
        FromClient::HasRoom(waiting.then)
    }

    fn is_complete(&self) -> bool {
        self.complete.is_some()
    }

    /// A reader that gets an error gets it now: the library may take its time.
    fn is_stopping(&mut self, why: &Stop) {
        self.waiting = None;
        if let (Some(unread), Stop::Cancelled | Stop::Failed(_)) = (&mut self.unread, why) {
            unread.clear();
        }
        if let Stop::Failed(error) = why
            && let Some(last) = self.last.take()
        {
            last.send(ReplyEvent::Failed(error.clone()));
        }
    }
}

impl TextSink<'_> {
    fn deliver(&mut self, kind: TokenKind, id: Option<i32>, text: &str) -> Step {
        self.has_token = true;
        if kind != TokenKind::Rest {
            match self.repeated.take(id) {
                Made::New => {}
                Made::Again => {
                    self.logprobs = None;
                    return Step::Moved;
                }
                Made::Otherwise => {
                    (self.on_difference)();
                    return Step::Stop(Stop::Failed(repeated::made_otherwise()));
                }
            }
        }
        if !std::mem::replace(&mut self.has_new, true) {
            (self.on_first_token)();
        }
        let logprobs = match kind {
            // It is no token.
            TokenKind::Rest => None,
            _ => self.logprobs.take(),
        };
        let token = ReadToken {
            kind,
            id,
            text,
            logprobs,
        };
        let read = self.reading.push(self.answer, token);
        let then = match read.next {
            Next::Token => Step::Moved,
            Next::End => Step::Stop(Stop::Complete),
            Next::CloseThought => match self.answer.check_exact(self.ids_are_trusted) {
                Ok(()) => Step::Stop(Stop::ThoughtUsedUp),
                Err(reason) => {
                    self.reading.goes_past_its_budget(self.run, reason);
                    Step::Moved
                }
            },
        };
        match read.event.filter(|_| self.wants_text) {
            Some(event) => self.tell(event, then),
            None => then,
        }
    }

    /// The next token comes behind an end of the library's run, or another evaluation.
    fn goes_back(&self, waits_for: WaitsFor) -> Step {
        let (deadline, limit) = match waits_for {
            WaitsFor::Finish => {
                let limit = self.deadlines.worker.abort_to_finish;
                (Deadline::AbortToFinish, limit)
            }
            WaitsFor::Evaluation => {
                let tokens = self.prompt_tokens.map(|tokens| {
                    let answer = self.answer.tokens_in_context();
                    tokens.saturating_add(answer.unwrap_or(self.answer.tokens()))
                });
                (
                    Deadline::Prefill,
                    self.prefill.limit(&self.deadlines, tokens),
                )
            }
        };
        Step::GoesBack { deadline, limit }
    }

    fn of_prompt(&mut self, mut tokens: Vec<TokenLogprobs>) -> Step {
        let logprobs = &mut self.prompt_logprobs;
        let known = logprobs.told.saturating_sub(logprobs.in_attempt);
        logprobs.in_attempt += tokens.len();
        tokens.drain(..known.min(tokens.len()));
        if tokens.is_empty() {
            return Step::Same;
        }
        *logprobs.told += tokens.len();
        // The first token is waited for as long as before.
        let event = ReplyEvent::Piece(ReplyPiece::PromptLogprobs(tokens));
        self.tell(event, Step::Same)
    }

    fn tell(&mut self, event: ReplyEvent, then: Step) -> Step {
        if let Some(unread) = &mut self.unread {
            return match unread.tell(event, self.events) {
                Ok(()) => then,
                Err(stop) => Step::Stop(stop),
            };
        }
        match self.events.try_send(event) {
            Ok(()) => then,
            Err(TrySendError::Closed(_)) => Step::Stop(Stop::Cancelled),
            Err(TrySendError::Full(event)) => {
                self.waiting = Some(Waiting {
                    event,
                    since: Instant::now(),
                    then,
                });
                let patience = self.deadlines.slow_reader.saturating_sub(*self.stalled);
                Step::Full { patience }
            }
        }
    }
}

fn end_of_complete(run: u64, reason: FinishReason, generated_tokens: u32) -> RunEnd {
    RunEnd {
        run,
        outcome: RunOutcome::Finished(reason),
        generated_tokens,
        prompt_tokens: None,
        cached_prompt_tokens: None,
        perf: None,
        clock: None,
        redraws: None,
        tokenizer_agrees: None,
        tokens_agree: None,
        tainted: true,
    }
}
