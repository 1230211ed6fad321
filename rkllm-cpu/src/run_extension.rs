//! What a run may have beyond the vendor's parameters (`rkllm_set_run_extension`), copied from the
//! host's struct and checked.

use std::ffi::c_void;
use std::slice;

use llama_cpp_sys_2 as llama;
use thiserror::Error;

use crate::abi::{LLMLogitsHook, RKLLMRunExtension, RKLLMSamplingParam};
use crate::sampler::SamplingError;
use crate::vocabulary::Token;

#[derive(Debug, Error, PartialEq)]
pub(crate) enum ExtensionError {
    #[error("the struct of the extension has {0} bytes, fewer than any version of it")]
    TooShort(usize),
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

/// The host's say in each draw.
#[derive(Clone, Copy)]
pub(crate) struct Hook {
    function: LLMLogitsHook,
    userdata: *mut c_void,
}

// SAFETY: the userdata is the host's and only handed back to it; the host gave it for any thread.
unsafe impl Send for Hook {}

impl Hook {
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
    biases: Vec<llama::llama_logit_bias>,
}

impl RunExtension {
    /// # Safety
    /// `raw` is as its header says.
    pub(crate) unsafe fn of(
        raw: &RKLLMRunExtension,
        vocabulary_len: i32,
    ) -> Result<RunExtension, ExtensionError> {
        // A longer struct is a newer one, of which this is the beginning.
        if raw.size < size_of::<RKLLMRunExtension>() {
            return Err(ExtensionError::TooShort(raw.size));
        }
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
        Ok(RunExtension {
            hook: raw.logits_hook.map(|function| Hook {
                function,
                userdata: raw.hook_userdata,
            }),
            seed,
            min_p: raw.min_p,
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
        match sampling.mirostat != 0 && !is_greedy && (self.hook.is_some() || self.min_p > 0.0) {
            true => Err(SamplingError::HookedMirostat),
            false => Ok(()),
        }
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
    use std::ptr;

    fn extension(biases: &[RKLLMLogitBias]) -> RKLLMRunExtension {
        RKLLMRunExtension {
            size: size_of::<RKLLMRunExtension>(),
            logits_hook: None,
            hook_userdata: ptr::null_mut(),
            logit_bias: biases.as_ptr(),
            n_logit_bias: biases.len(),
            seed: -1,
            min_p: 0.0,
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
        let size = size_of::<RKLLMRunExtension>() - 1;
        let short = RKLLMRunExtension {
            size,
            ..extension(&[])
        };
        assert_eq!(refused(&short), Some(ExtensionError::TooShort(size)));
    }
}
