//! A generation's steps: what a decode can take of it, and what is done after one.

use std::collections::VecDeque;

use super::{Drawn, Generation, HandingOver, Spelling};
use crate::computing::{Computing, Evaluation, How, OutputKind, PREFILL_BATCH, Part};
use crate::log::{Verbosity, info, warning};
use crate::logprobs::{Logprobs, TokenLogprobs};
use crate::prefix_reuse::discard_count;
use crate::prompt_file::SavedPrompt;
use crate::rounding;
use crate::run_state::RunState;

/// Drawn tokens that are evaluated at once when they are evaluated again: so few that llama.cpp rounds
/// as it does for one (`rounding`).
const DRAWN_AGAIN: usize = 32;

impl Generation {
    /// How many of the next tokens one decode can take, at most `most`, after a shift where the window
    /// is full; 0 if all are evaluated. None: the window is full and the model cannot shift it.
    pub(crate) fn next_count(&mut self, computing: &mut Computing, most: usize) -> Option<usize> {
        let sequence = self.plan.sequence;
        if self.rest(computing).is_empty() {
            return Some(0);
        }
        if computing.held(sequence) + 1 > computing.max_context && !self.shift_window(computing) {
            warning!(
                "the context of {} tokens is full and this model cannot shift it",
                computing.max_context
            );
            return None;
        }
        let room = computing.max_context - computing.held(sequence);
        // A shifted cache is rotated inside the next decode, which is kept short because it must
        // not be aborted.
        let is_rotated = match self.plan.is_deterministic {
            // Another's shift must not cut its prompt, nor one of cells that are gone.
            true => computing.held(sequence) > 0 && computing.cells(sequence).shift_pending(),
            false => computing.shift_pending(),
        };
        let most = if is_rotated { 1 } else { most };
        // Embedding rows and tokens do not share a batch.
        let rest = self.rest(computing);
        let alike = rest.iter().take_while(|&&t| (t < 0) == (rest[0] < 0));
        Some(alike.count().min(most).min(room))
    }

    fn shift_window(&mut self, computing: &mut Computing) -> bool {
        let held = computing.held(self.plan.sequence);
        let keep = self.plan.n_keep.min(held.saturating_sub(1));
        let discard = discard_count(held, keep);
        if self.plan.spelling.verbosity >= Verbosity::DETAILS {
            info!("kv cache shift: {held} tokens, keeping the first {keep}, discarding {discard}");
        }
        let [from, to] = [keep, keep + discard];
        let shifted = computing.cells(self.plan.sequence).cut(from, to);
        if shifted {
            self.forget_range(from, to);
        }
        shifted
    }

    /// Tokens `from..to` are no part of the run any more; their cells have gone already.
    pub(crate) fn forget_range(&mut self, from: usize, to: usize) {
        // One that idles has none, whatever its cells are of.
        let end = to.min(self.tokens.len());
        self.tokens.drain(from.min(end)..end);
        for place in [&mut self.plan.wanted_from, &mut self.prompt_end] {
            *place -= (*place).clamp(from, to) - from;
        }
    }

