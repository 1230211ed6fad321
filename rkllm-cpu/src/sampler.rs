//! One run's sampling: llama.cpp's chain in its usual order (penalties, top-k, top-p, temperature,
//! draw). Values that would make llama.cpp abort the process are refused before they reach it.

use llama_cpp_sys_2 as llama;
use thiserror::Error;

use crate::abi::{RKLLMParam, RKLLMSamplingParam};
use crate::vocabulary::{Token, Vocabulary};

/// The variable with which every run draws the same way.
pub(crate) const SEED: &str = "RKLLM_CPU_SEED";
/// How many of the latest tokens the penalties look at, llama.cpp's own default.
const PENALTY_WINDOW: usize = 64;
/// llama.cpp's word for "draw a seed" (its `LLAMA_DEFAULT_SEED`, a macro bindgen leaves out).
const RANDOM_SEED: u32 = u32::MAX;
/// The `m` of mirostat 1, llama.cpp's and the paper's value.
const MIROSTAT_TOKENS: i32 = 100;

#[derive(Debug, Error, PartialEq)]
pub(crate) enum SamplingError {
    #[error("the sampling parameter {name} must be {range}, but is {value}")]
    OutOfRange {
        name: &'static str,
        range: &'static str,
        value: f32,
    },
    #[error("the sampling parameter mirostat must be 0, 1 or 2, but is {0}")]
    Mirostat(i32),
    #[error("RKLLM_CPU_SEED must be a number below 4294967295, but is `{0}`")]
    Seed(String),
}

/// The parameters given to `rkllm_init`, which hold for runs that bring none of their own.
pub(crate) fn at_init(param: &RKLLMParam) -> RKLLMSamplingParam {
    RKLLMSamplingParam {
        top_k: param.top_k,
        top_p: param.top_p,
        temperature: param.temperature,
        repeat_penalty: param.repeat_penalty,
        frequency_penalty: param.frequency_penalty,
        presence_penalty: param.presence_penalty,
        mirostat: param.mirostat,
        mirostat_tau: param.mirostat_tau,
        mirostat_eta: param.mirostat_eta,
    }
}

pub(crate) fn check(param: &RKLLMSamplingParam) -> Result<(), SamplingError> {
    let refuse = |name, range, value| Err(SamplingError::OutOfRange { name, range, value });
    if !(param.temperature >= 0.0 && param.temperature.is_finite()) {
        return refuse("temperature", "0 or more", param.temperature);
    }
    if !(param.top_p >= 0.0 && param.top_p <= 1.0) {
        return refuse("top_p", "between 0 and 1", param.top_p);
    }
    if !(param.repeat_penalty > 0.0 && param.repeat_penalty.is_finite()) {
        return refuse("repeat_penalty", "more than 0", param.repeat_penalty);
    }
    for (name, value) in [
        ("frequency_penalty", param.frequency_penalty),
        ("presence_penalty", param.presence_penalty),
        ("mirostat_tau", param.mirostat_tau),
        ("mirostat_eta", param.mirostat_eta),
    ] {
        if !value.is_finite() {
            return refuse(name, "a finite number", value);
        }
    }
    match param.mirostat {
        0..=2 => Ok(()),
        other => Err(SamplingError::Mirostat(other)),
    }
}

/// `RKLLM_CPU_SEED`: with it every run draws the same way; without it each draws anew.
pub(crate) fn seed_from(text: Option<&str>) -> Result<u32, SamplingError> {
    let Some(text) = text else {
        return Ok(RANDOM_SEED);
    };
    text.trim()
        .parse()
        .ok()
        .filter(|&seed| seed != RANDOM_SEED)
        .ok_or_else(|| SamplingError::Seed(text.to_owned()))
}

pub(crate) struct Sampler {
    chain: *mut llama::llama_sampler,
    /// Set where the chain takes the highest logit as it is, without a list of all tokens to sort: their
    /// number. The thread that computes for several runs draws for all of them.
    takes_highest_of: Option<usize>,
}

// SAFETY: a chain is owned by one `Sampler` and has no ties to the thread that made it.
unsafe impl Send for Sampler {}

