//! Streams of named events as Anthropic's API has them.

use serde_json::{Value, json};

use super::Answer;

/// What a stream of `/v1/messages` said, once its form was checked.
#[derive(Debug, Default, PartialEq)]
pub struct Heard {
    /// The message as clients put it together of the events.
    pub message: Value,
    pub pings: usize,
    pub error: Option<Value>,
}

/// Where a stream is.
#[derive(Debug, PartialEq)]
enum At {
    Start,
    BetweenBlocks,
    /// Of this type, with the input of a call as far as it came, and whether a signature came.
    InBlock(String, String, bool),
    Stopping,
    End,
}

/// Walks over the events: each has its name and JSON of that type; a message begins once, blocks follow each
/// other by their index and none lies in another, deltas are of their block's kind, a thought ends with one
/// signature, and exactly one event ends the stream, as an end or as an error, with nothing behind it.
pub fn heard(answer: &Answer) -> Heard {
    assert_eq!(
        answer.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    heard_in(answer.text())
}

pub fn heard_in(text: &str) -> Heard {
    assert!(text.ends_with("\n\n"), "{text:?}");
    let mut heard = Heard::default();
    let mut at = At::Start;
    for event in text.trim_end_matches('\n').split("\n\n") {
        let lines: Vec<&str> = event.split('\n').collect();
        let [name, data] = lines[..] else {
            panic!("not two lines: {event:?}")
        };
        let name = name.strip_prefix("event: ").expect("a name");
        let data = data.strip_prefix("data: ").expect("data");
        let data: Value = serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {event}"));
        assert_eq!(data["type"], name, "{event}");
        assert_ne!(at, At::End, "behind the end: {event}");
        at = heard.next(at, name, &data);
    }
    assert_eq!(at, At::End, "{text}");
    heard
}

impl Heard {
    fn next(&mut self, at: At, name: &str, data: &Value) -> At {
        let keys: Vec<&String> = data.as_object().expect("an object").keys().collect();
        match (at, name) {
            (at, "ping") => {
                assert_ne!(at, At::Start, "the message begins first");
                self.pings += 1;
                at
            }
            (_, "error") => {
                assert_eq!(keys, ["type", "error", "request_id"], "{data}");
                self.error = Some(data.clone());
                At::End
            }
            (At::Start, "message_start") => {
                assert_eq!(keys, ["type", "message"], "{data}");
                let message = &data["message"];
                assert_eq!(message["content"], json!([]), "{data}");
                assert_eq!(
                    (&message["stop_reason"], &message["stop_sequence"]),
                    (&Value::Null, &Value::Null)
                );
                for count in ["input_tokens", "output_tokens"] {
                    assert!(message["usage"][count].is_u64(), "{data}");
                }
                self.message = message.clone();
                At::BetweenBlocks
            }
            (At::BetweenBlocks, "content_block_start") => {
                assert_eq!(keys, ["type", "index", "content_block"], "{data}");
                let blocks = self.message["content"].as_array_mut().expect("blocks");
                assert_eq!(data["index"], blocks.len(), "{data}");
                let block = data["content_block"].clone();
                let kind = block["type"].as_str().expect("a type").to_owned();
                let empty = match kind.as_str() {
                    "text" => json!({"type": "text", "text": ""}),
                    "thinking" => json!({"type": "thinking", "thinking": "", "signature": ""}),
                    "tool_use" => json!({
                        "type": "tool_use", "id": block["id"], "name": block["name"], "input": {},
                    }),
                    other => panic!("{other}"),
                };
                assert_eq!(block, empty);
                blocks.push(block);
                At::InBlock(kind, String::new(), false)
            }
            (At::InBlock(kind, mut input, signed), "content_block_delta") => {
                assert_eq!(keys, ["type", "index", "delta"], "{data}");
                assert!(!signed, "a signature ends its thought: {data}");
                let block = self.block(data);
                let delta = data["delta"].as_object().expect("a delta");
                assert_eq!(delta.len(), 2, "{data}");
                let field = match (kind.as_str(), delta["type"].as_str().expect("a type")) {
                    ("text", "text_delta") => "text",
                    ("thinking", "thinking_delta") => "thinking",
                    ("thinking", "signature_delta") => "signature",
                    ("tool_use", "input_json_delta") => "partial_json",
                    other => panic!("{other:?}"),
                };
                let new = delta[field].as_str().expect("a text");
                assert!(!new.is_empty(), "{data}");
                match field {
                    "partial_json" => input.push_str(new),
                    field => {
                        let whole = format!("{}{new}", block[field].as_str().expect("a text"));
                        block[field] = whole.into();
                    }
                }
                At::InBlock(kind, input, field == "signature")
            }
            (At::InBlock(kind, input, signed), "content_block_stop") => {
                assert_eq!(keys, ["type", "index"], "{data}");
                assert_eq!(signed, kind == "thinking", "{data}");
                let block = self.block(data);
                if !input.is_empty() {
                    // A call that was cut is no JSON yet.
                    block["input"] = serde_json::from_str(&input).unwrap_or(input.into());
                }
                At::BetweenBlocks
            }
            (At::BetweenBlocks, "message_delta") => {
                assert_eq!(keys, ["type", "delta", "usage"], "{data}");
                let delta = data["delta"].as_object().expect("a delta");
                let names: Vec<&String> = delta.keys().collect();
                assert_eq!(names, ["stop_reason", "stop_sequence"], "{data}");
                assert!(delta["stop_reason"].is_string(), "{data}");
                for (name, value) in delta {
                    self.message[name] = value.clone();
                }
                self.message["usage"] = data["usage"].clone();
                At::Stopping
            }
            (At::Stopping, "message_stop") => {
                assert_eq!(keys, ["type"], "{data}");
                At::End
            }
            (at, name) => panic!("{name} where the stream is {at:?}"),
        }
    }

    /// The block that is being written, which is the last.
    fn block(&mut self, event: &Value) -> &mut Value {
        let blocks = self.message["content"].as_array_mut().expect("blocks");
        assert_eq!(event["index"], blocks.len() - 1, "{event}");
        blocks.last_mut().expect("one")
    }
}