    /// The next `count` tokens, for a decode.
    pub(crate) fn part(&self, computing: &Computing, count: usize) -> Part<'_> {
        let held = computing.held(self.plan.sequence);
        Part {
            sequence: self.plan.sequence,
            of_prompt: held + count <= self.prompt_end,
            rows_from: match self.plan.output {
                OutputKind::Logits => self.plan.wanted_from,
                OutputKind::Text | OutputKind::HiddenStates => 0,
            },
            tokens: &self.rest(computing)[..count],
        }
    }

    /// Evaluates the next `count` tokens, in a decode of their own that `abort` may end.
    pub(crate) fn step(
        &mut self,
        computing: &mut Computing,
        count: usize,
        abort: &[&RunState],
    ) -> Evaluation {
        let before = computing.held(self.plan.sequence);
        let how = How {
            kind: match self.scores_prompt() {
                true => OutputKind::Logits,
                false => self.plan.output,
            },
            adapter: self.plan.adapter,
            by_all_threads: self.plan.is_deterministic,
            abort,
        };
        let part = self.part(computing, count);
        let evaluation = computing.decode(&[part], &self.plan.inputs, how);
        match evaluation {
            Evaluation::Complete if !self.after_decode(computing, 0, count) => Evaluation::Failed,
            Evaluation::Aborted => {
                if self.scores_prompt() {
                    // The rows of what was evaluated are not there.
                    let scored = self.next_unscored.saturating_sub(1);
                    computing.cells(self.plan.sequence).truncate(scored);
                }
                let kept = computing.held(self.plan.sequence).saturating_sub(before);
                self.count_prompt(kept);
                evaluation
            }
            _ => evaluation,
        }
    }

    /// After a decode of which `count` tokens from `at` on were this run's. False: their outputs cannot
    /// be had.
    pub(crate) fn after_decode(&mut self, computing: &Computing, at: usize, count: usize) -> bool {
        self.count_prompt(count);
        if self.plan.output == OutputKind::Text {
            return self.score_prompt(computing, at, count);
        }
        let held = computing.held(self.plan.sequence);
        let skipped = (self.plan.wanted_from + count)
            .saturating_sub(held)
            .min(count);
        self.plan.wanted_from = self.plan.wanted_from.max(held);
        let wanted = [at + skipped, at + count];
        computing.append_rows(self.plan.output, wanted, &mut self.rows)
    }

    /// Whether rows of all the next tokens are wanted.
    fn scores_prompt(&self) -> bool {
        let is_wanted = self.plan.logprobs.is_some_and(|wanted| wanted.of_prompt);
        is_wanted && self.next_unscored < self.prompt_end
    }

    /// Computes how likely the prompt's tokens were that follow those of the last decode. False: its rows
    /// cannot be had.
    fn score_prompt(&mut self, computing: &Computing, at: usize, count: usize) -> bool {
        let Some(wanted) = self.plan.logprobs.filter(|_| self.scores_prompt()) else {
            return true;
        };
        let held = computing.held(self.plan.sequence);
        if self.next_unscored == 0 {
            let first = wanted.of_prompt(None, self.tokens[0]);
            self.prompt_logprobs.push(first);
            self.next_unscored = 1;
        }
        // Of what is evaluated again it was told before.
        while self.next_unscored < self.prompt_end && self.next_unscored <= held {
            let Some(back) = (self.next_unscored + count).checked_sub(held + 1) else {
                return false;
            };
            let Some(row) = computing.row((at + back) as i32) else {
                return false;
            };
            let told = wanted.of_prompt(Some(row), self.tokens[self.next_unscored]);
            self.prompt_logprobs.push(told);
            self.next_unscored += 1;
        }
        true
    }

    /// What is to be told of the prompt's tokens before anything else.
    pub(crate) fn take_prompt_logprobs(&mut self) -> Vec<TokenLogprobs> {
        std::mem::take(&mut self.prompt_logprobs)
    }

    /// On the thread of the run.
    pub(super) fn tell_prompt_logprobs(&mut self) {
        for told in self.take_prompt_logprobs() {
            if let Some(logprobs) = &self.plan.logprobs {
                logprobs.tell(&told, self.plan.spelling.vocabulary);
            }
        }
    }

    fn count_prompt(&mut self, evaluated: usize) {
        if !self.has_generated() {
            self.clock.prompt_tokens_evaluated(evaluated);
        }
    }

    /// All is evaluated, and the next token can be drawn.
    pub(crate) fn is_ready_to_draw(&self, computing: &Computing) -> bool {
        self.rest(computing).is_empty()
    }

    /// The prompt's cells, once, if the run is to save them.
    pub(crate) fn prompt_to_save(&mut self, computing: &Computing) -> Option<SavedPrompt> {
        let path = self.plan.save_prompt_to.take()?;
        Some(SavedPrompt {
            path,
            model: computing
                .weights
                .fingerprint_of_cells(computing.max_context),
            adapter: self.plan.adapter,
            tokens: self.tokens.clone(),
            origins: computing.origins(self.plan.sequence),
            state: computing.state_of(self.plan.sequence),
        })
    }

    /// Draws the next token, which is then the last one if it ends the generation. `index`: the token
    /// of the last decode that it is drawn after. None: the host's hook has ended the generation, before
    /// this token.
    pub(crate) fn draw(&mut self, computing: &Computing, index: i32) -> Option<Drawn> {
        let Spelling {
            vocabulary,
            skip_special_token,
            ignore_eos_token,
            ..
        } = self.plan.spelling;
        let Some(token) = computing.sample(&mut self.plan.sampler, index) else {
            self.last_token_drawn = true;
            return None;
        };
        // The row is as the model gave it: samplers change a copy.
        let row = self.plan.logprobs.and_then(|_| computing.row(index));
        let logprobs = self.plan.logprobs.zip(row);
        let logprobs =
            logprobs.map(|(logprobs, row)| (logprobs, vocabulary, logprobs.of_drawn(row, token)));
        self.clock.token();
        self.tokens.push(token);
        let last_of_model = vocabulary.is_end_of_generation(token);
        let limit = self.plan.max_new_tokens;
        let spent = limit.is_some_and(|limit| self.clock.tokens() >= limit);
        self.last_token_drawn = spent || (last_of_model && !ignore_eos_token);
        let visible = if skip_special_token && last_of_model {
            Vec::new()
        } else {
            vocabulary.piece(token, !skip_special_token)
        };
        Some(Drawn {
            token,
            text: self.assembly.push(&visible),
            logits: (self.plan.output == OutputKind::Logits)
                .then(|| std::mem::take(&mut self.rows)),
            columns: vocabulary.len() as usize,
            logprobs,
            held: computing.held(self.plan.sequence),
        })
    }

    /// Takes back the last `draws`, which are not told.
    pub(crate) fn forget_draws(&mut self, draws: usize) {
        let kept = self.tokens.len().saturating_sub(draws);
        self.tokens.truncate(kept);
        self.clock.forget_tokens(draws);
    }
}

