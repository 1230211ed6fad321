//! Whose fault it is that a request was not served.
//!
//! A request is never blamed on a suspicion alone: a model whose files or library fail at every
//! prompt kills the workers of any request. So a worker first has to serve a short prompt of the
//! daemon's own. If it does, the request is to blame, otherwise the model is. After deaths the probe
//! makes some tokens, because what fails may fail only there.

use std::time::Duration;

use tokio::sync::mpsc::{self, OwnedPermit};

use super::answer_so_far::AnswerSoFar;
use super::drive::{Ended, Limits, Outer, drive};
use super::lease::{Lease, WorkerAfter};
use super::link::TOKEN_CREDIT;
use super::outcome::{self, Outcome};
use super::reading::Reading;
use super::repeated::Repeated;
use super::text_sink::{Prefill, PromptLogprobs, TextSink};
use crate::generation::{
    Deadline, GenerationError, ModelId, ReplyEvent, SamplingRequest, StopStrings,
};
use crate::ipc::{RunEnd, RunOutcome, RunSpec, SlotCommand};
use crate::telemetry::Metrics;

/// No client's word stands in it.
pub const PROMPT: &str = "Hello";
/// At the least after a death: a dying worker takes tokens with it that no process has seen.
const LEAST_TOKENS: u32 = 16;
/// A probe stays a matter of seconds.
const MOST_TOKENS: u32 = 32;
/// Sets a probe's run apart from its request's.
const PROBE_RUN: u64 = 1 << 63;

/// What speaks against a request, before the model was put to the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// The runtime took its prompt not at all.
    Refusal { request: String },
    /// Worker after worker died of a fault while serving it.
    Deaths { cause: String },
}

/// What a model's probe has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    Serves,
    Fails {
        cause: String,
    },
    /// Its worker was ended by something else.
    Unknown,
}

impl Suspicion {
    /// How far a probe has to come, where the request was seen to come to `reached` tokens.
    pub fn tokens_wanted(&self, reached: u32) -> u32 {
        match self {
            Self::Refusal { .. } => 1,
            Self::Deaths { .. } => reached.saturating_add(1).clamp(LEAST_TOKENS, MOST_TOKENS),
        }
    }

    /// How many tokens have to come for a proof, where an attempt was seen to make `reached`: what
    /// fails may fail only behind them.
    pub fn tokens_that_prove(&self, reached: u32) -> u32 {
        match self {
            Self::Refusal { .. } => 0,
            Self::Deaths { .. } => reached.saturating_add(1).min(MOST_TOKENS),
        }
    }

    /// What the client is told, whose request was for `model`.
    pub fn blame(self, proof: Proof, model: &ModelId) -> GenerationError {
        match (self, proof) {
            (Self::Refusal { request }, Proof::Serves) => {
                GenerationError::PromptRefused { request }
            }
            (Self::Refusal { request }, _) => GenerationError::RunRefused { request },
            (Self::Deaths { cause }, Proof::Serves) => GenerationError::PoisonRequest { cause },
            (Self::Deaths { .. }, Proof::Fails { cause }) => GenerationError::ModelFailed {
                model: model.to_string(),
                cause,
            },
            (Self::Deaths { cause }, Proof::Unknown) => GenerationError::WorkerDied { cause },
        }
    }
}

/// A probe on behalf of a request, which may be cancelled like it.
pub(super) struct Probe<'a> {
    /// The request's run.
    pub run: u64,
    pub tokens: u32,
    /// So many prove that the model serves.
    pub enough: u32,
    pub events: &'a mpsc::Sender<ReplyEvent>,
    pub last: &'a mut Option<OwnedPermit<ReplyEvent>>,
    pub outer: Outer<'a>,
    pub metrics: &'a Metrics,
}

impl Probe<'_> {
    /// Probes the model of a worker, and gives that back or kills it before any client learns of the
    /// end. `Err`: the request was ended meanwhile.
    pub async fn on(self, lease: Lease) -> Result<Proof, Outcome> {
        let worker = lease.worker();
        let (model, pid) = (worker.model.id.clone(), worker.process.pid);
        tracing::info!(model = &*model, pid, "probing a model");
        let run = self.run | PROBE_RUN;
        let deadlines = worker.deadlines;
        let spec = RunSpec {
            run,
            prompt: PROMPT.to_owned(),
            adapter: None,
            prompt_tokens: None,
            begun: None,
            draws: Default::default(),
            constraint: None,
            redraws: None,
            vocabulary: None,
            sampling: SamplingRequest::default(),
            max_new_tokens: Some(self.tokens),
            prefill_per_token: worker.prefill_per_token(),
            credit: TOKEN_CREDIT,
            save: None,
        };
        let prefill = Prefill::of(&spec, worker.slots());
        let limits = Limits {
            first: (Deadline::Prefill, prefill.limit(&deadlines, None)),
            outer: self.outer,
            request: None,
            metrics: self.metrics,
        };
        let mut sink = TextSink {
            run,
            wants_text: false,
            prefill,
            reading: &mut Reading::new(StopStrings::new(std::iter::empty()), None, false),
            answer: &mut AnswerSoFar::default(),
            ids_are_trusted: false,
            prompt_tokens: &mut None,
            events: self.events,
            last: self.last,
            stalled: &mut Duration::default(),
            deadlines,
            complete: None,
            on_first_token: &|| {},
            on_difference: &|| {},
            has_token: false,
            has_new: false,
            repeated: &mut Repeated::default(),
            waiting: None,
            unread: None,
            prompt_logprobs: PromptLogprobs {
                told: &mut 0,
                in_attempt: 0,
            },
            logprobs: None,
        };
        let command = SlotCommand::Run(Box::new(spec));
        let ended = drive(lease, command, &mut sink, limits).await;
        let complete = sink.complete.map(|complete| complete.end.generated_tokens);
        let proof = proof(ended, complete, self.enough);
        tracing::info!(model = &*model, pid, ?proof, "probed a model");
        proof
    }
}

