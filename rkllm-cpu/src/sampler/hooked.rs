//! Draws in which the host has a say: its hook sees each row that it wants to see and marks what may not be
//! drawn, and what ends the run may not be at first. Where it has none, nothing is copied and all is drawn
//! as without it.
//!
//! What is drawn is what the sampler would draw of the whole row, restricted to what is allowed: biases,
//! penalties, top-k, top-p and min-p see all tokens; of those that they leave, the allowed ones share all
//! of the probability. If they leave none that is allowed, all allowed ones do, penalised. Temperature
//! comes last. A greedy run takes the likeliest one that is allowed.

use std::collections::VecDeque;
use std::slice;

use llama_cpp_sys_2 as llama;

use super::chain::Chain;
use super::{PENALTY_WINDOW, Parts, place_of_highest};
use crate::run_extension::{Hook, Look, Verdict};
use crate::vocabulary::Token;

/// The host's say.
pub(super) struct Say {
    pub(super) hook: Option<Hook>,
    /// Before so many tokens none of `ends` is drawn.
    pub(super) min_tokens: usize,
    pub(super) ends: Vec<Token>,
}

pub(crate) struct Hooked {
    say: Say,
    /// What this run has drawn.
    drawn: Vec<Token>,
    penalties: Chain,
    truncation: Chain,
    draw: Chain,
    vocabulary_len: usize,
    /// The highest logit of what is allowed is drawn as it is.
    takes_highest: bool,
    /// Of what is allowed, some may be left out.
    truncates: bool,
    biases: Vec<llama::llama_logit_bias>,
    /// These change the logits of the latest tokens.
    has_penalties: bool,
    latest: VecDeque<Token>,
    row: Vec<f32>,
    /// In the order of their ids until they are truncated.
    candidates: Vec<llama::llama_token_data>,
    /// Those of them that penalties change.
    penalised: Vec<llama::llama_token_data>,
}

