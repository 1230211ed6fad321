//! Streams of chunks as OpenAI's chats have them.

use serde_json::Value;

use super::Answer;

/// What a stream of a chat said, once its form was checked.
#[derive(Debug, Default, PartialEq)]
pub struct Chunks {
    pub thinking: String,
    pub content: String,
    /// Names and arguments, as far as they came.
    pub calls: Vec<(String, String)>,
    pub reason: Option<String>,
    pub error: Option<Value>,
}

/// Walks over the chunks: each is one line of JSON with the same id; the role comes first and once, calls begin by their
/// index with an id and a name, and go on only while they are the last one; one reason or one error ends the answer, and
/// the mark stands behind a reason only, with nothing behind it.
pub fn chunks(answer: &Answer) -> Chunks {
    assert_eq!(
        answer.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let text = answer.text();
    let events = text.strip_suffix("\n\n").expect("whole events");
    let mut chunks = Chunks::default();
    let (mut has_role, mut is_marked, mut id) = (false, false, None);
    for event in events.split("\n\n") {
        let data = event.strip_prefix("data: ").expect("data");
        assert!(
            !is_marked && chunks.error.is_none(),
            "behind the end: {event}"
        );
        if data == "[DONE]" {
            assert!(chunks.reason.is_some(), "no reason: {text}");
            is_marked = true;
            continue;
        }
        assert_eq!(chunks.reason, None, "behind the reason: {event}");
        let chunk: Value = serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {event}"));
        if chunk.get("error").is_some() {
            assert!(chunk["error"]["code"].is_string(), "{event}");
            chunks.error = Some(chunk);
            continue;
        }
        let told = chunk["id"].as_str().expect("an id").to_owned();
        assert_eq!(*id.get_or_insert_with(|| told.clone()), told, "{event}");
        let choices = chunk["choices"].as_array().expect("choices");
        let [choice] = &choices[..] else {
            panic!("not one choice: {event}");
        };
        let delta = &choice["delta"];
        assert_eq!(delta["role"] == "assistant", !has_role, "{event}");
        has_role = true;
        chunks.take(delta);
        chunks.reason = choice["finish_reason"].as_str().map(str::to_owned);
    }
    assert!(is_marked != chunks.error.is_some(), "one end: {text}");
    chunks
}

impl Chunks {
    fn take(&mut self, delta: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.thinking += &text(&delta["reasoning_content"]);
        self.content += &text(&delta["content"]);
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            if call.get("id").is_some() {
                assert_eq!(call["index"], self.calls.len(), "{call}");
                assert_eq!(call["type"], "function", "{call}");
                let name = function["name"].as_str().expect("a name");
                self.calls.push((name.to_owned(), String::new()));
            }
            let last = self.calls.len().checked_sub(1).expect("a call that began");
            assert_eq!(call["index"], last, "{call}");
            self.calls[last].1 += &text(&function["arguments"]);
        }
    }
}
