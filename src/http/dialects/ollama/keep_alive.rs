//! For how long a model is to stay loaded after a request: seconds, or a duration as Go writes it. The
//! daemon unloads no model by time, so a model that is to stay for ever does, and any other time is one
//! that is not applied; but for 0 in a request for nothing else, which unloads the model at once.

use serde_json::Value;

use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::Outline;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum KeepAlive {
    /// Until something else needs its place.
    ForEver,
    AtOnceNoMore,
    Seconds(f64),
}

const PARAM: &str = "keep_alive";
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
        Some(0.0) => Ok(Some(KeepAlive::AtOnceNoMore)),
        Some(seconds) => Ok(Some(KeepAlive::Seconds(seconds))),
        None => Err(RequestError::out_of_range(
            PARAM,
            format!(
                "must be a number of seconds or a duration such as `5m` or `1h30m`, not `{}`",
                quote(&value.to_string())
            ),
        )),
    }
}

/// `1h30m`, `-1m`, `1.5s`, `0`: seconds.
fn duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
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

    #[test]
    fn seconds_and_durations_are_told() {
        for (value, expected) in [
            (json!(-1), KeepAlive::ForEver),
            (json!("-1m"), KeepAlive::ForEver),
            (json!(-0.5), KeepAlive::ForEver),
            (json!(0), KeepAlive::AtOnceNoMore),
            (json!("0"), KeepAlive::AtOnceNoMore),
            (json!("0s"), KeepAlive::AtOnceNoMore),
            (json!(1800), KeepAlive::Seconds(1800.0)),
            (json!("5m"), KeepAlive::Seconds(300.0)),
            (json!("1h30m"), KeepAlive::Seconds(5400.0)),
            (json!("1.5s"), KeepAlive::Seconds(1.5)),
            (json!("+1m0.5s"), KeepAlive::Seconds(60.5)),
            (json!("250ms"), KeepAlive::Seconds(0.25)),
        ] {
            assert_eq!(read_json(value.clone()), Ok(Some(expected)), "{value}");
        }
        assert_eq!(read(None), Ok(None));
    }

    #[test]
    fn what_is_no_duration_is_refused_by_name() {
        for text in ["", "-", "5", "m", "5 m", "5x", ".s", "1..5s", "5m3", "ever"] {
            let error = read_json(json!(text)).expect_err(text).to_string();
            assert!(error.starts_with("`keep_alive` must be"), "{text}: {error}");
        }
        for value in [json!(true), json!([]), json!({})] {
            let error = read_json(value).expect_err("it is refused");
            assert!(matches!(error, RequestError::WrongType { param, .. } if param == PARAM));
        }
    }
}
