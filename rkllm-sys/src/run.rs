//! What one run asks for. A setting that a family cannot vary per run has no place in
//! [`RunOptions`] without a [`PerRun`], and only a handle whose family can gives one out.

use crate::abi::{v1_2_1, v1_3_1};
use crate::error::CallError;
use crate::init::{EffectiveSampling, Sampling};
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::num::NonZeroU64;
use std::ptr;

/// Names a run to the library, which gives it back with every result. It is a number and never a
/// pointer, so a result that comes late finds nothing instead of freed memory. Not zero, because
/// zero is a callback that was given no userdata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(NonZeroU64);

impl RunId {
    /// `None` for zero.
    pub fn new(id: u64) -> Option<RunId> {
        NonZeroU64::new(id).map(RunId)
    }

    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The input of a run. Its role is always "user": the caller renders the conversation.
#[derive(Debug, Clone, Copy)]
pub enum RunInput<'a> {
    /// Text, put between the prefix and postfix of the chat template. With three empty template
    /// strings it is tokenised as given, special tokens included.
    Prompt(&'a str),
    /// Token ids, to which no template applies (rknn-llm issue 293).
    Tokens(&'a [i32]),
}

/// What the run is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RunMode {
    #[default]
    Generate,
    /// The last layer's hidden states of the input, for embeddings.
    LastHiddenLayer,
    /// Logits of the input; the library generates on afterwards, so abort after the first.
    Logits,
}

/// What the library remembers after the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum History {
    /// Nothing; the cells stay in memory so that a prompt with the same beginning is evaluated
    /// from where it differs.
    #[default]
    Forget,
    /// This turn, as context of the next run.
    Keep,
}

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    pub history: History,
    pub mode: RunMode,
    /// Settings of this run only, made by [`PerRun::values`]; `None` is what init was given.
    pub per_run: Option<PerRunValues>,
}

/// Proof that the library takes sampling and max-new-tokens per run (1.3.0 and later). Obtained
/// from [`Handle::per_run`](crate::Handle::per_run).
#[derive(Debug, Clone, Copy)]
pub struct PerRun(pub(crate) ());

/// Settings of one run.
#[derive(Debug, Clone, Copy)]
pub struct PerRunValues {
    pub(crate) sampling: Sampling,
    pub(crate) max_new_tokens: i32,
}

impl PerRun {
    /// `max_new_tokens` of `None` is the value from init; as is one that is 0 or less, to the
    /// library.
    pub fn values(self, sampling: Sampling, max_new_tokens: Option<i32>) -> PerRunValues {
        PerRunValues {
            sampling,
            max_new_tokens: max_new_tokens.unwrap_or(0),
        }
    }
}

/// An input in memory of our own that outlives the call.
pub(crate) enum OwnedInput {
    Prompt(CString),
    Tokens(Vec<i32>),
}

const ROLE: &CStr = c"user";

impl OwnedInput {
    pub(crate) fn copy_of(input: &RunInput<'_>) -> Result<Self, CallError> {
        match input {
            RunInput::Prompt(prompt) => {
                CString::new(*prompt)
                    .map(OwnedInput::Prompt)
                    .map_err(|error| CallError::InteriorNul {
                        what: "the prompt",
                        position: error.nul_position(),
                    })
            }
            RunInput::Tokens([]) => Err(CallError::OutOfRange {
                what: "the number of input tokens",
                value: "0".to_owned(),
                allowed: "a run needs at least one",
            }),
            RunInput::Tokens(tokens) => Ok(OwnedInput::Tokens(tokens.to_vec())),
        }
    }

    fn prompt_ptr(prompt: &CString) -> *const c_char {
        prompt.as_ptr()
    }

    pub(crate) fn v1_2_1(&mut self) -> v1_2_1::RKLLMInput {
        // SAFETY: the struct holds integers, raw pointers and a union of such: zero is valid.
        let mut raw: v1_2_1::RKLLMInput = unsafe { std::mem::zeroed() };
        raw.role = ROLE.as_ptr();
        match self {
            OwnedInput::Prompt(prompt) => {
                raw.input_type = v1_2_1::RKLLM_INPUT_PROMPT;
                raw.payload.prompt_input = Self::prompt_ptr(prompt);
            }
            OwnedInput::Tokens(tokens) => {
                raw.input_type = v1_2_1::RKLLM_INPUT_TOKEN;
                raw.payload.token_input = v1_2_1::RKLLMTokenInput {
                    input_ids: tokens.as_mut_ptr(),
                    n_tokens: tokens.len(),
                };
            }
        }
        raw
    }

    /// For 1.3.1, and for 1.3.0, whose input is the beginning of this one.
    pub(crate) fn v1_3(&mut self) -> v1_3_1::RKLLMInput {
        // SAFETY: the struct holds integers, raw pointers and a union of such: zero is valid.
        let mut raw: v1_3_1::RKLLMInput = unsafe { std::mem::zeroed() };
        raw.role = ROLE.as_ptr();
        match self {
            OwnedInput::Prompt(prompt) => {
                raw.input_type = v1_3_1::RKLLM_INPUT_PROMPT;
                raw.payload.prompt_input = Self::prompt_ptr(prompt);
            }
            OwnedInput::Tokens(tokens) => {
                raw.input_type = v1_3_1::RKLLM_INPUT_TOKEN;
                raw.payload.token_input = v1_3_1::RKLLMTokenInput {
                    input_ids: tokens.as_mut_ptr(),
                    n_tokens: tokens.len(),
                };
            }
        }
        raw
    }
}

impl RunOptions {
    fn keep_history(&self) -> i32 {
        i32::from(self.history == History::Keep)
    }

    fn infer_mode(&self) -> v1_3_1::RKLLMInferMode {
        match self.mode {
            RunMode::Generate => v1_3_1::RKLLM_INFER_GENERATE,
            RunMode::LastHiddenLayer => v1_3_1::RKLLM_INFER_GET_LAST_HIDDEN_LAYER,
            RunMode::Logits => v1_3_1::RKLLM_INFER_GET_LOGITS,
        }
    }

    pub(crate) fn v1_2_1(&self) -> v1_2_1::RKLLMInferParam {
        v1_2_1::RKLLMInferParam {
            mode: self.infer_mode(),
            lora_params: ptr::null_mut(),
            prompt_cache_params: ptr::null_mut(),
            keep_history: self.keep_history(),
        }
    }

    /// The run's sampling, if it differs from what init was given.
    pub(crate) fn sampling(&self, at_init: EffectiveSampling) -> Option<EffectiveSampling> {
        self.per_run
            .map(|values| values.sampling)
            .filter(|sampling| *sampling != Sampling::default())
            .map(|sampling| at_init.with(&sampling))
    }

    /// `sampling` must outlive the result's use.
    pub(crate) fn v1_3(&self, sampling: Option<&mut EffectiveSampling>) -> v1_3_1::RKLLMInferParam {
        v1_3_1::RKLLMInferParam {
            mode: self.infer_mode(),
            lora_params: ptr::null_mut(),
            prompt_cache_params: ptr::null_mut(),
            sampling_params: sampling.map_or(ptr::null_mut(), |values| &raw mut values.0),
            keep_history: self.keep_history(),
            max_new_tokens: self.per_run.map_or(0, |values| values.max_new_tokens),
        }
    }
}
