//! An answer's end waits a while for the context that goes with it, and is the same end where none can be made. A context
//! is of the model that made it, as it was then.

use crate::http_support::*;
use rkllmd::generation::ReplyEvent;
use rkllmd::settings::Settings;
use serde_json::{Value, json};

const GENERATE: &str = "/api/generate";

/// Its model's tokenizer is known.
async fn server(events: fn() -> Vec<ReplyEvent>) -> Server {
    let server = Server::replaying(Settings::default(), events).await;
    server.set_tiny(|tiny| tiny.tokenizer_json = Some("tokenizer.json".into()));
    server
}

async fn whose_answer_is_never_encoded() -> Server {
    server(|| vec![started(&[]), text(NEVER_ENCODED), finished()]).await
}

fn body(stream: bool) -> String {
    json!({"model": "tiny", "prompt": "hi", "stream": stream}).to_string()
}

fn is_an_end_without_context(last: &Value) {
    assert_eq!(last["done"], true, "{last}");
    assert_eq!(last["done_reason"], "stop", "{last}");
    assert!(last.get("context").is_none(), "{last}");
}

#[tokio::test]
async fn an_end_is_told_although_its_context_is_never_made() {
    let server = whose_answer_is_never_encoded().await;
    let (whole, streamed) = tokio::join!(
        server.post(GENERATE, body(false)),
        server.post(GENERATE, body(true))
    );
    assert_eq!(whole.status, 200, "{}", whole.text());
    assert_eq!(whole.json()["response"], NEVER_ENCODED);
    is_an_end_without_context(&whole.json());
    let streamed = said(&streamed);
    assert_eq!(streamed.content, NEVER_ENCODED);
    is_an_end_without_context(&streamed.last.expect("an end"));
    server.shut_down().await;
}

#[tokio::test]
async fn who_aborts_what_has_ended_ends_no_more_than_the_wait_for_its_context() {
    let server = whose_answer_is_never_encoded().await;
    let mut client = server.client().await;
    client.send(post(GENERATE, body(true))).await;
    let mut answer = within("a head", client.head()).await;
    // All that the model says is there.
    answer.body = within("its text", client.chunk()).await;
    let id = answer.header("x-request-id").expect("an id");
    let head = format!("DELETE /v1/admin/requests/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let aborted = server.ask(head).await;
    assert_eq!(aborted.status, 200, "{}", aborted.text());
    loop {
        let chunk = within("the rest", client.chunk()).await;
        if chunk.is_empty() {
            break;
        }
        answer.body.extend_from_slice(&chunk);
    }
    let said = said(&answer);
    assert_eq!((said.content.as_str(), said.error), (NEVER_ENCODED, None));
    is_an_end_without_context(&said.last.expect("an end"));
    server.shut_down().await;
}

#[tokio::test]
async fn a_context_is_of_its_model_as_it_was() {
    let server = server(|| vec![started(&[]), text("x"), finished()]).await;
    let first = server.post(GENERATE, body(false)).await;
    let context = first.json()["context"].clone();
    assert!(context.is_array(), "{}", first.text());
    let next = json!({"model": "tiny", "prompt": "hi", "stream": false, "context": context});
    let served = server.post(GENERATE, next.to_string()).await;
    assert_eq!(served.status, 200, "{}", served.text());
    // Another file by the same name, to whose tokens the ids may belong.
    server.set_tiny(|tiny| tiny.facts.size_bytes += 1);
    let refused = server.post(GENERATE, next.to_string()).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(refused.json()["param"], "context", "{}", refused.text());
    server.shut_down().await;
}
