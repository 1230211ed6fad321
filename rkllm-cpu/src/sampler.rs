//! One run's sampling: llama.cpp's chain in its usual order (biases, penalties, top-k, top-p, min-p,
//! temperature, draw). Values that would make llama.cpp abort the process are refused before they reach
//! it. Where the host has a say in draws, `hooked` draws.

use llama_cpp_sys_2 as llama;
use thiserror::Error;

mod chain;
mod hooked;

use crate::abi::{RKLLMParam, RKLLMSamplingParam};
use crate::run_extension::RunExtension;
use crate::vocabulary::{Token, Vocabulary};
use chain::Chain;
use hooked::{Hooked, Say};

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
    #[error("min_p must be between 0 and 1, but is {0}")]
    MinP(f32),
    #[error("a run with a logits hook, min_p or min_tokens cannot have mirostat")]
    HookedMirostat,
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

pub(crate) enum Sampler {
    Plain(Plain),
    Hooked(Box<Hooked>),
}

impl Sampler {
    /// `param` has passed `check`, together with `extension`.
    pub(crate) fn new(
        param: &RKLLMSamplingParam,
        extension: RunExtension,
        seed: u32,
        vocabulary: Vocabulary,
    ) -> Sampler {
        let parts = Parts {
            param,
            seed: extension.seed.unwrap_or(seed),
            min_p: extension.min_p,
            biases: extension.biases_beside(vocabulary.suppressed()),
            vocabulary_len: vocabulary.len(),
        };
        match (extension.hook, extension.min_tokens) {
            (None, 0) => Sampler::Plain(Plain::new(&parts)),
            (hook, min_tokens) => {
                let mut ends = extension.ends;
                if min_tokens > 0 {
                    let all = 0..vocabulary.len();
                    ends.extend(all.filter(|&token| vocabulary.is_end_of_generation(token)));
                }
                let say = Say {
                    hook,
                    min_tokens,
                    ends,
                };
                Sampler::Hooked(Box::new(Hooked::new(say, &parts)))
            }
        }
    }

    /// Lets the penalties see the prompt, as llama.cpp's own programs do.
    pub(crate) fn accept_prompt(&mut self, tokens: &[Token]) {
        let seen = &tokens[tokens.len().saturating_sub(PENALTY_WINDOW)..];
        // Embedding rows are no tokens of the vocabulary.
        for &token in seen.iter().filter(|&&token| token >= 0) {
            match self {
                Sampler::Plain(plain) => plain.chain.accept(token),
                Sampler::Hooked(hooked) => hooked.accept(token),
            }
        }
    }

    /// None: the host's hook has ended the run.
    ///
    /// # Safety
    /// `context` has just decoded a batch whose token `index` (-1: the last) asked for logits.
    pub(crate) unsafe fn sample(
        &mut self,
        context: *mut llama::llama_context,
        index: i32,
    ) -> Option<Token> {
        // SAFETY: the caller vouches for the context.
        unsafe {
            match self {
                Sampler::Plain(plain) => Some(plain.sample(context, index)),
                Sampler::Hooked(hooked) => hooked.sample(context, index),
            }
        }
    }
}

/// What a run's draws are made with.
struct Parts<'a> {
    param: &'a RKLLMSamplingParam,
    seed: u32,
    /// 0: none.
    min_p: f32,
    biases: Vec<llama::llama_logit_bias>,
    vocabulary_len: i32,
}

