//! A stream of Anthropic's events goes on when its worker dies, with the bytes of one that was never
//! interrupted.

use crate::sixty_words::{answer_text, fault, scenario, start};
use serde_json::{Value, json};

/// The events, without what is different in every answer, and the answer's text.
fn events(scenario: &str) -> (String, String) {
    let daemon = start("1_3_1", scenario);
    let body = json!({"model": "m", "max_tokens": 100, "stream": true,
        "messages": [{"role": "user", "content": "go"}]});
    let answer = daemon.post("/v1/messages", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let data = answer
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let data: Vec<Value> = data
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    let text = data
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str());
    let text = text.collect::<String>();
    let id = data[0]["message"]["id"].as_str().expect("an id");
    // What two runs found together in their slots is not known.
    let cached = "\"cache_read_input_tokens\":";
    let events = answer.body.replace(id, "ID");
    let events = events.replace(&format!("{cached}null"), &format!("{cached}0"));
    (events, text)
}

#[test]
fn a_death_at_any_token_leaves_the_same_bytes() {
    let (calm, text) = events(&scenario(""));
    assert_eq!(text, answer_text());
    assert!(calm.ends_with("{\"type\":\"message_stop\"}\n\n"), "{calm}");
    for after in [0, 1, 17, 59] {
        let dies =
            format!("call = \"run\"\nafter-tokens = {after}\nonce = \"spent\"\nkind = \"segv\"");
        let (interrupted, _) = events(&scenario(&fault(&dies)));
        assert_eq!(interrupted, calm, "after {after}");
    }
}
