//! What one client can make the daemon hold, and make itself wait for.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, Setup, eventually};
use crate::rpc_support::served::{Served, run_params};
use crate::rpc_support::{Transport, outcome, post};
use serde_json::{Value, json};

/// A row is 16 KiB.
const WIDE: &str = "tokens = [\"a\"]\nembedding-size = 4096\n";
const ENDLESS: &str = "repeat = { token = \"word \", times = 100000000 }\ntoken-delay-us = 1000\n";

fn served(scenario: &str, settings: &str) -> Served {
    Served::start(Setup::new().scenario("m", scenario).settings(settings))
}

/// Parameters of a run whose result has more than 6 MiB, many times what may wait for a reader.
fn large_result(handle: &str) -> Value {
    let all = json!({"rows": "all",
        "rkllm_infer_params": {"mode": "RKLLM_INFER_GET_LAST_HIDDEN_LAYER"}});
    run_params(handle, &"w ".repeat(300), all)
}

/// How many calls have ended so.
fn calls(daemon: &Daemon, method: &str, outcome: &str) -> u64 {
    let name = format!("rkllmd_rpc_calls_total{{method=\"{method}\",outcome=\"{outcome}\"}} ");
    let page = daemon.get("/metrics").body;
    let count = page.lines().find_map(|line| line.strip_prefix(&*name));
    count.map_or(0, |count| count.parse().expect("a number"))
}

fn wait_for_calls(daemon: &Daemon, method: &str, outcome: &str, count: u64) {
    eventually(&format!("{count} calls of {method}: {outcome}"), || {
        (calls(daemon, method, outcome) == count).then_some(())
    });
}

#[test]
fn a_call_in_a_batch_waits_for_the_run_that_was_started_before_it() {
    let scenario = "repeat = { token = \"w \", times = 1000 }\n";
    for transport in [Transport::Unix, Transport::EventStream] {
        let served = served(scenario, "http.slow-reader-timeout = \"2s\"");
        let mut client = served.client(transport);
        let handle = client.init(
            "m",
            json!({"max_new_tokens": 2000, "max_context_len": 4096}),
        );
        let batch = json!([
            {"jsonrpc": "2.0", "id": "run", "method": "rkllm.run_async",
                "params": run_params(&handle, "x", json!({}))},
            {"jsonrpc": "2.0", "id": "size", "method": "rkllm.get_kv_cache_size", "params": [handle]},
        ]);
        client.send_text(&batch.to_string());
        let answers = client.wait_for(Value::is_array);
        let sizes = outcome(&answers[1]).unwrap();
        assert!(sizes["cache_sizes"][0].as_u64().unwrap() > 1000, "{sizes}");
        let ended = client.notification("rkllm.ended");
        assert_eq!(ended["return_code"], 0, "{ended}");
    }
}

#[test]
fn a_client_that_reads_late_gets_every_answer_also_behind_a_refusal() {
    let served = served(WIDE, "rpc.max-calls = 2\nhttp.slow-reader-timeout = \"1s\"");
    let mut client = served.unix();
    let handle = client.init("m", json!({}));
    // The first answer takes all the room there is; the second and the third wait for it; the fourth
    // call is one too many.
    let first = client.send("rkllm.run", large_result(&handle));
    wait_for_calls(&served.daemon, "rkllm.run", "complete", 1);
    let second = client.send("rkllm.run", large_result(&handle));
    wait_for_calls(&served.daemon, "rkllm.run", "complete", 2);
    let third = client.send("rkllm.is_running", json!([handle]));
    wait_for_calls(&served.daemon, "rkllm.is_running", "complete", 1);
    let fourth = client.send("rkllm.is_running", json!([handle]));
    wait_for_calls(&served.daemon, "rkllm.is_running", "limit_reached", 1);
    for id in [first, second, third] {
        assert!(client.answer_to(id).is_ok(), "{id}");
    }
    let refused = client.answer_to(fourth).unwrap_err();
    assert_eq!(refused.name(), "limit_reached");
    assert!(client.call("rkllm.is_running", json!([handle])).is_ok());
}

#[test]
fn a_line_that_does_not_go_on_arriving_is_told_so() {
    let served = served(WIDE, "http.slow-reader-timeout = \"1s\"");
    let mut client = served.unix();
    let stream = client.unix();
    stream
        .write_all(br#"{"jsonrpc": "2.0", "id": 1,"#)
        .expect("it is sent");
    let told = client.read().expect("an error");
    assert_eq!(told["id"], Value::Null);
    let data = &told["error"]["data"];
    assert_eq!(data["code"], "deadline_passed", "{told}");
    assert_eq!(
        (&data["deadline"], &data["limit_ms"]),
        (&json!("message"), &json!(1000))
    );
    assert_eq!(client.read(), None, "the connection ends");
    let page = served.daemon.get("/metrics").body;
    let counted = "rkllmd_deadlines_passed_total{deadline=\"message\"} 1";
    assert!(page.contains(counted), "{page}");
}

#[test]
fn results_that_are_not_read_are_not_made_in_advance() {
    let served = served(WIDE, "");
    let mut client = served.unix();
    let handle = client.init("m", json!({}));
    let runs: Vec<u64> = (0..8)
        .map(|_| client.send("rkllm.run", large_result(&handle)))
        .collect();
    // One is being written, one waits.
    wait_for_calls(&served.daemon, "rkllm.run", "complete", 2);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(calls(&served.daemon, "rkllm.run", "complete"), 2);
        thread::sleep(Duration::from_millis(50));
    }
    for id in runs {
        assert!(client.answer_to(id).is_ok());
    }
}