impl Sampler {
    /// `param` has passed `check`.
    pub(crate) fn new(param: &RKLLMSamplingParam, seed: u32, vocabulary: Vocabulary) -> Sampler {
        let vocabulary_len = vocabulary.len();
        // SAFETY: every constructor returns a sampler that the chain takes over; the values have
        // been checked against the ranges llama.cpp asserts.
        unsafe {
            let chain = llama::llama_sampler_chain_init(llama::llama_sampler_chain_params {
                no_perf: true,
            });
            let add = |sampler| llama::llama_sampler_chain_add(chain, sampler);
            let suppressed: Vec<llama::llama_logit_bias> = vocabulary
                .suppressed()
                .iter()
                .map(|&token| llama::llama_logit_bias {
                    token,
                    bias: f32::NEG_INFINITY,
                })
                .collect();
            if !suppressed.is_empty() {
                add(llama::llama_sampler_init_logit_bias(
                    vocabulary_len,
                    suppressed.len() as i32,
                    suppressed.as_ptr(),
                ));
            }
            let neutral = param.repeat_penalty == 1.0
                && param.frequency_penalty == 0.0
                && param.presence_penalty == 0.0;
            if !neutral {
                add(llama::llama_sampler_init_penalties(
                    vocabulary_len,
                    PENALTY_WINDOW as i32,
                    param.repeat_penalty,
                    param.frequency_penalty,
                    param.presence_penalty,
                ));
            }
            let greedy = param.temperature == 0.0 || param.top_k == 1;
            match param.mirostat {
                _ if greedy => add(llama::llama_sampler_init_greedy()),
                1 => {
                    add(llama::llama_sampler_init_temp(param.temperature));
                    add(llama::llama_sampler_init_mirostat(
                        vocabulary_len,
                        seed,
                        param.mirostat_tau,
                        param.mirostat_eta,
                        MIROSTAT_TOKENS,
                    ));
                }
                2 => {
                    add(llama::llama_sampler_init_temp(param.temperature));
                    add(llama::llama_sampler_init_mirostat_v2(
                        seed,
                        param.mirostat_tau,
                        param.mirostat_eta,
                    ));
                }
                _ => {
                    add(llama::llama_sampler_init_top_k(param.top_k));
                    add(llama::llama_sampler_init_top_p(param.top_p, 1));
                    add(llama::llama_sampler_init_temp(param.temperature));
                    add(llama::llama_sampler_init_dist(seed));
                }
            }
            let takes_highest = greedy && neutral && suppressed.is_empty();
            Sampler {
                chain,
                takes_highest_of: takes_highest.then_some(vocabulary_len as usize),
            }
        }
    }

    /// Lets the penalties see the prompt, as llama.cpp's own programs do.
    pub(crate) fn accept_prompt(&mut self, tokens: &[Token]) {
        let seen = &tokens[tokens.len().saturating_sub(PENALTY_WINDOW)..];
        // Embedding rows are no tokens of the vocabulary.
        for &token in seen.iter().filter(|&&token| token >= 0) {
            // SAFETY: the chain is alive and the token is of the vocabulary it was made for.
            unsafe { llama::llama_sampler_accept(self.chain, token) };
        }
    }

    /// # Safety
    /// `context` has just decoded a batch whose token `index` (-1: the last) asked for logits.
    pub(crate) unsafe fn sample(
        &mut self,
        context: *mut llama::llama_context,
        index: i32,
    ) -> Token {
        // SAFETY: the caller vouches for the context. A row of logits has one for each token, and is
        // valid until the next decode; NULL is left to llama.cpp to complain of.
        unsafe {
            if let Some(tokens) = self.takes_highest_of {
                let row = llama::llama_get_logits_ith(context, index);
                if !row.is_null() {
                    return place_of_highest(std::slice::from_raw_parts(row, tokens)) as Token;
                }
            }
            llama::llama_sampler_sample(self.chain, context, index)
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: the chain is owned by this value and frees the samplers in it.
        unsafe { llama::llama_sampler_free(self.chain) };
    }
}

/// The first one of equals.
fn place_of_highest(values: &[f32]) -> usize {
    // As many maxima as the compiler can keep beside each other.
    let mut highest = [f32::NEG_INFINITY; 16];
    let (rows, rest) = values.as_chunks::<16>();
    for row in rows {
        for (highest, &value) in highest.iter_mut().zip(row) {
            *highest = if value > *highest { value } else { *highest };
        }
    }
    let all = highest.iter().chain(rest);
    let highest = all.fold(f32::NEG_INFINITY, |highest, &value| highest.max(value));
    let place = values.iter().position(|&value| value == highest);
    place.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_highest_is_found_and_of_equals_the_first(
            values in prop::collection::vec(-9..9_i8, 1..70),
        ) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut place = 0;
            for (at, value) in values.iter().enumerate() {
                if *value > values[place] {
                    place = at;
                }
            }
            prop_assert_eq!(place_of_highest(&values), place);
        }
    }

    const NEUTRAL: RKLLMSamplingParam = RKLLMSamplingParam {
        top_k: 40,
        top_p: 0.9,
        temperature: 0.8,
        repeat_penalty: 1.1,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        mirostat: 0,
        mirostat_tau: 5.0,
        mirostat_eta: 0.1,
    };

    #[test]
    fn values_that_llama_cpp_would_assert_on_are_refused() {
        assert_eq!(check(&NEUTRAL), Ok(()));
        type Spoil = fn(&mut RKLLMSamplingParam);
        let spoiled: [Spoil; 8] = [
            |param| param.temperature = -0.1,
            |param| param.temperature = f32::NAN,
            |param| param.top_p = 1.5,
            |param| param.repeat_penalty = 0.0,
            |param| param.frequency_penalty = f32::INFINITY,
            |param| param.presence_penalty = f32::NAN,
            |param| param.mirostat_tau = f32::NAN,
            |param| param.mirostat = 3,
        ];
        for spoil in spoiled {
            let mut param = NEUTRAL;
            spoil(&mut param);
            assert!(check(&param).is_err(), "{param:?}");
        }
    }

    #[test]
    fn a_seed_must_be_a_number() {
        assert_eq!(seed_from(None), Ok(RANDOM_SEED));
        assert_eq!(seed_from(Some("42")), Ok(42));
        assert!(seed_from(Some("x")).is_err());
        assert!(seed_from(Some("4294967295")).is_err());
    }
}
