//! Draws in which the host has a say: its hook sees each row and marks what may not be drawn.
//!
//! What is drawn is what the sampler would draw of the whole row, restricted to what is allowed: biases,
//! penalties, top-k, top-p and min-p see all tokens; of those that they leave, the allowed ones share all
//! of the probability. If they leave none that is allowed, all allowed ones do, penalised. Temperature
//! comes last. A greedy run takes the likeliest one that is allowed.

use std::slice;

use llama_cpp_sys_2 as llama;

use super::Parts;
use super::chain::Chain;
use crate::run_extension::{Hook, Verdict};
use crate::vocabulary::Token;

pub(crate) struct Hooked {
    hook: Hook,
    /// What this run has drawn.
    drawn: Vec<Token>,
    penalties: Chain,
    truncation: Chain,
    draw: Chain,
    vocabulary_len: usize,
    row: Vec<f32>,
    candidates: Vec<llama::llama_token_data>,
}

impl Hooked {
    pub(super) fn new(hook: Hook, parts: &Parts<'_>) -> Hooked {
        let mut chains = [Chain::new(), Chain::new(), Chain::new()];
        let [penalties, truncation, draw] = &mut chains;
        parts.add_biases(penalties);
        parts.add_penalties(penalties);
        if parts.is_greedy() {
            // SAFETY: it has no preconditions.
            draw.add(|| unsafe { llama::llama_sampler_init_greedy() });
        } else {
            parts.add_truncation(truncation);
            parts.add_draw(draw);
        }
        let [penalties, truncation, draw] = chains;
        Hooked {
            hook,
            drawn: Vec::new(),
            penalties,
            truncation,
            draw,
            vocabulary_len: parts.vocabulary_len as usize,
            row: Vec::new(),
            candidates: Vec::new(),
        }
    }

    pub(super) fn penalties(&mut self) -> &mut Chain {
        &mut self.penalties
    }

    /// None: the run ends here.
    ///
    /// # Safety
    /// As `Sampler::sample`.
    pub(super) unsafe fn sample(
        &mut self,
        context: *mut llama::llama_context,
        index: i32,
    ) -> Option<Token> {
        // SAFETY: the caller vouches for the context. A row of logits has one for each token, and is
        // valid until the next decode.
        let row = unsafe {
            let row = llama::llama_get_logits_ith(context, index);
            (!row.is_null()).then(|| slice::from_raw_parts(row, self.vocabulary_len))
        }?;
        self.row.clear();
        self.row.extend_from_slice(row);
        if self.hook.ask(&self.drawn, &mut self.row) == Verdict::EndsHere {
            return None;
        }
        let candidates = row.iter().zip(&self.row).enumerate();
        self.candidates.clear();
        self.candidates
            .extend(candidates.map(|(id, (&before, &after))| {
                // What is forbidden takes part until the draw.
                let logit = if is_allowed(after) { after } else { before };
                llama::llama_token_data {
                    id: id as Token,
                    logit,
                    p: 0.0,
                }
            }));
        self.penalties.apply(&mut self.candidates);
        let hooked = &self.row;
        let may_be_drawn = |candidate: &llama::llama_token_data| {
            is_allowed(hooked[candidate.id as usize]) && is_allowed(candidate.logit)
        };
        let all_allowed: Vec<_> = (self.candidates.iter().copied())
            .filter(may_be_drawn)
            .collect();
        self.truncation.apply(&mut self.candidates);
        self.candidates.retain(may_be_drawn);
        if self.candidates.is_empty() {
            self.candidates = all_allowed;
        }
        if self.candidates.is_empty() {
            return None;
        }
        let token = self.draw.apply(&mut self.candidates)?;
        self.penalties.accept(token);
        self.drawn.push(token);
        Some(token)
    }
}

fn is_allowed(logit: f32) -> bool {
    logit != f32::NEG_INFINITY
}
