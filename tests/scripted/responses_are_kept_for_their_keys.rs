//! Responses that requests go on from: the prompt is that of the whole history, and a response is its key's alone.

use crate::http_support::*;
use rkllmd::auth::{ApiKey, CurrentKeys, Keyring, Role, Secret};
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::{FinishReason, ReplyEvent, Weight};
use rkllmd::settings::Settings;
use serde_json::{Value, json};

pub const PATH: &str = "/v1/responses";

/// A thought, words and a call.
fn answer() -> Vec<ReplyEvent> {
    let call = ReplyPiece::ToolCall {
        index: 0,
        id: None,
        name: "f".to_owned(),
    };
    vec![
        started(&[]),
        ReplyEvent::Piece(ReplyPiece::Reasoning("hm\n".to_owned())),
        text("so \"é\""),
        ReplyEvent::Pieces(vec![call, ReplyPiece::ToolCallEnd { index: 0 }]),
        finished(),
    ]
}

pub async fn server(settings: Settings) -> Server {
    Server::replaying(settings, answer).await
}

pub async fn prompt(server: &mut Server, body: &Value) -> (Value, String) {
    let answer = server.post(PATH, body.to_string()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    let request = server.requests.try_recv().expect("it was submitted");
    (answer.json(), request.prompt.to_string())
}

pub fn id(response: &Value) -> &str {
    response["id"].as_str().expect("an id")
}

#[tokio::test]
async fn twenty_turns_have_the_prompt_of_the_full_history() {
    let mut server = server(Settings::default()).await;
    let tools = json!([{"type": "function", "name": "f"}]);
    let ask = |input: &Value| {
        json!({"model": "thinker", "instructions": "Be brief.", "tools": tools, "input": input,
            "include": ["reasoning.encrypted_content"]})
    };
    let (mut history, mut previous, mut call) = (Vec::new(), Value::Null, Value::Null);
    for turn in 0..20 {
        let mut new = vec![json!({"role": "user", "content": format!("turn {turn}")})];
        if turn > 0 {
            let output = format!("result {turn}");
            new.insert(
                0,
                json!({"type": "function_call_output", "call_id": call, "output": output}),
            );
        }
        history.extend(new.clone());
        let mut chained = ask(&new.into());
        chained["previous_response_id"] = previous;
        let (response, of_chain) = prompt(&mut server, &chained).await;
        let mut full = ask(&history.clone().into());
        full["store"] = false.into();
        let (_, of_history) = prompt(&mut server, &full).await;
        assert_eq!(of_chain, of_history, "turn {turn}");
        assert!(of_chain.contains("Be brief.") && of_chain.contains(&format!("turn {turn}")));
        for said in [
            "so \"é\"",
            "[assistant]",
            "[thought hm\n]",
            "[calls ",
            "[result of ",
        ] {
            assert_eq!(of_chain.matches(said).count(), turn, "{said}: {of_chain}");
        }
        if let Some(call) = call.as_str() {
            // In the call and in its result.
            assert_eq!(of_chain.matches(call).count(), 2, "{of_chain}");
        }
        for item in response["output"].as_array().expect("items") {
            let mut item = item.clone();
            if item["type"] == "reasoning" && turn % 2 == 0 {
                // As clients have it that keep no thoughts in the open.
                item["content"] = Value::Null;
            }
            call = item["call_id"].clone();
            history.push(item);
        }
        previous = response["id"].clone();
    }
    let listed = server
        .get(&format!(
            "{PATH}/{}/input_items?limit=3",
            previous.as_str().expect("an id")
        ))
        .await
        .json();
    assert_eq!(listed["has_more"], true);
    let items = listed["data"].as_array().expect("items");
    assert_eq!(items[0]["content"][0]["text"], "turn 19");
    assert_eq!(items[1]["output"], "result 19");
    assert_eq!(items[2]["type"], "function_call");
    assert_eq!(
        (&listed["first_id"], &listed["last_id"]),
        (&items[0]["id"], &items[2]["id"])
    );
    server.shut_down().await;
}

#[tokio::test]
async fn items_that_are_named_have_the_prompt_of_those_that_are_sent() {
    let mut server = server(Settings::default()).await;
    let tools = json!([{"type": "function", "name": "f"}]);
    let ask = |input: &[Value]| json!({"model": "thinker", "tools": tools, "input": input});
    let user = |text: &str| json!({"role": "user", "content": text});
    let (mut sent, mut named) = (Vec::new(), Vec::new());
    for turn in 0..3 {
        let new = user(&format!("turn {turn}"));
        sent.push(new.clone());
        named.push(new);
        let (_, of_sent) = prompt(&mut server, &ask(&sent)).await;
        let (response, of_named) = prompt(&mut server, &ask(&named)).await;
        assert_eq!(of_named, of_sent, "turn {turn}");
        assert_eq!(of_named.matches("so \"é\"").count(), turn, "{of_named}");
        for item in response["output"].as_array().expect("items") {
            named.push(json!({"type": "item_reference", "id": item["id"]}));
            sent.push(item.clone());
        }
    }
    // What is named twice is said twice, and what is kept no more is not found.
    // `type` may be left out.
    let short = json!({"id": named[1]["id"]});
    let twice = [named[1].clone(), short, user("so")];
    let (_, of_twice) = prompt(&mut server, &ask(&twice)).await;
    assert_eq!(of_twice.matches("hm\n").count(), 2, "{of_twice}");
    let gone = json!({"type": "item_reference", "id": "msg_1"});
    let body = ask(&[user("a"), gone]);
    let answer = server.post(PATH, body.to_string()).await;
    let (_, param, code) = answer.error();
    assert_eq!(
        (answer.status, param.as_deref(), &*code),
        (400, Some("input[1].id"), "invalid_value")
    );
    server.shut_down().await;
}

/// A small body that names much is charged for what it names.
#[tokio::test]
async fn items_that_are_named_are_charged_as_often_as_they_are() {
    let mut settings = Settings::default();
    settings.memory.requests_limit_bytes = Some(8 << 20);
    let mut server = server(settings).await;
    let body = json!({"model": "tiny", "input": "much ".repeat(20_000)});
    let (response, _) = prompt(&mut server, &body).await;
    let path = format!("{PATH}/{}/input_items", id(&response));
    let items = server.get(&path).await.json();
    let reference = json!({"type": "item_reference", "id": items["data"][0]["id"]});
    let ask = |count: usize| {
        let body = json!({"model": "tiny", "input": vec![reference.clone(); count]});
        body.to_string()
    };
    assert_eq!(server.post(PATH, ask(1)).await.status, 200);
    let answer = server.post(PATH, ask(1000)).await;
    assert_eq!(
        (answer.status, &*answer.error().2),
        (413, "request_too_large")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn instructions_are_not_inherited() {
    let mut server = server(Settings::default()).await;
    let first = json!({"model": "tiny", "instructions": "Be rude.", "input": "one"});
    let (first, told) = prompt(&mut server, &first).await;
    assert!(told.contains("Be rude."));
    let then = json!({"model": "tiny", "input": "two", "previous_response_id": id(&first)});
    let (then, told) = prompt(&mut server, &then).await;
    assert!(!told.contains("Be rude.") && told.contains("one") && told.contains("two"));
    assert_eq!(then["instructions"], Value::Null);
    assert_eq!(then["previous_response_id"], first["id"]);
    server.shut_down().await;
}

#[tokio::test]
async fn thoughts_come_back_sealed_and_forged_ones_do_not() {
    let mut server = server(Settings::default()).await;
    let ask = |include: Value| json!({"model": "thinker", "input": "a", "include": include});
    let (plain, _) = prompt(&mut server, &ask(Value::Null)).await;
    assert_eq!(plain["output"][0]["encrypted_content"], Value::Null);
    let (sealed, _) = prompt(&mut server, &ask(json!(["reasoning.encrypted_content"]))).await;
    let blob = sealed["output"][0]["encrypted_content"].as_str();
    let blob = blob.expect("a blob").to_owned();
    let send = |blob: &str| {
        json!({"model": "thinker", "input": [
            {"role": "user", "content": "a"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": blob},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"}]})
    };
    let without = json!({"model": "thinker", "input": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]});
    let (_, without) = prompt(&mut server, &without).await;
    assert!(!without.contains("[thought"), "{without}");
    while server.requests.try_recv().is_ok() {}
    let told = async |server: &Server, blob: &str| {
        let answer = server.post(PATH, send(blob).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.header("x-rkllmd-not-applied").map(str::to_owned)
    };
    // Once more, it is the same text.
    for _ in 0..2 {
        assert_eq!(told(&server, &blob).await, None);
        let request = server.requests.try_recv().expect("it was submitted");
        assert!(
            request.prompt.contains("[thought hm\n]"),
            "{}",
            request.prompt
        );
    }
    let other = blob.replace("rkllmd.1.", "rkllmd.1.A");
    for forged in [
        "x",
        "rkllmd.1.",
        "rkllmd.2.aG0=",
        &other,
        &blob[..blob.len() - 8],
    ] {
        let told = told(&server, forged).await;
        assert_eq!(
            told.as_deref(),
            Some("input[].encrypted_content"),
            "{forged}"
        );
        let request = server.requests.try_recv().expect("it was submitted");
        assert_eq!(&*request.prompt, without, "{forged}");
    }
    server.shut_down().await;
}

/// A call that is cut before its arguments.
fn cut_answer() -> Vec<ReplyEvent> {
    let call = ReplyPiece::ToolCall {
        index: 0,
        id: None,
        name: "f".to_owned(),
    };
    let ReplyEvent::Finished(mut end) = finished() else {
        unreachable!("an end");
    };
    end.reason = FinishReason::Length;
    vec![
        started(&[]),
        ReplyEvent::Piece(call),
        ReplyEvent::Finished(end),
    ]
}

#[tokio::test]
async fn a_call_that_was_cut_has_one_prompt_too() {
    let mut server = Server::replaying(Settings::default(), cut_answer).await;
    let tools = json!([{"type": "function", "name": "f"}]);
    let ask = |input: Value| json!({"model": "thinker", "tools": tools, "input": input});
    let user = json!({"role": "user", "content": "a"});
    let (first, _) = prompt(&mut server, &ask(json!([user]))).await;
    assert_eq!(first["status"], "incomplete");
    assert_eq!(first["output"][0]["arguments"], "");
    let call = &first["output"][0];
    let output = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "r"});
    let (_, of_history) = prompt(&mut server, &ask(json!([user, call, output]))).await;
    let mut chained = ask(json!([output]));
    chained["previous_response_id"] = first["id"].clone();
    let (_, of_chain) = prompt(&mut server, &chained).await;
    assert!(of_chain.contains("[calls "), "{of_chain}");
    assert_eq!(of_chain, of_history);
    server.shut_down().await;
}

#[tokio::test]
async fn a_response_is_its_keys_alone() {
    let mut keyring = Keyring::default();
    let mut key = |name: &str| {
        let secret = Secret::generate().expect("randomness");
        let key = ApiKey {
            name: name.parse().expect("a name"),
            digest: secret.digest(),
            role: Role::Admin,
            models: None,
            weight: Weight::default(),
            tenant: None,
            created: String::new(),
        };
        keyring.add(key).expect("a new key");
        secret.plaintext().to_owned()
    };
    let (one, other) = (key("one"), key("other"));
    let keys = CurrentKeys::fixed(Some(keyring));
    let server = Server::start_with_keys(Settings::default(), keys, |_| Ok(replay(answer()))).await;
    let ask = async |key: &str, method: &str, path: &str, body: &Value| {
        let body = match body.is_null() {
            true => String::new(),
            false => body.to_string(),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        server.ask(request).await
    };
    let first = ask(&one, "POST", PATH, &json!({"model": "tiny", "input": "a"})).await;
    let first = first.json();
    let path = format!("{PATH}/{}", id(&first));
    let then = json!({"model": "tiny", "input": "b", "previous_response_id": id(&first)});
    for (method, path) in [
        ("GET", path.clone()),
        ("GET", format!("{path}/input_items")),
        ("DELETE", path.clone()),
    ] {
        let answer = ask(&other, method, &path, &Value::Null).await;
        assert_eq!(
            (answer.status, answer.error().2.as_str()),
            (404, "previous_response_not_found")
        );
    }
    assert_eq!(ask(&other, "POST", PATH, &then).await.status, 400);
    let reference = json!({"type": "item_reference", "id": first["output"][1]["id"]});
    let naming = json!({"model": "tiny", "input": [reference, {"role": "user", "content": "b"}]});
    let answer = ask(&other, "POST", PATH, &naming).await;
    assert_eq!(
        (answer.status, answer.error().1.as_deref()),
        (400, Some("input[0].id"))
    );
    assert_eq!(ask(&one, "POST", PATH, &naming).await.status, 200);
    assert_eq!(ask(&one, "GET", &path, &Value::Null).await.json(), first);
    assert_eq!(ask(&one, "POST", PATH, &then).await.status, 200);
    server.shut_down().await;
}
