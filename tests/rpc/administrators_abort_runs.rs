//! Runs and loads of handles are listed for administrators beside requests, and end for them with a typed error.

use serde_json::{Value, json};

use crate::daemon_support::{Setup, children, eventually, request};
use crate::rpc_support::Transport;
use crate::rpc_support::served::{Served, run_params};

const ENDLESS: &str = "repeat = { token = \"word \", times = 100000000 }\ntoken-delay-us = 1000\n";

fn served() -> Served {
    Served::start(Setup::new().scenario("endless", ENDLESS))
}

fn listed(served: &Served) -> Vec<Value> {
    let list = served.daemon.get("/v1/admin/requests").json();
    list["requests"].as_array().expect("requests").clone()
}

fn running(served: &Served) -> Value {
    eventually("a run is listed", || {
        let mut all = listed(served).into_iter();
        all.find(|run| run["state"] == "running")
    })
}

fn abort(served: &Served, run: &Value) {
    let path = format!("/v1/admin/requests/{}", run["id"].as_str().unwrap());
    let answer = request(served.daemon.address, "DELETE", &path, None);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let again = || request(served.daemon.address, "DELETE", &path, None).status == 404;
    eventually("it is gone", || again().then_some(()));
}

#[test]
fn an_aborted_run_ends_with_a_typed_error_and_its_handle_lives_on() {
    for transport in [Transport::Unix, Transport::WebSocket] {
        let served = served();
        let mut client = served.client(transport);
        let handle = client.init("endless", json!({"max_new_tokens": -1}));
        for _ in 0..2 {
            let call = client.send("rkllm.run", run_params(&handle, "x", json!({})));
            let run = running(&served);
            assert_eq!(run["path"], "rkllm.run", "{transport:?}: {run}");
            assert_eq!(run["model"], "endless");
            assert_eq!(run["key"], Value::Null);
            assert!(run["id"].as_str().unwrap().starts_with("run-"), "{run}");
            abort(&served, &run);
            let failure = client.answer_to(call).unwrap_err();
            assert_eq!(failure.name(), "aborted_by_administrator", "{transport:?}");
            assert_eq!(failure.code, -32015);
        }
        assert_eq!(listed(&served), [] as [Value; 0]);
        served.daemon.log.wait_for("administrator aborted a run");
    }
}

/// Longer than anything here takes: who waits for it has an administrator who does not.
#[test]
fn an_aborted_load_ends_with_a_typed_error_and_its_worker() {
    const SLOW: &str = "load-delay-ms = 600000\ntokens = [\"never\"]\n";
    for transport in [Transport::Unix, Transport::WebSocket] {
        let served = Served::start(Setup::new().scenario("slow", SLOW));
        let mut client = served.client(transport);
        let call = client.send("rkllm.init", json!({"model_path": "slow"}));
        let load = eventually("a load is listed", || listed(&served).into_iter().next());
        assert_eq!(load["path"], "rkllm.init", "{transport:?}: {load}");
        assert_eq!(load["state"], "waiting");
        assert_eq!(load["model"], "slow");
        assert_eq!(load["position"], Value::Null);
        let (daemon, worker) = (served.daemon.pid(), served.daemon.worker_pid());
        abort(&served, &load);
        let failure = client.answer_to(call).unwrap_err();
        assert_eq!(failure.name(), "aborted_by_administrator", "{transport:?}");
        eventually("the end of its worker", || {
            (!children(daemon).contains(&worker)).then_some(())
        });
        assert_eq!(listed(&served), [] as [Value; 0]);
    }
}

#[test]
fn an_aborted_run_in_the_background_tells_its_end() {
    let served = served();
    let mut client = served.unix();
    let handle = client.init("endless", json!({"max_new_tokens": -1}));
    client.run_async(&handle, "x", json!({}));
    let run = running(&served);
    assert_eq!(run["path"], "rkllm.run_async");
    abort(&served, &run);
    let ended = client.notification("rkllm.ended");
    assert_eq!(
        ended["error"]["data"]["code"], "aborted_by_administrator",
        "{ended}"
    );
    client.run_async(&handle, "x", json!({}));
    let next = running(&served);
    assert_ne!(next["id"], run["id"]);
    // A client that leaves takes its run off the list.
    drop(client);
    eventually("no run is listed", || {
        listed(&served).is_empty().then_some(())
    });
}
