//! What an answer begins with.

use std::sync::Arc;

use anyhow::Context;

use super::{Answer, Rules, Spells, Told};
use crate::ipc::{RedrawSpec, RunSpec};
use crate::worker::constrained::{self, SharedTokens, TOKENS_UNKNOWN};

/// The answer of a run, at its beginning, and the tokens that it goes on behind.
///
/// # Errors
/// Those of the model or of the prompt are not known, or there is no following a grammar that it is to be kept to.
pub fn prepare(
    spec: &RunSpec,
    redraws: &RedrawSpec,
    tokens: Option<&SharedTokens>,
    (told, spells): (Told, Spells),
) -> anyhow::Result<(Answer, Vec<i32>)> {
    let parsers = tokens.context(TOKENS_UNKNOWN)?.get()?;
    let prompt = spec.prompt_tokens.as_ref();
    let prompt = prompt.context("the tokens of the prompt are not known")?;
    let begun = spec.begun.as_ref();
    let follower = match &spec.constraint {
        None => None,
        Some(constraint) => match constrained::follower_of(constraint, &parsers, begun) {
            Ok(follower) => Some(follower),
            Err(error) if !redraws.is_needed => {
                let reason = constrained::reason(&error);
                eprintln!("W rkllmd-worker: an answer is not kept to what was wished: {reason}");
                None
            }
            Err(error) => return Err(error),
        },
    };
    let forbids = |(id, bias): &(i32, f32)| (*bias == f32::NEG_INFINITY).then_some(*id);
    let rules = Rules {
        follower,
        is_wish: !redraws.is_needed,
        banned: spec.draws.logit_bias.iter().filter_map(forbids).collect(),
        scores: spec.draws.logprobs.map(|logprobs| logprobs.top),
    };
    let tokens = parsers.tokens();
    let begun = begun.map(|begun| match &begun.token_ids {
        Some(ids) => ids.clone(),
        // The model may have made others of the same text.
        None => (tokens.spell(begun.text.as_bytes()).into_iter())
            .filter_map(|id| i32::try_from(id).ok())
            .collect(),
    });
    let input = [&**prompt, begun.as_deref().unwrap_or_default()].concat();
    anyhow::ensure!(!input.is_empty(), "a run needs a token");
    let tokens = Arc::clone(tokens);
    Ok((Answer::new(told, spells, tokens, rules), input))
}

/// From 0 to below 1, evenly.
pub fn random_chance() -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    let mut bytes = [0; 8];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Whichever token is drawn, the answer keeps to its grammar.
        eprintln!("W rkllmd-worker: drawing a number: {error}");
    }
    let bits = u64::from_le_bytes(bytes) >> (u64::BITS - BITS);
    bits as f64 / (1_u64 << BITS) as f64
}
