//! Conversations in less room: the item that stands for one has the prompt of the turns that were kept, and what is not
//! the daemon's own changes nothing.

use crate::http_support::*;
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::ReplyEvent;
use rkllmd::settings::Settings;
use serde_json::{Value, json};

const PATH: &str = "/v1/responses";
const COMPACT: &str = "/v1/responses/compact";
const NOT_OPENED: &str = "input[].encrypted_content";

fn answer() -> Vec<ReplyEvent> {
    vec![started(&[]), text("so"), finished()]
}

/// A turn with a thought and a call.
fn turn(number: usize) -> Vec<Value> {
    let call = format!("call_{number}");
    vec![
        json!({"role": "user", "content": [
            {"type": "input_text", "text": format!("ask {number} \"é\"")},
            {"type": "input_text", "text": "more"}]}),
        json!({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm\n"}]}),
        json!({"type": "function_call", "call_id": call, "name": "f", "arguments": "{\"a\": 1}"}),
        json!({"type": "function_call_output", "call_id": call, "output": format!("result {number}")}),
        json!({"role": "assistant", "content": format!("answer {number}")}),
    ]
}

fn ask(input: Vec<Value>) -> Value {
    let tools = json!([{"type": "function", "name": "f"}]);
    json!({"model": "thinker", "tools": tools, "input": input, "store": false})
}

async fn compacted(server: &Server, input: Vec<Value>) -> (Value, Answer) {
    let answer = server.post(COMPACT, ask(input).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let made = answer.json();
    assert_eq!(made["object"], "response.compaction");
    assert!(made["created_at"].is_u64(), "{made}");
    assert_eq!(made["usage"]["total_tokens"], 0, "no model has worked");
    let [item] = &made["output"].as_array().expect("items")[..] else {
        panic!("{made}");
    };
    assert_eq!(item["type"], "compaction");
    let id = item["id"].as_str().expect("an id");
    assert!(id.starts_with("cmp_"), "{id}");
    (item.clone(), answer)
}

async fn prompt(server: &mut Server, input: Vec<Value>) -> (String, Option<String>) {
    let answer = server.post(PATH, ask(input).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = server.requests.try_recv().expect("it was submitted");
    let told = answer.header("x-rkllmd-not-applied");
    (request.prompt.to_string(), told.map(str::to_owned))
}

#[tokio::test]
async fn what_is_kept_has_the_same_prompt_and_the_oldest_goes() {
    let mut settings = Settings::default();
    settings.responses.compacted_limit_bytes = 4096;
    let mut server = Server::replaying(settings, answer).await;
    let system = json!({"role": "developer", "content": "Be brief."});
    let last = json!({"role": "user", "content": "go on"});
    for (turns, are_all_kept) in [(1, true), (2, true), (40, false)] {
        let all: Vec<Value> = [vec![system.clone()], (0..turns).flat_map(turn).collect()].concat();
        let (item, told) = compacted(&server, all).await;
        let (short, not_applied) = prompt(&mut server, vec![item.clone(), last.clone()]).await;
        assert_eq!(not_applied, None);
        let kept = (0..turns).filter(|number| {
            short.contains(&format!("answer {number}|"))
                || short.contains(&format!("ask {number} "))
        });
        let kept: Vec<usize> = kept.collect();
        let first = *kept.first().expect("some turn");
        assert_eq!(kept, (first..turns).collect::<Vec<_>>());
        assert_eq!(first == 0, are_all_kept, "{kept:?}");
        let same = [
            vec![system.clone()],
            (first..turns).flat_map(turn).collect(),
            vec![last.clone()],
        ];
        let (whole, _) = prompt(&mut server, same.concat()).await;
        assert_eq!(short, whole);
        // A question, what it called with its thought, the result, and the answer.
        let dropped = told.header("x-rkllmd-dropped-messages");
        let dropped = dropped.map_or(0, |count| count.parse().expect("a number"));
        assert_eq!(dropped, 4 * first);
        if !are_all_kept {
            // With what is new there is no room for all of them.
            continue;
        }
        // What stands for turns can be made shorter again, and what is new stands behind it.
        let (again, _) = compacted(&server, vec![item, last.clone()]).await;
        let (again, _) = prompt(&mut server, vec![again]).await;
        assert_eq!(again, whole);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_kept_conversation_is_made_shorter_too() {
    let mut server = Server::replaying(Settings::default(), answer).await;
    let mut body = ask(turn(1));
    body["store"] = true.into();
    let first = server.post(PATH, body.to_string()).await.json();
    server.requests.try_recv().expect("it was submitted");
    let body = json!({"model": "thinker", "input": "then", "previous_response_id": first["id"],
        "instructions": "not this"});
    let made = server.post(COMPACT, body.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let item = made.json()["output"][0].clone();
    let (short, _) = prompt(&mut server, vec![item]).await;
    for said in ["ask 1", "result 1", "so", "then"] {
        assert!(short.contains(said), "{said}: {short}");
    }
    assert!(!short.contains("not this"), "{short}");
    server.shut_down().await;
}

#[tokio::test]
async fn forged_ones_change_nothing_and_again_is_the_same() {
    let mut server = Server::replaying(Settings::default(), || {
        let thought = ReplyEvent::Piece(ReplyPiece::Reasoning("[]".to_owned()));
        vec![started(&[]), thought, text("so"), finished()]
    })
    .await;
    let (item, _) = compacted(&server, turn(1)).await;
    let blob = item["encrypted_content"].as_str().expect("a blob");
    let user = json!({"role": "user", "content": "go"});
    let (without, _) = prompt(&mut server, vec![user.clone()]).await;
    let (with, _) = prompt(&mut server, vec![item.clone(), user.clone()]).await;
    let (again, told) = prompt(&mut server, vec![item.clone(), user.clone()]).await;
    assert!(with != without && again == with && told.is_none());
    // A thought under the daemon's seal is no conversation, and the other way round.
    let mut body = ask(vec![user.clone()]);
    body["include"] = json!(["reasoning.encrypted_content"]);
    let thought = server.post(PATH, body.to_string()).await.json();
    server.requests.try_recv().expect("it was submitted");
    let thought = thought["output"][0]["encrypted_content"]
        .as_str()
        .expect("a blob")
        .to_owned();
    let as_compaction = thought.replace("rkllmd.1.", "rkllmd.compaction.1.");
    let as_thought = blob.replace("rkllmd.compaction.1.", "rkllmd.1.");
    let forged = blob.replace("rkllmd.compaction.1.", "rkllmd.compaction.1.A");
    for (kind, blob) in [
        ("compaction", ""),
        ("compaction", "x"),
        ("compaction", forged.as_str()),
        ("compaction", &blob[..blob.len() - 8]),
        ("compaction", thought.as_str()),
        ("compaction", as_compaction.as_str()),
        ("reasoning", blob),
        ("reasoning", as_thought.as_str()),
    ] {
        let item = json!({"type": kind, "id": "x", "summary": [], "encrypted_content": blob});
        let (prompt, told) = prompt(&mut server, vec![item, user.clone()]).await;
        assert_eq!(prompt, without, "{kind} {blob}");
        assert_eq!(told.as_deref(), Some(NOT_OPENED), "{kind} {blob}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_last_turn_that_is_too_large_is_refused() {
    let mut settings = Settings::default();
    settings.responses.compacted_limit_bytes = 1024;
    let server = Server::replaying(settings, answer).await;
    let large = "x".repeat(1024);
    for input in [json!(large), json!([{"role": "system", "content": large}])] {
        let body = json!({"model": "tiny", "input": input});
        let answer = server.post(COMPACT, body.to_string()).await;
        let (_, param, code) = answer.error();
        assert_eq!(
            (answer.status, param.as_deref(), &*code),
            (400, Some("input"), "invalid_value")
        );
    }
    let absent = json!({"model": "no/such", "input": "x"});
    let answer = server.post(COMPACT, absent.to_string()).await;
    assert_eq!(answer.status, 404);
    server.shut_down().await;
}
