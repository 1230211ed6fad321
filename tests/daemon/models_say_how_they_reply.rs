//! How a model writes thoughts and calls is known from its owner, its template and its tokens; where it
//! knows no form, it is told one and read in it.

use std::process::Command;

use crate::daemon_support::{Daemon, Setup, word_tokenizer};
use crate::function_calls::{
    HARD, TEMPLATE, agent_turn, both_calls, call, prompt, question, read, scenario, two_calls,
};
use serde_json::json;

#[test]
fn a_models_owner_can_say_how_it_writes_calls_and_thoughts() {
    let answer = format!(r#"<<mull>>so<</mull>>Well. <<do {{"fn": "f", "args": {HARD}}} do>>"#);
    let daemon = Setup::new()
        .model_file("m", "model.rkllm", &scenario(&[("one", &answer)], 3))
        .model_file("m", "chat_template.jinja", TEMPLATE)
        .model_file(
            "m",
            "model.toml",
            "[replies]\nthought = { open = \"<<mull>>\", close = \"<</mull>>\" }\n\
             call = { open = \"<<do\", close = \"do>>\", name = \"fn\", arguments = \"args\" }\n",
        )
        .start();
    let streamed = read(&daemon, question("one", json!({})));
    assert_eq!(streamed.calls, [("f".to_owned(), HARD.to_owned())]);
    assert_eq!(
        (&*streamed.reasoning, streamed.content.trim()),
        ("so", "Well.")
    );
    let replies = &daemon.get("/v1/models/m").json()["rkllmd"]["replies"];
    assert_eq!(
        (&replies["thoughts"], &replies["calls"]),
        (&json!("model.toml"), &json!("model.toml"))
    );
    // No file names the tokens that these markers may be.
    let note = replies["notes"][0].as_str().unwrap_or_default();
    assert!(note.contains("tokenizer.json"), "{replies}");
}

/// Knows no functions, and writes calls in a form of its own all the same.
const FORGETFUL: &str = r#"{%- for message in messages %}
{%- if message.role == 'tool' %}<outputs>{{ message.content }}</outputs>
{%- else %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}<calls>{{ call.function.name }}<sep>{{ call.function.arguments | tojson }}</calls>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"#;

#[test]
fn a_model_is_read_in_the_form_that_it_was_told() {
    let daemon = Setup::new()
        .model_file("m", "model.rkllm", &scenario(&[("both", &two_calls())], 3))
        .model_file("m", "chat_template.jinja", FORGETFUL)
        .start();
    let shown = prompt(&daemon, &agent_turn(&[("call_1", "a"), ("call_2", "b")]));
    assert!(
        shown.contains("You may call functions.")
            && shown.contains("<tool_call>\n{\"name\": \"f\""),
        "{shown}"
    );
    assert!(
        !shown.contains("<calls>") && !shown.contains("<outputs>"),
        "{shown}"
    );
    let streamed = read(&daemon, question("both", json!({})));
    assert_eq!(streamed.calls, both_calls());
    let model = daemon.get("/v1/models/m").json();
    assert!(
        model.to_string().contains("\"calls\":\"generic\""),
        "{model}"
    );
}

const MARKERS: [&str; 4] = ["<tool_call>", "</tool_call>", "<think>", "</think>"];

/// The files that can say which tokens markers are.
fn files_of_tokens() -> [(&'static str, String); 2] {
    let decoder = MARKERS.iter().zip(1..).map(|(content, id)| {
        let token = json!({"content": content, "special": true, "normalized": false});
        (format!("{id}"), token)
    });
    let decoder: serde_json::Map<String, serde_json::Value> = decoder.collect();
    let config = json!({"added_tokens_decoder": decoder}).to_string();
    [
        ("tokenizer.json", word_tokenizer(&MARKERS)),
        ("tokenizer_config.json", config),
    ]
}

/// `<tool_call>` and its like are tokens of this model, which the runtime does not print.
fn with_special_markers(answer: &str, (name, content): &(&str, String)) -> Daemon {
    Setup::new()
        .model_file(
            "m",
            "model.rkllm",
            &format!("tokens = [{answer}]\neos-token-id = 9\n"),
        )
        .model_file("m", "chat_template.jinja", TEMPLATE)
        .model_file("m", name, content)
        .start()
}

#[test]
fn a_marker_that_is_a_token_is_known_by_it_and_its_characters_are_text() {
    let quoted = r#""{\"name\": \"f\", \"arguments\": {\"text\": \"<tool_call></think>\"}}""#;
    let answer = format!(
        r#"{{ text = "", id = 3 }}, "hm <tool_call>", {{ text = "", id = 4 }}, "See <think>: ",
        {{ text = "", id = 1 }}, {quoted}, {{ text = "", id = 2 }}"#
    );
    for file in files_of_tokens() {
        let daemon = with_special_markers(&answer, &file);
        let streamed = read(&daemon, question("x", json!({})));
        assert_eq!(streamed.reasoning, "hm <tool_call>");
        assert_eq!(streamed.content, "See <think>: ");
        let arguments = r#"{"text": "<tool_call></think>"}"#.to_owned();
        assert_eq!(streamed.calls, [("f".to_owned(), arguments)]);
        let replies = &daemon.get("/v1/models/m").json()["rkllmd"]["replies"];
        assert_eq!(replies["notes"], json!(null), "its tokens are known");
        // Left in the content, a thought keeps its markers.
        let body = question("x", json!({"tools": null, "reasoning_format": "none"}));
        let kept = read(&daemon, body).content;
        assert!(
            kept.starts_with("<think>hm <tool_call></think>See <think>: "),
            "{kept}"
        );
    }
}

#[test]
fn a_form_that_cannot_be_one_is_told_and_not_used() {
    let open = format!("<{}>", "x".repeat(400));
    let manifest = format!(
        "[replies]\nthought = {{ open = {open:?}, close = \"</x>\" }}\nfamily = \"hermes\"\n"
    );
    let daemon = Setup::new()
        .model_file(
            "m",
            "model.rkllm",
            &scenario(&[("one", &call("f", "{}"))], 3),
        )
        .model_file("m", "chat_template.jinja", TEMPLATE)
        .model_file("m", "model.toml", &manifest)
        .start();
    // An agent would take a call for the answer.
    let refused = daemon.post("/v1/chat/completions", &question("one", json!({})));
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (400, "unsupported_parameter"),
        "{}",
        refused.body
    );
    let streamed = read(&daemon, question("one", json!({"tools": []})));
    assert_eq!(streamed.calls, []);
    assert_eq!(streamed.content, call("f", "{}"));
    let said = "the marker `<xxxxxxxxxxxxxxxxxxxxxxx…` has 402 bytes, and 256 is the most";
    let replies = &daemon.get("/v1/models/m").json()["rkllmd"]["replies"];
    assert_eq!(
        *replies,
        json!({"thoughts": "none", "calls": "none", "problem": said})
    );
    let listed = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(["models", "--models"])
        .arg(daemon.folder().join("models"))
        .output()
        .expect("rkllmd");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains(said), "{listed}");
}

#[test]
fn special_tokens_are_printed_where_the_owner_says_so() {
    let scenario = "tokens = [\"word \", \"more\"]\neos-token-id = 9\neos-text = \"<end>\"\n";
    let markers = ["<tool_call>", "</tool_call>", "<think>", "</think>"];
    let answer = |manifest: &str| {
        let daemon = Setup::new()
            .model_file("m", "model.rkllm", scenario)
            .model_file("m", "chat_template.jinja", TEMPLATE)
            .model_file("m", "tokenizer.json", &word_tokenizer(&markers))
            .model_file("m", "model.toml", manifest)
            .start();
        read(&daemon, question("x", json!({}))).content
    };
    // The id that is not that of the end shows that the runtime prints it.
    let printed = "skip-special-token = false\neos-ids = [8]\n";
    assert_eq!(answer(printed), "word more<end>");
    assert_eq!(answer(&printed.replace('8', "9")), "word more");
    assert_eq!(answer("eos-ids = [8]\n"), "word more");
}
