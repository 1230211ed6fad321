//! What a handle's next worker must be told stays in the daemon as long as the handle, and counts
//! among what its client holds.

use crate::daemon_support::{Daemon, Setup};
use crate::rpc_support::{Client, Failure, Transport};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;

fn daemon() -> Daemon {
    Setup::new()
        .settings("memory.requests-limit-bytes = 67108864\nmodels.max-loaded = 8")
        .scenario("m", "tokens = ['x']\n")
        .scenario(
            "slow",
            "tokens = ['x']\nprefill-delay-ms = 60000\nmax-context-limit = 65537\n",
        )
        .start()
}

fn open(client: &mut Client) -> Value {
    let opened = client.call("rkllm.init", json!(["m"])).expect("a handle");
    opened["handle"].clone()
}

fn set_template(client: &mut Client, handle: &Value, bytes: usize) -> Result<Value, Failure> {
    let text = "x".repeat(bytes);
    client.call("rkllm.set_chat_template", json!([handle, text, "<", ">"]))
}

fn assert_no_memory(refused: &Failure) {
    assert_eq!(refused.name(), "limit_reached", "{}", refused.message);
    assert!(refused.message.contains("memory"), "{}", refused.message);
}

#[test]
fn calls_that_are_kept_are_charged_until_their_handle_goes() {
    let daemon = daemon();
    let mut client = Client::connect(Transport::WebSocket, daemon.address, daemon.folder());
    let handles = [0; 4].map(|_| open(&mut client));
    // A client may have 32 MiB, of which the message of a call needs some as well.
    let refused = handles.iter().find_map(|handle| {
        let tools = json!([handle, "", "y".repeat(7 * MIB), ""]);
        set_template(&mut client, handle, 7 * MIB)
            .and_then(|_| client.call("rkllm.set_function_tools", tools))
            .err()
    });
    assert_no_memory(&refused.expect("56 MiB are too much"));
    set_template(&mut client, &handles[3], 7 * MIB).expect_err("nothing was given back");
    // A template that takes the place of a large one gives its bytes back.
    set_template(&mut client, &handles[0], 10).expect("it is set");
    set_template(&mut client, &handles[3], 7 * MIB).expect("it is set");
    for handle in handles {
        client
            .call("rkllm.destroy", json!([handle]))
            .expect("it is closed");
    }
    let another = open(&mut client);
    set_template(&mut client, &another, 7 * MIB).expect("it is set");
}

#[test]
fn runs_that_were_answered_are_charged_until_they_have_ended() {
    let daemon = daemon();
    let mut client = Client::connect(Transport::WebSocket, daemon.address, daemon.folder());
    let prompt = "x".repeat(6 * MIB);
    let start = |client: &mut Client, handle: &Value| {
        let run = json!([handle, {"prompt_input": prompt}]);
        client.call("rkllm.run_async", run)
    };
    // Its context has room for the prompt.
    let param = json!(["slow", {"max_context_len": 65_536}]);
    let opened = client.call("rkllm.init", param.clone());
    let handle = opened.expect("a handle")["handle"].clone();
    start(&mut client, &handle).expect("it is started");
    let refused = (0..8).find_map(|_| start(&mut client, &handle).err());
    let refused = refused.expect("54 MiB are too much");
    assert_eq!(refused.name(), "limit_reached", "{}", refused.message);
    client
        .call("rkllm.destroy", json!([handle]))
        .expect("it is closed");
    let opened = client.call("rkllm.init", param);
    let handle = opened.expect("a handle")["handle"].clone();
    start(&mut client, &handle).expect("it is started");
}
