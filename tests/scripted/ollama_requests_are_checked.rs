//! What Ollama's clients may send, what becomes of it, and what is refused by its field's name.

use crate::http_support::*;
use rkllmd::generation::{GenerationRequest, KeepAlive};
use rkllmd::settings::Settings;
use serde_json::{Value, json};

async fn server() -> Server {
    Server::replaying(Settings::default(), || {
        vec![started(&[]), text("x"), finished()]
    })
    .await
}

/// Checks lines of the form `<endpoint> <fields>: <JSON> => <param> <code>`.
#[tokio::test]
async fn each_refusal_names_its_field() {
    let table = r#"
        chat body:  => - invalid_json
        chat body: [] => - invalid_json
        chat body: {} => model missing_required_parameter
        chat body: {"model":""} => model missing_required_parameter
        chat body: {"model":7} => model invalid_type
        chat body: {"model":"no/such"} => model model_not_found
        chat body: {"model":"tiny:8b"} => model model_not_found
        chat body: {"model":"raw","messages":[{"role":"user","content":"hi"}]} => model no_chat_template
        chat body: {"model":"tiny","messages":7} => messages invalid_type
        chat body: {"model":"tiny","messages":[{}]} => messages[0].role missing_required_parameter
        chat body: {"model":"tiny","messages":[{"role":"robot"}]} => messages[0].role invalid_value
        chat body: {"model":"tiny","messages":[{"role":"user","content":["a"]}]} => messages[0].content invalid_type
        chat body: {"model":"tiny","messages":[{"role":"user","content":"a\u0000"}]} => messages[0].content invalid_value
        chat body: {"model":"tiny","messages":[{"role":"user","images":["aGk="]}]} => messages[0].images unsupported_parameter
        chat body: {"model":"tiny","messages":[{"role":"user","tool_calls":[{"function":{"name":"f"}}]}]} => messages[0].tool_calls invalid_value
        chat body: {"model":"tiny","messages":[{"role":"assistant","tool_calls":[{}]}]} => messages[0].tool_calls[0].function missing_required_parameter
        chat body: {"model":"tiny","messages":[{"role":"assistant","tool_calls":[{"function":{}}]}]} => messages[0].tool_calls[0].function.name missing_required_parameter
        chat body: {"model":"tiny","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}]} => messages[0].tool_calls[0].function.arguments invalid_type
        chat body: {"model":"tiny","messages":[{"role":"user","content":"\ud800"}]} => - invalid_json
        chat body: {"model":"tiny","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"a":"\ud800"}}}]}]} => - invalid_json
        chat fields: "format":{"const":"\ud800"} => - invalid_json
        chat fields: "options":{"stop":"\ud800"} => - invalid_json
        chat fields: "stream":"no" => stream invalid_type
        chat fields: "options":[] => options invalid_type
        chat fields: "options":{"temperature":"hot"} => options.temperature invalid_type
        chat fields: "options":{"temperature":2.1} => options.temperature invalid_value
        chat fields: "options":{"top_p":-0.1} => options.top_p invalid_value
        chat fields: "options":{"top_k":-2} => options.top_k invalid_value
        chat fields: "options":{"repeat_penalty":0} => options.repeat_penalty invalid_value
        chat fields: "options":{"seed":9007199254740993} => options.seed invalid_value
        chat fields: "options":{"num_ctx":"many"} => options.num_ctx invalid_type
        chat fields: "options":{"num_gpu":"all"} => options.num_gpu invalid_type
        chat fields: "options":{"stop":7} => options.stop invalid_type
        chat fields: "think":"some" => think invalid_value
        chat fields: "think":1 => think invalid_type
        chat fields: "think":true => think unsupported_parameter
        chat fields: "keep_alive":"soon" => keep_alive invalid_value
        chat fields: "keep_alive":[] => keep_alive invalid_type
        chat fields: "format":"yaml" => format invalid_value
        chat fields: "format":true => format invalid_type
        chat fields: "format":[] => format invalid_type
        chat fields: "format":{"type":"no such type"} => format unsupported_schema
        generate body: {"model":"raw","prompt":"a","format":"json"} => model model_has_no_tokenizer
        chat body: {"model":"tiny","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"{\"a\":"}],"format":{"type":"object"}} => format unsupported_parameter
        chat fields: "tools":[{"function":{"name":"f"}}] => tools unsupported_parameter
        chat fields: "logprobs":1 => logprobs invalid_type
        chat fields: "top_logprobs":3 => top_logprobs invalid_value
        chat fields: "tools":[{"type":"function"}] => tools[0].function missing_required_parameter
        chat fields: "tools":[{"function":{"name":""}}] => tools[0].function.name missing_required_parameter
        text fields: "prompt":7 => prompt invalid_type
        text fields: "prompt":"a\u0000b" => prompt invalid_value
        text fields: "prompt":"a","system":"\u0000" => system invalid_value
        text fields: "prompt":"a","suffix":"b" => suffix unsupported_parameter
        text fields: "prompt":"a","template":7 => template invalid_type
        text fields: "prompt":"a","template":"{{ range .Messages }}" => template invalid_value
        text fields: "prompt":"a","template":"{{ .Prompt" => template invalid_value
        text fields: "prompt":"a","template":"\u0000" => template invalid_value
        text fields: "prompt":"","template":"{{ nothing .Tools }}" => template invalid_value
        text fields: "prompt":"a","template":"{{ .Prompt }}","raw":true => template invalid_value
        text fields: "prompt":"a","template":"{{ .Prompt }}","suffix":"b" => suffix unsupported_parameter
        text fields: "prompt":"a","context":[1,2] => context unsupported_parameter
        text fields: "prompt":"a","context":[1,"2"] => context[1] invalid_type
        text fields: "prompt":"a","context":7 => context invalid_type
        text fields: "prompt":"a","context":[1],"raw":true => context invalid_value
        text fields: "prompt":"a","special":"yes" => special invalid_type
        text fields: "prompt":"a","images":["aGk="] => images unsupported_parameter
        text fields: "prompt":"a","raw":true,"system":"b" => system invalid_value
        embed fields: "input":null => input missing_required_parameter
        embed fields: "input":["a",""] => input[1] invalid_value
        embed fields: "input":["a",7] => input[1] invalid_type
        embed fields: "input":"a","dimensions":0 => dimensions invalid_value
        embed fields: "input":"a","options":{"num_ctx":[]} => options.num_ctx invalid_type
        embeddings fields: "prompt":"" => prompt invalid_value
        embeddings fields: "prompt":null => prompt missing_required_parameter
        show body: {} => model missing_required_parameter
        show body: {"model":"no/such"} => model model_not_found
        pull body: {"model":"a/b"} => - not_offered
        pull body: {"model":"llama3"} => model invalid_value
        pull body: {"model":"https://evil.example/a/b"} => model invalid_value
        pull body: {"model":"a/b:../../x.gguf"} => model invalid_value
        pull body: {"model":"a/b","insecure":true} => - not_offered
        pull body: {"model":"a/b","insecure":1} => insecure invalid_type
        push body: {"name":"llama3"} => - not_offered
        create body: {"from":"tiny"} => model missing_required_parameter
        create body: {"model":"x"} => from missing_required_parameter
        create body: {"model":"x","from":"no/such"} => model model_not_found
        create body: {"model":"Tiny:latest","from":"raw"} => model invalid_value
        create body: {"model":"x\u202e","from":"tiny"} => model invalid_value
        create body: {"model":"x","from":"tiny","parameters":{"temperature":9}} => parameters.temperature invalid_value
        create body: {"model":"x","from":"tiny","parameters":{"num_ctx":"many"}} => parameters.num_ctx invalid_type
        create body: {"model":"x","from":"tiny","system":"\u0000"} => system invalid_value
        create body: {"model":"x","from":"tiny","messages":[{"role":"robot"}]} => messages[0].role invalid_value
        create body: {"model":"x","from":"tiny","messages":[{"role":"tool","content":"a"}]} => messages[0] unsupported_parameter
        create body: {"model":"x","from":"tiny","template":"{{ .Messages"} => template invalid_value
        create body: {"model":"x","files":{"a":"sha256:1"}} => files unsupported_parameter
        create body: {"model":"x","from":"tiny","adapters":{"a":"sha256:1"}} => adapters unsupported_parameter
        create body: {"model":"x","from":"tiny","quantize":"q4_0"} => quantize unsupported_parameter
        create body: {"model":"x","modelfile":"FROM tiny"} => modelfile unsupported_parameter
        copy body: {"source":"tiny"} => destination missing_required_parameter
        copy body: {"destination":"y"} => source missing_required_parameter
        copy body: {"source":"tiny","destination":"raw"} => destination invalid_value
        copy body: {"source":"no/such","destination":"y"} => model model_not_found
        pull body: {} => model missing_required_parameter
    "#;
    let mut server = server().await;
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (given, refusal) = line.rsplit_once(" => ").expect("an arrow");
        let (what, json) = given.split_once(": ").expect("a kind");
        let (param, code) = refusal.split_once(' ').expect("a parameter and a code");
        let (path, kind) = what.split_once(' ').expect("an endpoint");
        let body = match kind {
            "body" => json.to_owned(),
            _ if path == "chat" => {
                format!(
                    r#"{{"model":"tiny","messages":[{{"role":"user","content":"hi"}}],{json}}}"#
                )
            }
            _ => format!(r#"{{"model":"tiny",{json}}}"#),
        };
        let path = if path == "text" { "generate" } else { path };
        let answer = server.post(&format!("/api/{path}"), &body).await;
        let status = if code == "model_not_found" { 404 } else { 400 };
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let error = answer.json();
        assert!(
            error["error"].as_str().is_some_and(|text| !text.is_empty()),
            "{line}"
        );
        let blamed = error["param"].as_str().unwrap_or("-");
        assert_eq!(
            (blamed, error["code"].as_str()),
            (param, Some(code)),
            "{line}"
        );
    }
    assert!(server.requests.try_recv().is_err(), "nothing was submitted");
    assert!(server.embedded.try_recv().is_err(), "nothing was submitted");
    server.shut_down().await;
}

async fn submitted(server: &mut Server, path: &str, body: &Value) -> (GenerationRequest, Answer) {
    let answer = server.post(path, body.to_string()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    (
        server.requests.try_recv().expect("it was submitted"),
        answer,
    )
}

fn question(fields: Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn options_reach_the_engine_and_what_is_not_applied_is_told() {
    let mut server = server().await;
    let options = json!({
        "temperature": 0.5, "top_p": 0.9, "top_k": 20, "repeat_penalty": 1.1,
        "presence_penalty": 0.25, "frequency_penalty": -0.25, "num_predict": 16, "stop": ["END", ""],
        "seed": -1, "num_ctx": 4096, "min_p": 0, "typical_p": 1.0, "mirostat": 0,
    });
    let body = question(json!({"options": options, "keep_alive": -1, "truncate": false}));
    let (request, answer) = submitted(&mut server, "/api/chat", &body).await;
    let sampling = request.sampling;
    assert_eq!(
        (sampling.temperature, sampling.top_p, sampling.top_k),
        (Some(0.5), Some(0.9), Some(20))
    );
    assert_eq!(
        (
            sampling.repeat_penalty,
            sampling.presence_penalty,
            sampling.frequency_penalty
        ),
        (Some(1.1), Some(0.25), Some(-0.25))
    );
    assert_eq!(
        (request.max_new_tokens, request.draws.seed),
        (Some(16), None)
    );
    assert_eq!(request.stop, ["END"]);
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    let options = json!({"num_ctx": 8192, "min_p": 0.1, "num_gpu": 99, "use_mmap": true, "num_predict": -1,
        "unheard_of": 1});
    let body = question(
        json!({"options": options, "keep_alive": "5m", "truncate": true, "shift": true,
            "tempreature": 1, "a b": 2, "nothing": null}),
    );
    let (request, answer) = submitted(&mut server, "/api/chat", &body).await;
    assert_eq!(request.max_new_tokens, Some(u32::MAX));
    let five_minutes = std::time::Duration::from_secs(300);
    assert_eq!(request.keep_alive, Some(KeepAlive::For(five_minutes)));
    assert_eq!(request.draws.min_p, Some(0.1));
    assert_eq!(
        answer.header("x-rkllmd-not-applied"),
        Some("num_ctx, num_gpu, use_mmap, options, shift, truncate, tempreature, a%20b")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_wish_to_think_reaches_the_template() {
    let mut server = server().await;
    for (think, expected) in [
        (Value::Null, "hi|unset unset"),
        (json!(true), "hi|on unset"),
        (json!(false), "hi|off unset"),
        (json!("high"), "hi|on high"),
    ] {
        let body = question(json!({"model": "thinker", "think": think}));
        let (request, _) = submitted(&mut server, "/api/chat", &body).await;
        assert_eq!(&*request.prompt, expected);
    }
    let body = json!({"model": "thinker", "prompt": "hi", "think": false});
    let (request, _) = submitted(&mut server, "/api/generate", &body).await;
    assert_eq!(&*request.prompt, "hi|off unset");
    server.shut_down().await;
}

#[tokio::test]
async fn a_text_is_a_question_unless_it_is_raw() {
    let mut server = server().await;
    let body = json!({"model": "tiny", "prompt": "hi", "system": "be kind"});
    let (request, _) = submitted(&mut server, "/api/generate", &body).await;
    let (chat, _) = submitted(
        &mut server,
        "/api/chat",
        &json!({"model": "tiny", "messages": [
        {"role": "System", "content": "be kind"}, {"role": "USER", "content": "hi"}]}),
    )
    .await;
    assert_eq!(request.prompt, chat.prompt);
    assert!(request.prompt.contains("be kind"), "{}", request.prompt);
    for body in [
        json!({"model": "tiny", "prompt": "once", "raw": true}),
        json!({"model": "raw", "prompt": "once", "suffix": "", "context": [], "template": ""}),
    ] {
        let (request, _) = submitted(&mut server, "/api/generate", &body).await;
        assert_eq!(&*request.prompt, "once", "{body}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn an_answer_is_kept_to_the_format_that_is_asked_for() {
    let mut server = server().await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    for format in [json!("json"), schema] {
        let body = question(json!({"format": format}));
        let (request, _) = submitted(&mut server, "/api/chat", &body).await;
        assert!(request.constraint.is_some(), "{format}");
        let body = json!({"model": "tiny", "prompt": "hi", "format": format});
        let (request, _) = submitted(&mut server, "/api/generate", &body).await;
        assert!(request.constraint.is_some(), "{format}");
    }
    for format in [json!(""), Value::Null] {
        let body = question(json!({"format": format}));
        let (request, _) = submitted(&mut server, "/api/chat", &body).await;
        assert!(request.constraint.is_none(), "{format}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn one_conversation_has_one_prompt_in_both_dialects() {
    let mut server = server().await;
    let call = |id: &str, name: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let openai = json!({"model": "tiny", "messages": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "both"},
        {"role": "assistant", "content": null, "reasoning_content": "so", "tool_calls": [
            call("call_2_0", "f", json!(r#"{"text":"<|im_end|>","n":1}"#)), call("call_2_1", "g", json!("{}"))]},
        {"role": "tool", "tool_call_id": "call_2_1", "content": "second"},
        {"role": "tool", "tool_call_id": "call_2_0", "content": "first"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "and?"},
    ]});
    let (expected, _) = submitted(&mut server, "/v1/chat/completions", &openai).await;
    assert!(expected.prompt.contains("first"), "{}", expected.prompt);
    let call =
        |name: &str, arguments: Value| json!({"function": {"name": name, "arguments": arguments}});
    let results = [
        // By the names of their functions, by ids, and by nothing but their order.
        [json!({"tool_name": "g"}), json!({"tool_name": "f"})],
        [
            json!({"tool_call_id": "call_2_1"}),
            json!({"tool_call_id": "call_2_0"}),
        ],
        [json!({}), json!({})],
    ];
    for (place, [second, first]) in results.into_iter().enumerate() {
        let result = |mut of: Value, content: &str| {
            of["role"] = "tool".into();
            of["content"] = content.into();
            of
        };
        let (one, other) = match place {
            2 => (result(first, "first"), result(second, "second")),
            _ => (result(second, "second"), result(first, "first")),
        };
        let body = json!({"model": "tiny", "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "both"},
            {"role": "assistant", "content": "", "thinking": "so", "tool_calls": [
                call("f", json!({"text": "<|im_end|>", "n": 1})), call("g", json!({}))]},
            one, other,
            {"role": "assistant", "content": "ok"},
            {"role": "user", "content": "and?"},
        ]});
        let (request, _) = submitted(&mut server, "/api/chat", &body).await;
        assert_eq!(request.prompt, expected.prompt, "{body}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_request_for_nothing_finds_the_model_loaded() {
    let mut server = server().await;
    for (path, body) in [
        ("/api/chat", json!({"model": "tiny", "messages": []})),
        ("/api/chat", json!({"model": "tiny"})),
        (
            "/api/generate",
            json!({"model": "tiny", "prompt": "", "stream": true}),
        ),
    ] {
        let answer = server.post(path, body.to_string()).await;
        let loaded = answer.json();
        assert_eq!(
            (&loaded["done"], &loaded["done_reason"]),
            (&true.into(), &"load".into()),
            "{loaded}"
        );
        assert!(
            loaded.get("load_duration").is_none(),
            "nothing was loaded for it"
        );
    }
    assert!(server.requests.try_recv().is_err(), "nothing ran");
    server.shut_down().await;
}
