use super::*;
use crate::conversation::TokenLogprob;
use crate::http::dialects::logprobs::of_chat;
use serde_json::{Value, json};

fn token(bytes: &[u8], logprob: Option<f32>, top: &[(&str, f32)]) -> TokenLogprobs {
    let of = |bytes: &[u8], logprob| TokenLogprob {
        id: 0,
        bytes: bytes.to_vec(),
        logprob,
    };
    TokenLogprobs {
        token: of(bytes, logprob),
        top: top
            .iter()
            .map(|(text, logprob)| of(text.as_bytes(), Some(*logprob)))
            .collect(),
    }
}

fn text_logprobs(tokens: &[TokenLogprobs], offset: &mut Offset) -> Value {
    let mut logprobs = TextLogprobs::default();
    logprobs.push(tokens, offset);
    serde_json::to_value(logprobs).unwrap()
}

#[test]
fn a_chat_has_bytes_and_the_likeliest() {
    let rocket = "🚀".as_bytes();
    let tokens = [
        token(
            &rocket[..2],
            Some(-0.5),
            &[("a", -0.25), ("b", f32::NEG_INFINITY)],
        ),
        token(&rocket[2..], Some(-0.5), &[]),
    ];
    let told = serde_json::to_value(ChatLogprobs::of(&tokens)).unwrap();
    assert_eq!(
        told,
        json!({"refusal": null, "content": [
            {"token": "\u{fffd}", "logprob": -0.5, "bytes": [0xF0, 0x9F], "top_logprobs": [
                {"token": "a", "logprob": -0.25, "bytes": [97]},
                {"token": "b", "logprob": -9999.0, "bytes": [98]}]},
            {"token": "\u{fffd}\u{fffd}", "logprob": -0.5, "bytes": [0x9A, 0x80], "top_logprobs": []}]})
    );
}

#[test]
fn a_text_has_a_place_for_each_token() {
    let mut offset = Offset::default();
    let first = token(b"x", None, &[]);
    let second = token("é ".as_bytes(), Some(-1.0), &[("z", -0.5), ("z", -0.75)]);
    let told = text_logprobs(&[first, second], &mut offset);
    assert_eq!(
        told,
        json!({"tokens": ["x", "é "], "token_logprobs": [null, -1.0],
            "top_logprobs": [null, {"z": -0.5, "é ": -1.0}], "text_offset": [0, 1]})
    );
    let rocket = "🚀".as_bytes();
    let rest = [
        token(&rocket[..1], Some(-1.0), &[]),
        token(&rocket[1..], Some(-1.0), &[]),
        token(b"!", Some(-1.0), &[]),
    ];
    let told = text_logprobs(&rest, &mut offset);
    assert_eq!(told["text_offset"], json!([3, 3, 4]));
    assert_eq!(
        told["tokens"],
        json!(["bytes:\\xf0", "bytes:\\x9f\\x9a\\x80", "!"])
    );
}

#[test]
fn a_prompt_is_told_with_its_tokens_as_it_is() {
    let named = |texts: &[&str]| -> Vec<TokenLogprobs> {
        let tokens = texts.iter().map(|text| token(text.as_bytes(), None, &[]));
        tokens.collect()
    };
    let bytes = |tokens: &[TokenLogprobs]| -> Vec<String> {
        let text = |told: &TokenLogprobs| String::from_utf8(told.token.bytes.clone()).unwrap();
        tokens.iter().map(text).collect()
    };
    // What begins a sequence, and a blank in front, are the runtime's own.
    let mut echo = Echo::new("Why so? é".to_owned());
    let mut tokens = named(&["<s>", " Why", " so"]);
    assert_eq!(echo.next(&mut tokens), "Why so");
    assert_eq!(bytes(&tokens), ["Why", " so"]);
    let mut tokens = vec![token(b"? \xc3", None, &[])];
    assert_eq!(echo.next(&mut tokens), "? ");
    assert_eq!(tokens.len(), 1);
    assert_eq!(echo.rest(), "é");
    assert_eq!(echo.rest(), "");
}

#[test]
fn what_is_asked_is_checked() {
    let asked = |top| {
        Some(LogprobsRequest {
            top,
            of_prompt: false,
        })
    };
    for (logprobs, top, wanted) in [
        (None, None, None),
        (Some(false), Some(0), None),
        (Some(true), None, asked(0)),
        (Some(true), Some(20), asked(20)),
    ] {
        assert_eq!(of_chat(logprobs, top).unwrap(), wanted);
    }
    for (logprobs, top) in [
        (None, Some(1)),
        (Some(true), Some(21)),
        (Some(true), Some(-1)),
    ] {
        assert!(of_chat(logprobs, top).is_err(), "{logprobs:?} {top:?}");
    }
    let text = |value: Value| of_text(Some(&Outline(value)), true);
    let echoed = Some(LogprobsRequest {
        top: 5,
        of_prompt: true,
    });
    assert_eq!(text(json!(5)).unwrap(), echoed);
    assert_eq!(text(json!(false)).unwrap(), None);
    for bad in [json!(6), json!(-1), json!(true), json!("1"), json!(1.5)] {
        assert!(text(bad).is_err());
    }
}
