//! What a key opens over JSON-RPC, and what ends with it.

use crate::daemon_support::{Daemon, Setup, eventually, keys};
use crate::rpc_support::served::run_params;
use crate::rpc_support::{Client, Failure, outcome, raw_post};
use serde_json::{Value, json};
use tungstenite::Message;

fn setup() -> Setup {
    let scenario = "tokens = ['Hello']\n";
    Setup::new()
        .settings("models.max-loaded = 2")
        .scenario("own", scenario)
        .scenario("other", scenario)
}

fn post(daemon: &Daemon, key: &str, method: &str, params: Value) -> Result<Value, Failure> {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let (_, _, body) = raw_post(daemon.address, &call, &[("x-api-key", key)]);
    outcome(&serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// Reads until the connection is closed; the frame that says why.
fn farewell(client: &mut Client) -> (u16, String) {
    loop {
        match client.web_socket().read() {
            Ok(Message::Close(frame)) => {
                let frame = frame.expect("a reason");
                return (frame.code.into(), frame.reason.to_string());
            }
            Ok(_) => {}
            Err(error) => panic!("closed without a frame: {error}"),
        }
    }
}

#[test]
fn a_key_calls_the_functions_of_its_own_models_only() {
    let setup = setup();
    let folder = setup.folder().to_owned();
    let key = keys(&folder, "add one-model --model own");
    let daemon = setup.start();
    let mut web_socket = Client::with_key(daemon.address, Some(&key));
    for method in ["rkllm.init", "rkllm.createDefaultParam"] {
        for failure in [
            post(&daemon, &key, method, json!(["other"])).unwrap_err(),
            web_socket.call(method, json!(["other"])).unwrap_err(),
        ] {
            assert_eq!(failure.code, -32013, "{method}");
            assert_eq!(failure.name(), "model_not_allowed", "{method}");
        }
        assert!(post(&daemon, &key, method, json!(["own"])).is_ok());
        assert!(web_socket.call(method, json!(["own"])).is_ok());
    }
}

#[test]
fn only_a_key_reads_what_the_runtime_printed() {
    let line = "E rkllm: cannot open /secret/place";
    let fails = |call: &str| {
        format!(
            "tokens = ['x']\n[[fault]]\ncall = '{call}'\nkind = 'print'\ntext = '{line}'\n\
             [[fault]]\ncall = '{call}'\nkind = 'fail'\n"
        )
    };
    for with_key in [false, true] {
        let setup = Setup::new()
            .settings("models.max-loaded = 4")
            .scenario("init", &fails("init"))
            .scenario("run", &fails("run"))
            .scenario("template", &fails("set_chat_template"));
        let folder = setup.folder().to_owned();
        let key = with_key.then(|| keys(&folder, "add reader"));
        let daemon = setup.start();
        let mut client = Client::with_key(daemon.address, key.as_deref());
        let failure = client.call("rkllm.init", json!(["init"])).unwrap_err();
        let mut failures = vec![("init", failure)];
        let handle = client.call("rkllm.init", json!(["template"])).unwrap()["handle"].clone();
        let template = json!([handle, "", "", ""]);
        let failure = client.call("rkllm.set_chat_template", template);
        failures.push(("template", failure.unwrap_err()));
        let handle = client.call("rkllm.init", json!(["run"])).unwrap()["handle"].clone();
        let params = run_params(handle.as_str().unwrap(), "x", json!({}));
        failures.push(("run", client.call("rkllm.run", params.clone()).unwrap_err()));
        client.call("rkllm.run_async", params).unwrap();
        let ended = client.wait_for(|message| message["method"] == "rkllm.ended");
        let failure = outcome(&json!({"error": ended["params"]["error"]}));
        failures.push(("run_async", failure.unwrap_err()));
        for (call, failure) in failures {
            let told = format!("{} {}", failure.message, failure.data);
            assert_eq!(told.contains("/secret/place"), with_key, "{call}: {told}");
        }
    }
}

#[test]
fn a_key_that_loses_a_model_loses_the_handles_of_it() {
    let setup = setup();
    let folder = setup.folder().to_owned();
    let key = keys(&folder, "add laptop --model own --model other");
    let daemon = setup.start();
    let opened = post(&daemon, &key, "rkllm.init", json!(["other"])).unwrap();
    let handle = opened["handle"].as_str().unwrap();
    let run = || {
        post(
            &daemon,
            &key,
            "rkllm.run",
            run_params(handle, "x", json!({})),
        )
    };
    assert!(run().is_ok());
    let mut web_socket = Client::with_key(daemon.address, Some(&key));
    assert!(web_socket.call("rpc.discover", json!({})).is_ok());

    let file = folder.join("keys.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let narrower = text.replace("\"other\"", "\"nothing\"");
    assert_ne!(narrower, text);
    std::fs::write(&file, narrower).unwrap();
    let failure = eventually("the loss", || run().err());
    assert_eq!(failure.name(), "model_not_allowed");
    let failure = post(&daemon, &key, "rkllm.is_running", json!([handle])).unwrap_err();
    assert_eq!(failure.name(), "model_not_allowed");
    assert_eq!(farewell(&mut web_socket).0, 1008);
    // What the handle holds can still be given back.
    assert!(post(&daemon, &key, "rkllm.destroy", json!([handle])).is_ok());
}

#[test]
fn a_websocket_ends_with_its_key() {
    let setup = setup();
    let folder = setup.folder().to_owned();
    let revoked = keys(&folder, "add revoked");
    let other = keys(&folder, "add other");
    let daemon = setup.start();
    let mut ending = Client::with_key(daemon.address, Some(&revoked));
    let mut staying = Client::with_key(daemon.address, Some(&other));
    let handle = staying.init("own", json!({}));
    ending.init("other", json!({}));

    keys(&folder, "revoke revoked");
    let (code, reason) = farewell(&mut ending);
    assert_eq!(code, 1008);
    assert!(reason.contains("revoked"), "{reason}");
    // Its handle went with it; another key's connection notices nothing.
    staying.init("other", json!({}));
    assert!(staying.run(&handle, "x", json!({})).is_ok());
}

#[test]
fn a_websocket_that_needed_no_key_ends_when_keys_are_asked_for() {
    let setup = setup();
    let folder = setup.folder().to_owned();
    let daemon = setup.start();
    let mut client = Client::with_key(daemon.address, None);
    assert!(client.call("rpc.discover", json!({})).is_ok());
    let key = keys(&folder, "add first");
    assert_eq!(farewell(&mut client).0, 1008);
    assert!(
        Client::with_key(daemon.address, Some(&key))
            .call("rpc.discover", json!({}))
            .is_ok()
    );
}

#[test]
fn a_websocket_stays_where_no_key_is_asked_for() {
    let setup = setup().settings("http.auth = 'none'");
    let folder = setup.folder().to_owned();
    keys(&folder, "add one");
    let daemon = setup.start();
    let mut client = Client::with_key(daemon.address, None);
    keys(&folder, "revoke one");
    daemon.log.wait_for("keys=0");
    assert!(client.call("rpc.discover", json!({})).is_ok());
}

#[test]
fn a_handle_is_not_the_next_keys_of_that_name() {
    let setup = setup();
    let folder = setup.folder().to_owned();
    let old = keys(&folder, "add laptop");
    let daemon = setup.start();
    let opened = post(&daemon, &old, "rkllm.init", json!(["own"])).unwrap();
    let handle = json!([opened["handle"]]);
    assert!(post(&daemon, &old, "rkllm.is_running", handle.clone()).is_ok());

    keys(&folder, "revoke laptop");
    daemon.log.wait_for("keys=0");
    let new = keys(&folder, "add laptop");
    daemon.log.wait_for("keys=1");
    let failure = post(&daemon, &new, "rkllm.is_running", handle).unwrap_err();
    assert_eq!(failure.name(), "unknown_handle");
}
