//! What was measured, or why it was not.

use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

/// Never a guess: without a value there is a reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact<T> {
    pub value: Option<T>,
    /// Null where there is a value.
    pub reason: Option<String>,
}

impl<T> Fact<T> {
    pub fn absent(reason: impl Display) -> Self {
        Self {
            value: None,
            reason: Some(reason.to_string()),
        }
    }

    pub fn of<E: Display>(measured: Result<T, E>) -> Self {
        match measured {
            Ok(value) => Self {
                value: Some(value),
                reason: None,
            },
            Err(error) => Self::absent(error),
        }
    }
}

/// With three decimals: the clock is not better than that.
pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// How many a second; `None`: there was none, or no time.
pub(super) fn rate(count: u32, time: Duration) -> Option<f64> {
    let is_measured = count > 0 && !time.is_zero();
    is_measured.then(|| (f64::from(count) / time.as_secs_f64() * 1e3).round() / 1e3)
}

/// A text with `(model)` for each `name` that is no part of a longer word.
pub(super) fn without(text: &str, name: &str) -> String {
    let is_part = |beside: Option<char>| beside.is_some_and(char::is_alphanumeric);
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    for (found, _) in text.match_indices(name) {
        let end = found + name.len();
        let is_longer =
            is_part(text[..found].chars().next_back()) || is_part(text[end..].chars().next());
        if !name.is_empty() && !is_longer {
            shown.push_str(&text[at..found]);
            shown.push_str("(model)");
            at = end;
        }
    }
    shown.push_str(&text[at..]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_null_with_its_reason() {
        let absent: Fact<f64> = Fact::absent("no model");
        let json = serde_json::to_string(&absent).unwrap();
        assert_eq!(json, r#"{"value":null,"reason":"no model"}"#);
        let told: Fact<u32> = Fact::of(Ok::<_, String>(7));
        let json = serde_json::to_string(&told).unwrap();
        assert_eq!(json, r#"{"value":7,"reason":null}"#);
    }

    #[test]
    fn a_reason_does_not_name_the_model() {
        let told = "the model `qwen` cannot be loaded: /m/qwen/a.rkllm, no qwen3";
        let shown = without(&without(told, "/m/qwen/a.rkllm"), "qwen");
        assert_eq!(
            shown,
            "the model `(model)` cannot be loaded: (model), no qwen3"
        );
        assert_eq!(without("äöü", ""), "äöü");
    }

    #[test]
    fn a_rate_needs_a_count_and_a_time() {
        assert_eq!(rate(0, Duration::from_secs(1)), None);
        assert_eq!(rate(3, Duration::ZERO), None);
        assert_eq!(rate(3, Duration::from_secs(2)), Some(1.5));
        assert_eq!(milliseconds(Duration::from_micros(1500)), 1.5);
    }
}
