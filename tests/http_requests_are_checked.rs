//! Each refusal of a request: its status, its code, and the field it blames.

mod http_support;

use std::time::Duration;

use http_support::*;
use rkllmd::generation::{GenerationError, TokenEvent};
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
        chat fields: "temperature":1e999 => - invalid_json
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
        chat messages: [{"role":"user","content":"a"},{"role":"tool","content":"b"}] => messages[1].role unsupported_parameter
        chat messages: [{"role":"assistant","tool_calls":[{}]}] => messages[0].tool_calls unsupported_parameter
        chat messages: [{"role":"user","content":["hi"]}] => messages[0].content[0] invalid_type
        chat messages: [{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}] => messages[0].content[1].type unsupported_parameter
        chat messages: [{"role":"user","content":[{"type":"text"}]}] => messages[0].content[0].text missing_required_parameter
        chat messages: [{"role":"user","content":"a\u0000b"}] => messages[0].content invalid_value
        chat messages: [{"role":"user","content":"a","name":"\u0000"}] => messages[0].name invalid_value
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
        chat fields: "top_p":0 => top_p invalid_value
        chat fields: "top_k":1.5 => top_k invalid_type
        chat fields: "repetition_penalty":0 => repetition_penalty invalid_value
        chat fields: "presence_penalty":3 => presence_penalty invalid_value
        chat fields: "frequency_penalty":-3 => frequency_penalty invalid_value
        chat fields: "total_deadline_ms":0 => total_deadline_ms invalid_value
        chat fields: "total_deadline_ms":1.5 => total_deadline_ms invalid_type
        chat fields: "resume":1 => resume invalid_type
        chat fields: "max_tokens":0 => max_tokens invalid_value
        chat fields: "max_tokens":-1 => max_tokens invalid_value
        chat fields: "max_tokens":"many" => max_tokens invalid_type
        chat fields: "max_completion_tokens":0 => max_completion_tokens invalid_value
        chat fields: "max_completion_tokens":5,"max_tokens":6 => max_tokens invalid_value
        chat fields: "stream":"yes" => stream invalid_type
        chat fields: "stream_options":[] => stream_options invalid_type
        chat fields: "stream_options":{"include_usage":1} => stream_options.include_usage invalid_type
        chat fields: "seed":1.5 => seed invalid_type
        chat fields: "stop":7 => stop invalid_type
        chat fields: "stop":["a",7] => stop[1] invalid_type
        chat fields: "stop":["","","","","","","","","","","","","","","","",""] => stop invalid_value
        text fields: "max_tokens":0 => max_tokens invalid_value
        "#,
    )
    .await;
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    check_refusals(
        r#"
        chat fields: "n":2 => n unsupported_parameter
        chat fields: "n":"1" => n unsupported_parameter
        chat fields: "tools":[{"type":"function"}] => tools unsupported_parameter
        chat fields: "tool_choice":"required" => tool_choice unsupported_parameter
        chat fields: "functions":[{}] => functions unsupported_parameter
        chat fields: "function_call":{"name":"f"} => function_call unsupported_parameter
        chat fields: "logprobs":true => logprobs unsupported_parameter
        chat fields: "top_logprobs":3 => top_logprobs unsupported_parameter
        chat fields: "logit_bias":{"50":1} => logit_bias unsupported_parameter
        chat fields: "response_format":{"type":"json_object"} => response_format unsupported_parameter
        chat fields: "modalities":["text","audio"] => modalities unsupported_parameter
        chat fields: "audio":{} => audio unsupported_parameter
        chat fields: "web_search_options":{} => web_search_options unsupported_parameter
        text fields: "echo":true => echo unsupported_parameter
        text fields: "suffix":"end" => suffix unsupported_parameter
        text fields: "best_of":2 => best_of unsupported_parameter
        text fields: "logprobs":0 => logprobs unsupported_parameter
        text body: {"model":"raw","prompt":["a","b"]} => prompt unsupported_parameter
        text body: {"model":"raw","prompt":[]} => prompt invalid_value
        text body: {"model":"raw","prompt":[1,2]} => prompt[0] invalid_type
        text body: {"model":"raw","prompt":[[1,2]]} => prompt[0] invalid_type
        text body: {"model":"raw","prompt":"a\u0000"} => prompt invalid_value
        "#,
    )
    .await;
}

#[tokio::test]
async fn every_failure_of_a_generation_has_its_status() {
    let failures = [
        (
            GenerationError::UnknownModel { model: "m".into() },
            404,
            "model_not_found",
            None,
        ),
        (
            GenerationError::ModelUnavailable {
                model: "m".into(),
                reason: "no memory".into(),
                retry_after: Some(Duration::from_millis(2500)),
            },
            503,
            "model_unavailable",
            Some("3"),
        ),
        (
            GenerationError::QueueFull {
                model: "m".into(),
                waiting: 4,
                retry_after: Duration::from_millis(10),
            },
            429,
            "queue_full",
            Some("1"),
        ),
        (
            GenerationError::QueueDeadline {
                model: "m".into(),
                waited: Duration::from_secs(600),
            },
            503,
            "queue_deadline",
            None,
        ),
        (
            GenerationError::ContextLengthExceeded {
                prompt_tokens: 5000,
                limit_tokens: 4096,
            },
            400,
            "context_length_exceeded",
            None,
        ),
        (
            GenerationError::ParametersNotApplied {
                parameters: vec!["seed"],
            },
            400,
            "parameter_not_applicable",
            None,
        ),
        (
            GenerationError::RunRefused {
                request: "r".into(),
            },
            503,
            "run_refused",
            None,
        ),
        (
            GenerationError::RunFailed {
                request: "r".into(),
            },
            503,
            "run_failed",
            None,
        ),
        (
            GenerationError::WorkerDied { cause: "c".into() },
            503,
            "worker_died",
            None,
        ),
        (
            GenerationError::DeadlineExceeded {
                deadline: "prefill",
                limit: Duration::from_secs(1),
            },
            503,
            "deadline_exceeded",
            None,
        ),
        (GenerationError::ShuttingDown, 503, "shutting_down", None),
        (
            GenerationError::Internal("i".into()),
            500,
            "internal_error",
            None,
        ),
    ];
    for (failure, status, code, retry_after) in failures {
        let submitted = failure.clone();
        let refusing = Server::start(Settings::default(), move |_| Err(submitted.clone())).await;
        let failing = Server::start(Settings::default(), move |_| {
            Ok(replay(vec![TokenEvent::Failed(failure.clone())]))
        })
        .await;
        for server in [refusing, failing] {
            for fields in ["", r#","stream":true"#] {
                let answer = server.ask(chat(fields)).await;
                assert_eq!(answer.status, status, "{code}");
                assert_eq!(answer.error().2, code);
                assert_eq!(answer.header("retry-after"), retry_after, "{code}");
            }
            server.shut_down().await;
        }
    }
}
