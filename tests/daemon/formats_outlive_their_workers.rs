//! Answers that are kept to a format are whole and right although their workers die, wherever in them that is.

use crate::daemon_support::{Daemon, Setup, chat, kill};
use crate::function_calls::CHAT;
use crate::json_judge::fault;
use crate::tiny_models::with_tiny_models;
use serde_json::{Value, json};

const MODEL: &str = "tiny";
/// Workers that die in the middle of an answer, or as many as `FORMAT_KILLS` says.
const KILLS: u64 = 20;

fn schema() -> Value {
    json!({"type": "object", "required": ["id", "levels", "unit"], "properties": {
        "id": {"type": "string", "minLength": 4, "maxLength": 12},
        "levels": {"type": "array", "minItems": 8, "maxItems": 12, "items": {"type": "object",
            "required": ["n", "on"], "properties": {"on": {"type": "boolean"},
                "n": {"type": "integer", "minimum": 10, "maximum": 999}}}},
        "unit": {"enum": ["celsius", "fahrenheit"]}}})
}

/// What a stream says whose worker dies after so many pieces, and whether it had time to.
fn say_and_die(daemon: &Daemon, seed: u64, dies_at: usize) -> (String, bool) {
    let format = json!({"type": "json_schema",
        "json_schema": {"name": "answer", "strict": true, "schema": schema()}});
    // What thinks at random thinks without end.
    let more = json!({"temperature": 1.5, "seed": seed, "max_tokens": 2000, "stream": true,
        "response_format": format, "chat_template_kwargs": {"enable_thinking": false}});
    let mut stream = daemon.stream(CHAT, &chat(MODEL, "Invent one.", more));
    assert_eq!(stream.status, 200);
    let (mut text, mut pieces, mut last) = (String::new(), 0, Value::Null);
    while let Some(data) = stream.next_data().filter(|data| data != "[DONE]") {
        let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
        assert!(chunk.get("error").is_none(), "{chunk}");
        text.push_str(
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default(),
        );
        pieces += 1;
        if pieces == dies_at {
            kill(daemon.worker_pid());
        }
        last = chunk;
    }
    assert_eq!(last["choices"][0]["finish_reason"], "stop", "{text}");
    (text, last["timings"]["resumptions"] == 1)
}

#[test]
fn every_answer_is_right_wherever_its_worker_died() {
    let kills =
        std::env::var("FORMAT_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let daemon = with_tiny_models(Setup::new(), &[(MODEL, Vec::new())]).start();
    let (mut died, mut asked) = (0, 0);
    // Some answers end before their workers die.
    while died < kills {
        let (text, has_died) = say_and_die(&daemon, asked, random.usize(1..150));
        assert_eq!(fault(&schema(), &text), None, "{text}");
        died += u64::from(has_died);
        asked += 1;
        assert!(asked <= 2 * kills, "{died} of {asked} workers died in time");
    }
}
