//! The run loop. Between two steps the record in `KvCells` equals llama.cpp's memory, and a token
//! that has been reported but not evaluated is in `unevaluated`: that is all a paused generation
//! needs to go on, and all an aborted one leaves behind.
//!
//! ```text
//!   begin ──► evaluate ──► sample ──► report ──┬─ go on ──► evaluate
//!               │ abort       ▲                ├─ pause ──► kept for the next run ──► evaluate
//!               ▼             │                └─ last token ──► finished
//!            finished      (resume)
//! ```

use crate::abi::RKLLMPerfStat;
use crate::engine::{Engine, Evaluation};
use crate::perf::PerfClock;
use crate::run_state::RunState;
use crate::sampler::Sampler;
use crate::utf8_assembly::{Assembled, Utf8Assembly};
use crate::vocabulary::Token;

/// What the callback is told.
pub(crate) enum Report<'a> {
    /// Whole characters; none for a special token that is skipped.
    Text {
        token: Token,
        text: &'a str,
    },
    /// The token ends inside a character.
    Waiting {
        token: Token,
    },
    Finish(RKLLMPerfStat),
    Error,
}

/// What it answers (`LLMResultCallback`'s return value).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    GoOn,
    Pause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Finished,
    Paused,
    Failed,
}

pub(crate) struct Generation {
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
}

impl Generation {
    pub(crate) fn new(
        unevaluated: Vec<Token>,
        sampler: Sampler,
        max_new_tokens: Option<usize>,
        n_keep: usize,
        keeps_history: bool,
    ) -> Generation {
        Generation {
            unevaluated,
            sampler,
            assembly: Utf8Assembly::default(),
            clock: PerfClock::default(),
            max_new_tokens,
            n_keep,
            keeps_history,
            last_token_reported: false,
        }
    }

    pub(crate) fn unevaluated(&self) -> &[Token] {
        &self.unevaluated
    }

    pub(crate) fn has_generated(&self) -> bool {
        self.clock.tokens() > 0
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
        while !self.last_token_reported && !state.abort_requested() {
            match self.evaluate(engine, state) {
                Evaluation::Complete => {}
                Evaluation::Aborted | Evaluation::WindowFull => break,
                Evaluation::Failed => {
                    report(Report::Error);
                    return Outcome::Failed;
                }
            }
            let token = engine.sample(&mut self.sampler);
            self.clock.token();
            self.unevaluated.push(token);
            let ends = engine.ends_generation(token);
            let spent = self
                .max_new_tokens
                .is_some_and(|limit| self.clock.tokens() >= limit);
            self.last_token_reported = ends || spent;
            let reply = match self.assembly.push(&engine.visible_bytes(token)) {
                Assembled::Text(text) => report(Report::Text { token, text: &text }),
                Assembled::Incomplete => report(Report::Waiting { token }),
            };
            if reply == Reply::Pause {
                self.clock.stop();
                return Outcome::Paused;
            }
        }
        report(Report::Finish(self.clock.finish()));
        Outcome::Finished
    }

    fn evaluate(&mut self, engine: &mut Engine, state: &RunState) -> Evaluation {
        let prefill = !self.has_generated();
        let before = engine.kv_tokens();
        let evaluation = engine.evaluate(&self.unevaluated, self.n_keep, state);
        if prefill {
            let evaluated = engine.kv_tokens().saturating_sub(before);
            self.clock.prompt_tokens_evaluated(evaluated);
        }
        match evaluation {
            Evaluation::Complete => self.unevaluated.clear(),
            // What was evaluated is in the cells now; the rest still is not.
            Evaluation::Aborted if prefill => {
                let evaluated = engine.kv_tokens().saturating_sub(before);
                self.unevaluated
                    .drain(..evaluated.min(self.unevaluated.len()));
            }
            _ => {}
        }
        evaluation
    }
}