#[test]
fn the_answers_of_a_batch_are_bounded() {
    let served = served(WIDE, "");
    let mut client = served.unix();
    let handle = client.init("m", json!({}));
    let batch: Vec<Value> = (0..14)
        .map(|id| {
            json!({"jsonrpc": "2.0", "id": id, "method": "rkllm.run", "params": large_result(&handle)})
        })
        .collect();
    client.send_text(&json!(batch).to_string());
    let answers = client.wait_for(Value::is_array);
    let answers = answers.as_array().unwrap();
    assert!(outcome(&answers[0]).is_ok());
    let last = outcome(answers.last().unwrap()).unwrap_err();
    assert_eq!(last.name(), "too_large");
    assert!(last.message.contains("batch"), "{}", last.message);
}

#[test]
fn a_batch_and_a_result_are_as_large_as_the_settings_let_them() {
    let served = served(
        "repeat = { token = \"word \", times = 1000 }\n",
        "rpc.batch-answer-limit-bytes = 8192\nrpc.result-limit-bytes = 6000",
    );
    let mut client = served.unix();
    let handle = client.init("m", json!({"max_new_tokens": -1}));
    let too_long = client.run(&handle, "x", json!({})).unwrap_err();
    assert_eq!(too_long.name(), "too_large");
    assert_eq!(too_long.data["limit_bytes"], 6000);
    client
        .call("rkllm.destroy", json!([handle]))
        .expect("its run has ended");

    let handle = client.init("m", json!({"max_new_tokens": 500}));
    let batch: Vec<Value> = (0..4)
        .map(|id| {
            let params = run_params(&handle, "x", json!({}));
            json!({"jsonrpc": "2.0", "id": id, "method": "rkllm.run", "params": params})
        })
        .collect();
    client.send_text(&json!(batch).to_string());
    let answers = client.wait_for(Value::is_array);
    let answers = answers.as_array().expect("a batch's answers");
    let names: Vec<String> = answers
        .iter()
        .map(|answer| {
            outcome(answer).map_or_else(|error| error.name().to_owned(), |_| String::new())
        })
        .collect();
    // Each answer has some 5,000 bytes.
    assert_eq!(names, ["", "", "too_large", "too_large"]);
    let last = outcome(&answers[3]).unwrap_err();
    assert_eq!(last.data["limit_bytes"], 8192);
}

#[test]
fn large_messages_in_progress_are_bounded() {
    let served = served(ENDLESS, "rpc.message-limit-bytes = 65536");
    let mut client = served.unix();
    let handle = client.init("m", json!({"max_new_tokens": -1}));
    let large = "x".repeat(60_000);
    for _ in 0..2 {
        client.send("rkllm.run", run_params(&handle, &large, json!({})));
    }
    let refused = client.call("rkllm.run", run_params(&handle, &large, json!({})));
    assert_eq!(refused.unwrap_err().name(), "limit_reached");
    // What is small finds its place.
    assert!(client.call("rkllm.is_running", json!([handle])).is_ok());
}

#[test]
fn runs_are_started_at_once_behind_another_and_so_many_only() {
    let served = served(
        ENDLESS,
        "rpc.max-calls = 4\nrpc.message-limit-bytes = 65536",
    );
    let mut client = served.unix();
    let handle = client.init("m", json!({"max_new_tokens": -1}));
    let first = client.run_async(&handle, "x", json!({}));
    let waiting: Vec<Value> = (0..3)
        .map(|_| client.run_async(&handle, "x", json!({})))
        .collect();
    let start = |client: &mut crate::rpc_support::Client, prompt: &str| {
        client.call("rkllm.run_async", run_params(&handle, prompt, json!({})))
    };
    assert_eq!(start(&mut client, "x").unwrap_err().name(), "limit_reached");
    // They run one after the other, each until it is aborted.
    for run in std::iter::once(first).chain(waiting) {
        client.wait_for(|message| {
            message["method"] == "rkllm.result" && message["params"]["run"] == run
        });
        client.call("rkllm.abort", json!([handle])).unwrap();
        let ended = client.notification("rkllm.ended");
        assert_eq!((&ended["run"], &ended["return_code"]), (&run, &json!(0)));
    }
    // The inputs of runs that wait count as messages in progress.
    let large = "x".repeat(60_000);
    for _ in 0..2 {
        start(&mut client, &large).unwrap();
    }
    let refused = start(&mut client, &large).unwrap_err();
    assert_eq!(refused.name(), "limit_reached");
}

