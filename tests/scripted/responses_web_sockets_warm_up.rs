//! Messages on WebSockets that ask for no answer: the prompt is evaluated, and what was sent is there to go on from.

use crate::http_support::*;
use crate::responses_web_sockets_support::*;
use rkllmd::generation::{FinishReason, GenerationRequest};
use rkllmd::settings::Settings;
use serde_json::{Value, json};

/// A request for no token is answered with none.
async fn server() -> Server {
    Server::start(Settings::default(), |request| {
        Ok(replay(match request.max_new_tokens {
            Some(0) => vec![started(&[]), finished_unmeasured(FinishReason::Length)],
            _ => answer(),
        }))
    })
    .await
}

fn submitted(server: &mut Server) -> GenerationRequest {
    server.requests.try_recv().expect("it was submitted")
}

/// A message that is to be evaluated and not answered.
fn warm_up(fields: &Value) -> Value {
    let mut message = create(fields.clone());
    message["generate"] = false.into();
    message
}

#[tokio::test]
async fn a_warm_up_evaluates_its_prompt_and_a_message_goes_on_from_it() {
    let mut server = server().await;
    let mut socket = socket(&server).await;
    for store in [false, true] {
        let format = json!({"type": "json_schema", "name": "n",
            "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}});
        let fields = json!({"model": "thinker", "store": store, "instructions": "Be brief.",
            "text": {"format": format}, "max_output_tokens": 20});
        let prepared = answered(&mut socket, &warm_up(&fields)).await;
        assert_eq!(prepared["status"], "completed", "{prepared}");
        let no_items = json!([]);
        assert_eq!(prepared["output"], no_items);
        assert_eq!(prepared["max_output_tokens"], 20);
        let request = submitted(&mut server);
        assert_eq!(request.max_new_tokens, Some(0));
        assert!(request.constraint.is_none());
        let warmed = request.prompt;
        // Nothing is new: as Codex goes on from what it has sent beforehand.
        let mut next = create(fields);
        next["input"] = no_items;
        next["previous_response_id"] = prepared["id"].clone();
        let response = answered(&mut socket, &next).await;
        assert_eq!(response["previous_response_id"], prepared["id"]);
        assert_ne!(response["output"], json!([]));
        let request = submitted(&mut server);
        assert_eq!(request.max_new_tokens, Some(20));
        assert_eq!(request.prompt, warmed);
        assert!(request.constraint.is_some());
        // It is found as others are, or by its socket alone and once.
        let path = format!("{PATH}/{}", prepared["id"].as_str().expect("an id"));
        let shown = server.get(&path).await;
        match store {
            true => assert_eq!(shown.json()["output"], json!([])),
            false => assert_eq!(shown.status, 404),
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_told_before_all_turns_may_be_evaluated_alone() {
    let mut server = server().await;
    let mut socket = socket(&server).await;
    let fields = json!({"model": "thinker", "input": [], "instructions": "Be brief.",
        "store": false});
    for input in [None, Some(&Value::Null)] {
        let message = with(&warm_up(&fields), "/input", input);
        answered(&mut socket, &message).await;
        assert!(submitted(&mut server).prompt.contains("Be brief."));
    }
    let prepared = answered(&mut socket, &warm_up(&fields)).await;
    assert_eq!(prepared["status"], "completed", "{prepared}");
    assert_eq!(prepared["output"], json!([]));
    assert!(submitted(&mut server).prompt.contains("Be brief."));
    let mut whole = create(fields);
    whole["input"] = "hi".into();
    let mut chained = whole.clone();
    chained["previous_response_id"] = prepared["id"].clone();
    let mut prompts = Vec::new();
    for message in [chained, whole] {
        answered(&mut socket, &message).await;
        prompts.push(submitted(&mut server).prompt);
    }
    assert_eq!(prompts[0], prompts[1]);
    // Without them there is nothing to evaluate, and without `generate` nothing to answer.
    let nothing = warm_up(&json!({"input": []}));
    let unanswerable = create(json!({"input": [], "instructions": "Be brief."}));
    for message in [nothing, unanswerable] {
        socket.say(&message.to_string()).await;
        let told = refused(&mut socket).await;
        assert_eq!(
            told,
            (400, "invalid_value".to_owned(), "input".into()),
            "{message}"
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_warm_up_tells_of_no_token_how_likely_it_was() {
    let mut server = server().await;
    let mut socket = socket(&server).await;
    let fields = json!({"top_logprobs": 3, "include": ["message.output_text.logprobs"]});
    let prepared = answered(&mut socket, &warm_up(&fields)).await;
    assert_eq!(prepared["status"], "completed");
    assert!(submitted(&mut server).draws.logprobs.is_none());
    server.shut_down().await;
}
