//! What a run may have beyond the vendor's parameters (`rkllm_set_run_extension`), copied from the
//! host's struct and checked.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::{ptr, slice};

use llama_cpp_sys_2 as llama;
use thiserror::Error;

use crate::abi::{LLMLogitsHook, LLMRowQuestion, RKLLMRunExtension, RKLLMSamplingParam};
use crate::logprobs::Logprobs;
use crate::sampler::SamplingError;
use crate::vocabulary::Token;

#[derive(Debug, Error, PartialEq)]
pub(crate) enum ExtensionError {
    #[error("no run is extended where RKLLM_CPU_VENDOR_ONLY is set")]
    VendorOnly,
    #[error("the struct of the extension has {0} bytes, as no version of it")]
    Size(usize),
    #[error("end_tokens is NULL for {0} tokens")]
    NoEnds(usize),
    #[error("end_tokens names the token {0}, which the model does not have")]
    UnknownEnd(Token),
    #[error("min_tokens must be -1 or more, but is {0}")]
    MinTokens(i32),
    #[error("n_logprobs must be from 0 to the size of the vocabulary, but is {0}")]
    LogprobsCount(i32),
    #[error("the seed must be -1 or from 0 to 4294967294, but is {0}")]
    Seed(i64),
    #[error("logit_bias has NULL for {0} tokens")]
    NoBiases(usize),
    #[error("logit_bias names the token {0}, which the model does not have")]
    UnknownToken(Token),
    #[error("the bias of the token {token} must be finite or -infinity, but is {bias}")]
    Bias { token: Token, bias: f32 },
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

/// What a hook says of a draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoesOn,
    /// As if the model had ended it; no token is drawn.
    EndsHere,
}

/// Whether a hook looks at the next row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// All is drawn as without it.
    No,
    Yes,
    EndsHere,
}

/// The host's say in each draw.
#[derive(Clone, Copy)]
pub(crate) struct Hook {
    function: LLMLogitsHook,
    question: Option<LLMRowQuestion>,
    userdata: *mut c_void,
}

// SAFETY: the userdata is the host's and only handed back to it; the host gave it for any thread.
unsafe impl Send for Hook {}

impl Hook {
    pub(crate) fn looks(&self, drawn: &[Token]) -> Look {
        let Some(question) = self.question else {
            return Look::Yes;
        };
        // SAFETY: the host's function with what it was promised: an array of this length, which lives for
        // the call.
        match unsafe { question(self.userdata, drawn.as_ptr(), drawn.len()) } {
            0 => Look::No,
            1 => Look::Yes,
            _ => Look::EndsHere,
        }
    }

    pub(crate) fn ask(&self, drawn: &[Token], row: &mut [f32]) -> Verdict {
        // SAFETY: the host's function with what it was promised: arrays of these lengths, which live for
        // the call.
        let code = unsafe {
            (self.function)(
                self.userdata,
                drawn.as_ptr(),
                drawn.len(),
                row.as_mut_ptr(),
                row.len(),
            )
        };
        match code {
            0 => Verdict::GoesOn,
            _ => Verdict::EndsHere,
        }
    }
}

#[derive(Default)]
pub(crate) struct RunExtension {
    pub(crate) hook: Option<Hook>,
    pub(crate) seed: Option<u32>,
    /// 0: none.
    pub(crate) min_p: f32,
    pub(crate) logprobs: Option<Logprobs>,
    /// Before so many tokens the run is not ended by one; 0: by the first one at the earliest.
    pub(crate) min_tokens: usize,
    /// Tokens that end it, beside the model's own.
    pub(crate) ends: Vec<Token>,
    /// What it says depends on nothing else that runs or ran.
    pub(crate) is_deterministic: bool,
    biases: Vec<llama::llama_logit_bias>,
}

impl RunExtension {
    /// A copy of what the host gave, whichever version of the struct it knows.
    ///
    /// # Safety
    /// `raw` points to a struct of as many bytes as its first field says.
    pub(crate) unsafe fn copied(
        raw: *const RKLLMRunExtension,
    ) -> Result<RKLLMRunExtension, ExtensionError> {
        let whole = size_of::<RKLLMRunExtension>();
        // SAFETY: by this function's contract.
        let size = unsafe { (&raw const (*raw).size).read() };
        // A longer struct is a newer one, of which this is the beginning.
        let known = match size {
            RKLLMRunExtension::FIRST_SIZE => size,
            RKLLMRunExtension::SECOND_SIZE => RKLLMRunExtension::SECOND_END,
            size if size >= whole => whole,
            size => return Err(ExtensionError::Size(size)),
        };
        let mut copy = MaybeUninit::<RKLLMRunExtension>::zeroed();
        // SAFETY: both have so many bytes; zeros are a value of each field.
        unsafe {
            ptr::copy_nonoverlapping(raw.cast::<u8>(), copy.as_mut_ptr().cast(), known);
            Ok(copy.assume_init())
        }
    }

