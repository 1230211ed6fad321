//! Every method on every transport with every family that is run. What works where is written into
//! docs/json-rpc.md.

use std::fmt::Write as _;
use std::fs;

use crate::daemon_support::{FAMILIES_RUN, Setup};
use crate::rpc_support::served::Served;
use crate::rpc_support::{Client, Failure, TRANSPORTS, Transport, document};
use serde_json::{Value, json};

const SCENARIO: &str = "tokens = [\"one \", \"two \", \"three\"]\n";

/// One call, or one use of a parameter that not every family has.
struct Case {
    name: &'static str,
    /// What `{handle}` is to be replaced in.
    calls: Vec<(&'static str, Value)>,
    /// Whether the last call's result is what it should be.
    holds: fn(&Value) -> bool,
}

fn case(
    name: &'static str,
    method: &'static str,
    params: Value,
    holds: fn(&Value) -> bool,
) -> Case {
    Case {
        name,
        calls: vec![(method, params)],
        holds,
    }
}

fn is_done(result: &Value) -> bool {
    result["return_code"] == 0
}

fn has_text(result: &Value) -> bool {
    result["results"][0]["text"] == "one two three"
        && result["results"][0]["state"] == "RKLLM_RUN_FINISH"
}

fn run(name: &'static str, extra: Value) -> Case {
    let mut params =
        json!({"handle": "{handle}", "rkllm_input": {"role": "user", "prompt_input": "count"}});
    if let (Value::Object(params), Value::Object(extra)) = (&mut params, extra) {
        params.extend(extra);
    }
    case(name, "rkllm.run", params, has_text)
}

fn infer(name: &'static str, infer: Value) -> Case {
    run(name, json!({"rkllm_infer_params": infer}))
}

fn with_input(name: &'static str, input: Value) -> Case {
    run(name, json!({"rkllm_input": input}))
}

fn image(extra: Value) -> Value {
    let mut image = json!({"image_embed": vec![0.5; 16], "n_image_tokens": 2, "n_image": 1,
        "image_width": 28, "image_height": 28});
    if let (Value::Object(image), Value::Object(extra)) = (&mut image, extra) {
        image.extend(extra);
    }
    image
}

/// The methods in the order of the documentation, and the parameters that came later.
fn cases() -> Vec<Case> {
    let handle = || json!(["{handle}"]);
    vec![
        case(
            "rkllm.createDefaultParam",
            "rkllm.createDefaultParam",
            json!(["m"]),
            |result| {
                result["param"]["max_context_len"].as_i64() > Some(0)
                    && result["library_version"].is_string()
            },
        ),
        case("rkllm.init", "rkllm.init", json!(["m"]), |result| {
            result["handle"]
                .as_str()
                .is_some_and(|handle| handle.len() == 32)
        }),
        case(
            "rkllm.init with `ignore_eos_token`",
            "rkllm.init",
            json!(["m", {"ignore_eos_token": true}]),
            |result| result["handle"].is_string(),
        ),
        case(
            "rkllm.init with `img_start`, `img_end`, `img_content`",
            "rkllm.init",
            json!(["m", {"img_start": "<i>", "img_end": "</i>", "img_content": "<c>"}]),
            |result| result["handle"].is_string(),
        ),
        run("rkllm.run", json!({})),
        with_input(
            "rkllm.run with tokens",
            json!({"token_input": {"input_ids": [1, 2, 3]}}),
        ),
        with_input(
            "rkllm.run with embeddings",
            json!({"embed_input": {"embed": vec![0.5; 16], "n_tokens": 2}}),
        ),
        with_input(
            "rkllm.run with an image",
            json!({"multimodal_input": {"prompt": "<image>what is it", "image": image(json!({}))}}),
        ),
        with_input(
            "rkllm.run with an image and its tags",
            json!({"multimodal_input": {"prompt": "<image>what is it", "image": image(json!({
                "image_start": "<i>", "image_end": "</i>", "image_content": "<c>"}))}}),
        ),
        with_input(
            "rkllm.run with a video",
            json!({"multimodal_input": {"prompt": "<video>what is it", "video": {
                "video_embed": vec![0.5; 16], "n_frame_tokens": 1, "n_frame_per_video": 2,
                "n_video": 1, "frame_width": 28, "frame_height": 28}}}),
        ),
        with_input(
            "rkllm.run with sound",
            json!({"multimodal_input": {"prompt": "<audio>what is it", "audio": {
                "audio_embed": vec![0.5; 16], "n_audio_tokens": 2, "n_audio": 1}}}),
        ),
        infer(
            "rkllm.run with `max_new_tokens`",
            json!({"max_new_tokens": 100}),
        ),
        infer(
            "rkllm.run with `sampling_params`",
            json!({"sampling_params": {"temperature": 0.5}}),
        ),
        case(
            "rkllm.run for hidden states",
            "rkllm.run",
            json!({"handle": "{handle}", "rkllm_input": {"prompt_input": "x"},
                "rkllm_infer_params": {"mode": "RKLLM_INFER_GET_LAST_HIDDEN_LAYER"}, "stream": false}),
            |result| result["results"][0]["last_hidden_layer"]["shape"] == json!([1, 8]),
        ),
        case(
            "rkllm.run for logits",
            "rkllm.run",
            json!({"handle": "{handle}", "rkllm_input": {"prompt_input": "x"},
                "rkllm_infer_params": {"mode": "RKLLM_INFER_GET_LOGITS"}, "stream": false}),
            |result| result["results"][0]["logits"]["shape"] == json!([1, 16]),
        ),
        case(
            "rkllm.run_async",
            "rkllm.run_async",
            json!({"handle": "{handle}", "rkllm_input": {"prompt_input": "x"}}),
            |result| is_done(result) && result["run"].is_u64(),
        ),
        case("rkllm.abort", "rkllm.abort", handle(), is_done),
        case("rkllm.is_running", "rkllm.is_running", handle(), |result| {
            *result == json!({"running": false, "answered_by": "library"})
        }),
        Case {
            name: "rkllm.load_lora, and a run with the adapter",
            calls: vec![
                (
                    "rkllm.load_lora",
                    json!(["{handle}", {"lora_adapter_path": "style.lora",
                    "lora_adapter_name": "style", "scale": 1.0}]),
                ),
                (
                    "rkllm.run",
                    json!({"handle": "{handle}", "rkllm_input": {"prompt_input": "x"},
                    "rkllm_infer_params": {"lora_params": {"lora_adapter_name": "style"}}}),
                ),
            ],
            holds: is_done,
        },
        Case {
            name: "rkllm.load_prompt_cache, of a saved one",
            calls: vec![
                (
                    "rkllm.run",
                    json!({"handle": "{handle}", "rkllm_input": {"prompt_input": "x"},
                    "rkllm_infer_params": {"prompt_cache_params":
                        {"save_prompt_cache": 1, "prompt_cache_path": "saved"}}}),
                ),
                ("rkllm.load_prompt_cache", json!(["{handle}", "saved"])),
            ],
            holds: is_done,
        },
        case(
            "rkllm.release_prompt_cache",
            "rkllm.release_prompt_cache",
            handle(),
            is_done,
        ),
        case(
            "rkllm.clear_kv_cache",
            "rkllm.clear_kv_cache",
            json!(["{handle}", 0]),
            is_done,
        ),
        Case {
            name: "rkllm.clear_kv_cache of a range",
            calls: vec![
                (
                    "rkllm.run",
                    json!({"handle": "{handle}", "rkllm_input": {"prompt_input": "x"}}),
                ),
                ("rkllm.clear_kv_cache", json!(["{handle}", 0, [0], [1]])),
            ],
            holds: is_done,
        },
        case(
            "rkllm.get_kv_cache_size",
            "rkllm.get_kv_cache_size",
            handle(),
            |result| {
                result["cache_sizes"]
                    .as_array()
                    .is_some_and(|sizes| sizes.len() == 1)
            },
        ),
        case(
            "rkllm.set_chat_template",
            "rkllm.set_chat_template",
            json!(["{handle}", "s", "p", "q"]),
            is_done,
        ),
        case(
            "rkllm.set_function_tools",
            "rkllm.set_function_tools",
            json!(["{handle}", "s", "[]", "tool_response"]),
            is_done,
        ),
        case(
            "rkllm.set_cross_attn_params",
            "rkllm.set_cross_attn_params",
            json!(["{handle}", {"encoder_k_cache": [0.5, 0.5], "encoder_v_cache": [0.5, 0.5],
                "encoder_mask": [1.0], "encoder_pos": [0], "num_tokens": 1}]),
            is_done,
        ),
        case("rkllm.destroy", "rkllm.destroy", handle(), is_done),
    ]
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq)]
enum Support {
    Works,
    /// The runtime's version has it not, in the words of the answer.
    NotInVersion(String),
}

