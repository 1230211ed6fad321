//! A stream of Anthropic's messages, or of OpenAI's responses, goes on when its worker dies, with the bytes of one that
//! was never interrupted, but for times and ids.

use crate::sixty_words::{answer_text, fault, scenario, start};
use serde_json::{Value, json};

/// A dialect whose streams are events with a name and data.
struct Dialect {
    path: &'static str,
    /// A streamed request of the scenario's answer.
    body: Value,
    /// The events that bring the text.
    delta: &'static str,
    text: &'static str,
    /// Where ids stand in an event.
    ids: &'static [&'static str],
    /// Fields that hold seconds since the epoch.
    times: &'static [&'static str],
    /// What two runs found together in their slots is not known, and 0 where there was one.
    unknown: (&'static str, &'static str),
    end: &'static str,
}

fn messages() -> Dialect {
    Dialect {
        path: "/v1/messages",
        body: json!({"model": "m", "max_tokens": 100, "stream": true,
            "messages": [{"role": "user", "content": "go"}]}),
        delta: "content_block_delta",
        text: "/delta/text",
        ids: &["/message/id"],
        times: &[],
        unknown: (
            "\"cache_read_input_tokens\":null",
            "\"cache_read_input_tokens\":0",
        ),
        end: "{\"type\":\"message_stop\"}\n\n",
    }
}

fn responses() -> Dialect {
    Dialect {
        path: "/v1/responses",
        body: json!({"model": "m", "input": "go", "stream": true}),
        delta: "response.output_text.delta",
        text: "/delta",
        ids: &["/response/id", "/item/id"],
        times: &["created_at", "completed_at"],
        unknown: (
            "\"input_tokens_details\":null",
            "\"input_tokens_details\":{\"cached_tokens\":0,\"cache_write_tokens\":0}",
        ),
        end: "data: [DONE]\n\n",
    }
}

impl Dialect {
    /// The events, without what is different in every answer, and the answer's text.
    fn events(&self, scenario: &str) -> (String, String) {
        let daemon = start("1_3_1", scenario);
        let answer = daemon.post(self.path, &self.body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let data = answer
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]");
        let data: Vec<Value> = data
            .map(|data| serde_json::from_str(data).expect("JSON"))
            .collect();
        let deltas = data.iter().filter(|event| event["type"] == self.delta);
        let texts = deltas.map(|event| event.pointer(self.text).and_then(Value::as_str));
        let text = texts.map(|text| text.expect("a text")).collect::<String>();
        let mut events = answer.body.clone();
        for place in self.ids {
            let mut found = data
                .iter()
                .filter_map(|event| event.pointer(place)?.as_str());
            let id = found.next().expect("an id");
            assert!(found.all(|other| other == id), "{place}: {events}");
            events = events.replace(id, "ID");
        }
        for name in self.times {
            events = without_number(&events, name);
        }
        let (unknown, none) = self.unknown;
        (events.replace(unknown, none), text)
    }

    fn survives(&self) {
        let (calm, text) = self.events(&scenario(""));
        assert_eq!(text, answer_text());
        assert!(calm.ends_with(self.end), "{calm}");
        for after in [0, 1, 17, 59] {
            let dies = format!(
                "call = \"run\"\nafter-tokens = {after}\nonce = \"spent\"\nkind = \"segv\""
            );
            let (interrupted, _) = self.events(&scenario(&fault(&dies)));
            assert_eq!(interrupted, calm, "after {after}");
        }
    }
}

/// The same with a zero where the field is a number.
fn without_number(events: &str, name: &str) -> String {
    let name = format!("\"{name}\":");
    let mut parts = events.split(&name);
    let first = parts.next().expect("what is before").to_owned();
    parts.fold(first, |events, part| {
        let rest = part.trim_start_matches(|at: char| at.is_ascii_digit());
        let number = if rest.len() < part.len() { "0" } else { "" };
        format!("{events}{name}{number}{rest}")
    })
}

#[test]
fn a_message_keeps_its_bytes_when_its_worker_dies_at_any_token() {
    messages().survives();
}

#[test]
fn a_response_keeps_its_bytes_when_its_worker_dies_at_any_token() {
    responses().survives();
}
