//! The run loop. A run knows all its tokens, the cache holds a beginning of them, and what follows that
//! beginning is evaluated next: so a paused generation needs nothing else to go on, an aborted one
//! leaves nothing behind, and one whose cells went to another run is evaluated again.
//!
//! ```text
//!   begin ──► evaluate ──► draw ──► report ──┬─ go on ──► evaluate
//!               │ abort       ▲              ├─ pause ──► kept for the next run ──► evaluate
//!               ▼             │              └─ last token ──► finished
//!            finished      (resume)
//!
//!   hidden states: begin ──► evaluate ──► announce ──► hand over ──► finished
//! ```
//!
//! Logits come with each token: first the prompt's, then those the token was drawn from.

use std::collections::VecDeque;
use std::path::PathBuf;

mod steps;

use crate::abi::RKLLMPerfStat;
use crate::batch_generation::SlotStep;
use crate::computing::{Computing, Evaluation, Inputs, OutputKind, PREFILL_BATCH};
use crate::log::Verbosity;
use crate::logprobs::{Logprobs, TokenLogprobs};
use crate::perf::PerfClock;
use crate::run_state::RunState;
use crate::sampler::Sampler;
use crate::utf8_assembly::{Assembled, Utf8Assembly};
use crate::vocabulary::{Token, Vocabulary};

/// Rows of `columns` floats.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) columns: usize,
}

impl Matrix<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.columns.max(1)
    }
}

/// What the callback is told.
pub(crate) enum Report<'a> {
    /// Whole characters; none for a special token that is skipped.
    Text {
        token: Token,
        text: &'a str,
        logits: Option<Matrix<'a>>,
    },
    /// The token ends inside a character.
    Waiting {
        token: Token,
        logits: Option<Matrix<'a>>,
    },
    /// The vendor's first NORMAL of a hidden-state run, which has no data.
    NoHiddenStatesYet,
    HiddenStates(Matrix<'a>),
    /// One step of several sequences.
    Batch(&'a [SlotStep]),
    Finish(RKLLMPerfStat),
    Error,
}

/// What it answers (`LLMResultCallback`'s return value).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    GoOn,
    Pause,
    /// Go on, and give back the memory of hidden states or logits.
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Finished,
    Paused,
    Failed,
}

/// What a run is to do.
pub(crate) struct Plan {
    /// The sequence of the cache it runs in.
    pub(crate) sequence: usize,
    /// History and prompt.
    pub(crate) tokens: Vec<Token>,
    pub(crate) output: OutputKind,
    /// Where the tokens begin whose outputs are wanted: history whose cells were lost is evaluated, too.
    pub(crate) wanted_from: usize,
    pub(crate) adapter: u64,
    pub(crate) sampler: Sampler,
    /// From here on the tokens are evaluated one by one, as where they were drawn. None: they are a prompt's.
    pub(crate) drawn_from: Option<usize>,
    /// None: it is not asked how likely tokens were.
    pub(crate) logprobs: Option<Logprobs>,
    /// None: until the model ends or the caller aborts.
    pub(crate) max_new_tokens: Option<usize>,
    /// Tokens at the window's beginning that a shift leaves in place.
    pub(crate) n_keep: usize,
    pub(crate) keeps_history: bool,
    /// Each of its tokens is computed as in a run alone.
    pub(crate) is_deterministic: bool,
    pub(crate) save_prompt_to: Option<PathBuf>,
    pub(crate) inputs: Inputs,
    pub(crate) spelling: Spelling,
}

/// How tokens become text.
#[derive(Clone, Copy)]
pub(crate) struct Spelling {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) skip_special_token: bool,
    pub(crate) ignore_eos_token: bool,
    pub(crate) verbosity: Verbosity,
}

/// A token that was drawn, and what its callback gets.
pub(crate) struct Drawn {
    token: Token,
    text: Assembled,
    logits: Option<Vec<f32>>,
    /// Floats in a row of logits.
    columns: usize,
    /// Told before it.
    logprobs: Option<(Logprobs, Vocabulary, Box<TokenLogprobs>)>,
    /// What its sequence held when it was drawn. A shared context is ahead of its hosts.
    pub(crate) held: usize,
}

/// The last token of a decode.
const LAST: i32 = -1;

pub(crate) struct Generation {
    plan: Plan,
    /// All of the run so far.
    tokens: Vec<Token>,
    /// Where the prompt ends in them.
    prompt_end: usize,
    assembly: Utf8Assembly,
    clock: PerfClock,
    last_token_drawn: bool,
    /// Output rows of the tokens evaluated since they were last handed over.
    rows: Vec<f32>,
    handing_over: HandingOver,
    /// The next token of the prompt of which it is to be told how likely it was.
    next_unscored: usize,
    /// What was computed of the prompt's tokens, and not told yet.
    prompt_logprobs: Vec<TokenLogprobs>,
    /// Drawn before the caller paused the run, and not told yet.
    untold: VecDeque<Drawn>,
}

/// How far a hidden-state run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandingOver {
    Unevaluated,
    Evaluated,
    Announced,
    Done,
}