impl Hooked {
    pub(super) fn new(say: Say, parts: &Parts<'_>) -> Hooked {
        let mut chains = [Chain::new(), Chain::new(), Chain::new()];
        let [penalties, truncation, draw] = &mut chains;
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
            say,
            drawn: Vec::new(),
            penalties,
            truncation,
            draw,
            vocabulary_len: parts.vocabulary_len as usize,
            takes_highest: parts.takes_highest_of().is_some(),
            truncates: parts.truncates(),
            biases: parts.biases.clone(),
            has_penalties: parts.has_penalties(),
            latest: VecDeque::with_capacity(PENALTY_WINDOW),
            row: Vec::new(),
            candidates: Vec::new(),
            penalised: Vec::new(),
        }
    }

    /// Lets the penalties see a token.
    pub(super) fn accept(&mut self, token: Token) {
        self.penalties.accept(token);
        if self.latest.len() >= PENALTY_WINDOW {
            self.latest.pop_front();
        }
        self.latest.push_back(token);
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
        let is_early = self.drawn.len() < self.say.min_tokens;
        let look = match &self.say.hook {
            None => Look::No,
            Some(hook) => hook.looks(&self.drawn),
        };
        let token = match look {
            Look::EndsHere => None,
            Look::No if !is_early => self.free(row),
            Look::No | Look::Yes => self.restricted(row, look == Look::Yes, is_early),
        }?;
        self.accept(token);
        self.drawn.push(token);
        Some(token)
    }

    /// As a run without a say draws it, but for a row of which biases leave nothing.
    fn free(&mut self, row: &[f32]) -> Option<Token> {
        if self.takes_highest {
            return Some(place_of_highest(row) as Token);
        }
        self.candidates.clear();
        self.candidates
            .extend(row.iter().enumerate().map(candidate));
        self.penalise();
        self.truncation.apply(&mut self.candidates);
        self.candidates.retain(|left| is_allowed(left.logit));
        match self.candidates.is_empty() {
            true => None,
            false => self.draw.apply(&mut self.candidates),
        }
    }

    fn restricted(&mut self, row: &[f32], asks: bool, is_early: bool) -> Option<Token> {
        self.row.clear();
        self.row.extend_from_slice(row);
        if is_early {
            for &end in &self.say.ends {
                self.row[end as usize] = f32::NEG_INFINITY;
            }
        }
        if let Some(hook) = self.say.hook.as_ref().filter(|_| asks)
            && hook.ask(&self.drawn, &mut self.row) == Verdict::EndsHere
        {
            return None;
        }
        if self.takes_highest {
            let place = place_of_highest(&self.row);
            return is_allowed(self.row[place]).then_some(place as Token);
        }
        self.candidates.clear();
        if !self.truncates {
            // What is forbidden has no part in it, and a token's penalty depends on no other one.
            let all = self.row.iter().enumerate();
            let all = all.filter(|(_, logit)| is_allowed(**logit));
            self.candidates.extend(all.map(candidate));
            self.penalise();
            self.candidates.retain(|left| is_allowed(left.logit));
            return match self.candidates.is_empty() {
                true => None,
                false => self.draw.apply(&mut self.candidates),
            };
        }
        // What is forbidden takes part until the draw.
        let logits = row.iter().zip(&self.row);
        let logits = logits.map(|(before, after)| if is_allowed(*after) { after } else { before });
        self.candidates.extend(logits.enumerate().map(candidate));
        self.penalise();
        // From here on the row has what is allowed, penalised.
        let biased = self.biases.iter().map(|bias| bias.token);
        for id in biased.chain(self.latest.iter().copied()) {
            let place = id as usize;
            if let (Some(logit), Some(candidate)) =
                (self.row.get_mut(place), self.candidates.get(place))
                && is_allowed(*logit)
            {
                *logit = candidate.logit;
            }
        }
        self.truncation.apply(&mut self.candidates);
        let allowed = &self.row;
        self.candidates
            .retain(|left| is_allowed(allowed[left.id as usize]));
        if self.candidates.is_empty() {
            let all = self.row.iter().enumerate();
            let all = all.filter(|(_, logit)| is_allowed(**logit));
            self.candidates.extend(all.map(candidate));
        }
        match self.candidates.is_empty() {
            true => None,
            false => self.draw.apply(&mut self.candidates),
        }
    }

    /// Changes the candidates by biases, then by penalties. llama.cpp looks for each of its candidates among the
    /// latest tokens, so it is given those only that it finds; biases it would find among few by a search in which
    /// of two for one token the second is lost.
    fn penalise(&mut self) {
        for bias in &self.biases {
            if let Some(place) = place_of(&self.candidates, bias.token) {
                self.candidates[place].logit += bias.bias;
            }
        }
        if !self.has_penalties {
            return;
        }
        let mut ids: Vec<Token> = self.latest.iter().copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let places = ids.iter().filter_map(|&id| place_of(&self.candidates, id));
        self.penalised.clear();
        self.penalised
            .extend(places.map(|place| self.candidates[place]));
        if self.penalised.is_empty() {
            return;
        }
        self.penalties.apply(&mut self.penalised);
        for penalised in &self.penalised {
            if let Some(place) = place_of(&self.candidates, penalised.id) {
                self.candidates[place].logit = penalised.logit;
            }
        }
    }
}

/// `None`: it is not among them.
fn place_of(candidates: &[llama::llama_token_data], id: Token) -> Option<usize> {
    candidates
        .binary_search_by_key(&id, |candidate| candidate.id)
        .ok()
}

fn candidate((id, logit): (usize, &f32)) -> llama::llama_token_data {
    llama::llama_token_data {
        id: id as Token,
        logit: *logit,
        p: 0.0,
    }
}

