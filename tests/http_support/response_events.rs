//! Streams of numbered events as OpenAI's responses have them.

use serde_json::{Value, json};

use super::Answer;

/// What a stream of `/v1/responses` said, once its form was checked.
#[derive(Debug, Default, PartialEq)]
pub struct HeardResponse {
    /// The response at its end, whose output is what clients put together of the events.
    pub response: Value,
    pub error: Option<Value>,
    /// Items as they were put together.
    items: Vec<Value>,
}

/// Where a stream is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Start,
    Created,
    Queued,
    BetweenItems,
    /// Its content has yet to begin, if it is to have any.
    ItemAdded,
    InItem,
    TextDone,
    PartDone,
    Failing,
    End,
}

/// Every key that a response has, in the order of their names.
const KEYS: [&str; 32] = [
    "background",
    "completed_at",
    "created_at",
    "error",
    "frequency_penalty",
    "id",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "object",
    "output",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "status",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "usage",
    "user",
];

/// Whether a response has every key, and none besides.
pub fn is_whole_resource(response: &Value) {
    let keys = response.as_object().expect("a response").keys();
    let mut keys: Vec<&str> = keys.map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, KEYS, "{response}");
    assert_eq!(response["object"], "response");
    let id = response["id"].as_str().expect("an id");
    assert!(id.starts_with("resp_"), "{id}");
}