    /// # Safety
    /// `raw` is as its header says.
    pub(crate) unsafe fn of(
        raw: &RKLLMRunExtension,
        vocabulary_len: i32,
    ) -> Result<RunExtension, ExtensionError> {
        let seed = match raw.seed {
            -1 => None,
            seed => match u32::try_from(seed) {
                Ok(seed) if seed != u32::MAX => Some(seed),
                _ => return Err(ExtensionError::Seed(seed)),
            },
        };
        if !(0.0..=1.0).contains(&raw.min_p) {
            return Err(SamplingError::MinP(raw.min_p).into());
        }
        let biases = match (raw.logit_bias.is_null(), raw.n_logit_bias) {
            (_, 0) => &[],
            (true, count) => return Err(ExtensionError::NoBiases(count)),
            // SAFETY: by this function's contract there are so many.
            (false, count) => unsafe { slice::from_raw_parts(raw.logit_bias, count) },
        };
        for bias in biases {
            if !(0..vocabulary_len).contains(&bias.token) {
                return Err(ExtensionError::UnknownToken(bias.token));
            }
            if !bias.bias.is_finite() && bias.bias != f32::NEG_INFINITY {
                return Err(ExtensionError::Bias {
                    token: bias.token,
                    bias: bias.bias,
                });
            }
        }
        let top = usize::try_from(raw.n_logprobs).ok();
        let top = top.filter(|_| raw.n_logprobs <= vocabulary_len);
        let top = top.ok_or(ExtensionError::LogprobsCount(raw.n_logprobs))?;
        let of_prompt = raw.prompt_logprobs != 0;
        let ends = match (raw.end_tokens.is_null(), raw.n_end_tokens) {
            (_, 0) => &[],
            (true, count) => return Err(ExtensionError::NoEnds(count)),
            // SAFETY: by this function's contract there are so many.
            (false, count) => unsafe { slice::from_raw_parts(raw.end_tokens, count) },
        };
        if let Some(&end) = ends.iter().find(|end| !(0..vocabulary_len).contains(*end)) {
            return Err(ExtensionError::UnknownEnd(end));
        }
        let min_tokens = match raw.min_tokens {
            -1 => usize::MAX,
            count => usize::try_from(count).map_err(|_| ExtensionError::MinTokens(count))?,
        };
        Ok(RunExtension {
            min_tokens,
            ends: ends.to_vec(),
            logprobs: raw
                .logprobs_callback
                .map(|callback| Logprobs::new(callback, raw.logprobs_userdata, top, of_prompt)),
            hook: raw.logits_hook.map(|function| Hook {
                function,
                question: raw.row_question,
                userdata: raw.hook_userdata,
            }),
            seed,
            min_p: raw.min_p,
            is_deterministic: raw.deterministic != 0,
            biases: (biases.iter())
                .map(|bias| llama::llama_logit_bias {
                    token: bias.token,
                    bias: bias.bias,
                })
                .collect(),
        })
    }

    /// Whether a run with this sampling can have it: mirostat chooses by itself.
    pub(crate) fn check_beside(&self, sampling: &RKLLMSamplingParam) -> Result<(), SamplingError> {
        let is_greedy = sampling.temperature == 0.0 || sampling.top_k == 1;
        match sampling.mirostat != 0 && !is_greedy && self.has_a_say() {
            true => Err(SamplingError::HookedMirostat),
            false => Ok(()),
        }
    }

    fn has_a_say(&self) -> bool {
        self.hook.is_some() || self.min_p > 0.0 || self.min_tokens > 0
    }