#[test]
fn a_daemon_that_shuts_down_answers_the_runs_of_http_requests() {
    for events in [false, true] {
        let served = served(ENDLESS, "deadlines.drain = \"1s\"");
        let mut client = served.client(Transport::Http);
        let handle = client.init("m", json!({"max_new_tokens": -1}));
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "rkllm.run",
            "params": run_params(&handle, "x", json!({}))})
        .to_string();
        let address = served.daemon.address;
        let request = thread::spawn(move || post(address, &call, events));
        eventually("the run", || {
            let answer = client.call("rkllm.is_running", json!([handle])).unwrap();
            (answer["running"] == true).then_some(())
        });
        served.daemon.signal(rustix::process::Signal::TERM);
        let (status, body) = request.join().unwrap();
        assert_eq!(status, 200);
        let last = body.lines().rfind(|line| !line.is_empty()).unwrap();
        let last = last.strip_prefix("data: ").unwrap_or(last);
        let failure = outcome(&serde_json::from_str(last).unwrap()).unwrap_err();
        assert_eq!(failure.name(), "shutting_down", "{failure:?}");
        assert!(served.daemon.wait().success());
    }
}

#[test]
fn calls_runs_and_their_tokens_are_counted() {
    let scenario = "repeat = { token = \"w \", times = 5 }\n";
    let setup = Setup::new()
        .scenario("m", scenario)
        .scenario("endless", ENDLESS)
        .settings("models.max-loaded = 2");
    let served = Served::start(setup);
    let mut client = served.unix();
    let handle = client.init("m", json!({}));
    client.run(&handle, "one two three", json!({})).unwrap();
    client.run_async(&handle, "one two three", json!({}));
    client.notification("rkllm.ended");
    client.call("rkllm.nothing", json!({})).unwrap_err();
    client
        .call("rkllm.run", json!({"handle": "x"}))
        .unwrap_err();
    let endless = client.init("endless", json!({"max_new_tokens": -1}));
    client.run_async(&endless, "x", json!({}));
    client.notification("rkllm.result");
    drop(client);
    let page = eventually("the end of the last run", || {
        let page = served.daemon.get("/metrics").body;
        page.contains("outcome=\"cancelled\"").then_some(page)
    });
    for line in [
        r#"rkllmd_rpc_calls_total{method="rkllm.init",outcome="complete"} 2"#,
        r#"rkllmd_rpc_calls_total{method="rkllm.run",outcome="complete"} 1"#,
        r#"rkllmd_rpc_calls_total{method="rkllm.run",outcome="invalid_params"} 1"#,
        r#"rkllmd_rpc_calls_total{method="rkllm.run_async",outcome="complete"} 2"#,
        r#"rkllmd_rpc_calls_total{method="other",outcome="method_not_found"} 1"#,
        r#"rkllmd_rpc_runs_total{model="m",method="rkllm.run",outcome="complete"} 1"#,
        r#"rkllmd_rpc_runs_total{model="m",method="rkllm.run_async",outcome="complete"} 1"#,
        r#"rkllmd_rpc_runs_total{model="endless",method="rkllm.run_async",outcome="cancelled"} 1"#,
        r#"rkllmd_rpc_completion_tokens_total{model="m",method="rkllm.run",outcome="complete"} 5"#,
        r#"rkllmd_rpc_completion_tokens_total{model="m",method="rkllm.run_async",outcome="complete"} 5"#,
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    let prompts =
        r#"rkllmd_rpc_prompt_tokens_total{model="m",method="rkllm.run",outcome="complete"} "#;
    assert!(page.contains(prompts), "{page}");
}

/// What goes when a client leaves goes in any order: its end of the connection, its session, its handles.
#[test]
fn a_run_whose_client_leaves_is_cancelled_whatever_was_being_written() {
    const CLIENTS: u64 = 12;
    for transport in [Transport::Unix, Transport::WebSocket] {
        // There is always a token that is being written.
        let scenario = "repeat = { token = \"word \", times = 100000000 }\n";
        let served = served(scenario, "http.slow-reader-timeout = \"60s\"");
        for client in 1..=CLIENTS {
            let mut leaving = served.client(transport);
            let handle = leaving.init("m", json!({"max_new_tokens": -1}));
            leaving.run_async(&handle, "x", json!({}));
            leaving.notification("rkllm.result");
            drop(leaving);
            let ended = eventually("the end of the run", || {
                let ended = runs(&served.daemon);
                let all: u64 = ended.iter().map(|(_, count)| count).sum();
                (all == client).then_some(ended)
            });
            assert_eq!(ended, [("cancelled".to_owned(), client)], "{transport:?}");
        }
    }
}

/// How many runs have ended, by how they did.
fn runs(daemon: &Daemon) -> Vec<(String, u64)> {
    let page = daemon.get("/metrics").body;
    page.lines()
        .filter_map(|line| {
            let line = line.strip_prefix("rkllmd_rpc_runs_total{")?;
            let (labels, count) = line.split_once("} ")?;
            let (_, outcome) = labels.split_once("outcome=\"")?;
            let outcome = outcome.trim_end_matches('"').to_owned();
            Some((outcome, count.parse().expect("a number")))
        })
        .collect()
}