/// `complete`: the tokens of an answer that was complete before its run had ended.
fn proof(ended: Ended<Box<RunEnd>>, complete: Option<u32>, enough: u32) -> Result<Proof, Outcome> {
    match ended {
        Ended::NotSent(running, error) => {
            running.ended(WorkerAfter::Unproven);
            let cause = error.to_string();
            Ok(Proof::Fails { cause })
        }
        Ended::Over(over) => {
            let is_finished = matches!(over.end.outcome, RunOutcome::Finished(_));
            let after = over.after(is_finished && over.stop.is_none());
            over.running.ended(after);
            match (over.stop, over.end.outcome) {
                (Some(stop), _) => Err(outcome::stopped(stop)),
                (None, RunOutcome::Finished(_)) => Ok(shown(over.end.generated_tokens, enough)),
                (None, RunOutcome::Refused { reason } | RunOutcome::Failed { reason }) => {
                    Ok(Proof::Fails { cause: reason })
                }
                (None, RunOutcome::ContextLengthExceeded { limit_tokens, .. }) => {
                    let cause = format!("its context has room for {limit_tokens} tokens only");
                    Ok(Proof::Fails { cause })
                }
                // It was asked for no format.
                (None, RunOutcome::Aborted | RunOutcome::NotKept { .. }) => Ok(Proof::Unknown),
            }
        }
        Ended::Lost(lost) => match (lost.stop, complete) {
            (Some(stop), _) => Err(outcome::stopped(stop)),
            (None, Some(tokens)) => Ok(shown(tokens, enough)),
            (None, None) if lost.loss.is_own_fault() => Ok(Proof::Fails {
                cause: lost.loss.cause.to_string(),
            }),
            (None, None) => Ok(Proof::Unknown),
        },
    }
}

/// What an answer of so many tokens proves. A model that stops before the place where others died has
/// not come past it.
fn shown(tokens: u32, enough: u32) -> Proof {
    match tokens >= enough {
        true => Proof::Serves,
        false => Proof::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_ends_before_the_place_of_the_deaths_proves_nothing() {
        let deaths = Suspicion::Deaths {
            cause: "deaths".to_owned(),
        };
        assert_eq!(shown(3, deaths.tokens_that_prove(6)), Proof::Unknown);
        assert_eq!(shown(6, deaths.tokens_that_prove(6)), Proof::Unknown);
        assert_eq!(shown(7, deaths.tokens_that_prove(6)), Proof::Serves);
        assert_eq!(shown(1, deaths.tokens_that_prove(0)), Proof::Serves);
        // As far as a probe goes.
        assert_eq!(
            shown(MOST_TOKENS, deaths.tokens_that_prove(900)),
            Proof::Serves
        );
        let refusal = Suspicion::Refusal {
            request: "1".to_owned(),
        };
        assert_eq!(shown(0, refusal.tokens_that_prove(0)), Proof::Serves);
    }

    #[test]
    fn only_a_model_that_serves_the_probe_lets_a_request_be_blamed() {
        let model = ModelId::from("m");
        let fails = || Proof::Fails {
            cause: "probe".to_owned(),
        };
        let deaths = || Suspicion::Deaths {
            cause: "deaths".to_owned(),
        };
        let refusal = || Suspicion::Refusal {
            request: "1".to_owned(),
        };
        let (cause, request) = ("deaths".to_owned(), "1".to_owned());
        for (suspicion, proof, error) in [
            (
                deaths(),
                Proof::Serves,
                GenerationError::PoisonRequest {
                    cause: cause.clone(),
                },
            ),
            (
                deaths(),
                fails(),
                GenerationError::ModelFailed {
                    model: "m".to_owned(),
                    cause: "probe".to_owned(),
                },
            ),
            (
                deaths(),
                Proof::Unknown,
                GenerationError::WorkerDied { cause },
            ),
            (
                refusal(),
                Proof::Serves,
                GenerationError::PromptRefused {
                    request: request.clone(),
                },
            ),
            (
                refusal(),
                fails(),
                GenerationError::RunRefused {
                    request: request.clone(),
                },
            ),
            (
                refusal(),
                Proof::Unknown,
                GenerationError::RunRefused { request },
            ),
        ] {
            assert_eq!(suspicion.blame(proof, &model), error);
        }
    }
}