    /// The biases, with those of tokens that must never be drawn.
    pub(crate) fn biases_beside(&self, suppressed: &[Token]) -> Vec<llama::llama_logit_bias> {
        let never = suppressed.iter().map(|&token| llama::llama_logit_bias {
            token,
            bias: f32::NEG_INFINITY,
        });
        self.biases.iter().copied().chain(never).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::RKLLMLogitBias;

    fn extension(biases: &[RKLLMLogitBias]) -> RKLLMRunExtension {
        RKLLMRunExtension {
            size: size_of::<RKLLMRunExtension>(),
            logits_hook: None,
            hook_userdata: ptr::null_mut(),
            logit_bias: biases.as_ptr(),
            n_logit_bias: biases.len(),
            seed: -1,
            min_p: 0.0,
            logprobs_callback: None,
            logprobs_userdata: ptr::null_mut(),
            n_logprobs: 0,
            prompt_logprobs: 0,
            end_tokens: ptr::null(),
            n_end_tokens: 0,
            min_tokens: 0,
            deterministic: 0,
            row_question: None,
        }
    }

    fn refused(raw: &RKLLMRunExtension) -> Option<ExtensionError> {
        // SAFETY: the biases are those of a slice.
        unsafe { RunExtension::of(raw, 10) }.err()
    }

    #[test]
    fn values_without_a_meaning_are_refused() {
        let bias = |token, bias| RKLLMLogitBias { token, bias };
        let fine = [bias(0, 5.0), bias(9, f32::NEG_INFINITY)];
        assert_eq!(refused(&extension(&fine)), None);
        for bad in [
            bias(-1, 0.0),
            bias(10, 0.0),
            bias(3, f32::NAN),
            bias(3, f32::INFINITY),
        ] {
            assert!(
                refused(&extension(&[bad])).is_some(),
                "{} {}",
                bad.token,
                bad.bias
            );
        }
        for (seed, is_fine) in [
            (-2, false),
            (0, true),
            (4_294_967_294, true),
            (4_294_967_295, false),
        ] {
            let raw = RKLLMRunExtension {
                seed,
                ..extension(&[])
            };
            assert_eq!(refused(&raw).is_none(), is_fine, "{seed}");
        }
        for min_p in [-0.1, 1.1, f32::NAN] {
            let raw = RKLLMRunExtension {
                min_p,
                ..extension(&[])
            };
            assert!(refused(&raw).is_some(), "{min_p}");
        }
        for n_logprobs in [-1, 11] {
            let raw = RKLLMRunExtension {
                n_logprobs,
                ..extension(&[])
            };
            let error = ExtensionError::LogprobsCount(n_logprobs);
            assert_eq!(refused(&raw), Some(error));
        }
    }

    #[test]
    fn ends_are_tokens_of_the_model() {
        let with = |min_tokens, ends: &[i32]| {
            refused(&RKLLMRunExtension {
                min_tokens,
                end_tokens: ends.as_ptr(),
                n_end_tokens: ends.len(),
                ..extension(&[])
            })
        };
        assert_eq!(with(-1, &[0, 9]), None);
        assert_eq!(with(5, &[10]), Some(ExtensionError::UnknownEnd(10)));
        assert_eq!(with(5, &[-1]), Some(ExtensionError::UnknownEnd(-1)));
        assert_eq!(with(-2, &[]), Some(ExtensionError::MinTokens(-2)));
        let nowhere = RKLLMRunExtension {
            n_end_tokens: 3,
            ..extension(&[])
        };
        assert_eq!(refused(&nowhere), Some(ExtensionError::NoEnds(3)));
    }

    #[test]
    fn a_struct_of_any_version_is_copied_as_far_as_it_goes() {
        let whole = size_of::<RKLLMRunExtension>();
        let copied = |size| {
            let raw = RKLLMRunExtension {
                size,
                n_logprobs: 7,
                seed: 5,
                deterministic: 1,
                ..extension(&[])
            };
            // SAFETY: no more is read than there is.
            let copy = unsafe { RunExtension::copied(&raw) };
            copy.map(|copy| (copy.seed, copy.n_logprobs, copy.deterministic))
        };
        assert_eq!(copied(RKLLMRunExtension::FIRST_SIZE), Ok((5, 0, 0)));
        assert_eq!(copied(RKLLMRunExtension::SECOND_SIZE), Ok((5, 7, 0)));
        assert_eq!(copied(whole), Ok((5, 7, 1)));
        assert_eq!(copied(whole + 8), Ok((5, 7, 1)));
        for size in [0, 8, RKLLMRunExtension::FIRST_SIZE - 1, whole - 1] {
            assert_eq!(copied(size), Err(ExtensionError::Size(size)));
        }
    }
}