impl Parts<'_> {
    fn has_penalties(&self) -> bool {
        let param = self.param;
        param.repeat_penalty != 1.0
            || param.frequency_penalty != 0.0
            || param.presence_penalty != 0.0
    }

    /// A greedy draw takes the likeliest token whatever would be left of the others.
    fn truncates(&self) -> bool {
        let param = self.param;
        !self.is_greedy() && (param.top_k > 0 || param.top_p < 1.0 || self.min_p > 0.0)
    }

    fn is_greedy(&self) -> bool {
        self.param.temperature == 0.0 || self.param.top_k == 1
    }

    /// The highest logit is drawn as it is, without a list of all tokens to sort: of so many. The thread
    /// that computes for several runs draws for all of them.
    fn takes_highest_of(&self) -> Option<usize> {
        let is_so = self.is_greedy() && !self.has_penalties() && self.biases.is_empty();
        is_so.then_some(self.vocabulary_len as usize)
    }

    fn add_biases(&self, chain: &mut Chain) {
        if !self.biases.is_empty() {
            chain.add(|| {
                // SAFETY: the biases are copied.
                unsafe {
                    llama::llama_sampler_init_logit_bias(
                        self.vocabulary_len,
                        self.biases.len() as i32,
                        self.biases.as_ptr(),
                    )
                }
            });
        }
    }

    fn add_penalties(&self, chain: &mut Chain) {
        if self.has_penalties() {
            chain.add(|| {
                // SAFETY: the values have been checked.
                unsafe {
                    llama::llama_sampler_init_penalties(
                        self.vocabulary_len,
                        PENALTY_WINDOW as i32,
                        self.param.repeat_penalty,
                        self.param.frequency_penalty,
                        self.param.presence_penalty,
                    )
                }
            });
        }
    }

    fn add_truncation(&self, chain: &mut Chain) {
        // SAFETY: the values have been checked.
        unsafe {
            chain.add(|| llama::llama_sampler_init_top_k(self.param.top_k));
            chain.add(|| llama::llama_sampler_init_top_p(self.param.top_p, 1));
            if self.min_p > 0.0 {
                chain.add(|| llama::llama_sampler_init_min_p(self.min_p, 1));
            }
        }
    }

    fn add_draw(&self, chain: &mut Chain) {
        // SAFETY: the values have been checked.
        unsafe {
            chain.add(|| llama::llama_sampler_init_temp(self.param.temperature));
            chain.add(|| llama::llama_sampler_init_dist(self.seed));
        }
    }
}

/// All is llama.cpp's.
pub(crate) struct Plain {
    chain: Chain,
    takes_highest_of: Option<usize>,
}

impl Plain {
    fn new(parts: &Parts<'_>) -> Plain {
        let mut chain = Chain::new();
        parts.add_biases(&mut chain);
        parts.add_penalties(&mut chain);
        let param = parts.param;
        // SAFETY: the values have been checked against the ranges llama.cpp asserts.
        unsafe {
            match param.mirostat {
                _ if parts.is_greedy() => chain.add(|| llama::llama_sampler_init_greedy()),
                1 => {
                    chain.add(|| llama::llama_sampler_init_temp(param.temperature));
                    chain.add(|| {
                        llama::llama_sampler_init_mirostat(
                            parts.vocabulary_len,
                            parts.seed,
                            param.mirostat_tau,
                            param.mirostat_eta,
                            MIROSTAT_TOKENS,
                        )
                    });
                }
                2 => {
                    chain.add(|| llama::llama_sampler_init_temp(param.temperature));
                    chain.add(|| {
                        llama::llama_sampler_init_mirostat_v2(
                            parts.seed,
                            param.mirostat_tau,
                            param.mirostat_eta,
                        )
                    });
                }
                _ => {
                    parts.add_truncation(&mut chain);
                    parts.add_draw(&mut chain);
                }
            }
        }
        Plain {
            chain,
            takes_highest_of: parts.takes_highest_of(),
        }
    }

    /// # Safety
    /// As `Sampler::sample`.
    unsafe fn sample(&mut self, context: *mut llama::llama_context, index: i32) -> Token {
        // SAFETY: the caller vouches for the context. A row of logits has one for each token, and is
        // valid until the next decode; NULL is left to llama.cpp to complain of.
        unsafe {
            if let Some(tokens) = self.takes_highest_of {
                let row = llama::llama_get_logits_ith(context, index);
                if !row.is_null() {
                    return place_of_highest(std::slice::from_raw_parts(row, tokens)) as Token;
                }
            }
            llama::llama_sampler_sample(self.chain.raw(), context, index)
        }
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