fn support(case: &Case, client: &mut Client, transport: Transport, family: &str) -> Support {
    let own_handle =
        case.calls[0].0 == "rkllm.init" || case.calls[0].0 == "rkllm.createDefaultParam";
    let handle = if own_handle {
        String::new()
    } else {
        client.init("m", json!({"extend_param": {"use_cross_attn": 1}}))
    };
    let mut outcome: Result<Value, Failure> = Ok(Value::Null);
    for (method, params) in &case.calls {
        let params = params.to_string().replace("{handle}", &handle);
        outcome = client.call(method, serde_json::from_str(&params).expect("JSON"));
        if outcome.is_err() {
            break;
        }
    }
    let support = match &outcome {
        Ok(result) => {
            assert!(
                (case.holds)(result),
                "{family} {transport:?} {}: {result}",
                case.name
            );
            Support::Works
        }
        Err(failure) if failure.name() == "not_in_runtime" => {
            assert!(
                failure.message.contains("is not in librkllmrt"),
                "{failure:?}"
            );
            Support::NotInVersion(failure.data["library_version"].to_string())
        }
        // The transport's own rule, not the family's.
        Err(failure) if failure.name() == "needs_notifications" => {
            assert_eq!((transport, case.name), (Transport::Http, "rkllm.run_async"));
            Support::Works
        }
        Err(failure) => panic!("{family} {transport:?} {}: {failure:?}", case.name),
    };
    let opened = match outcome {
        Ok(result) if result["handle"].is_string() => result["handle"].as_str().map(str::to_owned),
        _ => Some(handle).filter(|handle| !handle.is_empty() && case.name != "rkllm.destroy"),
    };
    if let Some(handle) = opened {
        client
            .call("rkllm.destroy", json!([handle]))
            .expect("destroyed");
    }
    client.waiting.clear();
    support
}

