//! How likely a token was, and which ones were likelier: the log-softmax of the row as the library gave it.

use crate::constraint::ModelTokens;
use crate::conversation::{TokenLogprob, TokenLogprobs};

/// Of a token that was drawn from `row`, and of the `top` likeliest ones.
pub fn of_drawn(row: &[f32], id: i32, top: u8, tokens: &ModelTokens) -> TokenLogprobs {
    let all = LogSum::of(row);
    let told = |id: i32, logit: f32| TokenLogprob {
        id,
        bytes: tokens.piece(id).to_vec(),
        logprob: Some(all.of_logit(logit)),
    };
    let place = usize::try_from(id).ok();
    let logit = place.and_then(|place| row.get(place)).copied();
    TokenLogprobs {
        token: told(id, logit.unwrap_or(f32::NEG_INFINITY)),
        top: (likeliest(row, top.into()).into_iter())
            .map(|(id, logit)| told(id, logit))
            .collect(),
    }
}

/// The logarithm of the sum of what the logits are powers of.
struct LogSum(f64);

impl LogSum {
    fn of(row: &[f32]) -> Self {
        let known = || row.iter().filter(|logit| !logit.is_nan());
        let highest = known().copied().fold(f32::NEG_INFINITY, f32::max);
        let highest = f64::from(highest);
        let sum: f64 = known()
            .map(|logit| (f64::from(*logit) - highest).exp())
            .sum();
        Self(highest + sum.ln())
    }

    /// Never NaN.
    fn of_logit(&self, logit: f32) -> f32 {
        let logprob = (f64::from(logit) - self.0) as f32;
        match logprob.is_nan() {
            true => f32::NEG_INFINITY,
            false => logprob,
        }
    }
}

/// From the likeliest on, the first one of equals before others.
fn likeliest(row: &[f32], top: usize) -> Vec<(i32, f32)> {
    let mut best: Vec<(i32, f32)> = Vec::with_capacity(top + 1);
    for (id, &logit) in (0..).zip(row) {
        let is_among = best.len() < top || best.last().is_some_and(|(_, last)| logit > *last);
        if top == 0 || logit.is_nan() || !is_among {
            continue;
        }
        let place = best.partition_point(|(_, other)| *other >= logit);
        best.insert(place, (id, logit));
        best.truncate(top);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::Vocabulary;

    fn tokens() -> ModelTokens {
        let mut vocabulary = Vocabulary::default();
        for word in ["a", "b", "c", "d"] {
            vocabulary.push(Some(word.as_bytes()), false);
        }
        ModelTokens::new(vocabulary).expect("tokens")
    }

    #[test]
    fn they_are_logarithms_of_probabilities_and_sorted() {
        let row = [1.0, 3.0, 2.0, 3.0];
        let told = of_drawn(&row, 2, 4, &tokens());
        let ids: Vec<i32> = told.top.iter().map(|token| token.id).collect();
        assert_eq!(ids, [1, 3, 2, 0]);
        let of = |token: &TokenLogprob| f64::from(token.logprob.expect("it has one"));
        let sum: f64 = told.top.iter().map(|token| of(token).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(told.token, told.top[2]);
        assert_eq!(told.token.bytes, b"c");
        let some = of_drawn(&row, 0, 2, &tokens());
        assert_eq!(some.top[..], told.top[..2]);
        assert_eq!(some.token, told.top[3]);
        assert!(of_drawn(&row, 0, 0, &tokens()).top.is_empty());
    }

    #[test]
    fn rows_that_are_no_rows_are_never_nan() {
        for row in [
            &[0.0_f32; 0][..],
            &[f32::NAN, f32::NAN],
            &[f32::NEG_INFINITY, f32::NEG_INFINITY],
            &[f32::INFINITY, 1.0],
        ] {
            for id in [0, 1, 7, -1] {
                let told = of_drawn(row, id, 3, &tokens());
                let all = told.top.iter().chain([&told.token]);
                let mut logprobs = all.filter_map(|token| token.logprob);
                assert!(logprobs.all(|logprob| !logprob.is_nan()), "{row:?}");
            }
        }
        let told = of_drawn(&[f32::NAN, 1.0], 1, 3, &tokens());
        assert_eq!(told.top, std::slice::from_ref(&told.token));
        assert_eq!(told.token.logprob, Some(0.0));
    }
}
