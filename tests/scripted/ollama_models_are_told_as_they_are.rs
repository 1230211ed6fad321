//! What Ollama's clients are told of the server and its models: what is known, and nothing that is not.

use std::sync::Arc;

use crate::http_support::*;
use rkllmd::settings::Settings;
use rkllmd::supervisor::{Phase, RuntimeFacts};
use serde_json::{Value, json};

async fn server() -> Server {
    Server::replaying(Settings::default(), Vec::new).await
}

#[tokio::test]
async fn a_client_that_looks_for_ollama_finds_it() {
    let server = server().await;
    let root = server.get("/").await;
    assert_eq!((root.status, root.text()), (200, "Ollama is running"));
    let mut client = server.client().await;
    for path in ["/", "/api/version", "/api/tags"] {
        client
            .send(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .await;
        let answer = client.answer_to("HEAD").await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let version = server.get("/api/version").await.json();
    let numbers: Vec<u32> = version["version"]
        .as_str()
        .expect("a text")
        .split('.')
        .map(|number| number.parse().expect("numbers alone"))
        .collect();
    assert!(numbers >= vec![0, 6, 4] && numbers.len() == 3, "{version}");
    assert_eq!(version["rkllmd"], env!("CARGO_PKG_VERSION"));
    server.shut_down().await;
}

#[tokio::test]
async fn installed_models_are_listed_with_what_is_known() {
    let server = server().await;
    server.status.send_replace(snapshot([]));
    let tags = server.get("/api/tags").await.json();
    let models = tags["models"].as_array().expect("a list");
    let names: Vec<&str> = models.iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "test/model-1.0:latest",
            "raw:latest",
            "picky:latest",
            "thinker:latest"
        ]
    );
    let digest = models[0]["digest"].as_str().expect("a text").to_owned();
    // Ollama's command line shows the first twelve.
    assert!(
        digest.len() == 64 && digest.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{digest}"
    );
    assert_ne!(models[1]["digest"], models[0]["digest"]);
    assert_eq!(
        models[0],
        json!({
            "name": "test/model-1.0:latest", "model": "test/model-1.0:latest",
            "modified_at": "2023-11-14T22:13:20Z", "size": 4096, "digest": digest,
            "details": {"parent_model": "", "format": "gguf", "family": "", "families": [],
                "parameter_size": "", "quantization_level": "", "context_length": 4096},
            "capabilities": ["completion"],
        })
    );
    assert_eq!(
        models[3]["capabilities"],
        json!(["completion", "tools", "thinking"])
    );
    server.shut_down().await;
}

#[tokio::test]
async fn loaded_models_are_those_that_are_loaded() {
    let server = server().await;
    let mut status = status_of(Phase::Ready);
    status.facts = Some(Arc::new(RuntimeFacts {
        context_length: Some(2048),
        model_dtype: Some("W8A8".to_owned()),
        ..RuntimeFacts::default()
    }));
    server.status.send_replace(snapshot([
        ("test/model-1.0", status),
        ("raw", status_of(Phase::Loading)),
    ]));
    let running = server.get("/api/ps").await.json();
    let models = running["models"].as_array().expect("a list");
    assert_eq!(models.len(), 1, "{running}");
    let model = &models[0];
    assert_eq!(model["model"], "test/model-1.0:latest");
    assert_eq!(
        (
            &model["context_length"],
            &model["details"]["quantization_level"]
        ),
        (&2048.into(), &"W8A8".into())
    );
    assert!(
        model.get("size").is_none() && model.get("size_vram").is_none(),
        "not measured: {model}"
    );
    // Of times in this form the later one is the greater text.
    let expires = model["expires_at"].as_str().expect("a time");
    assert!(
        expires.ends_with('Z') && expires > "2100-01-01T00:00:00Z",
        "no time unloads it"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn one_model_is_shown_by_any_of_its_names() {
    let server = server().await;
    for body in [
        r#"{"model":"TINY:latest"}"#,
        r#"{"name":"test/model-1.0","verbose":true}"#,
        r#"{"model":"","name":"Test/Model-1.0:LATEST"}"#,
    ] {
        let shown = server.post("/api/show", body).await;
        assert_eq!(shown.status, 200, "{body}: {}", shown.text());
        let shown: Value = shown.json();
        assert_eq!(
            shown["model_info"]["general.architecture"], "gguf",
            "{shown}"
        );
        assert_eq!(shown["capabilities"], json!(["completion"]));
        assert_eq!(shown["details"]["format"], "gguf");
        assert_eq!(shown["modelfile"], "FROM test/model-1.0:latest\n");
        assert_eq!(shown["modified_at"], "2023-11-14T22:13:20Z");
        assert!(
            shown.get("template").is_none() && shown.get("license").is_none(),
            "not known"
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_model_is_asked_by_the_name_that_is_listed() {
    let server = Server::replaying(Settings::default(), || vec![text("x"), finished()]).await;
    let tags = server.get("/api/tags").await.json();
    let listed = tags["models"].as_array().expect("a list");
    for model in listed {
        let name = model["name"].as_str().expect("a name");
        for name in [name.to_owned(), name.to_uppercase()] {
            let answer = server.get(&format!("/v1/models/{name}")).await;
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            let body = json!({"model": name, "prompt": "a"}).to_string();
            let answer = server.post(TEXT, body).await;
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        }
    }
    for name in ["test/model-1.0:latest", "TINY:latest", "Thinker"] {
        let body = json!({"model": name, "messages": [{"role": "user", "content": "hi"}]});
        let answer = server.post(CHAT, body.to_string()).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_context_is_told_before_the_model_is_loaded_as_after() {
    let server = server().await;
    server.status.send_replace(snapshot([]));
    let shown = server.post("/api/show", r#"{"model":"tiny"}"#).await.json();
    assert_eq!(shown["details"]["context_length"], 4096, "{shown}");
    assert_eq!(shown["model_info"]["gguf.context_length"], 4096, "{shown}");
    let parameters = shown["parameters"].as_str().expect("a text");
    assert!(
        parameters
            .lines()
            .any(|line| line.split_whitespace().eq(["num_ctx", "4096"])),
        "{parameters}"
    );
    server.shut_down().await;
}