fn is_allowed(logit: f32) -> bool {
    logit != f32::NEG_INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::RKLLMSamplingParam;
    use proptest::prelude::*;

    fn parts<'a>(
        param: &'a RKLLMSamplingParam,
        biases: &[(prop::sample::Index, f32)],
        vocabulary_len: usize,
    ) -> Parts<'a> {
        let biases = biases.iter().map(|(token, bias)| llama::llama_logit_bias {
            token: token.index(vocabulary_len) as Token,
            bias: *bias,
        });
        Parts {
            param,
            seed: 7,
            min_p: 0.0,
            biases: biases.collect(),
            vocabulary_len: vocabulary_len as i32,
        }
    }

    /// Which end may not be drawn is said of the first tokens, so no hook is needed to forbid some.
    fn hooked(parts: &Parts<'_>, no: &[Token]) -> Hooked {
        let say = Say {
            hook: None,
            min_tokens: usize::MAX,
            ends: no.to_vec(),
        };
        Hooked::new(say, parts)
    }

    /// Often several of one token.
    fn biases() -> impl Strategy<Value = Vec<(prop::sample::Index, f32)>> {
        let bias = prop_oneof![Just(2.0_f32), Just(-0.5), Just(f32::NEG_INFINITY)];
        prop::collection::vec((any::<prop::sample::Index>(), bias), 0..6)
    }

    proptest! {
        /// However little of a row is looked at, what is drawn is what the definition draws.
        #[test]
        fn what_takes_no_part_in_a_draw_does_not_change_it(
            row in prop::collection::vec((-8.0..8.0_f32, any::<bool>()), 1..40),
            biases in biases(),
            repeat_penalty in prop_oneof![Just(1.0_f32), Just(1.5)],
            temperature in prop_oneof![Just(0.0_f32), Just(1.0), Just(1.5)],
        ) {
            let param = RKLLMSamplingParam {
                top_k: 0,
                top_p: 1.0,
                temperature,
                repeat_penalty,
                frequency_penalty: 0.0,
                presence_penalty: 0.0,
                mirostat: 0,
                mirostat_tau: 5.0,
                mirostat_eta: 0.1,
            };
            let no = (0..).zip(&row).filter(|(_, (_, is_forbidden))| *is_forbidden);
            let no: Vec<Token> = no.map(|(token, _)| token).collect();
            let row: Vec<f32> = row.iter().map(|(logit, _)| *logit).collect();
            let parts = parts(&param, &biases, row.len());
            let mut short = hooked(&parts, &no);
            prop_assert!(!short.truncates);
            let mut whole = hooked(&parts, &no);
            // As the definition says it, whatever the parameters leave out.
            (whole.truncates, whole.takes_highest, whole.has_penalties) = (true, false, true);
            let never = parts.biases.iter().filter(|bias| !is_allowed(bias.bias));
            let never: Vec<Token> = never.map(|bias| bias.token).chain(no).collect();
            for _ in 0..8 {
                let token = short.restricted(&row, false, true);
                prop_assert_eq!(token, whole.restricted(&row, false, true));
                let Some(token) = token else {
                    prop_assert!((0..row.len() as Token).all(|token| never.contains(&token)));
                    break;
                };
                prop_assert!(!never.contains(&token));
                short.accept(token);
                whole.accept(token);
            }
        }

        /// Those of a whole row, though few are looked at.
        #[test]
        fn biases_and_penalties_are_those_of_llama_cpp(
            row in prop::collection::vec(-8.0..8.0_f32, 1..100),
            allowed in prop::collection::vec(any::<bool>(), 100),
            accepted in prop::collection::vec(any::<prop::sample::Index>(), 0..150),
            biases in biases(),
            penalties in prop_oneof![Just([1.0_f32, 0.0, 0.0]), Just([1.3, 0.0, 0.0]), Just([1.1, 0.5, -0.5])],
        ) {
            let [repeat_penalty, frequency_penalty, presence_penalty] = penalties;
            let param = RKLLMSamplingParam {
                top_k: 40,
                top_p: 0.9,
                temperature: 0.8,
                repeat_penalty,
                frequency_penalty,
                presence_penalty,
                mirostat: 0,
                mirostat_tau: 5.0,
                mirostat_eta: 0.1,
            };
            let parts = parts(&param, &biases, row.len());
            let mut hooked = hooked(&parts, &[]);
            let mut chain = Chain::new();
            parts.add_biases(&mut chain);
            parts.add_penalties(&mut chain);
            for token in accepted {
                let token = token.index(row.len()) as Token;
                hooked.accept(token);
                chain.accept(token);
            }
            let mut expected: Vec<_> = row.iter().enumerate().map(candidate).collect();
            // All, or some of them.
            let takes_part = |it: &llama::llama_token_data| allowed[0] || allowed[it.id as usize];
            hooked.candidates = expected.iter().copied().filter(takes_part).collect();
            hooked.penalise();
            chain.apply(&mut expected);
            expected.retain(takes_part);
            let logits = |of: &[llama::llama_token_data]| -> Vec<(Token, f32)> {
                of.iter().map(|it| (it.id, it.logit)).collect()
            };
            prop_assert_eq!(logits(&hooked.candidates), logits(&expected));
        }
    }
}