/// Walks over the events: each has its name, JSON of that type and the next number; a response begins once, items
/// follow each other by their index and none lies in another, what is done is what its deltas came to, and exactly
/// one event ends the stream, with nothing behind it but the mark of its end.
pub fn heard_response(answer: &Answer) -> HeardResponse {
    assert_eq!(
        answer.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    heard_response_in(answer.text())
}

/// The same of a stream's text.
pub fn heard_response_in(text: &str) -> HeardResponse {
    let events = text.strip_suffix("data: [DONE]\n\n").expect("the mark");
    let mut heard = HeardResponse::default();
    let mut at = At::Start;
    for (number, event) in events.trim_end_matches('\n').split("\n\n").enumerate() {
        let lines: Vec<&str> = event.split('\n').collect();
        let [name, data] = lines[..] else {
            panic!("not two lines: {event:?}")
        };
        let name = name.strip_prefix("event: ").expect("a name");
        let data = data.strip_prefix("data: ").expect("data");
        let data: Value = serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {event}"));
        assert_eq!(data["type"], name, "{event}");
        assert_eq!(data["sequence_number"], number, "{event}");
        assert_ne!(at, At::End, "behind the end: {event}");
        at = heard.next(at, name, &data);
    }
    assert_eq!(at, At::End, "{text}");
    heard
}

impl HeardResponse {
    fn next(&mut self, at: At, name: &str, data: &Value) -> At {
        match (at, name) {
            (At::Start, "response.created") => {
                let response = &data["response"];
                let in_background = response["background"] == true;
                self.response = response.clone();
                self.is_begun(
                    data,
                    if in_background {
                        "queued"
                    } else {
                        "in_progress"
                    },
                );
                At::Created
            }
            (At::Created, "response.queued") => {
                self.is_begun(data, "queued");
                At::Queued
            }
            (At::Created | At::Queued, "response.in_progress") => {
                let in_background = self.response["background"] == true;
                assert_eq!(in_background, at == At::Queued, "{data}");
                self.response["status"] = "in_progress".into();
                self.is_begun(data, "in_progress");
                At::BetweenItems
            }
            (At::BetweenItems, "response.output_item.added") => {
                assert_eq!(data["output_index"], self.items.len(), "{data}");
                let item = data["item"].clone();
                assert_eq!(item["status"], "in_progress", "{data}");
                let kind = item["type"].as_str().expect("a type");
                match kind {
                    "message" | "reasoning" => assert_eq!(item["content"], json!([]), "{data}"),
                    "function_call" => assert_eq!(item["arguments"], "", "{data}"),
                    other => panic!("{other}"),
                }
                let is_call = kind == "function_call";
                self.items.push(item);
                match is_call {
                    true => At::InItem,
                    false => At::ItemAdded,
                }
            }
            (At::ItemAdded, "response.content_part.added") => {
                self.place(data, true);
                let part = data["part"].clone();
                assert_eq!(part["text"], "", "{data}");
                self.last()["content"] = json!([part]);
                At::InItem
            }
            (At::InItem, "response.output_text.delta") => {
                self.delta(data, "message", "/content/0/text", true)
            }
            (At::InItem, "response.reasoning_text.delta") => {
                self.delta(data, "reasoning", "/content/0/text", true)
            }
            (At::InItem, "response.function_call_arguments.delta") => {
                self.delta(data, "function_call", "/arguments", false)
            }
            (At::InItem, "response.output_text.done" | "response.reasoning_text.done") => {
                self.place(data, true);
                assert_eq!(self.last()["content"][0]["text"], data["text"], "{data}");
                At::TextDone
            }
            (At::InItem, "response.function_call_arguments.done") => {
                self.place(data, false);
                let item = self.last();
                assert_eq!(
                    (&item["arguments"], &item["name"]),
                    (&data["arguments"], &data["name"]),
                    "{data}"
                );
                At::PartDone
            }
            (At::TextDone, "response.content_part.done") => {
                self.place(data, true);
                assert_eq!(self.last()["content"][0], data["part"], "{data}");
                At::PartDone
            }
            (At::PartDone, "response.output_item.done") => {
                assert_eq!(data["output_index"], self.items.len() - 1, "{data}");
                let item = &data["item"];
                let status = item["status"].as_str().expect("a status");
                assert!(["completed", "incomplete"].contains(&status), "{data}");
                let last = self.last();
                last["status"] = status.into();
                if item["type"] == "reasoning" {
                    last["encrypted_content"] = item["encrypted_content"].clone();
                }
                assert_eq!(last, item);
                At::BetweenItems
            }
            (At::BetweenItems | At::Queued, "error") => {
                assert_eq!(data["error"]["code"], data["code"], "{data}");
                assert_eq!(data["error"]["message"], data["message"], "{data}");
                self.error = Some(data.clone());
                At::Failing
            }
            (At::Failing, "response.failed") => self.end(data, "failed"),
            (At::BetweenItems | At::Queued, "response.failed") => self.end(data, "cancelled"),
            (At::BetweenItems, "response.completed") => self.end(data, "completed"),
            (At::BetweenItems, "response.incomplete") => self.end(data, "incomplete"),
            (at, name) => panic!("{name} where the stream is {at:?}"),
        }
    }

    /// There is no answer yet, and nothing else has changed since the first event.
    fn is_begun(&self, data: &Value, status: &str) {
        let response = &data["response"];
        is_whole_resource(response);
        let state = (&response["status"], &response["output"], &response["usage"]);
        assert_eq!(state, (&status.into(), &json!([]), &Value::Null));
        assert_eq!(&self.response, response);
    }

    fn end(&mut self, data: &Value, status: &str) -> At {
        let response = &data["response"];
        is_whole_resource(response);
        assert_eq!(response["status"], status, "{data}");
        assert_eq!(response["output"], json!(self.items), "{data}");
        for name in ["id", "created_at", "model", "tools", "metadata"] {
            assert_eq!(self.response[name], response[name], "{data}");
        }
        let ended = (
            &response["completed_at"],
            &response["incomplete_details"],
            &response["error"],
        );
        assert_eq!(ended.0.is_u64(), status == "completed", "{data}");
        assert_eq!(ended.1.is_object(), status == "incomplete", "{data}");
        assert_eq!(ended.2.is_object(), status == "failed", "{data}");
        self.response = response.clone();
        At::End
    }

    fn delta(&mut self, data: &Value, kind: &str, text: &str, has_content: bool) -> At {
        self.place(data, has_content);
        let new = data["delta"].as_str().expect("a text");
        assert!(!new.is_empty(), "{data}");
        let item = self.last();
        assert_eq!(item["type"], kind, "{data}");
        let whole = item.pointer_mut(text).expect("a text");
        *whole = format!("{}{new}", whole.as_str().expect("a text")).into();
        if kind == "message" {
            let more = data["logprobs"].as_array().expect("a list").clone();
            let logprobs = item.pointer_mut("/content/0/logprobs");
            let logprobs = logprobs.and_then(Value::as_array_mut);
            logprobs.expect("a list").extend(more);
        }
        At::InItem
    }

    /// An event is about the last item.
    fn place(&mut self, data: &Value, has_content: bool) {
        assert_eq!(data["output_index"], self.items.len() - 1, "{data}");
        assert_eq!(data["item_id"], self.last()["id"], "{data}");
        let content_index = data.get("content_index");
        assert_eq!(content_index, has_content.then_some(&json!(0)), "{data}");
    }

    fn last(&mut self) -> &mut Value {
        self.items.last_mut().expect("an item")
    }
}
