//! What a known JSON-RPC server over the same library gets wrong, each with the test that bears its
//! name: figures that are zeros, tensors that are null, a question that hangs, an asynchronous run that
//! takes the server down, cycles of init and destroy, and crashes that end every client's work.

use std::time::{Duration, Instant};

use crate::daemon_support::{
    FAMILIES_RUN, Setup, chat, children, descriptors, eventually, kill, resident_bytes,
};
use crate::rpc_support::served::Served;
use crate::rpc_support::{Client, Transport};
use serde_json::{Value, json};

const COUNTING: &str = "tokens = [\"one \", \"two \", \"three \", \"four \", \"five\"]\n\
    prefill-us-per-byte = 1000\ntoken-delay-us = 2000\n";

fn on_every_family(scenario: &str, settings: &str, test: impl Fn(&str, &Served)) {
    for family in FAMILIES_RUN {
        let setup = Setup::with_family(family)
            .scenario("m", scenario)
            .settings(settings);
        test(family, &Served::start(setup));
    }
}

/// The floats of a tensor, row after row, read from either form.
fn floats(tensor: &Value) -> Vec<f32> {
    use base64::Engine as _;

    assert_eq!(tensor["dtype"], "float32");
    match &tensor["data"] {
        Value::String(text) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .expect("base64")
            .chunks(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")))
            .collect(),
        Value::Array(rows) => rows
            .iter()
            .flat_map(|row| row.as_array().expect("a row"))
            .map(|number| number.as_f64().expect("a number") as f32)
            .collect(),
        other => panic!("no tensor: {other}"),
    }
}

#[test]
fn performance_figures_are_not_zeros() {
    on_every_family(COUNTING, "", |family, served| {
        let mut client = served.unix();
        let handle = client.init("m", json!({}));
        let result = client
            .run(&handle, "count to five", json!({"stream": true}))
            .unwrap();
        let perf = &result["results"][0]["perf"];
        assert!(
            perf["prefill_time_ms"].as_f64().unwrap() >= 10.0,
            "{family}: {perf}"
        );
        assert!(
            perf["prefill_tokens"].as_i64().unwrap() >= 3,
            "{family}: {perf}"
        );
        assert!(
            perf["generate_time_ms"].as_f64().unwrap() >= 6.0,
            "{family}: {perf}"
        );
        assert_eq!(perf["generate_tokens"], 4, "{family}: {perf}");
        assert!(
            perf["memory_usage_mb"].as_f64().unwrap() > 0.0,
            "{family}: {perf}"
        );
        let results = client.notifications("rkllm.result");
        let (finish, others) = results.split_last().unwrap();
        assert_eq!(finish["state"], "RKLLM_RUN_FINISH");
        assert_eq!(&finish["perf"], perf);
        for other in others {
            assert_eq!(
                other.get("perf"),
                None,
                "{family}: none is known before the end"
            );
        }
    });
}

#[test]
fn hidden_states_are_not_null() {
    tensors_are_exact("RKLLM_INFER_GET_LAST_HIDDEN_LAYER", "last_hidden_layer", 8);
}

#[test]
fn logits_are_not_null() {
    tensors_are_exact("RKLLM_INFER_GET_LOGITS", "logits", 16);
}

/// The fake runtime's values count up from 0, so each row and each column is known.
fn tensors_are_exact(mode: &str, field: &str, columns: usize) {
    on_every_family(COUNTING, "", |family, served| {
        for transport in [Transport::Unix, Transport::WebSocket, Transport::Http] {
            let mut client = served.client(transport);
            let handle = client.init("m", json!({}));
            for tensors in ["base64", "json"] {
                let ask = |client: &mut Client, rows: &str| {
                    client
                        .call("rkllm.clear_kv_cache", json!([handle, 0]))
                        .unwrap();
                    let extra = json!({
                        "rkllm_infer_params": {"mode": mode},
                        "rows": rows,
                        "tensors": tensors,
                    });
                    let result = client.run(&handle, "one two three", extra).unwrap();
                    result["results"][0][field].clone()
                };
                let all = ask(&mut client, "all");
                let rows = all["num_tokens"].as_u64().unwrap() as usize;
                assert!(rows >= 3, "{family}: {all}");
                assert_eq!(all["shape"], json!([rows, columns]));
                let expected: Vec<f32> = (0..rows * columns).map(|n| n as f32).collect();
                assert_eq!(floats(&all), expected, "{family} {transport:?} {tensors}");
                let last = ask(&mut client, "last");
                assert_eq!(last["shape"], json!([1, columns]));
                assert_eq!(last["num_tokens"], rows);
                assert_eq!(floats(&last), expected[(rows - 1) * columns..], "{family}");
            }
            client.call("rkllm.destroy", json!([handle])).unwrap();
        }
    });
}

#[test]
fn is_running_does_not_hang() {
    let scenario = "repeat = { token = \"w \", times = 1000000 }\ntoken-delay-us = 1000\n\
        [[fault]]\ncall = \"is_running\"\noccasion = 3\nkind = \"hang\"\n";
    let settings = "deadlines.control-call = \"300ms\"";
    on_every_family(scenario, settings, |family, served| {
        let mut client = served.unix();
        let handle = client.init("m", json!({}));
        let asked = |client: &mut Client| client.call("rkllm.is_running", json!([handle])).unwrap();
        assert_eq!(
            asked(&mut client),
            json!({"running": false, "answered_by": "library"}),
            "{family}"
        );
        client.run_async(&handle, "go", json!({}));
        client.notification("rkllm.result");
        assert_eq!(
            asked(&mut client),
            json!({"running": true, "answered_by": "library"}),
            "{family}"
        );
        // Now the library hangs in it.
        let started = Instant::now();
        assert_eq!(
            asked(&mut client),
            json!({"running": true, "answered_by": "daemon"}),
            "{family}"
        );
        assert!(started.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn run_async_does_not_take_the_server_down() {
    let scenario = "tokens = [\"a\", \"b\", \"c\", \"d\"]\n\
        [[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"die\"\nafter-tokens = 2\nkind = \"segv\"\n";
    on_every_family(scenario, "", |family, served| {
        let mut client = served.unix();
        let handle = client.init("m", json!({}));
        let run = client.run_async(&handle, "live", json!({}));
        let ended = client.notification("rkllm.ended");
        assert_eq!(
            (&ended["run"], &ended["return_code"]),
            (&run, &json!(0)),
            "{family}"
        );
        let text: String = client
            .notifications("rkllm.result")
            .iter()
            .map(|result| result["text"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(text, "abcd", "{family}");

        let pid = served.daemon.pid();
        client.run_async(&handle, "die", json!({}));
        let ended = client.notification("rkllm.ended");
        assert_eq!(
            ended["error"]["data"]["code"], "worker_died",
            "{family}: {ended}"
        );
        assert_eq!(ended.get("return_code"), None);
        // The same handle, the same daemon.
        let result = client.run(&handle, "live", json!({})).unwrap();
        assert_eq!(result["results"][0]["text"], "abcd", "{family}");
        assert_eq!(served.daemon.pid(), pid);
        assert_eq!(served.daemon.get("/health").status, 200);
    });
}

#[test]
fn a_thousand_cycles_of_init_and_destroy_leave_nothing_behind() {
    const CYCLES: usize = 1000;
    let setup = Setup::new().scenario("m", "tokens = [\"hello\"]\n");
    let served = Served::start(setup);
    let daemon = served.daemon.pid();
    let mut client = served.unix();
    let mut cycle = |number: usize| {
        let handle = client.init("m", json!({}));
        if number.is_multiple_of(10) {
            let result = client.run(&handle, "x", json!({})).unwrap();
            assert_eq!(result["results"][0]["text"], "hello");
        }
        client.call("rkllm.destroy", json!([handle])).unwrap();
    };
    // Caches and pools fill first.
    (0..100).for_each(&mut cycle);
    let steady = || eventually("no child", || children(daemon).is_empty().then_some(()));
    steady();
    let before = (descriptors(daemon), resident_bytes(daemon));
    (0..CYCLES).for_each(&mut cycle);
    steady();
    // The last worker's go a moment after it.
    eventually("no more descriptors than before", || {
        (descriptors(daemon).len() <= before.0.len()).then_some(())
    });
    let grown = resident_bytes(daemon).saturating_sub(before.1);
    assert!(grown < 4 << 20, "{grown} bytes more after {CYCLES} cycles");
}

#[test]
fn a_crash_ends_no_other_work_and_its_handle_recovers() {
    on_every_family(COUNTING, "models.max-loaded = 2", |family, served| {
        let (mut one, mut other) = (served.unix(), served.client(Transport::WebSocket));
        let first = one.init("m", json!({}));
        let worker = served.daemon.worker_pid();
        let second = other.init("m", json!({}));
        let keep = json!({"rkllm_infer_params": {"keep_history": 1}});
        one.run(&first, "remember this", keep).unwrap();
        kill(worker);
        let result = one.run(&first, "again", json!({})).unwrap();
        assert_eq!(
            result["results"][0]["text"], "one two three four five",
            "{family}"
        );
        assert_eq!(result["handle_reset"]["reason"], "worker_died", "{family}");
        let result = one.run(&first, "again", json!({})).unwrap();
        assert_eq!(
            result.get("handle_reset"),
            None,
            "{family}: it is told once"
        );
        let result = other.run(&second, "count", json!({})).unwrap();
        assert_eq!(result.get("handle_reset"), None, "{family}");
        other.call("rkllm.destroy", json!([second])).unwrap();
        let answer = served
            .daemon
            .post("/v1/chat/completions", &chat("m", "hi", json!({})));
        assert_eq!(answer.status, 200, "{family}: {}", answer.body);
    });
}
