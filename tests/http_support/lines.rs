//! Streams of lines as Ollama's API has them.

use serde_json::Value;

use super::Answer;

/// What a stream of `/api/chat` or `/api/generate` said, once its form was checked.
#[derive(Debug, Default, PartialEq)]
pub struct Said {
    pub content: String,
    pub thinking: String,
    /// Name and arguments.
    pub calls: Vec<(String, Value)>,
    /// The last line, unless it is an error.
    pub last: Option<Value>,
    pub error: Option<Value>,
}

/// Walks over the lines: each is JSON with the same model, a time that does not go back, and something
/// new; thoughts, content and calls come in lines of their own; exactly one line ends the stream, as an
/// end or as an error, and nothing follows it.
pub fn said(answer: &Answer) -> Said {
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = answer.text();
    assert!(text.ends_with('\n'), "{text:?}");
    let mut said = Said::default();
    let mut before = String::new();
    for line in text.lines() {
        assert!(
            said.last.is_none() && said.error.is_none(),
            "behind the end: {line}"
        );
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        if value.get("error").is_some() {
            assert!(
                value["error"].is_string() && value["code"].is_string(),
                "{line}"
            );
            said.error = Some(value);
            continue;
        }
        let created = value["created_at"].as_str().expect("a time").to_owned();
        assert_eq!(
            created.len(),
            "2026-11-29T15:04:05.123456789Z".len(),
            "{line}"
        );
        assert!(before <= created, "{before} {line}");
        before = created;
        if value["done"] == true {
            assert!(value["done_reason"].is_string(), "{line}");
            said.last = Some(value);
            continue;
        }
        assert_eq!(value["done"], false, "{line}");
        assert!(value.get("done_reason").is_none() && value.get("total_duration").is_none());
        said.take(&value);
    }
    assert!(
        said.last.is_some() != said.error.is_some(),
        "one end: {text}"
    );
    said
}

impl Said {
    fn take(&mut self, line: &Value) {
        let message = match line.get("message") {
            Some(message) => {
                assert_eq!(message["role"], "assistant", "{line}");
                message
            }
            None => line,
        };
        let name = if line.get("message").is_some() {
            "content"
        } else {
            "response"
        };
        let content = message[name].as_str().expect("a text, if an empty one");
        let thinking = message
            .get("thinking")
            .map(|it| it.as_str().expect("a text"));
        let calls = message
            .get("tool_calls")
            .map(|it| it.as_array().expect("calls"));
        let news = [!content.is_empty(), thinking.is_some(), calls.is_some()];
        assert_eq!(news.iter().filter(|is_new| **is_new).count(), 1, "{line}");
        assert!(thinking != Some(""), "{line}");
        self.content.push_str(content);
        self.thinking.push_str(thinking.unwrap_or_default());
        for call in calls.into_iter().flatten() {
            assert!(
                call["id"].as_str().is_some_and(|id| !id.is_empty()),
                "{line}"
            );
            let function = &call["function"];
            assert_eq!(function["index"], self.calls.len(), "{line}");
            assert!(function["arguments"].is_object(), "{line}");
            let name = function["name"].as_str().expect("a name").to_owned();
            self.calls.push((name, function["arguments"].clone()));
        }
    }
}
