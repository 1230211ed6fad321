//! Each refusal of a request: its status, its code, and the field it blames.

use crate::http_support::*;
use rkllmd::generation::GenerationRequest;
use rkllmd::settings::Settings;

async fn server() -> Server {
    Server::replaying(Settings::default(), || {
        vec![started(&[]), text("x"), finished()]
    })
    .await
}

/// Checks lines of the form `<endpoint> <what>: <JSON> => <param> <code>`, where `what` says what
/// the JSON is: a whole `body`, the `messages` of one, or further `fields` of a good one.
async fn check_refusals(table: &str) {
    let mut server = server().await;
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (given, refusal) = line.rsplit_once(" => ").expect("an arrow");
        let (what, json) = given.split_once(": ").expect("a kind");
        let (param, code) = refusal.split_once(' ').expect("a parameter and a code");
        let (path, body) = match what {
            "chat body" => (CHAT, json.to_owned()),
            "text body" => (TEXT, json.to_owned()),
            "chat messages" => (CHAT, format!(r#"{{"model":"tiny","messages":{json}}}"#)),
            "chat fields" => (
                CHAT,
                format!(
                    r#"{{"model":"tiny","messages":[{{"role":"user","content":"hi"}}],{json}}}"#
                ),
            ),
            "text fields" => (TEXT, format!(r#"{{"model":"raw","prompt":"once",{json}}}"#)),
            _ => panic!("no such kind: {what}"),
        };
        let answer = server.post(path, &body).await;
        let status = if code == "model_not_found" { 404 } else { 400 };
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
        let (class, blamed, found) = answer.error();
        assert_eq!(class, "invalid_request_error");
        assert_eq!(
            (blamed.as_deref().unwrap_or("-"), found.as_str()),
            (param, code),
            "{line}"
        );
    }
    assert!(server.requests.try_recv().is_err(), "nothing was submitted");
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_not_json_or_not_a_request_is_refused() {
    check_refusals(
        r#"
        chat body:  => - invalid_json
        chat body: {"model": => - invalid_json
        chat body: {"model":"tiny"} trailing => - invalid_json
        chat body: [] => - invalid_json
        chat body: null => - invalid_json
        chat body: "tiny" => - invalid_json
        chat body: {"model":"\ud800"} => - invalid_json
        chat messages: [{"role":"user","content":"a\udc00"}] => - invalid_json
        chat messages: [{"role":"user","content":"a","name":"\ud800 b"}] => - invalid_json
        chat messages: [{"role":"user","content":[{"type":"text","text":"\ud83d\n"}]}] => - invalid_json
        chat fields: "tools":[{"function":{"name":"f","description":"\ud800"}}] => - invalid_json
        chat fields: "tools":[{"function":{"name":"f","parameters":{"a":"\ud800"}}}] => - invalid_json
        chat fields: "tools":[{"function":{"name":"f","parameters":{"\ud800":1}}}] => - invalid_json
        chat fields: "stop":["a","\udfff"] => - invalid_json
        chat fields: "response_format":{"type":"json_schema","json_schema":{"schema":{"const":"\ud800"}}} => - invalid_json
        chat fields: "guided_json":{"const":"\ud800"} => - invalid_json
        chat fields: "guided_regex":"\ud800" => - invalid_json
        chat fields: "metadata":{"a":"\ud800"} => - invalid_json
        chat fields: "nobody_reads_this":"\ud800" => - invalid_json
        text body: {"model":"raw","prompt":"\ud800"} => - invalid_json
        chat fields: "temperature":1e999 => temperature invalid_value
        chat fields: "temperature":NaN => temperature invalid_value
        chat fields: "temperature":-Infinity => temperature invalid_value
        text fields: "logit_bias":{"1":NaN} => logit_bias invalid_value
        chat body: {"model":"tiny","model":"tiny"} => model invalid_value
        chat messages: [{"role":"user","role":"user","content":"hi"}] => messages[0].role invalid_value
        chat body: {} => model missing_required_parameter
        chat body: {"model":null} => model missing_required_parameter
        chat body: {"model":""} => model missing_required_parameter
        chat body: {"model":7} => model invalid_type
        chat body: {"model":"no/such"} => model model_not_found
        chat body: {"model":"tiny"} => messages missing_required_parameter
        chat body: {"model":"raw","messages":[{"role":"user","content":"hi"}]} => model no_chat_template
        text body: {"model":"raw"} => prompt missing_required_parameter
        "#,
    )
    .await;
}

#[tokio::test]
async fn malformed_json_is_located() {
    let server = server().await;
    let answer = server.post(CHAT, "{\n  \"model\": tiny\n}").await;
    let message = answer.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("line 2") && message.contains("column"),
        "{message}"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn messages_are_checked_one_by_one() {
    check_refusals(
        r#"
        chat messages: [] => messages invalid_value
        chat messages: 7 => messages invalid_type
        chat messages: ["hi"] => messages[0] invalid_type
        chat messages: [["user","hi"]] => messages[0] invalid_type
        chat messages: [{"content":"hi"}] => messages[0].role missing_required_parameter
        chat messages: [{"role":"user"}] => messages[0].content missing_required_parameter
        chat messages: [{"role":"user","content":null}] => messages[0].content missing_required_parameter
        chat messages: [{"role":"user","content":7}] => messages[0].content invalid_type
        chat messages: [{"role":"robot","content":"hi"}] => messages[0].role invalid_value
        chat messages: [{"role":"user","content":"a"},{"role":"tool","content":"b"}] => messages[1].tool_call_id missing_required_parameter
        chat messages: [{"role":"function","content":"b"}] => messages[0].name missing_required_parameter
        chat messages: [{"role":"user","content":"a","tool_calls":[{"id":"1"}]}] => messages[0].tool_calls invalid_value
        chat messages: [{"role":"assistant","tool_calls":[{}]}] => messages[0].tool_calls[0].id missing_required_parameter
        chat messages: [{"role":"assistant","tool_calls":[{"id":"1"}]}] => messages[0].tool_calls[0].function missing_required_parameter
        chat messages: [{"role":"assistant","tool_calls":[{"id":"1","function":{"arguments":"{}"}}]}] => messages[0].tool_calls[0].function.name missing_required_parameter
        chat messages: [{"role":"assistant","tool_calls":[{"id":"1","type":"custom"}]}] => messages[0].tool_calls[0].type unsupported_parameter
        chat messages: [{"role":"assistant","function_call":{"name":"f","arguments":{}}}] => messages[0].function_call.arguments invalid_type
        chat messages: [{"role":"user","content":["hi"]}] => messages[0].content[0] invalid_type
        chat messages: [{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}] => messages[0].content[1].type unsupported_parameter
        chat messages: [{"role":"user","content":[{"type":"text"}]}] => messages[0].content[0].text missing_required_parameter
        chat messages: [{"role":"user","content":"a\u0000b"}] => messages[0].content invalid_value
        chat messages: [{"role":"user","content":"a","name":"\u0000"}] => messages[0].name invalid_value
        chat fields: "tools":[{"function":{"name":"f","parameters":{"a":["\u0000"]}}}] => tools[0].function.parameters invalid_value
        chat fields: "tools":[{"function":{"name":"f","parameters":{"a":{"\u0000":1}}}}] => tools[0].function.parameters invalid_value
        chat fields: "functions":[{"name":"f"},{"name":"g","parameters":{"\u0000":1}}] => functions[1].parameters invalid_value
        chat fields: "chat_template_kwargs":7 => chat_template_kwargs invalid_type
        chat fields: "chat_template_kwargs":{"messages":[]} => chat_template_kwargs.messages invalid_value
        "#,
    )
    .await;
}

#[tokio::test]
async fn parameters_out_of_range_or_of_a_wrong_type_are_named() {
    check_refusals(
        r#"
        chat fields: "temperature":"hot" => temperature invalid_type
        chat fields: "temperature":2.1 => temperature invalid_value
        chat fields: "top_p":-0.1 => top_p invalid_value
        chat fields: "top_k":1.5 => top_k invalid_type
        chat fields: "repetition_penalty":0 => repetition_penalty invalid_value
        chat fields: "presence_penalty":3 => presence_penalty invalid_value
        chat fields: "frequency_penalty":-3 => frequency_penalty invalid_value
        chat fields: "total_deadline_ms":0 => total_deadline_ms invalid_value
        chat fields: "total_deadline_ms":1.5 => total_deadline_ms invalid_type
        chat fields: "resume":1 => resume invalid_type
        chat fields: "max_tokens":0 => max_tokens invalid_value
        chat fields: "max_tokens":-2 => max_tokens invalid_value
        chat fields: "max_tokens":16.5 => max_tokens invalid_type
        chat fields: "max_tokens":1e300 => max_tokens invalid_value
        chat fields: "max_tokens":1e400 => max_tokens invalid_value
        chat fields: "max_tokens":99999999999999999999 => max_tokens invalid_value
        chat fields: "top_logprobs":-99999999999999999999 => top_logprobs invalid_value
        chat fields: "max_tokens":"many" => max_tokens invalid_type
        chat fields: "max_completion_tokens":0 => max_completion_tokens invalid_value
        chat fields: "max_completion_tokens":5,"max_tokens":6 => max_tokens invalid_value
        chat fields: "stream":"yes" => stream invalid_type
        chat fields: "stream_options":[] => stream_options invalid_type
        chat fields: "stream_options":{"include_usage":1} => stream_options.include_usage invalid_type
        chat fields: "seed":1.5 => seed invalid_type
        chat fields: "seed":18446744073709551616 => seed invalid_value
        chat fields: "seed":-99999999999999999999 => seed invalid_value
        chat fields: "stop":7 => stop invalid_type
        chat fields: "stop":["a",7] => stop[1] invalid_type
        text fields: "max_tokens":-2 => max_tokens invalid_value
        "#,
    )
    .await;
}

#[tokio::test]
async fn numbers_are_taken_as_json_means_them() {
    let mut server = server().await;
    let stops: Vec<String> = (0..64).map(|n| format!("s{n}")).collect();
    let stops = serde_json::to_string(&stops).unwrap();
    type Seen = fn(&GenerationRequest) -> String;
    let budget: Seen = |request| format!("{:?}", request.max_new_tokens);
    let sampling: Seen = |request| {
        let sampling = &request.sampling;
        format!("{:?} {:?}", sampling.top_k, sampling.top_p)
    };
    let cases: [(&str, String, Seen, &str); 13] = [
        (CHAT, r#""max_tokens":16.0"#.into(), budget, "Some(16)"),
        (
            CHAT,
            r#""max_completion_tokens":1.6e1"#.into(),
            budget,
            "Some(16)",
        ),
        (
            CHAT,
            r#""max_tokens":-1"#.into(),
            budget,
            "Some(4294967295)",
        ),
        (
            CHAT,
            r#""max_tokens":-1,"max_completion_tokens":-1"#.into(),
            budget,
            "Some(4294967295)",
        ),
        (
            TEXT,
            r#""max_tokens":-1"#.into(),
            budget,
            "Some(4294967295)",
        ),
        (TEXT, r#""max_tokens":0"#.into(), budget, "Some(0)"),
        (CHAT, r#""top_k":40.0"#.into(), sampling, "Some(40) None"),
        (CHAT, r#""top_p":0"#.into(), sampling, "Some(1) Some(1.0)"),
        (
            CHAT,
            r#""seed":42.0,"n":1.0"#.into(),
            |r| format!("{:?}", r.draws.seed),
            "Some(42)",
        ),
        (
            CHAT,
            r#""seed":18446744073709551615"#.into(),
            |r| format!("{:?}", r.draws.seed),
            "Some(-1)",
        ),
        (
            TEXT,
            r#""seed":-3,"best_of":1.0"#.into(),
            |r| format!("{:?}", r.draws.seed),
            "Some(-3)",
        ),
        (
            CHAT,
            r#""total_deadline_ms":60000.0"#.into(),
            |r| format!("{:?}", r.total_deadline),
            "Some(60s)",
        ),
        (
            TEXT,
            format!(r#""stop":{stops}"#),
            |r| r.stop.len().to_string(),
            "64",
        ),
    ];
    for (path, fields, seen, expected) in cases {
        let body = match path {
            CHAT => format!(
                r#"{{"model":"tiny","messages":[{{"role":"user","content":"hi"}}],{fields}}}"#
            ),
            _ => format!(r#"{{"model":"raw","prompt":"once",{fields}}}"#),
        };
        let answer = server.post(path, &body).await;
        assert_eq!(answer.status, 200, "{fields}: {}", answer.text());
        let request = server.requests.try_recv().expect("submitted");
        assert_eq!(seen(&request), expected, "{fields}");
    }
    let one_more = stops.replacen('[', r#"["one more","#, 1);
    let body = format!(r#"{{"model":"raw","prompt":"once","stop":{one_more}}}"#);
    let refused = server.post(TEXT, &body).await;
    assert_eq!(
        (refused.status, refused.error().1.as_deref()),
        (400, Some("stop"))
    );
    assert!(refused.text().contains("max-stops"), "{}", refused.text());
    server.shut_down().await;

    let mut settings = Settings::default();
    settings.chat.stop_limit_bytes = 2048;
    let server = Server::replaying(settings, || vec![started(&[]), finished()]).await;
    for (bytes, status) in [(2048, 200), (2049, 400)] {
        let stop = "x".repeat(bytes);
        let body = format!(r#"{{"model":"raw","prompt":"once","stop":"{stop}"}}"#);
        let answer = server.post(TEXT, &body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        let named = answer.text().contains("stop-limit-bytes");
        assert_eq!(named, status == 400, "{}", answer.text());
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped() {
    let server = server().await;
    let body = "\u{FEFF}{\"model\":\"raw\",\"prompt\":\"once\"}";
    let answer = server.post(TEXT, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    check_refusals(
        r##"
        chat fields: "n":9 => n invalid_value
        chat fields: "n":0 => n invalid_value
        chat fields: "n":"1" => n invalid_type
        chat fields: "stop_token_ids":[5,-1] => stop_token_ids[1] invalid_value
        chat fields: "stop_token_ids":5 => stop_token_ids invalid_type
        chat fields: "min_tokens":-1 => min_tokens invalid_value
        chat fields: "deterministic":true => deterministic invalid_value
        text fields: "deterministic":true,"temperature":0.5 => deterministic invalid_value
        chat fields: "min_tokens":5,"max_tokens":4 => min_tokens invalid_value
        chat fields: "min_tokens":5,"max_completion_tokens":4 => min_tokens invalid_value
        chat fields: "ignore_eos":1 => ignore_eos invalid_type
        chat fields: "tools":[{"type":"function"}] => tools[0].function missing_required_parameter
        chat fields: "tools":[{"type":"web_search"}] => tools[0].type unsupported_parameter
        chat fields: "tools":[{"type":"function","function":{"name":""}}] => tools[0].function.name missing_required_parameter
        chat fields: "tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function"} => tool_choice.function.name missing_required_parameter
        chat fields: "tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"g"}} => tool_choice invalid_value
        chat fields: "functions":[{"name":"f"}],"function_call":{"name":"g"} => function_call invalid_value
        chat fields: "tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"perhaps" => tool_choice invalid_value
        chat fields: "tools":[{"type":"function","function":{"name":"f"}}],"functions":[{"name":"f"}] => functions invalid_value
        chat fields: "reasoning_effort":"much" => reasoning_effort invalid_value
        chat fields: "reasoning_effort":"none","enable_thinking":true => enable_thinking invalid_value
        chat fields: "enable_thinking":1 => enable_thinking invalid_type
        chat fields: "reasoning_format":"deepseek-legacy" => reasoning_format unsupported_parameter
        chat fields: "thinking_budget_tokens":-2 => thinking_budget_tokens invalid_value
        chat fields: "thinking_budget_tokens":1,"thinking_token_budget":2 => thinking_token_budget invalid_value
        chat fields: "reasoning_budget_tokens":"8" => reasoning_budget_tokens invalid_type
        chat fields: "tool_choice":"required" => tool_choice unsupported_parameter
        chat fields: "functions":[{}] => functions[0].name missing_required_parameter
        chat fields: "function_call":{"name":"f"} => function_call unsupported_parameter
        chat fields: "logprobs":1 => logprobs invalid_type
        chat fields: "top_logprobs":3 => top_logprobs invalid_value
        chat fields: "logprobs":true,"top_logprobs":21 => top_logprobs invalid_value
        chat fields: "logit_bias":{"x":1} => logit_bias.x invalid_value
        chat fields: "logit_bias":{"-1":1} => logit_bias.-1 invalid_value
        chat fields: "logit_bias":{"050":1} => logit_bias.050 invalid_value
        chat fields: "logit_bias":{"50":101} => logit_bias.50 invalid_value
        chat fields: "logit_bias":{"50":"1"} => logit_bias.50 invalid_value
        chat fields: "logit_bias":[] => logit_bias invalid_type
        chat fields: "best_of":2 => best_of unsupported_parameter
        chat fields: "echo":true => echo unsupported_parameter
        text fields: "tools":[{"type":"function","function":{"name":"f"}}] => tools unsupported_parameter
        chat fields: "min_p":1.5 => min_p invalid_value
        chat fields: "guided_regex":"a+","tools":[{"type":"function","function":{"name":"f"}}] => tools unsupported_parameter
        chat body: {"model":"thinker","guided_regex":".*","tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user","content":"hi"}]} => guided_regex unsupported_schema
        chat body: {"model":"thinker","guided_choice":["no","<tool_call>"],"tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user","content":"hi"}]} => guided_choice unsupported_schema
        chat body: {"model":"tiny","response_format":{"type":"json_object"},"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"{"}]} => response_format unsupported_parameter
        chat fields: "response_format":{"type":"grammar"} => response_format.type unsupported_parameter
        chat fields: "response_format":{"type":"json_schema"} => response_format.json_schema missing_required_parameter
        chat fields: "response_format":"json_object" => response_format invalid_type
        chat fields: "response_format":{"type":"json_schema","json_schema":{"strict":true,"schema":{"not":{}}}} => response_format.json_schema.schema unsupported_schema
        chat fields: "modalities":["text","audio"] => modalities unsupported_parameter
        chat fields: "audio":{} => audio unsupported_parameter
        chat fields: "web_search_options":{} => web_search_options unsupported_parameter
        chat fields: "grammar":"root ::= <[7]>" => grammar unsupported_schema
        chat fields: "grammar":"start: \"a\"" => grammar unsupported_schema
        chat fields: "grammar":["a"] => grammar invalid_type
        chat fields: "grammar":"root ::= \"a\"","json_schema":{} => grammar invalid_value
        chat fields: "json_schema":{"x-guidance":{}} => json_schema unsupported_schema
        chat fields: "structured_outputs":{"choice":["a","b"],"regex":"a"} => structured_outputs.choice invalid_value
        chat fields: "structured_outputs":{"structural_tag":{"type":"x"}} => structured_outputs.structural_tag unsupported_parameter
        chat fields: "structured_outputs":{"regex":"("} => structured_outputs.regex unsupported_schema
        chat fields: "guided_json":"{" => guided_json unsupported_schema
        chat fields: "guided_regex":"(?=a)b" => guided_regex unsupported_schema
        chat fields: "guided_choice":["a","b"],"response_format":{"type":"json_object"} => guided_choice invalid_value
        chat fields: "response_format":{"type":"json_schema","json_schema":{"strict":true,"schema":{"properties":{"a":{"const":{"type":"string"}},"b":{"$ref":"#/properties/a/const"}}}}} => response_format.json_schema.schema unsupported_schema
        chat fields: "response_format":{"type":"json_schema","json_schema":{"strict":true,"schema":{"own":{"a":{"type":"string"}},"properties":{"b":{"$ref":"#/own/a"}}}}} => response_format.json_schema.schema unsupported_schema
        chat fields: "n_cmpl":2 => n_cmpl unsupported_parameter
        chat fields: "guided_grammar":"start: <|im_end|>" => guided_grammar unsupported_schema
        chat fields: "guided_grammar":"%llguidance {}\nstart: \"a\"" => guided_grammar unsupported_schema
        text fields: "response_format":{"type":"json_object"},"guided_regex":"a" => guided_regex invalid_value
        text fields: "n_probs":5 => n_probs unsupported_parameter
        text fields: "prompt_logprobs":1 => prompt_logprobs unsupported_parameter
        text fields: "return_token_ids":true => return_token_ids unsupported_parameter
        text fields: "echo":"yes" => echo invalid_type
        text fields: "suffix":"end","echo":true => echo unsupported_parameter
        text fields: "suffix":"end" => suffix unsupported_parameter
        text fields: "best_of":2 => best_of unsupported_parameter
        text fields: "logprobs":6 => logprobs invalid_value
        text fields: "logprobs":true => logprobs invalid_value
        text body: {"model":"raw","prompt":[]} => prompt invalid_value
        text body: {"model":"raw","prompt":[1,"a"]} => prompt invalid_type
        text body: {"model":"raw","prompt":[-1]} => prompt[0] invalid_value
        text body: {"model":"raw","prompt":[1.5]} => prompt[0] invalid_type
        text body: {"model":"raw","prompt":[[1],[]]} => prompt[1] invalid_value
        text body: {"model":"raw","prompt":[1],"suffix":"a"} => suffix unsupported_parameter
        text body: {"model":"raw","prompt":"a\u0000"} => prompt invalid_value
        text body: {"model":"raw","prompt":""} => prompt invalid_value
        text body: {"model":"raw","prompt":[""]} => prompt[0] invalid_value
        "##,
    )
    .await;
}
