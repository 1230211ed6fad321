//! Reports to callbacks. What a callback is given is valid until it returns and no longer; with
//! several sequences it gets an array, a result for each. A result of one sequence with a token or with
//! data has a text in NORMAL, if an empty one: hosts print it without looking. Among several one inside a
//! character has none.

use std::ffi::{CStr, c_int, c_void};

use crate::abi::*;
use crate::batch_generation::SlotStep;
use crate::generation::{Matrix, Reply, Report};

const NOTHING: RKLLMResult = RKLLMResult {
    text: std::ptr::null(),
    token_id: -1,
    last_hidden_layer: RKLLMResultLastHiddenLayer {
        hidden_states: std::ptr::null(),
        embd_size: 0,
        num_tokens: 0,
    },
    logits: NO_LOGITS,
    perf: RKLLMPerfStat {
        prefill_time_ms: 0.0,
        prefill_tokens: 0,
        generate_time_ms: 0.0,
        generate_tokens: 0,
        memory_usage_mb: 0.0,
    },
};

const NO_TEXT: &CStr = c"";

const NO_LOGITS: RKLLMResultLogits = RKLLMResultLogits {
    logits: std::ptr::null(),
    vocab_size: 0,
    num_tokens: 0,
};

/// The structs of one run's callbacks, used again for each.
pub(crate) struct Results {
    results: Vec<RKLLMResult>,
    texts: Vec<Vec<u8>>,
}

impl Results {
    pub(crate) fn of(sequences: usize) -> Results {
        Results {
            results: vec![NOTHING; sequences],
            texts: vec![Vec::new(); sequences],
        }
    }

    pub(crate) fn call_back(
        &mut self,
        callback: LLMResultCallback,
        userdata: *mut c_void,
        step: Report<'_>,
    ) -> Reply {
        self.results.fill(NOTHING);
        let state = self.fill(step);
        // SAFETY: the callback is the one the caller gave to `rkllm_init`; the results and what
        // they point to live for the call.
        match unsafe { callback(self.results.as_mut_ptr(), userdata, state) } {
            1 => Reply::Pause,
            2 => Reply::Release,
            _ => Reply::GoOn,
        }
    }

    /// Returns the callback's state.
    fn fill(&mut self, step: Report<'_>) -> u32 {
        match step {
            Report::Text {
                token,
                text,
                logits,
            } => {
                self.set_text(0, token, text);
                self.results[0].logits = logits_of(logits);
                RKLLM_RUN_NORMAL
            }
            Report::Waiting {
                token,
                logits: None,
            } => {
                self.results[0].token_id = token;
                RKLLM_RUN_WAITING
            }
            // Hosts look for logits in NORMAL only; without these they would take the next
            // token's for the prompt's. The character comes whole with a later token.
            Report::Waiting { token, logits } => {
                self.set_text(0, token, "");
                self.results[0].logits = logits_of(logits);
                RKLLM_RUN_NORMAL
            }
            Report::NoHiddenStatesYet => {
                self.results[0].text = NO_TEXT.as_ptr();
                RKLLM_RUN_NORMAL
            }
            Report::HiddenStates(states) => {
                self.results[0].text = NO_TEXT.as_ptr();
                self.results[0].last_hidden_layer = RKLLMResultLastHiddenLayer {
                    hidden_states: states.values.as_ptr(),
                    embd_size: states.columns as c_int,
                    num_tokens: states.rows() as c_int,
                };
                RKLLM_RUN_NORMAL
            }
            Report::Batch(steps) => {
                let mut state = RKLLM_RUN_WAITING;
                for (at, step) in steps.iter().enumerate() {
                    match step {
                        SlotStep::Text(token, text) => {
                            self.set_text(at, *token, text);
                            state = RKLLM_RUN_NORMAL;
                        }
                        SlotStep::Waiting(token) => self.results[at].token_id = *token,
                        SlotStep::Ended => {}
                    }
                }
                state
            }
            Report::Finish(perf) => {
                for result in &mut self.results {
                    result.perf = perf;
                }
                RKLLM_RUN_FINISH
            }
            Report::Error => RKLLM_RUN_ERROR,
        }
    }

    fn set_text(&mut self, at: usize, token: i32, text: &str) {
        let buffer = &mut self.texts[at];
        buffer.clear();
        // C text ends at its first NUL, so one inside it would hide the rest.
        buffer.extend(text.bytes().filter(|&byte| byte != 0));
        buffer.push(0);
        self.results[at].token_id = token;
        self.results[at].text = buffer.as_ptr().cast();
    }
}

fn logits_of(logits: Option<Matrix<'_>>) -> RKLLMResultLogits {
    logits.map_or(NO_LOGITS, |matrix| RKLLMResultLogits {
        logits: matrix.values.as_ptr(),
        vocab_size: matrix.columns as c_int,
        num_tokens: matrix.rows() as c_int,
    })
}
