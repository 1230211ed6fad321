//! How likely tokens were: the log-softmax of a row of logits as the model gave it, and the likeliest
//! tokens of that row. Computed where the row is, told on the thread of the run.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ffi::c_void;

use crate::abi::{LLMLogprobsCallback, RKLLMTokenLogprob};
use crate::vocabulary::{Token, Vocabulary};

/// Bytes of the rows that are there at once while a prompt's are computed.
const ROWS_BYTES: usize = 32 << 20;

/// Whom a run tells log probabilities, and which.
#[derive(Clone, Copy)]
pub(crate) struct Logprobs {
    callback: LLMLogprobsCallback,
    userdata: *mut c_void,
    /// Tokens of each row that are told as the likeliest.
    top: usize,
    /// Those of the prompt's tokens, too.
    pub(crate) of_prompt: bool,
}

// SAFETY: the userdata is the host's and only handed back to it, on the thread of a run.
unsafe impl Send for Logprobs {}

/// What one row says of a token, on its way to the host.
pub(crate) struct TokenLogprobs {
    token: Scored,
    top: Vec<Scored>,
    of_prompt: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Scored {
    token: Token,
    logprob: f32,
}

impl Logprobs {
    pub(crate) fn new(
        callback: LLMLogprobsCallback,
        userdata: *mut c_void,
        top: usize,
        of_prompt: bool,
    ) -> Logprobs {
        Logprobs {
            callback,
            userdata,
            top,
            of_prompt,
        }
    }

    /// Rows of a vocabulary of this length that may be there at once.
    pub(crate) fn rows_at_once(vocabulary_len: usize) -> usize {
        (ROWS_BYTES / size_of::<f32>() / vocabulary_len.max(1)).max(1)
    }

    /// Of a token that was drawn after `row`.
    pub(crate) fn of_drawn(&self, row: &[f32], token: Token) -> Box<TokenLogprobs> {
        Box::new(self.of_row(row, token, false))
    }

    /// Of a prompt's token, which follows `row`; none: nothing came before it.
    pub(crate) fn of_prompt(&self, row: Option<&[f32]>, token: Token) -> TokenLogprobs {
        let nothing = || TokenLogprobs {
            token: Scored {
                token,
                logprob: f32::NAN,
            },
            top: Vec::new(),
            of_prompt: true,
        };
        row.map_or_else(nothing, |row| self.of_row(row, token, true))
    }

    fn of_row(&self, row: &[f32], token: Token, of_prompt: bool) -> TokenLogprobs {
        let whole = log_sum_exp(row);
        let place = |token: usize| Scored {
            token: token as Token,
            logprob: (f64::from(row[token]) - whole) as f32,
        };
        TokenLogprobs {
            token: place(token as usize),
            top: likeliest(row, self.top).into_iter().map(place).collect(),
            of_prompt,
        }
    }

    /// Tells the host.
    pub(crate) fn tell(&self, told: &TokenLogprobs, vocabulary: Vocabulary) {
        let places = || std::iter::once(&told.token).chain(&told.top);
        let pieces: Vec<Vec<u8>> = places()
            .map(|place| vocabulary.piece(place.token, true))
            .collect();
        let raw: Vec<RKLLMTokenLogprob> = places()
            .zip(&pieces)
            .map(|(place, piece)| RKLLMTokenLogprob {
                token: place.token,
                logprob: place.logprob,
                piece: piece.as_ptr().cast(),
                piece_len: piece.len(),
            })
            .collect();
        let (token, top) = (raw.as_ptr(), &raw[1..]);
        // SAFETY: the host's callback with what it was promised: a token and an array of this length,
        // which live for the call.
        unsafe {
            (self.callback)(
                self.userdata,
                told.of_prompt.into(),
                token,
                top.as_ptr(),
                top.len(),
            );
        }
    }
}

/// The logarithm of the sum of what the values are logarithms of.
fn log_sum_exp(row: &[f32]) -> f64 {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row
        .iter()
        .map(|&logit| f64::from((logit - highest).exp()))
        .sum();
    f64::from(highest) + sum.ln()
}

/// The places of the `count` highest values, from the highest on; of equals the first.
fn likeliest(row: &[f32], count: usize) -> Vec<usize> {
    let mut kept: BinaryHeap<Reverse<Ranked>> = BinaryHeap::with_capacity(count + 1);
    for (token, &logit) in row.iter().enumerate() {
        let ranked = Ranked { logit, token };
        if kept.len() < count {
            kept.push(Reverse(ranked));
        } else if kept.peek().is_some_and(|Reverse(last)| ranked > *last) {
            kept.pop();
            kept.push(Reverse(ranked));
        }
    }
    let sorted = kept.into_sorted_vec();
    sorted
        .into_iter()
        .map(|Reverse(ranked)| ranked.token)
        .collect()
}

#[derive(PartialEq)]
struct Ranked {
    logit: f32,
    token: usize,
}

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_logit = self.logit.total_cmp(&other.logit);
        by_logit.then_with(|| other.token.cmp(&self.token))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    unsafe extern "C" fn ignored(
        _: *mut c_void,
        _: i32,
        _: *const RKLLMTokenLogprob,
        _: *const RKLLMTokenLogprob,
        _: usize,
    ) {
    }

    fn wanting(top: usize) -> Logprobs {
        Logprobs::new(ignored, std::ptr::null_mut(), top, true)
    }

    proptest! {
        #[test]
        fn the_likeliest_come_first_and_all_together_are_certain(
            row in prop::collection::vec(-40..40_i8, 1..80),
            top in 0..100_usize,
        ) {
            let row: Vec<f32> = row.into_iter().map(|logit| f32::from(logit) / 4.0).collect();
            let got = wanting(top).of_drawn(&row, 0);
            prop_assert_eq!(got.top.len(), top.min(row.len()));
            let order = |a: &Scored, b: &Scored| a.logprob > b.logprob
                || (a.logprob == b.logprob && a.token < b.token);
            prop_assert!(got.top.is_sorted_by(order));
            let rest = row.iter().enumerate().filter(|(at, _)| {
                !got.top.iter().any(|place| place.token as usize == *at)
            });
            for (_, &logit) in rest {
                prop_assert!(got.top.last().is_none_or(|last| row[last.token as usize] >= logit));
            }
            let all = wanting(row.len()).of_drawn(&row, 0);
            let sum: f64 = all.top.iter().map(|place| f64::from(place.logprob).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn a_first_token_has_none() {
        let first = wanting(3).of_prompt(None, 7);
        assert!(first.token.logprob.is_nan() && first.top.is_empty());
    }

    #[test]
    fn rows_are_bounded_in_bytes() {
        for vocabulary in [1, 49_152, 151_936, 262_144, 100 << 20] {
            let rows = Logprobs::rows_at_once(vocabulary);
            assert!(rows == 1 || rows * vocabulary * 4 <= ROWS_BYTES);
        }
    }
}
