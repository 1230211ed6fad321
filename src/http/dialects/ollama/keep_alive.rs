//! For how long a model is to stay loaded after a request: seconds, or a duration as Go writes it; for
//! ever where it is negative, and not at all where it is 0.

use std::time::Duration;

use serde_json::Value;

use crate::generation::KeepAlive;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::Outline;

pub(super) const PARAM: &str = "keep_alive";

/// Not at all.
pub(super) const AT_ONCE_NO_MORE: KeepAlive = KeepAlive::For(Duration::ZERO);
const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// What a request says of it, if anything.
pub(super) fn read(given: Option<Outline>) -> Result<Option<KeepAlive>, RequestError> {
    let Some(Outline(value)) = given else {
        return Ok(None);
    };
    let seconds = match &value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => duration(text),
        _ => {
            return Err(RequestError::WrongType {
                param: PARAM.to_owned(),
                reason: "expected a number of seconds or a duration such as \"5m\"".to_owned(),
            });
        }
    };
    match seconds.filter(|seconds| seconds.is_finite()) {
        Some(seconds) if seconds < 0.0 => Ok(Some(KeepAlive::ForEver)),
        // What no clock can tell is as long as one can.
        Some(seconds) => Ok(Some(KeepAlive::For(
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        ))),
        None => Err(RequestError::out_of_range(
            PARAM,
            format!(
                "must be a number of seconds or a duration such as `5m` or `1h30m`, not `{}`",
                quote(&value.to_string())
            ),
        )),
    }
}

/// `1h30m`, `-1m`, `1.5s`: seconds; and so is a number alone, as some clients write what they have of their settings.
fn duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    if rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return rest.parse().ok().map(|seconds: f64| sign * seconds);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let is_digit = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest.find(|c: char| !is_digit(c))?;
        let (number, behind) = rest.split_at(end);
        if !number.bytes().any(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number: f64 = number.parse().ok()?;
        let end = behind.find(is_digit).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds += number * factor;
        rest = behind;
    }
    Some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_json(value: Value) -> Result<Option<KeepAlive>, RequestError> {
        read(Some(Outline(value)))
    }

    fn seconds(seconds: f64) -> KeepAlive {
        KeepAlive::For(Duration::from_secs_f64(seconds))
    }

    #[test]
    fn seconds_and_durations_are_told() {
        for (value, expected) in [
            (json!(-1), KeepAlive::ForEver),
            (json!("-1m"), KeepAlive::ForEver),
            (json!(-0.5), KeepAlive::ForEver),
            (json!(0), AT_ONCE_NO_MORE),
            (json!("0"), AT_ONCE_NO_MORE),
            (json!("0s"), AT_ONCE_NO_MORE),
            (json!("-1"), KeepAlive::ForEver),
            (json!("300"), seconds(300.0)),
            (json!("-1h30m"), KeepAlive::ForEver),
            (json!(1800), seconds(1800.0)),
            (json!("5m"), seconds(300.0)),
            (json!("1h30m"), seconds(5400.0)),
            (json!("1.5s"), seconds(1.5)),
            (json!("+1m0.5s"), seconds(60.5)),
            (json!("250ms"), seconds(0.25)),
            (json!(1e300), KeepAlive::For(Duration::MAX)),
        ] {
            assert_eq!(read_json(value.clone()), Ok(Some(expected)), "{value}");
        }
        assert_eq!(read(None), Ok(None));
    }

    #[test]
    fn what_is_no_duration_is_refused_by_name() {
        for text in [
            "", "-", "--1", "m", "5 m", "5.5", "5x", ".s", "1..5s", "5m3", "ever",
        ] {
            let error = read_json(json!(text)).expect_err(text).to_string();
            assert!(error.starts_with("`keep_alive` must be"), "{text}: {error}");
        }
        for value in [json!(true), json!([]), json!({})] {
            let error = read_json(value).expect_err("it is refused");
            assert!(matches!(error, RequestError::WrongType { param, .. } if param == PARAM));
        }
    }
}
