//! The run loop. Between two steps the record in `KvCells` equals llama.cpp's memory, and a token
//! that has been reported but not evaluated is in `unevaluated`: that is all a paused generation
//! needs to go on, and all an aborted one leaves behind.
//!
//! ```text
//!   begin ──► evaluate ──► sample ──► report ──┬─ go on ──► evaluate
//!               │ abort       ▲                ├─ pause ──► kept for the next run ──► evaluate
//!               ▼             │                └─ last token ──► finished
//!            finished      (resume)
//!
//!   hidden states: begin ──► evaluate ──► announce ──► hand over ──► finished
//! ```
//!
//! Logits come with each token: first the prompt's, then those the token was drawn from.

use std::path::PathBuf;

use crate::abi::RKLLMPerfStat;
use crate::batch_generation::SlotStep;
use crate::engine::{Engine, Evaluation, Output, OutputKind};
use crate::perf::PerfClock;
use crate::run_state::RunState;
use crate::sampler::Sampler;
use crate::utf8_assembly::{Assembled, Utf8Assembly};
use crate::vocabulary::Token;

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

pub(crate) struct Generation {
    /// The sequence of the cache it runs in.
    pub(crate) slot: usize,
    /// Tokens that follow the cells: the rest of the prompt, then the last reported token.
    unevaluated: Vec<Token>,
    sampler: Sampler,
    assembly: Utf8Assembly,
    clock: PerfClock,
    /// None: until the model ends or the caller aborts.
    max_new_tokens: Option<usize>,
    /// Tokens at the window's beginning that a shift leaves in place.
    n_keep: usize,
    pub(crate) keeps_history: bool,
    last_token_reported: bool,
    output: Output,
    save_prompt_to: Option<PathBuf>,
    handing_over: HandingOver,
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
    #[allow(clippy::too_many_arguments)] // Its fields, once, from one place.
    pub(crate) fn new(
        slot: usize,
        unevaluated: Vec<Token>,
        sampler: Sampler,
        max_new_tokens: Option<usize>,
        n_keep: usize,
        keeps_history: bool,
        output: Output,
        save_prompt_to: Option<PathBuf>,
    ) -> Generation {
        Generation {
            slot,
            unevaluated,
            sampler,
            assembly: Utf8Assembly::default(),
            clock: PerfClock::default(),
            max_new_tokens,
            n_keep,
            keeps_history,
            last_token_reported: false,
            output,
            save_prompt_to,
            handing_over: HandingOver::Unevaluated,
        }
    }

    pub(crate) fn unevaluated(&self) -> &[Token] {
        &self.unevaluated
    }

    fn has_generated(&self) -> bool {
        self.clock.tokens() > 0
    }

    /// The whole prompt has been evaluated, and what it was evaluated for begun.
    pub(crate) fn has_read_its_prompt(&self) -> bool {
        self.has_generated() || self.handing_over != HandingOver::Unevaluated
    }

    /// Runs until the generation ends or is paused. FINISH or ERROR is the last report unless it
    /// is paused.
    pub(crate) fn drive(
        &mut self,
        engine: &mut Engine,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        self.clock.start();
        let outcome = match self.output.kind {
            OutputKind::HiddenStates => self.hand_over(engine, state, report),
            OutputKind::Text | OutputKind::Logits => self.generate(engine, state, report),
        };
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
        engine: &mut Engine,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        while !self.last_token_reported && !state.abort_requested() {
            match self.evaluate(engine, state) {
                Evaluation::Complete => {}
                Evaluation::Aborted | Evaluation::WindowFull => break,
                Evaluation::Failed => return Outcome::Failed,
            }
            let (token, assembled) = self.sample(engine, -1);
            let logits = (self.output.kind == OutputKind::Logits).then(|| Matrix {
                values: &self.output.rows,
                columns: engine.output_width(OutputKind::Logits),
            });
            let reply = match assembled {
                Assembled::Text(text) => report(Report::Text {
                    token,
                    text: &text,
                    logits,
                }),
                Assembled::Incomplete => report(Report::Waiting { token, logits }),
            };
            self.output.rows.clear();
            match reply {
                Reply::GoOn => {}
                Reply::Release => self.output.rows = Vec::new(),
                Reply::Pause => return Outcome::Paused,
            }
        }
        Outcome::Finished
    }

