//! Texts that go on as llama.cpp's server has them, in its shapes. What is not known is absent.

use crate::http_support::*;
use rkllmd::conversation::{ReplyPiece, ScoredText, TokenLogprob, TokenLogprobs};
use rkllmd::generation::{FinishReason, ReplyEvent};
use rkllmd::settings::Settings;
use serde_json::{Value, json};

const PATH: &str = "/completion";
const INFILL: &str = "/infill";

async fn server(events: fn() -> Vec<ReplyEvent>) -> Server {
    Server::replaying(Settings::default(), events).await
}

fn answer() -> Vec<ReplyEvent> {
    vec![started(&[]), text("on"), text("ce"), finished()]
}

/// The data of a stream's events.
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(
        answer.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let text = answer.text();
    let events = text.split_terminator("\n\n");
    let data = events.map(|event| event.strip_prefix("data: ").expect("data"));
    data.map(|data| serde_json::from_str(data).expect(data))
        .collect()
}

#[tokio::test]
async fn a_text_goes_on() {
    let mut server = server(answer).await;
    let body =
        json!({"model": "raw", "prompt": "once", "n_predict": 5, "seed": -1, "temperature": 0.5});
    let answer = server.post(PATH, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut whole = answer.json();
    let timings = whole["timings"].take();
    assert_eq!(
        (&timings["prompt_n"], &timings["predicted_per_second"]),
        (&json!(5), &json!(250.0))
    );
    let expected = json!({
        "index": 0, "content": "once", "stop": true, "model": "raw", "tokens_predicted": 2,
        "tokens_evaluated": 9, "tokens_cached": 4, "stop_type": "eos", "timings": null,
    });
    assert_eq!(whole, expected);
    let request = server.requests.recv().await.expect("a request");
    assert_eq!(&*request.prompt, "once");
    assert_eq!(request.max_new_tokens, Some(5));
    assert_eq!(request.draws.seed, None, "-1 is none");
    assert_eq!(request.sampling.temperature, Some(0.5));
    server.shut_down().await;
}

#[tokio::test]
async fn a_stream_of_it_ends_with_its_figures() {
    let server = server(|| {
        let mut events = answer();
        if let Some(ReplyEvent::Finished(completion)) = events.last_mut() {
            completion.stop_text = Some("x".to_owned());
        }
        events
    })
    .await;
    let body = json!({"model": "raw", "prompt": "once", "stream": true, "stop": ["x"]});
    let streamed = events(&server.post(PATH, body.to_string()).await);
    let [first, second, last] = &streamed[..] else {
        panic!("{streamed:?}")
    };
    assert_eq!(*first, json!({"index": 0, "content": "on", "stop": false}));
    assert_eq!(*second, json!({"index": 0, "content": "ce", "stop": false}));
    assert_eq!(
        (&last["stop"], &last["content"]),
        (&json!(true), &json!(""))
    );
    assert_eq!(last["tokens_predicted"], 2);
    assert!(last["timings"].is_object());
    assert_eq!(
        (&last["stop_type"], &last["stopping_word"]),
        (&json!("word"), &json!("x"))
    );
    server.shut_down().await;
}

#[tokio::test]
async fn what_was_not_measured_is_absent() {
    let server = server(|| vec![text("x"), finished_unmeasured(FinishReason::Length)]).await;
    let answer = server.post(PATH, r#"{"model":"raw","prompt":"a"}"#).await;
    assert_eq!(
        answer.json(),
        json!({"index": 0, "content": "x", "stop": true, "model": "raw", "stop_type": "limit"})
    );
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_name() {
    let server = server(answer).await;
    for (field, value, code) in [
        ("prompt", json!(""), "invalid_value"),
        ("prompt", json!("a\u{0}"), "invalid_value"),
        ("prompt", json!([1, [2]]), "invalid_type"),
        ("prompt", json!([]), "invalid_value"),
        ("prompt", Value::Null, "missing_required_parameter"),
        ("n_predict", json!(-2), "invalid_value"),
        ("n_probs", json!(21), "invalid_value"),
        ("n_probs", json!(-1), "invalid_value"),
        ("post_sampling_probs", json!(true), "unsupported_parameter"),
        ("model", Value::Null, "missing_required_parameter"),
    ] {
        let mut body = json!({"model": "raw", "prompt": "a"});
        body[field] = value;
        let answer = server.post(PATH, body.to_string()).await;
        let (_, param, found) = answer.error();
        assert_eq!((answer.status, found.as_str()), (400, code), "{body}");
        assert_eq!(param.as_deref(), Some(field), "{body}");
    }
    let body = json!({"model": "raw", "prompt": "a", "mirostat": 1, "cache_prompt": true});
    let answer = server.post(PATH, body.to_string()).await;
    assert_eq!(
        answer.header("x-rkllmd-not-applied"),
        Some("mirostat, cache_prompt")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn prompts_are_texts_and_tokens_one_or_several() {
    let mut server = server(answer).await;
    let ask = |prompt: Value| json!({"model": "tiny", "prompt": prompt}).to_string();
    let one = server.post(PATH, ask(json!([104, 105]))).await;
    assert_eq!((one.status, &one.json()["content"]), (200, &json!("once")));
    let request = server.requests.recv().await.expect("a request");
    assert_eq!(&*request.prompt, "hi");
    assert_eq!(request.prompt_tokens.as_deref(), Some(&[104, 105][..]));
    assert!(request.goes_by_tokens);
    // One in a list is one.
    let one = server.post(PATH, ask(json!(["hi"]))).await.json();
    assert_eq!(one["content"], "once");
    assert_eq!(
        &*server.requests.recv().await.expect("a request").prompt,
        "hi"
    );
    let several = server.post(PATH, ask(json!(["a", [98]]))).await.json();
    for (index, prompt) in ["a", "b"].into_iter().enumerate() {
        assert_eq!(several[index]["index"], index);
        assert_eq!(several[index]["content"], "once");
        let request = server.requests.recv().await.expect("a request");
        assert_eq!(&*request.prompt, prompt);
    }
    let body = json!({"model": "tiny", "prompt": ["a", "b"], "stream": true});
    let streamed = events(&server.post(PATH, body.to_string()).await);
    for index in [0, 1] {
        let of_one = streamed.iter().filter(|event| event["index"] == index);
        let text = of_one.clone().filter_map(|event| event["content"].as_str());
        assert_eq!(text.collect::<String>(), "once");
        assert_eq!(of_one.filter(|event| event["stop"] == true).count(), 1);
    }
    // Tokens of a text are those of the model's own tokenizer, and this one's is not known.
    let mixed = server.post(PATH, ask(json!([104, "i"]))).await;
    let (_, param, code) = mixed.error();
    assert_eq!(
        (param.as_deref(), code.as_str()),
        (Some("model"), "tokenizer_unknown")
    );
    server.shut_down().await;
}

fn scored() -> Vec<ReplyEvent> {
    let token = |id: i32, text: &str, logprob: f32| TokenLogprob {
        id,
        bytes: text.as_bytes().to_vec(),
        logprob: Some(logprob),
    };
    let scored = |id: i32, text: &str| {
        ReplyEvent::Piece(ReplyPiece::ScoredText(ScoredText {
            text: text.to_owned(),
            tokens: vec![TokenLogprobs {
                token: token(id, text, -0.5),
                top: vec![token(id, text, -0.5), token(9, "é", -1.5)],
            }],
        }))
    };
    vec![started(&[]), scored(3, "on"), scored(4, "ce"), finished()]
}

#[tokio::test]
async fn tokens_say_how_likely_they_were() {
    let mut server = server(scored).await;
    let ask = |stream: bool| {
        json!({"model": "raw", "prompt": "a", "n_probs": 2, "stream": stream}).to_string()
    };
    let token = |id: i32, text: &str, logprob: f32| json!({"id": id, "token": text, "bytes": text.as_bytes(), "logprob": logprob});
    let place = |id: i32, text: &str| {
        let mut place = token(id, text, -0.5);
        place["top_logprobs"] = json!([token(id, text, -0.5), token(9, "é", -1.5)]);
        place
    };
    let whole = server.post(PATH, ask(false)).await.json();
    assert_eq!(
        whole["completion_probabilities"],
        json!([place(3, "on"), place(4, "ce")])
    );
    let request = server.requests.recv().await.expect("a request");
    let asked = request.draws.logprobs.expect("a wish");
    assert_eq!((asked.top, asked.of_prompt), (2, false));
    let streamed = events(&server.post(PATH, ask(true)).await);
    assert_eq!(
        streamed[0]["completion_probabilities"],
        json!([place(3, "on")])
    );
    assert_eq!(streamed[1]["content"], "ce");
    assert_eq!(streamed[2].get("completion_probabilities"), None);
    server.shut_down().await;
}

#[tokio::test]
async fn a_gap_needs_both_sides_and_a_model_that_fills_it() {
    let server = server(answer).await;
    let good = json!({"model": "raw", "input_prefix": "a(", "input_suffix": ")",
        "input_extra": [{"filename": "b.rs", "text": "b"}]});
    let (_, param, code) = server.post(INFILL, good.to_string()).await.error();
    assert_eq!(
        (param.as_deref(), code.as_str()),
        (Some("model"), "unsupported_parameter")
    );
    for (field, value, param, code) in [
        (
            "input_prefix",
            Value::Null,
            "input_prefix",
            "missing_required_parameter",
        ),
        (
            "input_suffix",
            Value::Null,
            "input_suffix",
            "missing_required_parameter",
        ),
        (
            "input_suffix",
            json!("a\u{0}"),
            "input_suffix",
            "invalid_value",
        ),
        ("prompt", json!([1]), "prompt", "invalid_type"),
        (
            "input_extra",
            json!([{}]),
            "input_extra[0].text",
            "missing_required_parameter",
        ),
        (
            "input_extra",
            json!([{"text": 1}]),
            "input_extra[0].text",
            "invalid_type",
        ),
        (
            "input_extra",
            json!([{"text": "a"}, {"text": "", "filename": "\u{0}"}]),
            "input_extra[1].filename",
            "invalid_value",
        ),
        ("n_predict", json!(-2), "n_predict", "invalid_value"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let (_, blamed, found) = server.post(INFILL, body.to_string()).await.error();
        assert_eq!(
            (blamed.as_deref(), found.as_str()),
            (Some(param), code),
            "{body}"
        );
    }
    server.shut_down().await;
}

/// Every field of every endpoint, absent, null, empty and of every wrong type.
#[tokio::test]
async fn no_value_of_a_field_is_the_daemons_fault() {
    let server = server(answer).await;
    let good = [
        (
            PATH,
            200,
            json!({
                "model": "raw", "prompt": "a", "n_predict": 3, "stream": false, "temperature": 0.1,
                "top_k": 3, "top_p": 0.5, "min_p": 0.1, "seed": 1, "stop": ["b"],
                "repeat_penalty": 1.0, "logit_bias": {}, "presence_penalty": 0.0,
                "frequency_penalty": 0.0, "n_probs": 0, "post_sampling_probs": false,
                "cache_prompt": true, "id_slot": -1, "grammar": "", "resume": true,
                "total_deadline_ms": 60000,
            }),
        ),
        (
            PATH,
            200,
            json!({"model": "tiny", "prompt": ["a", [98, 99]]}),
        ),
        (
            INFILL,
            400,
            json!({
                "model": "raw", "input_prefix": "a", "input_suffix": "b", "prompt": "c",
                "input_extra": [{"filename": "d", "text": "e"}], "n_predict": 3, "n_probs": 0,
            }),
        ),
    ];
    let mut asked = 0;
    for (path, status, good) in &good {
        let answer = server.post(path, good.to_string()).await;
        assert_eq!(answer.status, *status, "{path}: {}", answer.text());
        for place in places(good) {
            for value in odd_values().iter().map(Some).chain([None]) {
                let body = with(good, &place, value);
                let answer = server.post(path, body.to_string()).await;
                asked += 1;
                assert!(answer.status < 500, "{path} {body}: {}", answer.text());
                if answer.status == 400 {
                    let (_, param, code) = answer.error();
                    assert!(
                        param.is_some() || code == "invalid_json",
                        "{path} {body}: {code}"
                    );
                }
            }
        }
    }
    assert!(asked > 250, "{asked}");
    server.shut_down().await;
}
