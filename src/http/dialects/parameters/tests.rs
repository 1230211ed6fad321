use super::*;
use crate::http::dialects::ignored::Ignored;
use crate::http::request::body::fields;
use crate::http::request::together::Together;

fn parameters(json: &str) -> SharedParameters {
    let Together(parameters, _) = fields::<Together<_, Ignored>>(json.as_bytes()).expect("valid");
    parameters
}

#[test]
fn temperature_zero_takes_the_likeliest_token() {
    let sampling = parameters(r#"{"temperature":0,"top_k":40}"#)
        .sampling()
        .unwrap();
    assert_eq!(sampling.top_k, Some(1));
    assert_eq!(sampling.temperature, Some(1.0));
}

#[test]
fn what_leaves_one_token_takes_the_likeliest() {
    for json in [
        r#"{"top_p":0}"#,
        r#"{"top_p":1e-60,"top_k":40}"#,
        r#"{"temperature":1e-60,"top_p":1}"#,
    ] {
        let sampling = parameters(json).sampling().unwrap();
        assert_eq!(sampling.top_k, Some(1), "{json}");
        for value in [sampling.temperature, sampling.top_p].into_iter().flatten() {
            assert_eq!(value, 1.0, "{json}");
        }
    }
}

#[test]
fn a_seed_is_any_integer_of_64_bits() {
    for (json, seed) in [
        ("42.0", Some(42)),
        ("-1", Some(-1)),
        ("18446744073709551615", Some(-1)),
        ("9223372036854775808", Some(i64::MIN)),
        ("-9223372036854775808", Some(i64::MIN)),
    ] {
        let json = format!(r#"{{"seed":{json}}}"#);
        assert_eq!(parameters(&json).seed().unwrap(), seed, "{json}");
    }
    assert_eq!(parameters("{}").seed().unwrap(), None);
}

#[test]
fn a_budget_of_tokens_may_have_no_limit() {
    for (json, budget) in [
        ("-1", Some(u32::MAX)),
        ("-1.0", Some(u32::MAX)),
        ("16.0", Some(16)),
        ("0", Some(0)),
        ("null", None),
        ("9000000000", Some(u32::MAX)),
    ] {
        let json = format!(r#"{{"max_tokens":{json}}}"#);
        assert_eq!(parameters(&json).max_tokens().unwrap(), budget, "{json}");
    }
    assert!(parameters(r#"{"max_tokens":-2}"#).max_tokens().is_err());
}

#[test]
fn absent_and_null_are_the_models_own() {
    let nulls = parameters(
        r#"{"temperature":null,"top_p":null,"top_k":null,"stop":null,"max_tokens":null,
            "n":null,"logit_bias":null,"stream":null,"stream_options":null,"seed":null}"#,
    );
    assert_eq!(nulls.sampling().unwrap(), SamplingRequest::default());
    assert_eq!(nulls.max_tokens().unwrap(), None);
    assert!(nulls.stop(&ChatSettings::default()).unwrap().is_empty());
    assert_eq!(nulls.choices(&ChatSettings::default()).unwrap(), 1);
    assert!(!nulls.wants_usage());
}

#[test]
fn a_client_can_only_shorten_the_total_deadline() {
    let asked = |json: &str, longest: Option<u64>| {
        let deadline = parameters(json).total_deadline(longest.map(Duration::from_millis));
        deadline.map(|limit| limit.map(|limit| limit.as_millis() as u64))
    };
    assert_eq!(asked("{}", None).unwrap(), None);
    assert_eq!(asked("{}", Some(50)).unwrap(), Some(50));
    let json = r#"{"total_deadline_ms":20}"#;
    assert_eq!(asked(json, None).unwrap(), Some(20));
    assert_eq!(asked(json, Some(50)).unwrap(), Some(20));
    assert_eq!(asked(json, Some(10)).unwrap(), Some(10));
    let json = format!(r#"{{"total_deadline_ms":{}}}"#, i64::MAX);
    assert_eq!(asked(&json, None).unwrap(), Some(365 * 24 * 3_600_000));
    for bad in [0, -1, i64::MIN] {
        let json = format!(r#"{{"total_deadline_ms":{bad}}}"#);
        assert!(asked(&json, None).is_err(), "{bad}");
    }
}

#[test]
fn ranges_are_kept_at_their_edges() {
    for good in [
        r#"{"temperature":2}"#,
        r#"{"top_p":1}"#,
        r#"{"top_p":0}"#,
        r#"{"top_k":-1}"#,
        r#"{"top_k":40.0}"#,
        r#"{"presence_penalty":-2,"frequency_penalty":2}"#,
        r#"{"repetition_penalty":1.1,"repeat_penalty":1.1}"#,
    ] {
        parameters(good).sampling().expect(good);
    }
    for (bad, param) in [
        (r#"{"temperature":2.01}"#, "temperature"),
        (r#"{"temperature":-0.1}"#, "temperature"),
        (r#"{"top_p":-1e-60}"#, "top_p"),
        (r#"{"top_p":1.0001}"#, "top_p"),
        (r#"{"top_k":-2}"#, "top_k"),
        (r#"{"top_k":4294967297}"#, "top_k"),
        (r#"{"repeat_penalty":0}"#, "repeat_penalty"),
        (r#"{"repeat_penalty":1e-60}"#, "repeat_penalty"),
        (r#"{"repetition_penalty":-1}"#, "repetition_penalty"),
        (
            r#"{"repeat_penalty":1,"repetition_penalty":2}"#,
            "repetition_penalty",
        ),
        (r#"{"presence_penalty":2.5}"#, "presence_penalty"),
        (r#"{"frequency_penalty":-2.5}"#, "frequency_penalty"),
    ] {
        match parameters(bad).sampling().expect_err(bad) {
            RequestError::OutOfRange { param: blamed, .. } => assert_eq!(blamed, param),
            other => panic!("{bad}: {other:?}"),
        }
    }
}
