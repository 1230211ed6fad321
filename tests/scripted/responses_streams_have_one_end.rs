//! Random replies through OpenAI's responses: whatever a model writes and wherever it fails, events are numbered
//! without a gap, items do not overlap, the stream has one end, and a whole answer says the same.

use crate::http_support::*;
use crate::random_replies::{End, Happens, whatever_a_model_writes};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Ids are minted for each answer.
fn without_ids(output: &Value) -> Value {
    let mut output = output.clone();
    for item in output.as_array_mut().expect("items") {
        let item = item.as_object_mut().expect("an item");
        for name in ["id", "call_id"] {
            item.remove(name);
        }
    }
    output
}

#[test]
fn whatever_a_model_writes_the_events_have_one_end() {
    whatever_a_model_writes(async |server, script, end| {
        let mut body = json!({"model": "tiny", "input": "hi", "stream": true});
        let streamed = server.post("/v1/responses", body.to_string()).await;
        body["stream"] = false.into();
        let whole = server.post("/v1/responses", body.to_string()).await;
        if end == End::Failure {
            prop_assert_eq!(whole.status, 503);
            prop_assert_eq!(&whole.json()["error"]["code"], "run_failed");
            if script.is_empty() {
                prop_assert_eq!(streamed.status, 503);
                return Ok(());
            }
        }
        let heard = heard_response(&streamed);
        prop_assert_eq!(heard.error.is_some(), end == End::Failure);
        let (mut said, mut thought) = (String::new(), String::new());
        let mut called = Vec::new();
        for happens in script {
            match happens {
                Happens::Said(text) => said.push_str(text),
                Happens::Thought(text) => thought.push_str(text),
                Happens::Called(deltas) => called.push(deltas.concat()),
            }
        }
        let items = heard.response["output"].as_array().expect("items");
        let of = |kind: &str| {
            let items = items.iter().filter(|item| item["type"] == kind);
            let texts = items.filter_map(|item| item["content"][0]["text"].as_str());
            texts.collect::<String>()
        };
        prop_assert_eq!((of("message"), of("reasoning")), (said, thought));
        let calls = items.iter().filter_map(|item| item["arguments"].as_str());
        let calls: Vec<&str> = calls.collect();
        prop_assert_eq!(calls.len(), called.len());
        for (told, called) in calls.iter().zip(&called) {
            // Of a function that takes nothing.
            let is_empty_object = called.is_empty() && *told == "{}";
            prop_assert!(*told == called || is_empty_object, "{told:?} {called:?}");
        }
        if end == End::Failure {
            return Ok(());
        }
        let (whole, told) = (whole.json(), &heard.response);
        is_whole_resource(&whole);
        prop_assert_eq!(without_ids(&whole["output"]), without_ids(&told["output"]));
        for name in ["status", "usage", "incomplete_details"] {
            prop_assert_eq!(&whole[name], &told[name]);
        }
        // What was answered is what is kept.
        let path = format!("/v1/responses/{}", told["id"].as_str().expect("an id"));
        prop_assert_eq!(&server.get(&path).await.json(), told);
        Ok(())
    });
}
