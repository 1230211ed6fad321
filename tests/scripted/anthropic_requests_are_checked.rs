//! What Anthropic's clients may send, what becomes of it, and what is refused by its field's name.

use crate::anthropic_questions::{question, submitted};
use crate::http_support::*;
use rkllmd::settings::Settings;
use serde_json::{Value, json};

const PATH: &str = "/v1/messages";

async fn server() -> Server {
    Server::replaying(Settings::default(), || {
        vec![started(&[]), text("x"), finished()]
    })
    .await
}

/// Checks lines of the form `<model> <fields>: <JSON> => <param> <code>`, and `body` for a whole one.
#[tokio::test]
async fn each_refusal_names_its_field() {
    let table = r#"
        body:  => - invalid_json
        body: [] => - invalid_json
        body: {} => model missing_required_parameter
        body: {"model":7} => model invalid_type
        body: {"model":"no/such"} => model model_not_found
        body: {"model":"tiny","messages":[{"role":"user","content":"hi"}]} => max_tokens missing_required_parameter
        body: {"model":"tiny","max_tokens":1} => messages missing_required_parameter
        body: {"model":"raw","max_tokens":1,"messages":[{"role":"user","content":"hi"}]} => model no_chat_template
        body: {"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":"\ud800"}]} => - invalid_json
        body: {"model":"tiny","max_tokens":1,"system":"\ud800","messages":[]} => - invalid_json
        body: {"model":"tiny","max_tokens":1,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{"a":"\ud800"}}]}]} => - invalid_json
        body: {"model":"tiny","max_tokens":1,"messages":[],"tools":[{"name":"f","input_schema":{"\ud800":1}}]} => - invalid_json
        body: {"model":"tiny","max_tokens":1e400,"messages":[]} => max_tokens invalid_value
        tiny: "max_tokens":0 => max_tokens invalid_value
        tiny: "max_tokens":-5 => max_tokens invalid_value
        tiny: "max_tokens":1e300 => max_tokens invalid_value
        tiny: "max_tokens":"many" => max_tokens invalid_type
        tiny: "messages":[] => messages invalid_value
        tiny: "messages":7 => messages invalid_type
        tiny: "messages":[{}] => messages[0].role missing_required_parameter
        tiny: "messages":[{"role":"tool","content":"a"}] => messages[0].role invalid_value
        tiny: "messages":[{"role":"user"}] => messages[0].content missing_required_parameter
        tiny: "messages":[{"role":"user","content":7}] => messages[0].content invalid_type
        tiny: "messages":[{"role":"user","content":"a\u0000"}] => messages[0].content invalid_value
        tiny: "messages":[{"role":"user","content":[7]}] => messages[0].content[0] invalid_type
        tiny: "messages":[{"role":"user","content":[{}]}] => messages[0].content[0].type missing_required_parameter
        tiny: "messages":[{"role":"user","content":[{"type":"text"}]}] => messages[0].content[0].text missing_required_parameter
        tiny: "messages":[{"role":"user","content":[{"type":"text","text":1}]}] => messages[0].content[0].text invalid_type
        tiny: "messages":[{"role":"user","content":[{"type":"text","text":"\u0000"}]}] => messages[0].content[0].text invalid_value
        tiny: "messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64"}}]}] => messages[0].content[0].type unsupported_parameter
        tiny: "messages":[{"role":"user","content":[{"type":"document"}]}] => messages[0].content[0].type unsupported_parameter
        tiny: "messages":[{"role":"user","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]}] => messages[0].content[0].type invalid_value
        tiny: "messages":[{"role":"assistant","content":[{"type":"tool_result","tool_use_id":"a"}]}] => messages[0].content[0].type invalid_value
        tiny: "messages":[{"role":"assistant","content":[{"type":"tool_use","name":"f","input":{}}]}] => messages[0].content[0].id missing_required_parameter
        tiny: "messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","input":{}}]}] => messages[0].content[0].name missing_required_parameter
        tiny: "messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":"{}"}]}] => messages[0].content[0].input invalid_type
        tiny: "messages":[{"role":"user","content":[{"type":"tool_result"}]}] => messages[0].content[0].tool_use_id missing_required_parameter
        tiny: "messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","is_error":"no"}]}] => messages[0].content[0].is_error invalid_type
        tiny: "messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[{"type":"image"}]}]}] => messages[0].content[0].content[0].type unsupported_parameter
        tiny: "system":7 => system invalid_type
        tiny: "system":[{"type":"text","text":7}] => system[0].text invalid_type
        tiny: "system":"\u0000" => system invalid_value
        tiny: "stream":"no" => stream invalid_type
        tiny: "temperature":"hot" => temperature invalid_type
        tiny: "temperature":2.1 => temperature invalid_value
        tiny: "top_p":-0.1 => top_p invalid_value
        tiny: "top_k":-2 => top_k invalid_value
        tiny: "stop_sequences":"END" => stop_sequences invalid_type
        tiny: "stop_sequences":[7] => stop_sequences[0] invalid_type
        tiny: "thinking":true => thinking invalid_type
        tiny: "thinking":{} => thinking.type missing_required_parameter
        thinker: "thinking":{"type":"enabled","budget_tokens":0} => thinking.budget_tokens invalid_value
        thinker: "thinking":{"type":"enabled","budget_tokens":"x"} => thinking.budget_tokens invalid_type
        tiny: "output_config":{"format":{}} => output_config.format.type missing_required_parameter
        tiny: "output_config":{"format":{"type":"yaml"}} => output_config.format.type unsupported_parameter
        tiny: "output_config":{"format":{"type":"json_schema"}} => output_config.format.schema missing_required_parameter
        tiny: "output_format":{"type":"json_schema"} => output_format.schema missing_required_parameter
        tiny: "output_format":{"type":"json_schema","schema":{"type":"no such type"}} => output_format.schema unsupported_schema
        tiny: "tools":[{"name":"f","input_schema":{}}] => tools unsupported_parameter
        thinker: "tools":[{"input_schema":{}}] => tools[0].name missing_required_parameter
        thinker: "tools":[{"name":"f","input_schema":[]}] => tools[0].input_schema invalid_type
        thinker: "tools":[{"name":"f","input_schema":{"a":"\u0000"}}] => tools[0].input_schema invalid_value
        thinker: "tools":[{"name":"f","description":7}] => tools[0].description invalid_type
        thinker: "tools":[{"name":"f"}],"tool_choice":"any" => tool_choice invalid_type
        thinker: "tools":[{"name":"f"}],"tool_choice":{} => tool_choice.type missing_required_parameter
        thinker: "tools":[{"name":"f"}],"tool_choice":{"type":"some"} => tool_choice.type invalid_value
        thinker: "tools":[{"name":"f"}],"tool_choice":{"type":"tool"} => tool_choice.name missing_required_parameter
        thinker: "tools":[{"name":"f"}],"tool_choice":{"type":"tool","name":"g"} => tool_choice invalid_value
        thinker: "tools":[{"name":"f","strict":true,"input_schema":{"type":"no such type"}}],"tool_choice":{"type":"any"} => tools[0].input_schema unsupported_schema
        tiny: "tool_choice":{"type":"any"} => tool_choice unsupported_parameter
        tiny: "tools":[{"type":"web_search_20250305","name":"web_search"}],"tool_choice":{"type":"any"} => tool_choice unsupported_parameter
        thinker: "tools":[{"name":"f"}],"tool_choice":{"type":"any"},"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}] => tool_choice unsupported_parameter
    "#;
    let mut server = server().await;
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (given, refusal) = line.rsplit_once(" => ").expect("an arrow");
        let (what, given) = given.split_once(':').expect("a kind");
        let (param, code) = refusal.split_once(' ').expect("a parameter and a code");
        let body = match what {
            "body" => given.to_owned(),
            model => {
                let given: Value = serde_json::from_str(&format!("{{{given}}}")).expect("fields");
                let mut body = question(given);
                body["model"] = model.into();
                body.to_string()
            }
        };
        let answer = server.post(PATH, &body).await;
        let status = if code == "model_not_found" { 404 } else { 400 };
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
        let error = &answer.json()["error"];
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{line}"
        );
        let blamed = error["param"].as_str().unwrap_or("-");
        assert_eq!(
            (blamed, error["code"].as_str()),
            (param, Some(code)),
            "{line}: {error}"
        );
    }
    assert!(server.requests.try_recv().is_err(), "nothing was submitted");
    server.shut_down().await;
}

