//! A CPU runtime that is older than the daemon is known by what it does not export: what it could not do is
//! refused or named, and not silently left out.

use std::fs;

use crate::daemon_support::{Setup, built_library, chat};
use serde_json::json;

const MODEL: &str = "smollm2";

#[test]
fn what_it_cannot_do_is_refused_and_logged() {
    let setup = Setup::new().demo_model_again(MODEL);
    // As it was before it told the size of its struct.
    let mut bytes = fs::read(built_library("rkllm_cpu")).expect("it is built");
    let name = b"\0rkllm_run_extension_size\0";
    let at = bytes.windows(name.len()).position(|found| found == name);
    bytes[at.expect("it exports this") + 1] = b'x';
    let older = setup.folder().join("librkllmrt.so");
    fs::write(&older, bytes).expect("a library");
    let setting = format!("runtime.cpu-library = {:?}", older.display().to_string());
    let daemon = setup.settings(&setting).start();
    let ask = |more| daemon.post("/v1/chat/completions", &chat(MODEL, "Go.", more));
    let drawn = ask(json!({"max_tokens": 2, "seed": 3, "min_tokens": 1, "deterministic": true}));
    assert_eq!(drawn.status, 200, "{}", drawn.body);
    assert_eq!(
        drawn.header("x-rkllmd-not-applied"),
        Some("min_tokens, deterministic")
    );
    let refused = ask(json!({"max_tokens": 2, "logprobs": true}));
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (400, "cannot_tell_logprobs")
    );
    let kept = ask(json!({"max_tokens": 9, "guided_choice": ["yes", "no"]}));
    assert!(["yes", "no"].contains(&&*kept.content()), "{}", kept.body);
    daemon
        .log
        .wait_for("the CPU runtime is older than this daemon");
}
