//! One generation, with a thought, a text, two calls at once and its end, through every dialect: each renders the same
//! prompt, and each stream, held event by event to the models of that dialect's package, says the same.
//!
//! A dialect is a row of [`DIALECTS`] and a program in `tests/dialects` that reads its stream. That is given the stream
//! and prints what it came to; fields that the package does not know are refused there but for those that it lists.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::client_sessions::thinking_template;
use crate::daemon_support::{Daemon, Setup, python_package};
use crate::function_calls::{HARD, call, scenario, tool};
use serde_json::{Value, json};

/// A dialect that has calls.
struct Dialect {
    /// Of its program, and of the package that this needs.
    program: &'static str,
    package: &'static str,
    path: &'static str,
    /// A streamed request of what [`asked`] says.
    body: fn() -> Value,
}

const DIALECTS: [Dialect; 4] = [
    Dialect {
        program: "openai_chat.py",
        package: "openai==3.54.0",
        path: "/v1/chat/completions",
        body: || {
            let mut body = asked();
            body["stream_options"] = json!({"include_usage": true});
            body
        },
    },
    Dialect {
        program: "ollama_chat.py",
        package: "ollama==0.6.3",
        path: "/api/chat",
        body: asked,
    },
    Dialect {
        program: "anthropic_messages.py",
        package: "anthropic==2.14.0",
        path: "/v1/messages",
        body: || {
            let [f, g] = ["f", "g"].map(|name| {
                let function = tool(name)["function"].clone();
                json!({"name": name, "description": function["description"],
                    "input_schema": function["parameters"]})
            });
            json!({
                "model": "m",
                "max_tokens": 4000,
                "system": "Be brief.",
                "messages": [{"role": "user", "content": "Call both of them."}],
                "tools": [f, g],
                "thinking": {"type": "enabled", "budget_tokens": 2000},
                "stream": true,
            })
        },
    },
    Dialect {
        program: "openai_responses.py",
        package: "openai==3.54.0",
        path: "/v1/responses",
        body: || {
            let tools = ["f", "g"].map(|name| {
                let mut function = tool(name)["function"].clone();
                function["type"] = "function".into();
                function
            });
            json!({
                "model": "m",
                "instructions": "Be brief.",
                "input": "Call both of them.",
                "tools": tools,
                "stream": true,
            })
        },
    },
];

const TEXT: &str = "Let me \"see\" é🦀.";
const THOUGHT: &str = "First f,\nthen g.";

/// As OpenAI's and Ollama's clients ask it.
fn asked() -> Value {
    json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Call both of them."},
        ],
        "tools": [tool("f"), tool("g")],
        "stream": true,
    })
}

fn answer() -> String {
    let (f, g) = (call("f", HARD), call("g", r#"{"text": "x"}"#));
    format!("<think>\n{THOUGHT}\n</think>\n\n{TEXT}\n{f}\n{g}")
}

fn setup(scenario: &str) -> Setup {
    Setup::new()
        .model_file("m", "model.rkllm", scenario)
        .model_file("m", "chat_template.jinja", &thinking_template())
}

/// What a dialect's program reads in a stream.
fn read(dialect: &Dialect, stream: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dialects");
    let mut program = Command::new("python3")
        .arg(dialect.program)
        .current_dir(folder)
        .env("PYTHONPATH", python_package(dialect.package))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut stdin = program.stdin.take().expect("piped");
    stdin.write_all(stream.as_bytes()).expect("it reads");
    drop(stdin);
    let output = program.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {said}{stream}",
        dialect.program
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_thought_a_text_and_two_calls() {
    // Only of this prompt the model makes the answer.
    let prompt = |daemon: &Daemon| {
        let shown = daemon.post("/apply-template", &asked()).json();
        shown["prompt"].as_str().expect("a prompt").to_owned()
    };
    let prompt = prompt(&setup("tokens = [\"x\"]\n").start());
    assert!(
        prompt.contains("Be brief.") && prompt.contains("Call both"),
        "{prompt}"
    );
    let daemon = setup(&scenario(&[(&prompt, &answer())], 3)).start();
    let expected = json!({
        "reasoning": THOUGHT,
        // What stands between it and the first call is kept as it was written.
        "text": format!("{TEXT}\n"),
        "calls": [
            {"name": "f", "arguments": serde_json::from_str::<Value>(HARD).expect("JSON")},
            {"name": "g", "arguments": {"text": "x"}},
        ],
    });
    let mut counts = Vec::new();
    for dialect in &DIALECTS {
        let answer = daemon.post(dialect.path, &(dialect.body)());
        assert_eq!(answer.status, 200, "{}: {}", dialect.path, answer.body);
        let mut told = read(dialect, &answer.body);
        let tokens = told.as_object_mut().and_then(|told| told.remove("tokens"));
        counts.push(tokens.and_then(|count| count.as_u64()));
        assert_eq!(told, expected, "{}", dialect.path);
    }
    assert!(
        counts[0].is_some() && counts.iter().all(|count| *count == counts[0]),
        "{counts:?}"
    );
}