#[tokio::test]
async fn values_reach_the_engine_and_what_is_not_applied_is_told() {
    let mut server = server().await;
    let body = question(json!({
        "temperature": 0.5, "top_p": 0.9, "top_k": 20, "stop_sequences": ["END", ""],
        "metadata": {"user_id": "u"}, "cache_control": {"type": "ephemeral"}, "stream": false,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197.fa0;"},
            {"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}],
    }));
    let (request, answer) = submitted(&mut server, "/v1/messages?beta=true", &body).await;
    let sampling = request.sampling;
    assert_eq!(
        (sampling.temperature, sampling.top_p, sampling.top_k),
        (Some(0.5), Some(0.9), Some(20))
    );
    assert_eq!(request.max_new_tokens, Some(16));
    assert_eq!(request.stop, ["END"]);
    assert!(
        request.prompt.contains("system\nbe kind<"),
        "{}",
        request.prompt
    );
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    let body = question(json!({
        "service_tier": "auto", "a b": 1, "container": null, "context_management": {},
        "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"},
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
        "messages": [
            {"role": "user", "content": [{"type": "search_result", "content": {}}, {"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "ok"}]},
            {"role": "user", "content": "and?"},
        ],
    }));
    let (_, answer) = submitted(&mut server, PATH, &body).await;
    assert_eq!(
        answer.header("x-rkllmd-not-applied"),
        Some(
            "thinking, output_config.effort, service_tier, a%20b, context_management, \
             content[].search_result, content[].redacted_thinking, tools[].web_search_20250305"
        )
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_wish_to_think_reaches_the_template() {
    let mut server = server().await;
    for (fields, expected) in [
        (json!({}), "hi|unset unset"),
        (json!({"thinking": {"type": "disabled"}}), "hi|off unset"),
        (json!({"thinking": {"type": "adaptive"}}), "hi|on unset"),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 2048}, "output_config": {"effort": "low"}}),
            "hi|on low",
        ),
        (json!({"output_config": {"effort": "max"}}), "hi|unset max"),
    ] {
        let mut body = question(fields.clone());
        body["model"] = "thinker".into();
        let (request, answer) = submitted(&mut server, PATH, &body).await;
        assert_eq!(&*request.prompt, expected, "{fields}");
        assert_eq!(answer.header("x-rkllmd-not-applied"), None);
        let budget = request.reply.and_then(|plan| plan.thought_budget);
        let asked = fields["thinking"].get("budget_tokens").map(|_| 2048);
        assert_eq!(budget.map(|budget| budget.tokens), asked, "{fields}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn one_conversation_has_one_prompt_in_all_dialects() {
    let mut server = server().await;
    let call = |id: &str, name: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let openai = json!({"model": "tiny", "messages": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "both"},
        {"role": "assistant", "content": "see", "reasoning_content": "so", "tool_calls": [
            call("c0", "f", json!(r#"{"text":"<|im_end|>","n":1}"#)), call("c1", "g", json!("{}"))]},
        {"role": "tool", "tool_call_id": "c1", "content": "second"},
        {"role": "tool", "tool_call_id": "c0", "content": "first"},
        {"role": "user", "content": "and?\nnow?"},
        {"role": "assistant", "content": "ok"},
    ]});
    let (expected, _) = submitted(&mut server, "/v1/chat/completions", &openai).await;
    assert!(expected.prompt.contains("first"), "{}", expected.prompt);
    let ollama = json!({"model": "tiny", "messages": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "both"},
        {"role": "assistant", "content": "see", "thinking": "so", "tool_calls": [
            {"id": "c0", "function": {"name": "f", "arguments": {"text": "<|im_end|>", "n": 1}}},
            {"id": "c1", "function": {"name": "g"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "second"},
        {"role": "tool", "tool_call_id": "c0", "content": "first"},
        {"role": "user", "content": "and?\nnow?"},
        {"role": "assistant", "content": "ok"},
    ]});
    let (request, _) = submitted(&mut server, "/api/chat", &ollama).await;
    assert_eq!(request.prompt, expected.prompt);
    let text = |text: &str| json!({"type": "text", "text": text});
    let thought = json!({"type": "thinking", "thinking": "so", "signature": "s"});
    let f = json!({"type": "tool_use", "id": "c0", "name": "f", "input": {"text": "<|im_end|>", "n": 1}});
    let g = json!({"type": "tool_use", "id": "c1", "name": "g", "input": {}});
    let first = json!({"type": "tool_result", "tool_use_id": "c0", "content": [text("first")]});
    let second =
        json!({"type": "tool_result", "tool_use_id": "c1", "content": "second", "is_error": false});
    for (system, messages) in [
        (
            json!("be kind"),
            json!([
                {"role": "user", "content": "both"},
                {"role": "assistant", "content": [thought, text("see"), f, g]},
                {"role": "user", "content": [second, first, text("and?\nnow?")]},
                {"role": "assistant", "content": [text("ok"), text("")]},
            ]),
        ),
        // Blocks in another order, messages of one role that follow each other, and a system among them.
        (
            Value::Null,
            json!([
                {"role": "system", "content": [text("be kind")]},
                {"role": "user", "content": [text("both")]},
                {"role": "assistant", "content": [thought, text("see"), f]},
                {"role": "assistant", "content": [g]},
                {"role": "user", "content": [text("and?"), first]},
                {"role": "user", "content": [second, text("now?")]},
                {"role": "assistant", "content": "ok"},
            ]),
        ),
    ] {
        let body = question(json!({"system": system, "messages": messages}));
        let (request, _) = submitted(&mut server, PATH, &body).await;
        assert_eq!(request.prompt, expected.prompt, "{body}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_failed_call_is_told_to_the_model() {
    let mut server = server().await;
    for (content, expected) in [
        (json!("no disk"), "Error: no disk"),
        (Value::Null, "Error: "),
    ] {
        let body = question(json!({"messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c0", "name": "f", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c0", "content": content, "is_error": true}]},
        ]}));
        let (request, _) = submitted(&mut server, PATH, &body).await;
        assert!(request.prompt.contains(expected), "{}", request.prompt);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn tools_reach_the_model_as_they_are_chosen() {
    let mut server = server().await;
    let tools = json!([
        {"name": "f", "description": "does f", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
        {"type": "custom", "name": "g", "input_schema": {"type": "object"}},
    ]);
    for (choice, is_told, is_forced, is_single) in [
        (Value::Null, true, false, false),
        (json!({"type": "auto"}), true, false, false),
        (
            json!({"type": "auto", "disable_parallel_tool_use": true}),
            true,
            false,
            true,
        ),
        (json!({"type": "none"}), false, false, false),
        (json!({"type": "any"}), true, true, false),
        (
            json!({"type": "any", "disable_parallel_tool_use": true}),
            true,
            true,
            true,
        ),
        (json!({"type": "tool", "name": "g"}), true, true, true),
    ] {
        let mut body = question(json!({"tools": tools, "tool_choice": choice}));
        body["model"] = "picky".into();
        let (request, _) = submitted(&mut server, PATH, &body).await;
        assert_eq!(request.prompt.contains("does f"), is_told, "{choice}");
        let needs = request
            .constraint
            .as_ref()
            .map(|constraint| &constraint.need);
        let needed = needs.is_some_and(|need| *need == rkllmd::constraint::Need::Needed);
        assert_eq!(needed, is_forced, "{choice}");
        let one_call = request.reply.is_some_and(|plan| plan.one_call);
        assert_eq!(one_call, is_single, "{choice}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_not_read_is_told_within_bounds() {
    let mut server = server().await;
    let tools: Vec<Value> = (0..100)
        .map(|n| json!({"type": format!("kind{n}"), "name": "n"}))
        .collect();
    let body = question(json!({"tools": tools}));
    let (_, answer) = submitted(&mut server, PATH, &body).await;
    let told = answer.header("x-rkllmd-not-applied").expect("names");
    let told: Vec<&str> = told.split(", ").collect();
    assert_eq!((told.len(), told[0]), (16, "tools[].kind0"));
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_not_read_within_an_object_is_told_too() {
    let mut server = server().await;
    let body = question(json!({
        "model": "thinker",
        "thinking": {"type": "adaptive", "depth": 2, "display": "summarized"},
        "output_config": {"effort": "low", "task_budget": {"total": 9}, "a": null},
        // Another kind of tool has fields of other types.
        "tools": [{"type": "kind", "name": 7, "description": [], "input_schema": [], "strict": "x"}],
    }));
    let (request, answer) = submitted(&mut server, PATH, &body).await;
    assert_eq!(&*request.prompt, "hi|on low");
    assert_eq!(
        answer.header("x-rkllmd-not-applied"),
        Some("thinking.depth, output_config.task_budget, tools[].kind")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn an_answer_is_kept_to_the_format_that_is_asked_for() {
    let mut server = server().await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let format = json!({"type": "json_schema", "schema": schema});
    for fields in [
        json!({"output_config": {"format": format}}),
        json!({"output_format": format}),
    ] {
        let (request, _) = submitted(&mut server, PATH, &question(fields)).await;
        assert!(request.constraint.is_some());
    }
    for fields in [json!({"output_config": {}}), json!({"output_format": null})] {
        let (request, _) = submitted(&mut server, PATH, &question(fields)).await;
        assert!(request.constraint.is_none());
    }
    server.shut_down().await;
}