impl Generation {
    pub(crate) fn new(mut plan: Plan) -> Generation {
        Generation {
            prompt_end: plan.drawn_from.unwrap_or(plan.tokens.len()),
            next_unscored: plan.wanted_from,
            tokens: std::mem::take(&mut plan.tokens),
            plan,
            assembly: Utf8Assembly::default(),
            clock: PerfClock::default(),
            last_token_drawn: false,
            rows: Vec::new(),
            handing_over: HandingOver::Unevaluated,
            prompt_logprobs: Vec::new(),
            untold: VecDeque::new(),
        }
    }

    /// One that has ended before it began.
    pub(crate) fn idle(plan: Plan) -> Generation {
        let mut generation = Generation::new(plan);
        generation.last_token_drawn = true;
        generation
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    fn rest(&self, computing: &Computing) -> &[Token] {
        &self.tokens[computing.held(self.plan.sequence).min(self.tokens.len())..]
    }

    pub(crate) fn has_generated(&self) -> bool {
        self.clock.tokens() > 0
    }

    /// The whole prompt has been evaluated, and what it was evaluated for begun.
    pub(crate) fn has_read_its_prompt(&self) -> bool {
        self.has_generated() || self.handing_over != HandingOver::Unevaluated
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.last_token_drawn
    }

    /// Runs until the generation ends or is paused. FINISH or ERROR is the last report unless it
    /// is paused.
    pub(crate) fn drive(
        &mut self,
        computing: &mut Computing,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        self.clock.start();
        let outcome = match self.plan.output {
            OutputKind::HiddenStates => self.hand_over(computing, state, report),
            OutputKind::Text | OutputKind::Logits => self.generate(computing, state, report),
        };
        self.conclude(outcome, report)
    }

    /// The last report, unless the run is paused.
    pub(crate) fn conclude(
        &mut self,
        outcome: Outcome,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        match outcome {
            Outcome::Finished => {
                report(Report::Finish(self.clock.finish()));
            }
            Outcome::Paused => self.clock.stop(),
            Outcome::Failed => {
                report(Report::Error);
            }
        }
        outcome
    }

    fn generate(
        &mut self,
        computing: &mut Computing,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        while !self.last_token_drawn && !state.abort_requested() {
            match self.evaluate(computing, state) {
                Evaluation::Complete => {}
                Evaluation::Aborted | Evaluation::WindowFull => break,
                Evaluation::Failed => return Outcome::Failed,
            }
            if let Some(drawn) = self.draw(computing, LAST)
                && drawn.tell(report) == Reply::Pause
            {
                return Outcome::Paused;
            }
        }
        Outcome::Finished
    }

    fn hand_over(
        &mut self,
        computing: &mut Computing,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        if !self.has_read_its_prompt() && !state.abort_requested() {
            match self.evaluate(computing, state) {
                Evaluation::Complete => self.is_evaluated(),
                Evaluation::Aborted | Evaluation::WindowFull => return Outcome::Finished,
                Evaluation::Failed => return Outcome::Failed,
            }
        }
        self.hand_over_rows(computing.weights.hidden_width(), state, report)
    }

    /// The rows of a hidden-state run are there.
    pub(crate) fn is_evaluated(&mut self) {
        self.handing_over = HandingOver::Evaluated;
    }

    /// Tells the rows, of `columns` floats each, once they are there.
    pub(crate) fn hand_over_rows(
        &mut self,
        columns: usize,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        while !state.abort_requested() {
            let reply = match self.handing_over {
                HandingOver::Unevaluated | HandingOver::Done => break,
                HandingOver::Evaluated => {
                    self.handing_over = HandingOver::Announced;
                    report(Report::NoHiddenStatesYet)
                }
                HandingOver::Announced => {
                    self.handing_over = HandingOver::Done;
                    // Nothing reads them again, whatever the host answers.
                    let values = std::mem::take(&mut self.rows);
                    report(Report::HiddenStates(Matrix {
                        values: &values,
                        columns,
                    }))
                }
            };
            if reply == Reply::Pause {
                return Outcome::Paused;
            }
        }
        Outcome::Finished
    }

    /// Evaluates what follows the cells.
    pub(crate) fn evaluate(&mut self, computing: &mut Computing, state: &RunState) -> Evaluation {
        loop {
            let most = computing.threads.batch_limit(PREFILL_BATCH);
            let most = self.piece(computing, most);
            let Some(count) = self.next_count(computing, most) else {
                return Evaluation::WindowFull;
            };
            if count == 0 {
                break;
            }
            match self.step(computing, count, &[state]) {
                Evaluation::Complete => self.tell_prompt_logprobs(),
                other => return other,
            }
        }
        if let Some(prompt) = self.prompt_to_save(computing) {
            prompt.write();
        }
        Evaluation::Complete
    }
}

impl Drawn {
    pub(crate) fn tell(self, report: &mut dyn FnMut(Report<'_>) -> Reply) -> Reply {
        let token = self.token;
        if let Some((logprobs, vocabulary, told)) = &self.logprobs {
            logprobs.tell(told, *vocabulary);
        }
        let logits = self.logits.as_deref().map(|values| Matrix {
            values,
            columns: self.columns,
        });
        match &self.text {
            Assembled::Text(text) => report(Report::Text {
                token,
                text,
                logits,
            }),
            Assembled::Incomplete => report(Report::Waiting { token, logits }),
        }
    }

    pub(crate) fn into_slot_step(self) -> SlotStep {
        match self.text {
            Assembled::Text(text) => SlotStep::Text(self.token, text),
            Assembled::Incomplete => SlotStep::Waiting(self.token),
        }
    }
}
