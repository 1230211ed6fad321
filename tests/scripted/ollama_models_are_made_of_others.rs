//! Models that requests make of installed ones serve every dialect, and differ in what a request does not say.

use crate::http_support::*;
use rkllmd::generation::GenerationRequest;
use rkllmd::settings::{ControlTokenPolicy, Settings};
use serde_json::{Value, json};

async fn server_with(settings: Settings) -> Server {
    Server::replaying(settings, || vec![started(&[]), text("x"), finished()]).await
}

async fn server() -> Server {
    server_with(Settings::default()).await
}

async fn make(server: &Server, path: &str, body: Value) {
    let answer = server.post(path, body.to_string()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
}

async fn asked(server: &mut Server, path: &str, body: Value) -> (GenerationRequest, Value) {
    let answer = server.post(path, body.to_string()).await;
    assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
    let request = server.requests.try_recv().expect("it was submitted");
    (request, answer.json())
}

async fn deleted(server: &Server, name: &str) -> Answer {
    let body = json!({"model": name}).to_string();
    let head = "DELETE /api/delete HTTP/1.1\r\nhost: localhost\r\ncontent-length";
    server
        .ask(format!("{head}: {}\r\n\r\n{body}", body.len()))
        .await
}

fn kind() -> Value {
    json!({"model": "Kind:latest", "from": "TINY", "system": "Be kind.",
        "messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}],
        "parameters": {"temperature": 0.5, "num_predict": 7, "stop": ["END"], "seed": 3, "num_ctx": 9},
        "license": ["MIT", "Apache"], "stream": false})
}

#[tokio::test]
async fn every_dialect_serves_them() {
    let mut server = server().await;
    let made = server.post("/api/create", kind().to_string()).await;
    assert_eq!(made.json(), json!({"status": "success"}));
    assert_eq!(made.header("x-rkllmd-not-applied"), Some("num_ctx"));
    let hi = json!([{"role": "user", "content": "hi"}]);
    let first = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\none<|im_end|>\n\
                 <|im_start|>assistant\ntwo<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n\
                 <|im_start|>assistant\n";
    for (path, body, name) in [
        (
            "/api/chat",
            json!({"model": "kind", "messages": hi, "stream": false}),
            "kind",
        ),
        (
            "/api/generate",
            json!({"model": "KIND:latest", "prompt": "hi", "stream": false}),
            "KIND:latest",
        ),
        (
            "/v1/chat/completions",
            json!({"model": "kind", "messages": hi}),
            "Kind",
        ),
    ] {
        let (request, answer) = asked(&mut server, path, body).await;
        assert_eq!(&*request.prompt, first, "{path}");
        assert_eq!(
            &*request.model, "test/model-1.0",
            "it has no worker of its own"
        );
        assert_eq!(request.sampling.temperature, Some(0.5), "{path}");
        assert_eq!(
            (request.max_new_tokens, request.draws.seed),
            (Some(7), Some(3)),
            "{path}"
        );
        assert_eq!(request.stop, ["END"], "{path}");
        assert_eq!(answer["model"], name, "{path}");
    }
    let template = json!({"model": "kind", "messages": hi}).to_string();
    let template = server.post("/apply-template", template).await.json();
    assert_eq!(template["prompt"], first);
    // What a request says goes first.
    let (request, _) = asked(&mut server, "/api/chat", json!({
        "model": "kind", "stream": false,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "options": {"temperature": 1.5, "num_predict": 9, "stop": "STOP", "seed": 4},
    }))
    .await;
    assert!(
        request
            .prompt
            .starts_with("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\none")
    );
    assert!(!request.prompt.contains("Be kind."));
    assert_eq!(request.sampling.temperature, Some(1.5));
    assert_eq!(
        (request.max_new_tokens, request.draws.seed),
        (Some(9), Some(4))
    );
    assert_eq!(request.stop, ["STOP"]);
    // Also that there is to be none.
    for (path, body) in [
        (
            "/api/chat",
            json!({"stream": false, "options": {"stop": [], "seed": -1}}),
        ),
        ("/v1/chat/completions", json!({"stop": []})),
        (
            "/v1/messages",
            json!({"stop_sequences": [], "max_tokens": 5}),
        ),
    ] {
        let mut body = body;
        body["model"] = json!("kind");
        body["messages"] = hi.clone();
        let (request, _) = asked(&mut server, path, body).await;
        assert!(request.stop.is_empty(), "{path}: {:?}", request.stop);
        let seed = (path != "/api/chat").then_some(3);
        assert_eq!(request.draws.seed, seed, "{path}");
    }
    // Its seed is enough for an answer that repeats.
    let repeats = json!({"model": "kind", "messages": hi, "deterministic": true});
    let (request, _) = asked(&mut server, "/v1/chat/completions", repeats).await;
    assert!(request.draws.deterministic);
    // And the model that it was made of is as it was.
    let (request, _) = asked(
        &mut server,
        "/api/chat",
        json!({"model": "tiny", "messages": hi, "stream": false}),
    )
    .await;
    assert!(!request.prompt.contains("kind") && request.sampling.temperature.is_none());
    server.shut_down().await;
}

#[tokio::test]
async fn what_they_are_run_with_is_told_alike() {
    let server = server().await;
    make(
        &server,
        "/api/create",
        json!({"model": "endless", "from": "tiny", "stream": false,
            "parameters": {"num_predict": -1, "stop": ["the"], "temperature": 1.5}}),
    )
    .await;
    let props = server.get("/props?model=endless").await.json();
    assert_eq!(props["model_alias"], "endless");
    let params = &props["default_generation_settings"]["params"];
    assert_eq!(
        (
            &params["n_predict"],
            &params["stop"],
            &params["temperature"]
        ),
        (&json!(-1), &json!(["the"]), &json!(1.5))
    );
    let shown = server.post("/api/show", r#"{"model":"endless"}"#.to_owned());
    let shown = shown.await.json();
    let lines: Vec<Vec<_>> = shown["parameters"]
        .as_str()
        .expect("a text")
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(lines.contains(&vec!["num_predict", "-1"]), "{lines:?}");
    server.shut_down().await;
}

#[tokio::test]
async fn every_dialect_lists_them_until_they_are_removed() {
    let server = server().await;
    make(&server, "/api/create", kind()).await;
    make(
        &server,
        "/api/copy",
        json!({"source": "kind", "destination": "team/kinder:2"}),
    )
    .await;
    let shown = server
        .post("/api/show", r#"{"model":"team/kinder:2"}"#)
        .await
        .json();
    assert_eq!(shown["details"]["parent_model"], "test/model-1.0:latest");
    assert_eq!(
        (&shown["system"], &shown["license"]),
        (&json!("Be kind."), &json!("MIT\nApache"))
    );
    assert_eq!(shown["messages"], kind()["messages"]);
    let parameters = shown["parameters"].as_str().expect("a text");
    for line in ["num_predict", "temperature", "seed", "stop"] {
        assert!(parameters.contains(line), "{parameters}");
    }
    let names = async |path: &str| {
        let list = server.get(path).await.json();
        let list = list["models"]
            .as_array()
            .or(list["data"].as_array())
            .expect("a list")
            .clone();
        let name = |it: &Value| it["name"].as_str().or(it["id"].as_str()).map(str::to_owned);
        list.iter().filter_map(name).skip(4).collect::<Vec<_>>()
    };
    assert_eq!(names("/api/tags").await, ["Kind:latest", "team/kinder:2"]);
    assert_eq!(names("/v1/models").await, ["Kind", "team/kinder:2"]);
    let one = server.get("/v1/models/team%2Fkinder:2").await.json();
    assert_eq!(one["id"], "team/kinder:2");
    // Loaded with what they are made of.
    let running = server.get("/api/ps").await.json();
    assert_eq!(running["models"].as_array().expect("a list").len(), 3);
    for name in ["KIND", "team/kinder:2"] {
        let gone = deleted(&server, name).await;
        assert_eq!(gone.status, 200, "{}", gone.text());
    }
    assert!(names("/api/tags").await.is_empty());
    let kept = deleted(&server, "tiny").await;
    assert_eq!(kept.status, 400);
    let error = kept.json()["error"].as_str().expect("a text").to_owned();
    assert!(error.contains("models folder"), "{error}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_text_that_would_be_refused_later_is_refused_now() {
    let mut settings = Settings::default();
    settings.chat.control_tokens = ControlTokenPolicy::Reject;
    let server = server_with(settings).await;
    for (field, body) in [
        ("system", json!({"system": "<|im_end|>"})),
        (
            "messages[1].content",
            json!({"system": "a", "messages": [
            {"role": "user", "content": "b"}, {"role": "user", "content": "<|im_start|>"}]}),
        ),
    ] {
        let mut whole = json!({"model": "mine", "from": "tiny"});
        whole
            .as_object_mut()
            .expect("an object")
            .extend(body.as_object().expect("one").clone());
        let refused = server.post("/api/create", whole.to_string()).await;
        assert_eq!(
            (refused.status, &refused.json()["param"]),
            (400, &json!(field))
        );
    }
    let long = json!({"model": "mine", "from": "tiny", "system": "a".repeat(4096 * 128 + 1)});
    let refused = server.post("/api/create", long.to_string()).await;
    assert_eq!(
        (refused.status, &refused.json()["param"]),
        (400, &json!("system"))
    );
    server.shut_down().await;
}
