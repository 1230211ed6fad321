//! What clients of OpenAI's responses may send, what becomes of it, and what is refused by its field's name.

use crate::http_support::*;
use rkllmd::conversation::{ReplyPiece, ScoredText, TokenLogprob, TokenLogprobs};
use rkllmd::generation::{GenerationError, GenerationRequest, ReplyEvent};
use rkllmd::settings::{ControlTokenPolicy, Settings};
use serde_json::{Value, json};

pub const PATH: &str = "/v1/responses";

pub async fn server() -> Server {
    Server::replaying(Settings::default(), || {
        vec![started(&[]), text("x"), finished()]
    })
    .await
}

pub async fn submitted(server: &mut Server, body: &Value) -> (GenerationRequest, Answer) {
    let answer = server.post(PATH, body.to_string()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    (
        server.requests.try_recv().expect("it was submitted"),
        answer,
    )
}

/// Checks lines of the form `<model> <fields>: <JSON> => <param> <code>`, and `body` for a whole one.
#[tokio::test]
async fn each_refusal_names_its_field() {
    let table = r#"
        body:  => - invalid_json
        body: [] => - invalid_json
        body: {} => model missing_required_parameter
        body: {"model":"no/such","input":"a"} => model model_not_found
        body: {"model":"tiny"} => input missing_required_parameter
        body: {"model":"raw","input":"a"} => model no_chat_template
        tiny: "input":[] => input invalid_value
        tiny: "input":7 => input invalid_type
        tiny: "input":"\u0000" => input invalid_value
        tiny: "input":[7] => input[0] invalid_type
        tiny: "input":[{}] => input[0].type missing_required_parameter
        tiny: "input":[{"type":"web_search_call"}] => input invalid_value
        tiny: "input":[{"type":"message"}] => input[0].role missing_required_parameter
        tiny: "input":[{"role":"tool","content":"a"}] => input[0].role invalid_value
        tiny: "input":[{"role":"user"}] => input[0].content missing_required_parameter
        tiny: "input":[{"role":"user","content":[{}]}] => input[0].content[0].type missing_required_parameter
        tiny: "input":[{"role":"user","content":[{"type":"input_text"}]}] => input[0].content[0].text missing_required_parameter
        tiny: "input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}] => input[0].content[0].type unsupported_parameter
        tiny: "input":[{"role":"user","content":[{"type":"input_file"}]}] => input[0].content[0].type unsupported_parameter
        tiny: "input":[{"type":"item_reference","id":"msg_1"}] => input[0].id invalid_value
        tiny: "input":[{"id":"msg_1"}] => input[0].id invalid_value
        tiny: "input":[{"id":7}] => input[0].id invalid_type
        tiny: "input":[{"type":"item_reference"}] => input[0].id missing_required_parameter
        tiny: "input":[{"type":"function_call","name":"f"}] => input[0].call_id missing_required_parameter
        tiny: "input":[{"type":"function_call","call_id":"c"}] => input[0].name missing_required_parameter
        tiny: "input":[{"type":"function_call_output","call_id":"c"}] => input[0].output missing_required_parameter
        tiny: "input":[{"type":"function_call_output","output":"x"}] => input[0].call_id missing_required_parameter
        tiny: "instructions":"\u0000" => instructions invalid_value
        tiny: "background":true,"store":false => background invalid_value
        tiny: "conversation":"conv_1" => conversation unsupported_parameter
        tiny: "prompt":{"id":"p"} => prompt unsupported_parameter
        tiny: "truncation":"some" => truncation invalid_value
        tiny: "max_output_tokens":0 => max_output_tokens invalid_value
        tiny: "temperature":2.1 => temperature invalid_value
        tiny: "top_logprobs":21 => top_logprobs invalid_value
        tiny: "metadata":{"a":1} => metadata invalid_type
        tiny: "include":"x" => include invalid_type
        tiny: "reasoning":{"effort":"some"} => reasoning.effort invalid_value
        tiny: "text":{"format":{}} => text.format.type missing_required_parameter
        tiny: "text":{"format":{"type":"yaml"}} => text.format.type unsupported_parameter
        tiny: "text":{"format":{"type":"json_schema","name":"n"}} => text.format.schema missing_required_parameter
        tiny: "previous_response_id":"resp_1" => previous_response_id previous_response_not_found
        tiny: "tools":[7] => tools[0] invalid_type
        tiny: "tools":[{"type":"custom"},{"type":"function","name":7}] => tools[1].name invalid_type
        tiny: "tools":[{}] => tools[0].type missing_required_parameter
        tiny: "tools":[{"type":"function"}] => tools[0].name missing_required_parameter
        tiny: "tools":[{"type":"function","name":"f"}] => tools unsupported_parameter
        tiny: "tool_choice":"required" => tool_choice unsupported_parameter
        thinker: "tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"g"} => tool_choice invalid_value
    "#;
    let server = server().await;
    let mut checked = 0;
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (request, expected) = line.rsplit_once(" => ").expect("a refusal");
        let (model, fields) = request.split_once(": ").expect("a model");
        let body = match (model, fields.contains("\"input\"")) {
            ("body", _) => fields.trim().to_owned(),
            (model, true) => format!(r#"{{"model":"{model}",{fields}}}"#),
            (model, false) => format!(r#"{{"model":"{model}","input":"hi",{fields}}}"#),
        };
        let answer = server.post(PATH, &body).await;
        let (param, code) = expected.split_once(' ').expect("a code");
        let (_, told, told_code) = answer.error();
        assert_eq!(
            (told.as_deref().unwrap_or("-"), &*told_code),
            (param, code),
            "{line}"
        );
        let status = if code == "model_not_found" { 404 } else { 400 };
        assert_eq!(answer.status, status, "{line}");
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
    let long = json!({"model": "picky", "input": "x".repeat(2000)});
    let (_, param, code) = server.post(PATH, long.to_string()).await.error();
    assert_eq!(
        (param.as_deref(), &*code),
        (Some("input"), "chat_template_refused")
    );
    server.shut_down().await;
}

/// A turn of Codex, in the form in which it asks for one.
fn codex() -> Value {
    json!({
        "model": "thinker",
        "instructions": "You are a coding agent.",
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment_context>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is here?"}]},
            {"type": "reasoning", "summary": [], "content": null, "encrypted_content": "gAAAA"},
            {"type": "function_call", "name": "shell", "arguments": "{\"command\":[\"ls\"]}", "call_id": "call_1"},
            {"type": "function_call_output", "call_id": "call_1", "output": "a b"},
            {"type": "custom_tool_call", "call_id": "call_2", "name": "apply_patch", "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "call_2", "output": "x"}],
        "tools": [
            {"type": "function", "name": "shell", "description": "Runs a command", "strict": false,
                "parameters": {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                    "required": ["command"], "additionalProperties": false}},
            {"type": "custom", "name": "apply_patch", "description": "Edits files",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}},
            {"type": "web_search", "external_web_access": false},
            {"type": "namespace", "name": "mcp", "tools": []}],
        "tool_choice": "auto",
        "parallel_tool_calls": false,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": false,
        "stream": true,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199",
        "client_metadata": {"x-codex-installation-id": "1"},
        "text": {"verbosity": "medium"},
    })
}

#[tokio::test]
async fn codexs_turns_are_answered() {
    let mut server = server().await;
    let (request, answer) = submitted(&mut server, &codex()).await;
    let heard = heard_response(&answer);
    assert_eq!(heard.error, None);
    for said in [
        "You are a coding agent.",
        "<permissions>",
        "What is here?",
        "a b",
        "on medium",
    ] {
        assert!(request.prompt.contains(said), "{said}: {}", request.prompt);
    }
    let told = answer.header("x-rkllmd-not-applied").expect("names");
    let told: Vec<&str> = told.split(", ").collect();
    assert_eq!(
        told,
        [
            "reasoning.summary",
            "input[].encrypted_content",
            "input[].custom_tool_call",
            "input[].custom_tool_call_output",
            "tools[].custom",
            "tools[].web_search",
            "tools[].namespace",
        ]
    );
    let response = &heard.response;
    assert_eq!(response["store"], false);
    assert_eq!(response["tools"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        response["tools"][0]["parameters"],
        codex()["tools"][0]["parameters"]
    );
    assert_eq!(
        response["usage"]["input_tokens_details"]["cached_tokens"],
        4
    );
    assert_eq!(response["usage"]["total_tokens"], 11);
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_not_read_is_told_within_bounds() {
    let mut server = server().await;
    // Other kinds of tools have fields of other types.
    let tools: Vec<Value> = (0..100)
        .map(|n| json!({"type": format!("kind{n}"), "name": n, "strict": "x", "parameters": []}))
        .collect();
    let body = json!({"model": "tiny", "input": "a", "tools": tools});
    let (_, answer) = submitted(&mut server, &body).await;
    let told = answer.header("x-rkllmd-not-applied").expect("names");
    let told: Vec<&str> = told.split(", ").collect();
    assert_eq!((told.len(), told[0]), (16, "tools[].kind0"));
    let summary = json!([{"type": "summary_text", "text": "s"}]);
    let thought = json!([{"type": "reasoning_text", "text": "t"}]);
    for (content, told) in [(Value::Null, Some("input[].summary")), (thought, None)] {
        let body = json!({"model": "tiny", "input": [
            {"role": "user", "content": "a"},
            {"type": "reasoning", "summary": summary, "content": content},
            {"role": "user", "content": "b"}]});
        let (_, answer) = submitted(&mut server, &body).await;
        assert_eq!(answer.header("x-rkllmd-not-applied"), told);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn tokens_say_how_likely_they_were() {
    let scored_as = |text: &str, bytes: &[u8]| {
        let token = TokenLogprob {
            id: 1,
            bytes: bytes.to_vec(),
            logprob: Some(-0.5),
        };
        let top = vec![token.clone()];
        let tokens = vec![TokenLogprobs { token, top }];
        let text = text.to_owned();
        ReplyEvent::Piece(ReplyPiece::ScoredText(ScoredText { text, tokens }))
    };
    let scored = move |text: &str| scored_as(text, text.as_bytes());
    let mut server = Server::start(Settings::default(), move |_| {
        let thought = ReplyPiece::Reasoning("t".to_owned());
        Ok(replay(vec![
            started(&[]),
            scored("a"),
            // In the place of what is no UTF-8 the text has more bytes than the token.
            scored_as("\u{fffd}", &[0xff]),
            ReplyEvent::Piece(thought),
            scored("é"),
            scored("c"),
            finished(),
        ]))
    })
    .await;
    let mut body = json!({"model": "tiny", "input": "a", "top_logprobs": 1,
        "include": ["message.output_text.logprobs"]});
    let (request, answer) = submitted(&mut server, &body).await;
    assert_eq!(request.draws.logprobs.map(|asked| asked.top), Some(1));
    let whole = answer.json();
    let one = |text: &str| {
        let token = json!({"token": text, "logprob": -0.5, "bytes": text.as_bytes()});
        let mut whole = token.clone();
        whole["top_logprobs"] = json!([token]);
        whole
    };
    let of =
        |response: &Value, item: usize| response["output"][item]["content"][0]["logprobs"].clone();
    let mut replaced = one("\u{fffd}");
    replaced["bytes"] = json!([0xff]);
    replaced["top_logprobs"][0]["bytes"] = json!([0xff]);
    assert_eq!(of(&whole, 0), json!([one("a"), replaced]));
    assert_eq!(of(&whole, 2), json!([one("é"), one("c")]));
    assert_eq!(whole["top_logprobs"], 1);
    body["stream"] = true.into();
    let (_, answer) = submitted(&mut server, &body).await;
    let streamed = heard_response(&answer).response;
    assert_eq!(
        (of(&streamed, 0), of(&streamed, 2)),
        (of(&whole, 0), of(&whole, 2))
    );
    server.shut_down().await;
}

#[tokio::test]
async fn tokens_are_counted_of_the_prompt_that_would_run() {
    let mut server = server().await;
    let body = json!({"model": "picky", "input": "a", "tools": [{"type": "function", "name": "f"}], "unheard": 1});
    let (request, _) = submitted(&mut server, &body).await;
    let answer = server
        .post("/v1/responses/input_tokens", body.to_string())
        .await;
    // A byte is a token.
    let count = request.prompt.len();
    assert_eq!(
        answer.json(),
        json!({"object": "response.input_tokens", "input_tokens": count})
    );
    assert_eq!(answer.header("x-rkllmd-not-applied"), Some("unheard"));
    assert!(server.requests.try_recv().is_err(), "nothing ran");
    server.shut_down().await;
}

#[tokio::test]
async fn a_control_token_is_blamed_on_the_field_that_it_is_in() {
    let mut settings = Settings::default();
    settings.chat.control_tokens = ControlTokenPolicy::Reject;
    let server = Server::replaying(settings, || vec![text("x"), finished()]).await;
    for (fields, param) in [
        (
            json!({"instructions": "<|im_end|>", "input": "a"}),
            "instructions",
        ),
        (
            json!({"instructions": "a", "input": [{"type": "compaction"}, {"role": "user", "content": "<|im_end|>"}]}),
            "input[1].content",
        ),
    ] {
        let mut body = json!({"model": "tiny"});
        let all = body.as_object_mut().expect("an object");
        all.extend(fields.as_object().expect("fields").clone());
        let answer = server.post(PATH, body.to_string()).await;
        let (_, told, code) = answer.error();
        assert_eq!(
            (told.as_deref(), &*code),
            (Some(param), "control_token_in_message")
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn failures_have_their_status_before_the_first_byte() {
    let server = Server::start(Settings::default(), |_| {
        Err(GenerationError::ContextLengthExceeded {
            prompt_tokens: 9,
            limit_tokens: 9,
        })
    })
    .await;
    for stream in [false, true] {
        let body = json!({"model": "tiny", "input": "a", "stream": stream});
        let answer = server.post(PATH, body.to_string()).await;
        let (_, param, code) = answer.error();
        assert_eq!((answer.status, &*code), (400, "context_length_exceeded"));
        assert_eq!(param.as_deref(), Some("input"));
    }
    let answer = server.post("/v1/responses/resp_1/cancel", "{}").await;
    assert_eq!(
        (answer.status, &*answer.error().2),
        (404, "previous_response_not_found")
    );
    server.shut_down().await;
}
