//! What Ollama's clients get for texts: vectors of the length 1, and none for no text.

use crate::http_support::*;
use rkllmd::generation::KeepAlive;
use rkllmd::library_calls::PooledRows;
use rkllmd::settings::Settings;
use serde_json::json;

#[tokio::test]
async fn embeddings_are_vectors_of_the_length_1() {
    let mut server = Server::replaying(Settings::default(), Vec::new).await;
    server.set_rows(|request| {
        Ok(PooledRows {
            rows: vec![vec![3.0, 4.0]; request.inputs.len()],
            prompt_tokens: Some(7),
        })
    });
    let body = json!({"model": "Tiny", "input": ["a", "b"], "truncate": true, "dimensions": 2});
    let answer = server.post("/api/embed", body.to_string()).await;
    let embedded = answer.json();
    assert_eq!(embedded["embeddings"], json!([[0.6, 0.8], [0.6, 0.8]]));
    assert_eq!(
        (&embedded["model"], &embedded["prompt_eval_count"]),
        (&"Tiny".into(), &7.into())
    );
    assert!(embedded["total_duration"].as_u64().is_some());
    assert_eq!(
        answer.header("x-rkllmd-not-applied"),
        None,
        "nothing is too long"
    );
    assert_eq!(
        server
            .embedded
            .try_recv()
            .expect("it was asked")
            .inputs
            .len(),
        2
    );
    // No text has no embedding.
    for input in [json!(""), json!([])] {
        let body = json!({"model": "tiny", "input": input});
        let answer = server.post("/api/embed", body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let embedded = answer.json();
        assert_eq!(embedded["embeddings"], json!([]));
        assert_eq!(embedded["prompt_eval_count"], 0);
        assert!(
            server.embedded.try_recv().is_err(),
            "the runtime is not asked"
        );
    }
    let body = json!({"model": "tiny", "prompt": "a", "keep_alive": "1h"});
    let answer = server.post("/api/embeddings", body.to_string()).await;
    assert_eq!(answer.json(), json!({"embedding": [0.6, 0.8]}));
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    let kept = server.embedded.try_recv().expect("it was asked").keep_alive;
    let an_hour = std::time::Duration::from_secs(3600);
    assert_eq!(kept, Some(KeepAlive::For(an_hour)));
    server.shut_down().await;
}
