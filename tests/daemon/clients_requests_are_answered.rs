//! What programs ask, in their order, as their sources have it or as they sent it: each request of each file in
//! `tests/client_requests` is answered as that program reads it.
//!
//! A file is one program's session with the model `m`. Of an answer are checked: its `status` (else 200), the values
//! at pointers into it (`json`), what kind they are of (`types`), `times`, its `parameters`, that it is `empty`, and
//! what a stream comes to: `lines` of Ollama's, `chunks` of OpenAI's chats, `events` of its responses and of Anthropic's
//! messages.

use std::path::Path;

use crate::client_sessions::setup;
use crate::daemon_support::{Answer, Daemon, is_whole, node, npm_packages, request};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

const CONTINUE: &str = "@continuedev/cli@1.5.47";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Session {
    client: String,
    requests: Vec<Asked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    what: String,
    #[serde(default = "post")]
    method: String,
    path: String,
    body: Option<Value>,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    json: Map<String, Value>,
    #[serde(default)]
    types: Map<String, Value>,
    #[serde(default)]
    times: Vec<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    version_at_least: Option<Vec<u32>>,
    #[serde(default)]
    empty: bool,
    lines: Option<Said>,
    chunks: Option<Said>,
    events: Option<Said>,
}

fn post() -> String {
    "POST".to_owned()
}

fn ok() -> u16 {
    200
}

/// What a stream comes to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    thinking: String,
    content: String,
    /// The functions that are called.
    calls: Vec<String>,
    /// The most calls that one line may hold.
    calls_in_a_line: Option<usize>,
    done_reason: Option<String>,
    reason: Option<String>,
    /// Whether the tokens are counted.
    #[serde(default)]
    usage: bool,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn names(calls: &Value) -> Vec<String> {
    let calls = calls.as_array().into_iter().flatten();
    let names = calls.filter_map(|call| call["function"]["name"].as_str());
    names.map(str::to_owned).collect()
}

impl Said {
    /// Lines of a chat or of a text.
    fn of_lines(answer: &Answer) -> Self {
        // An answer that is no stream is one line as well.
        let kind = answer.header("content-type").unwrap_or_default();
        assert!(
            ["application/x-ndjson", "application/json"].contains(&kind),
            "{kind}"
        );
        let mut said = Self::default();
        let mut has_end = false;
        for line in answer.body.lines().filter(|line| !line.trim().is_empty()) {
            assert!(!has_end, "{line} is behind the end");
            let line: Value = serde_json::from_str(line).expect("JSON");
            let message = &line["message"];
            if message.is_object() {
                assert_eq!(message["role"], "assistant", "{line}");
                assert!(message["content"].is_string(), "{line}");
            }
            let thinking = message["thinking"].as_str().or(line["thinking"].as_str());
            said.thinking.push_str(thinking.unwrap_or_default());
            said.content.push_str(text(&message["content"]));
            said.content.push_str(text(&line["response"]));
            let calls = names(&message["tool_calls"]);
            let most = said.calls_in_a_line.unwrap_or(0).max(calls.len());
            said.calls_in_a_line = Some(most);
            said.calls.extend(calls);
            has_end = line["done"] == true;
            said.done_reason = line["done_reason"].as_str().map(str::to_owned);
        }
        assert!(has_end, "{}", answer.body);
        said
    }

    /// Chunks of a chat.
    fn of_chunks(answer: &Answer) -> Self {
        let mut said = Self::default();
        let events = answer
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let mut events: Vec<&str> = events.collect();
        assert_eq!(events.pop(), Some("[DONE]"));
        for event in events {
            let chunk: Value = serde_json::from_str(event).expect("JSON");
            let choice = &chunk["choices"][0];
            said.thinking
                .push_str(text(&choice["delta"]["reasoning_content"]));
            said.content.push_str(text(&choice["delta"]["content"]));
            said.calls.extend(names(&choice["delta"]["tool_calls"]));
            let reason = choice["finish_reason"].as_str().map(str::to_owned);
            said.reason = said.reason.or(reason);
            said.usage |= chunk["usage"]["completion_tokens"].is_number();
        }
        said
    }

    /// Events of a response, or of a message.
    fn of_events(answer: &Answer) -> Self {
        let mut said = Self::default();
        let events = answer
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        for event in events.filter(|event| *event != "[DONE]") {
            let event: Value = serde_json::from_str(event).expect("JSON");
            let is_last = event["type"] == "message_stop";
            assert!(
                said.reason.is_none() || is_last,
                "{event} is behind the end"
            );
            match text(&event["type"]) {
                "response.output_text.delta" => said.content.push_str(text(&event["delta"])),
                "response.reasoning_text.delta" => said.thinking.push_str(text(&event["delta"])),
                "response.output_item.done" if event["item"]["type"] == "function_call" => {
                    said.calls.push(text(&event["item"]["name"]).to_owned());
                }
                "response.completed" => {
                    let response = &event["response"];
                    said.reason = response["status"].as_str().map(str::to_owned);
                    said.usage = response["usage"]["output_tokens"].is_number();
                }
                "content_block_start" if event["content_block"]["type"] == "tool_use" => {
                    said.calls
                        .push(text(&event["content_block"]["name"]).to_owned());
                }
                "content_block_delta" => {
                    said.content.push_str(text(&event["delta"]["text"]));
                    said.thinking.push_str(text(&event["delta"]["thinking"]));
                }
                "message_delta" => {
                    said.reason = event["delta"]["stop_reason"].as_str().map(str::to_owned);
                    said.usage = event["usage"]["output_tokens"].is_number();
                }
                _ => {}
            }
        }
        said
    }