#[test]
fn every_method_works_or_says_that_the_version_has_it_not() {
    let cases = cases();
    let mut table = String::from("| Call |");
    let mut supports: Vec<Vec<Support>> = vec![Vec::new(); cases.len()];
    for family in FAMILIES_RUN {
        let served = Served::start(Setup::with_family(family).scenario("m", SCENARIO));
        fs::write(served.state.join("adapters/style.lora"), "an adapter").unwrap();
        let _ = write!(
            table,
            " {} |",
            match family {
                "1_2_1" => "1.2.1 to 1.2.3".to_owned(),
                other => other.replace('_', "."),
            }
        );
        for (case, supports) in cases.iter().zip(&mut supports) {
            let found = TRANSPORTS.map(|transport| {
                let mut client = served.client(transport);
                support(case, &mut client, transport, family)
            });
            for other in &found[1..] {
                assert_eq!(
                    other, &found[0],
                    "{family} {}: every transport alike",
                    case.name
                );
            }
            supports.push(found[0].clone());
        }
    }
    table.push('\n');
    table.push_str(&"|---".repeat(FAMILIES_RUN.len() + 1));
    table.push_str("|\n");
    for (case, supports) in cases.iter().zip(&supports) {
        let words: Vec<&str> = supports
            .iter()
            .map(|support| match support {
                Support::Works => "works",
                Support::NotInVersion(_) => "not in this version",
            })
            .collect();
        let _ = writeln!(table, "| {} | {} |", case.name, words.join(" | "));
    }
    document::check("docs/json-rpc.md", "matrix", &table);
}

/// The matrix leaves no method out.
#[test]
fn every_method_has_a_case() {
    let served = Served::start(Setup::new());
    let document = served.unix().call("rpc.discover", json!({})).unwrap();
    let cases = cases();
    for method in document["methods"].as_array().unwrap() {
        let name = method["name"].as_str().unwrap();
        let called = cases
            .iter()
            .flat_map(|case| &case.calls)
            .any(|(method, _)| *method == name);
        assert!(called || name == "rpc.discover", "{name}");
    }
}
