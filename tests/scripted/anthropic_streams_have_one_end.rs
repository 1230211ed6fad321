//! Random replies through Anthropic's API: whatever a model writes and wherever it fails, the events are in
//! order, blocks do not overlap, the stream has one end, and a whole answer says the same.

use crate::http_support::*;
use crate::random_replies::{End, Happens, whatever_a_model_writes};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The ids of calls are minted for each answer.
fn without_ids(content: &Value) -> Value {
    let mut content = content.clone();
    for block in content.as_array_mut().expect("blocks") {
        let id = block.as_object_mut().expect("a block").remove("id");
        assert_eq!(id.is_some(), block["type"] == "tool_use", "{block}");
    }
    content
}

#[test]
fn whatever_a_model_writes_the_events_have_one_end() {
    whatever_a_model_writes(async |server, script, end| {
        let mut body = json!({"model": "tiny", "max_tokens": 9, "stream": true,
            "messages": [{"role": "user", "content": "hi"}]});
        let streamed = server.post("/v1/messages", body.to_string()).await;
        body["stream"] = false.into();
        let whole = server.post("/v1/messages", body.to_string()).await;
        if end == End::Failure {
            prop_assert_eq!(whole.status, 503);
            prop_assert_eq!(&whole.json()["error"]["code"], "run_failed");
            if script.is_empty() {
                prop_assert_eq!(streamed.status, 503);
                return Ok(());
            }
        }
        let heard = heard(&streamed);
        prop_assert_eq!(heard.error.is_some(), end == End::Failure);
        let mut said = String::new();
        let mut thought = String::new();
        for happens in script {
            match happens {
                Happens::Said(text) => said.push_str(text),
                Happens::Thought(text) => thought.push_str(text),
                Happens::Called(_) => {}
            }
        }
        let of = |name: &str| {
            let blocks = heard.message["content"].as_array().into_iter().flatten();
            let texts = blocks.filter_map(|block| block[name].as_str());
            texts.collect::<String>()
        };
        prop_assert_eq!((of("text"), of("thinking")), (said, thought));
        if end == End::Failure {
            return Ok(());
        }
        let is_call = |happens: &Happens| matches!(happens, Happens::Called(_));
        // What is no object is a call in a stream, and a text in a whole answer.
        let is_object = |happens: &Happens| match happens {
            Happens::Called(deltas) => !deltas.concat().starts_with('['),
            _ => true,
        };
        let cut = end == End::Length && script.last().is_some_and(is_call);
        let reason = |has_calls: bool| match (end, has_calls) {
            (End::Length, _) => "max_tokens",
            (_, true) => "tool_use",
            (_, false) => "end_turn",
        };
        let whole = whole.json();
        let calls = script.iter().filter(|happens| is_call(happens));
        let in_stream = calls.clone().count() > 0;
        prop_assert_eq!(&heard.message["stop_reason"], reason(in_stream));
        let in_whole = calls.filter(|happens| is_object(happens)).count() > 0;
        prop_assert_eq!(&whole["stop_reason"], reason(in_whole));
        prop_assert_eq!(&whole["usage"], &heard.message["usage"]);
        if !cut && script.iter().all(is_object) {
            let content = without_ids(&heard.message["content"]);
            prop_assert_eq!(without_ids(&whole["content"]), content);
        }
        Ok(())
    });
}