/// One sequence among several of a batch.
impl Generation {
    /// It has one token to evaluate, which it drew.
    pub(crate) fn is_in_step(&self, computing: &Computing) -> bool {
        self.has_generated() && !self.has_ended() && self.rest(computing).len() == 1
    }

    /// Prompt tokens evaluated so far.
    pub(crate) fn evaluated(&self) -> i32 {
        self.clock.evaluated() as i32
    }

    pub(crate) fn after_the_first(&self) -> i32 {
        self.clock.tokens().saturating_sub(1) as i32
    }
}

/// One run among several that a scheduler drives.
impl Generation {
    /// It has cells, and its time counts from now on.
    pub(crate) fn begin_evaluating(&mut self) {
        self.clock.start();
    }

    /// How many of the next tokens are evaluated now if there is time for `tokens`: a piece of the
    /// prompt; of what was drawn and lost, few.
    pub(crate) fn piece(&self, computing: &Computing, tokens: usize) -> usize {
        let held = computing.held(self.plan.sequence);
        match self.prompt_end.saturating_sub(held) {
            0 if self.plan.is_deterministic || self.plan.drawn_from.is_some() => 1,
            0 => DRAWN_AGAIN,
            rest if self.scores_prompt() => {
                let vocabulary = self.plan.spelling.vocabulary;
                let rows = Logprobs::rows_at_once(vocabulary.len() as usize);
                match rows < 2 * rounding::MANY {
                    true => rest.min(rows),
                    false => rounding::piece(rest, tokens.min(PREFILL_BATCH).min(rows)),
                }
            }
            rest => rounding::piece(rest, tokens.min(PREFILL_BATCH)),
        }
    }

    /// After `count` more tokens all is evaluated.
    pub(crate) fn is_rest(&self, computing: &Computing, count: usize) -> bool {
        self.rest(computing).len() == count
    }

    pub(crate) fn stop_clock(&mut self) {
        self.clock.stop();
    }

    /// Its cells have gone to another run: all of it is evaluated again, which is no new prompt.
    pub(crate) fn lost_its_cells(&mut self) {
        self.clock.stop();
        if !self.has_generated() {
            self.clock.forget_prompt();
        }
    }

    /// Nothing more is to be computed for it.
    pub(crate) fn only_hands_over(&self) -> bool {
        self.handing_over != HandingOver::Unevaluated
    }

    /// Its next token can share a decode with other runs'.
    pub(crate) fn can_share_a_step(&self, computing: &Computing) -> bool {
        let is_alike = self.plan.output == OutputKind::Text && !self.plan.is_deterministic;
        is_alike && self.is_in_step(computing)
    }

    /// Cells that it will hold soon: what it has read and the next `ahead` tokens, as far as it may go.
    pub(crate) fn cells_soon(&self, ahead: usize) -> usize {
        let more = match (self.plan.output, self.plan.max_new_tokens) {
            (OutputKind::HiddenStates, _) => 0,
            (_, Some(limit)) => ahead.min(limit.saturating_sub(self.clock.tokens())),
            (_, None) => ahead,
        };
        self.tokens.len() + more
    }

    pub(crate) fn keep_untold(&mut self, untold: VecDeque<Drawn>) {
        self.untold = untold;
    }

    pub(crate) fn take_untold(&mut self) -> VecDeque<Drawn> {
        std::mem::take(&mut self.untold)
    }
}