    fn is(&self, expected: &Self) {
        let parts = |said: &Self| {
            (
                said.thinking.clone(),
                // What stands between a text and a call is the model's form.
                said.content.trim_end().to_owned(),
                said.calls.clone(),
                said.done_reason.clone(),
                (said.reason.clone(), said.usage),
            )
        };
        assert_eq!(parts(self), parts(expected));
        if let Some(most) = expected.calls_in_a_line {
            assert!(self.calls_in_a_line <= Some(most), "{self:?}");
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// As Continue reads them: a name, blanks, and a value without any or in quotes.
fn parameters(text: &str) -> Map<String, Value> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ').expect("a name and a value");
        let value = value.trim_start();
        let is_quoted = value.starts_with('"') && value.ends_with('"') && value.len() > 1;
        assert!(is_quoted || !value.contains(' '), "{line}");
        (name.to_owned(), Value::from(value))
    };
    text.lines().map(pair).collect()
}

fn check(asked: &Asked, answer: &Answer) {
    assert_eq!(answer.status, asked.status, "{}", answer.body);
    if asked.empty {
        assert_eq!(answer.body, "");
        return;
    }
    if let Some(expected) = &asked.lines {
        return Said::of_lines(answer).is(expected);
    }
    if let Some(expected) = &asked.chunks {
        return Said::of_chunks(answer).is(expected);
    }
    if let Some(expected) = &asked.events {
        return Said::of_events(answer).is(expected);
    }
    let json = answer.json();
    let at = |pointer: &str| {
        let found = json.pointer(pointer);
        found.unwrap_or_else(|| panic!("no {pointer} in {json}"))
    };
    for (pointer, expected) in &asked.json {
        assert_eq!(at(pointer), expected, "{pointer} of {json}");
    }
    for (pointer, expected) in &asked.types {
        assert_eq!(kind(at(pointer)), expected, "{pointer} of {json}");
    }
    for pointer in &asked.times {
        let time: Result<Timestamp, _> = text(at(pointer)).parse();
        assert!(time.is_ok(), "{pointer} of {json}");
    }
    if !asked.parameters.is_empty() {
        let told = parameters(text(at("/parameters")));
        for (name, expected) in &asked.parameters {
            assert_eq!(told.get(name), Some(expected), "{name}");
        }
    }
    if let Some(least) = &asked.version_at_least {
        let parts = text(at("/version")).split('.');
        let parts: Vec<u32> = parts.map(|part| part.parse().expect("a number")).collect();
        assert!(parts >= *least, "{json}");
    }
}

fn replay(daemon: &Daemon, session: &Session) {
    for asked in &session.requests {
        println!("{}: {}", session.client, asked.what);
        let body = asked.body.as_ref();
        let answer = request(daemon.address, &asked.method, &asked.path, body);
        check(asked, &answer);
    }
}

fn session(name: &str) -> Session {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client_requests");
    let file = std::fs::read(folder.join(format!("{name}.json"))).expect("the session");
    serde_json::from_slice(&file).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn is_served(name: &str) {
    let session = session(name);
    let daemon = setup().start();
    replay(&daemon, &session);
}

#[test]
fn open_webui() {
    is_served("open_webui");
}

#[test]
fn home_assistant() {
    is_served("home_assistant");
}

#[test]
fn vs_code() {
    is_served("vs_code");
}

#[test]
fn n8n() {
    is_served("n8n");
}

#[test]
fn zed() {
    is_served("zed");
}

#[test]
fn continue_dev() {
    is_served("continue");
}

#[test]
fn codex() {
    is_served("codex");
}

#[test]
fn claude_code() {
    is_served("claude_code");
}

/// Its command line, unchanged, which asks for models of Ollama's by OpenAI's API.
#[test]
#[ignore = "60 MB from npm: `cargo nextest run --release --workspace --run-ignored only continues`"]
fn continues_command_line() {
    let daemon = setup().start();
    let home = tempfile::tempdir().expect("a folder");
    let config = home.path().join("config.yaml");
    let written = format!(
        "name: here\nversion: 0.0.1\nschema: v1\nmodels:\n  - name: here\n    provider: ollama\n    model: m\n    \
         apiBase: http://{}\n    roles: [chat]\n",
        daemon.address
    );
    std::fs::write(&config, written).expect("a file");
    let packages = npm_packages(&[CONTINUE]);
    let mut session = node();
    session
        .arg(packages.join("node_modules/@continuedev/cli/dist/cn.js"))
        .arg("--config")
        .arg(&config)
        .args(["-p", "slow"])
        .current_dir(home.path())
        .env("HOME", home.path())
        .env("CONTINUE_GLOBAL_DIR", home.path().join("continue"))
        .env("CONTINUE_TELEMETRY_ENABLED", "0");
    is_whole(session, "one two three four five");
}
