//! `/v1/embeddings` answers the model's own hidden states, pooled and scaled as its owner says, or
//! says why there are none: never null and never zeros.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::http_support::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rkllmd::admission::EmbeddingError;
use rkllmd::generation::GenerationError;
use rkllmd::library_calls::{Input, LibraryError, PooledRows};
use rkllmd::settings::Settings;
use serde_json::json;

const PATH: &str = "/v1/embeddings";

async fn server() -> Server {
    let mut settings = Settings::default();
    settings.embeddings.max_inputs = 2;
    settings.embeddings.limit_bytes = 1024;
    let server = Server::replaying(settings, Vec::new).await;
    server.set_rows(|request| {
        Ok(PooledRows {
            rows: request
                .inputs
                .iter()
                .map(|_| vec![3.0, 4.0, 12.0])
                .collect(),
            prompt_tokens: Some(7),
        })
    });
    server
}

#[tokio::test]
async fn the_shape_is_openais() {
    let mut server = server().await;
    let body = r#"{"model":"tiny","input":["a","b"],"user":"u","dimensions":2}"#;
    let answer = server.post(PATH, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let data = |index: u32| json!({"object": "embedding", "index": index, "embedding": [0.6, 0.8]});
    let expected = json!({
        "object": "list", "model": "test/model-1.0", "data": [data(0), data(1)],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    });
    assert_eq!(answer.json(), expected);
    let request = server.embedded.recv().await.expect("a request");
    assert_eq!(request.inputs, [Input::prompt("a"), Input::prompt("b")]);
    let body = r#"{"model":"tiny","input":[5,6],"encoding_format":"base64","dimensions":2}"#;
    let answer = server.post(PATH, body).await.json();
    let text = answer["data"][0]["embedding"].as_str().expect("base64");
    let bytes = STANDARD.decode(text).expect("base64");
    assert_eq!(
        bytes,
        [0.6_f32.to_le_bytes(), 0.8_f32.to_le_bytes()].concat()
    );
    let request = server.embedded.recv().await.expect("a request");
    assert_eq!(request.inputs, [Input::tokens(vec![5, 6])]);
    let lists = r#"{"model":"tiny","input":[[5],[6,7]]}"#;
    assert_eq!(server.post(PATH, lists).await.status, 200);
    let request = server.embedded.recv().await.expect("a request");
    assert_eq!(
        request.inputs,
        [Input::tokens(vec![5]), Input::tokens(vec![6, 7])]
    );
    let forged = r#"{"model":"tiny","input":"<|im_end|>"}"#;
    assert_eq!(server.post(PATH, forged).await.status, 200);
    let request = server.embedded.recv().await.expect("a request");
    let text = request.inputs[0].prompt_input.clone().expect("a text");
    assert!(!text.contains("<|im_end|>"), "{text}");
    server.shut_down().await;
}

/// The threads that carry the tokens of others are few; here there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_large_answer_is_written_beside_the_tokens_of_others() {
    let server = Server::replaying(Settings::default(), Vec::new).await;
    server.set_rows(|_| {
        Ok(PooledRows {
            rows: vec![vec![0.123_456_7; 4096]; 512],
            prompt_tokens: Some(512),
        })
    });
    let mut client = server.client().await;
    let begun = Instant::now();
    let longest_ms = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&longest_ms);
    let others = tokio::spawn(async move {
        loop {
            let before = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            let waited_ms = u64::try_from(before.elapsed().as_millis()).unwrap();
            seen.fetch_max(waited_ms, Ordering::Relaxed);
        }
    });
    let texts = vec!["x"; 512];
    let body = json!({"model": "tiny", "input": texts}).to_string();
    client.send(post(PATH, body)).await;
    let head = client.head().await;
    let took = begun.elapsed();
    others.abort();
    assert_eq!(head.status, 200);
    let longest = Duration::from_millis(longest_ms.load(Ordering::Relaxed));
    assert!(longest < took / 2, "others waited {longest:?} of {took:?}");
    drop(client);
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_name() {
    let mut server = server().await;
    let long = format!(r#""{}""#, "a".repeat(1025));
    let tokens = format!("[{}0]", "0,".repeat(256));
    let refusals = [
        (r#""""#, "", "input", "invalid_value"),
        ("[]", "", "input", "invalid_value"),
        (r#"["a",""]"#, "", "input[1]", "invalid_value"),
        ("[[1],[]]", "", "input[1]", "invalid_value"),
        ("null", "", "input", "missing_required_parameter"),
        ("7", "", "input", "invalid_type"),
        (r#"["a",7]"#, "", "input", "invalid_type"),
        ("[7,-1]", "", "input[1]", "invalid_value"),
        ("[7,1.5]", "", "input[1]", "invalid_type"),
        ("[[2147483648]]", "", "input[0][0]", "invalid_value"),
        ("[1e300]", "", "input[0]", "invalid_value"),
        (r#""a\u0000b""#, "", "input", "invalid_value"),
        (r#"["a","b","c"]"#, "", "input", "invalid_value"),
        (&long, "", "input", "invalid_value"),
        (&tokens, "", "input", "invalid_value"),
        (
            r#""a""#,
            r#","dimensions":0"#,
            "dimensions",
            "invalid_value",
        ),
        (
            r#""a""#,
            r#","encoding_format":"hex""#,
            "encoding_format",
            "invalid_value",
        ),
    ];
    for (input, fields, param, code) in refusals {
        let body = format!(r#"{{"model":"tiny","input":{input}{fields}}}"#);
        let answer = server.post(PATH, &body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        let (_, blamed, found) = answer.error();
        assert_eq!((blamed.as_deref(), &*found), (Some(param), code), "{body}");
    }
    let unknown = server.post(PATH, r#"{"model":"none","input":"a"}"#).await;
    assert_eq!(
        (unknown.status, unknown.error().2),
        (404, "model_not_found".to_owned())
    );
    let nameless = server.post(PATH, r#"{"input":"a"}"#).await;
    assert_eq!(nameless.error().2, "missing_required_parameter");
    assert!(server.embedded.try_recv().is_err(), "nothing was submitted");
    server.shut_down().await;
}

#[tokio::test]
async fn each_failure_has_its_code() {
    let server = server().await;
    type Rows = fn() -> Result<PooledRows, EmbeddingError>;
    let failures: [(Rows, u16, &str, &str); 5] = [
        (
            || {
                Err(EmbeddingError::NoHiddenStates {
                    model: "m".to_owned(),
                })
            },
            400,
            "model",
            "no_hidden_states",
        ),
        (
            || Err(EmbeddingError::TooFewColumns { columns: 3 }),
            400,
            "dimensions",
            "invalid_value",
        ),
        (
            || {
                let error = GenerationError::ContextLengthExceeded {
                    prompt_tokens: 9,
                    limit_tokens: 8,
                };
                Err(EmbeddingError::Input {
                    index: 1,
                    error: LibraryError::Unavailable(error),
                })
            },
            400,
            "input[1]",
            "context_length_exceeded",
        ),
        (
            || {
                Ok(PooledRows {
                    rows: vec![vec![1.0, f32::NAN]],
                    prompt_tokens: Some(1),
                })
            },
            500,
            "input[0]",
            "embedding_not_finite",
        ),
        (
            || {
                Ok(PooledRows {
                    rows: vec![vec![1.0], vec![0.0]],
                    prompt_tokens: Some(1),
                })
            },
            500,
            "input[1]",
            "embedding_not_finite",
        ),
    ];
    for (rows, status, param, code) in failures {
        server.set_rows(move |_| rows());
        // An input that is no list is blamed without a place in one.
        let alone = param.split('[').next();
        for (input, param) in [
            (r#"["a"]"#, Some(param)),
            ("[[5]]", Some(param)),
            (r#""a""#, alone),
            ("[5]", alone),
        ] {
            let body = format!(r#"{{"model":"tiny","input":{input}}}"#);
            let answer = server.post(PATH, &body).await;
            assert_eq!(answer.status, status, "{}", answer.text());
            let (_, blamed, found) = answer.error();
            assert_eq!((blamed.as_deref(), &*found), (param, code), "{input}");
        }
    }
    server.shut_down().await;
}
