//! What a run gives arrives whole and in order, whatever its size, and no name reaches another file.

use std::os::unix::fs::symlink;

use crate::daemon_support::{FAMILIES_RUN, Setup, chat, descriptors};
use crate::rpc_support::served::{Served, run_params};
use crate::rpc_support::{TRANSPORTS, Transport};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};

fn hidden(rows: &str) -> Value {
    json!({
        "rkllm_infer_params": {"mode": "RKLLM_INFER_GET_LAST_HIDDEN_LAYER"},
        "rows": rows,
        "stream": false,
    })
}

/// Tensors of this size go from the worker by shared memory.
#[test]
fn a_tensor_of_megabytes_arrives_whole_on_every_transport() {
    const COLUMNS: usize = 4096;
    let setup = Setup::new().scenario(
        "m",
        &format!("tokens = [\"a\"]\nembedding-size = {COLUMNS}\n"),
    );
    let served = Served::start(setup);
    let prompt = "word ".repeat(300);
    let mut open = Vec::new();
    for transport in TRANSPORTS {
        let mut client = served.client(transport);
        let handle = client.init("m", json!({}));
        client
            .call("rkllm.set_chat_template", json!([handle, "", "", ""]))
            .unwrap();
        let result = client.run(&handle, &prompt, hidden("all")).unwrap();
        let tensor = &result["results"][0]["last_hidden_layer"];
        assert_eq!(tensor["shape"], json!([300, COLUMNS]), "{transport:?}");
        let bytes = STANDARD.decode(tensor["data"].as_str().unwrap()).unwrap();
        let exact = bytes
            .chunks(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .enumerate()
            .all(|(index, value)| value == index as f32);
        assert!(exact && bytes.len() == 300 * COLUMNS * 4, "{transport:?}");
        client.call("rkllm.destroy", json!([handle])).unwrap();
        drop(client);
        let left = descriptors(served.daemon.pid());
        open.push(
            left.iter()
                .filter(|(_, target)| target.contains("memfd"))
                .count(),
        );
    }
    assert_eq!(open, [0; 4], "the shared memory is given back");
}

#[test]
fn a_tensor_over_the_limit_is_an_error_that_says_so() {
    let setup = Setup::new()
        .scenario("m", "tokens = [\"a\"]\nembedding-size = 4096\n")
        .settings("library.tensor-limit-bytes = 1048576");
    let served = Served::start(setup);
    let mut client = served.unix();
    let handle = client.init("m", json!({}));
    let failure = client
        .run(&handle, &"word ".repeat(300), hidden("all"))
        .unwrap_err();
    assert_eq!(failure.name(), "too_large");
    assert_eq!(failure.data["limit_bytes"], 1_048_576);
    // The last row fits, and the handle goes on.
    let result = client
        .run(&handle, &"word ".repeat(300), hidden("last"))
        .unwrap();
    assert_eq!(
        result["results"][0]["last_hidden_layer"]["shape"],
        json!([1, 4096])
    );
}

#[test]
fn a_batch_of_inputs_gives_a_result_for_each() {
    for family in FAMILIES_RUN {
        let setup = Setup::with_family(family).scenario("m", "echo-prompt = true\n");
        let served = Served::start(setup);
        let mut client = served.unix();
        let handle = client.init("m", json!({"extend_param": {"n_batch": 3}}));
        client
            .call("rkllm.set_chat_template", json!([handle, "", "", ""]))
            .unwrap();
        let inputs: Vec<Value> = ["one", "two words", "three more words"]
            .iter()
            .map(|prompt| json!({"prompt_input": prompt}))
            .collect();
        let params = json!({"handle": handle, "rkllm_input": inputs, "stream": true});
        let result = client.call("rkllm.run", params).unwrap();
        let texts: Vec<&str> = result["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["text"].as_str().unwrap())
            .collect();
        assert_eq!(texts, ["one", "two words", "three more words"], "{family}");
        let notified = client.notifications("rkllm.result");
        for (slot, text) in texts.iter().enumerate() {
            let streamed: String = notified
                .iter()
                .filter(|result| result["batch_slot"] == slot)
                .map(|result| result["text"].as_str().unwrap_or_default().to_owned())
                .collect();
            assert_eq!(streamed, *text, "{family}");
        }
    }
}

#[test]
fn the_answer_of_run_async_comes_before_its_results() {
    let setup = Setup::new().scenario("m", "tokens = [\"a\", \"b\"]\n");
    let served = Served::start(setup);
    for transport in [
        Transport::Unix,
        Transport::WebSocket,
        Transport::EventStream,
    ] {
        let mut client = served.client(transport);
        let handle = client.init("m", json!({}));
        for _ in 0..20 {
            client.waiting.clear();
            let id = client.send("rkllm.run_async", run_params(&handle, "x", json!({})));
            let first = client.wait_for(|_| true);
            assert_eq!(first["id"], id, "{transport:?}");
            let run = &first["result"]["run"];
            for (text, state) in [
                (Some("a"), "RKLLM_RUN_NORMAL"),
                (Some("b"), "RKLLM_RUN_NORMAL"),
                (None, "RKLLM_RUN_FINISH"),
            ] {
                let result = client.wait_for(|_| true);
                assert_eq!(result["method"], "rkllm.result");
                assert_eq!(result["params"]["run"], *run);
                assert_eq!(result["params"]["state"], state);
                assert_eq!(result["params"].get("text").and_then(Value::as_str), text);
            }
            let ended = client.wait_for(|_| true);
            assert_eq!(
                ended,
                json!({"jsonrpc": "2.0", "method": "rkllm.ended",
                "params": {"handle": handle, "run": run, "return_code": 0}})
            );
        }
        client.call("rkllm.destroy", json!([handle])).unwrap();
    }
    let mut client = served.client(Transport::Http);
    let handle = client.init("m", json!({}));
    for (method, extra) in [
        ("rkllm.run_async", json!({})),
        ("rkllm.run", json!({"stream": true})),
    ] {
        let failure = client
            .call(method, run_params(&handle, "x", extra))
            .unwrap_err();
        assert_eq!(failure.name(), "needs_notifications", "{method}");
    }
}

#[test]
fn a_handle_that_made_room_for_others_says_so_once() {
    let setup = Setup::new()
        .scenario("m", "tokens = [\"a\"]\n")
        .scenario("other", "tokens = [\"hello\"]\n")
        .settings("models.minimum-residency = \"0s\"");
    let served = Served::start(setup);
    let mut client = served.unix();
    let handle = client.init("m", json!({}));
    let keep = json!({"rkllm_infer_params": {"keep_history": 1}});
    client.run(&handle, "remember", keep).unwrap();
    let answer = served
        .daemon
        .post("/v1/chat/completions", &chat("other", "hi", json!({})));
    assert_eq!(answer.content(), "hello");
    let result = client.run(&handle, "x", json!({})).unwrap();
    assert_eq!(result["handle_reset"], json!({"reason": "evicted"}));
    let result = client.run(&handle, "x", json!({})).unwrap();
    assert_eq!(result.get("handle_reset"), None);
}

#[test]
fn names_of_files_lead_nowhere_else() {
    let setup = Setup::new().scenario("m", "tokens = [\"a\"]\n");
    let served = Served::start(setup);
    let outside = served.state.join("outside");
    std::fs::write(&outside, "secret").unwrap();
    symlink(&outside, served.state.join("adapters/link")).unwrap();
    symlink(&outside, served.state.join("prompt-caches/link")).unwrap();
    for folder in ["adapters", "prompt-caches"] {
        let pipe = served.state.join(folder).join("pipe");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
    }
    let mut client = served.unix();
    let handle = client.init("m", json!({}));
    let absolute = outside.display().to_string();
    for name in [
        "link",
        "pipe",
        "../outside",
        "..",
        ".",
        "",
        "adapters/../../outside",
        "a/b",
        "absent",
        "a\u{0}b",
        &absolute,
    ] {
        let adapter = json!({"lora_adapter_path": name, "lora_adapter_name": "x", "scale": 1.0});
        let save =
            json!({"prompt_cache_params": {"save_prompt_cache": 1, "prompt_cache_path": name}});
        let mut outcomes = vec![
            client.call("rkllm.load_lora", json!([handle, adapter])),
            client.call("rkllm.load_prompt_cache", json!([handle, name])),
        ];
        if name != "absent" {
            outcomes.push(client.run(&handle, "x", json!({"rkllm_infer_params": save})));
        }
        for outcome in outcomes {
            let failure = outcome.unwrap_err();
            assert_eq!(failure.name(), "invalid_params", "{name:?}: {failure:?}");
        }
    }
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "secret");
    let failure = client
        .call("rkllm.init", json!(["../models/m"]))
        .unwrap_err();
    assert_eq!(failure.name(), "unknown_model");
}