    /// Draws the next token, which is then the last one if it ends the generation.
    fn sample(&mut self, engine: &Engine, index: i32) -> (Token, Assembled) {
        let token = engine.sample(&mut self.sampler, index);
        self.clock.token();
        self.unevaluated.push(token);
        let ends = engine.ends_generation(token);
        let spent = self
            .max_new_tokens
            .is_some_and(|limit| self.clock.tokens() >= limit);
        self.last_token_reported = ends || spent;
        (token, self.assembly.push(&engine.visible_bytes(token)))
    }

    fn hand_over(
        &mut self,
        engine: &mut Engine,
        state: &RunState,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> Outcome {
        while self.handing_over != HandingOver::Done && !state.abort_requested() {
            let reply = match self.handing_over {
                HandingOver::Unevaluated => {
                    match self.evaluate(engine, state) {
                        Evaluation::Complete => {}
                        Evaluation::Aborted | Evaluation::WindowFull => break,
                        Evaluation::Failed => return Outcome::Failed,
                    }
                    self.handing_over = HandingOver::Evaluated;
                    Reply::GoOn
                }
                HandingOver::Evaluated => {
                    self.handing_over = HandingOver::Announced;
                    report(Report::NoHiddenStatesYet)
                }
                HandingOver::Announced | HandingOver::Done => {
                    self.handing_over = HandingOver::Done;
                    let reply = report(Report::HiddenStates(Matrix {
                        values: &self.output.rows,
                        columns: engine.output_width(OutputKind::HiddenStates),
                    }));
                    // Nothing reads them again, whatever the host answers.
                    self.output.rows = Vec::new();
                    reply
                }
            };
            if reply == Reply::Pause {
                return Outcome::Paused;
            }
        }
        Outcome::Finished
    }

    fn evaluate(&mut self, engine: &mut Engine, state: &RunState) -> Evaluation {
        let prefill = !self.has_generated();
        let before = engine.kv_tokens(self.slot);
        let evaluation = engine.evaluate(
            self.slot,
            &self.unevaluated,
            self.n_keep,
            &mut self.output,
            state,
        );
        if prefill {
            let evaluated = engine.kv_tokens(self.slot).saturating_sub(before);
            self.clock.prompt_tokens_evaluated(evaluated);
        }
        match evaluation {
            Evaluation::Complete => {
                self.unevaluated.clear();
                if let Some(path) = self.save_prompt_to.take() {
                    engine.save_prompt_cache(&path);
                }
            }
            // What was evaluated is in the cells now; the rest still is not.
            Evaluation::Aborted if prefill => {
                let evaluated = engine.kv_tokens(self.slot).saturating_sub(before);
                self.unevaluated
                    .drain(..evaluated.min(self.unevaluated.len()));
            }
            _ => {}
        }
        evaluation
    }
}

/// One sequence among several.
impl Generation {
    pub(crate) fn has_ended(&self) -> bool {
        self.last_token_reported
    }

    /// What it can have evaluated together with others: its slot, its last token, its `n_keep`.
    pub(crate) fn next_alone(&self) -> Option<(usize, Token, usize)> {
        match self.unevaluated[..] {
            [token] if self.has_generated() && !self.has_ended() => {
                Some((self.slot, token, self.n_keep))
            }
            _ => None,
        }
    }

    pub(crate) fn read_prompt(&mut self, engine: &mut Engine, state: &RunState) -> Evaluation {
        self.evaluate(engine, state)
    }

    /// After a decode that evaluated what `next_alone` gave, as its `index`-th token.
    pub(crate) fn draw_after_decode(&mut self, engine: &Engine, index: i32) -> SlotStep {
        self.unevaluated.clear();
        self.draw(engine, index)
    }

    pub(crate) fn draw(&mut self, engine: &Engine, index: i32) -> SlotStep {
        match self.sample(engine, index) {
            (token, Assembled::Text(text)) => SlotStep::Text(token, text),
            (token, Assembled::Incomplete) => SlotStep::Waiting(token),
        }
    }

    /// Prompt tokens evaluated so far.
    pub(crate) fn evaluated(&self) -> i32 {
        self.clock.evaluated() as i32
    }

    pub(crate) fn after_the_first(&self) -> i32 {
        self.clock.tokens().saturating_sub(1) as i32
    }
}
