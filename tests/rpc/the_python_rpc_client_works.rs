//! examples/rpc_client.py, in Python's standard library, goes through a whole session, and so do the
//! commands of docs/json-rpc.md.

use std::fs;
use std::process::Command;

use crate::daemon_support::{FAMILIES_RUN, Setup};
use crate::rpc_support::served::Served;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rpc_client.py");

#[test]
fn a_whole_session_on_the_unix_socket_and_over_a_websocket() {
    let scenario = "tokens = [\"Because \", \"of \", \"Rayleigh \", \"scattering.\"]\n\
        token-delay-us = 2000\nprefill-delay-ms = 5\n\
        [[answer]]\nwhen-prompt-contains = \"long story\"\n\
        repeat = { token = \"and then \", times = 100000 }\n";
    for family in FAMILIES_RUN {
        let setup = Setup::with_family(family).scenario("m", scenario);
        let served = Served::start(setup);
        fs::write(served.state.join("adapters/style.lora"), "an adapter").unwrap();
        let url = format!("ws://{}/rpc/ws", served.daemon.address);
        let unix = served.socket.display().to_string();
        for way in [["--unix", &unix], ["--url", &url]] {
            let output = Command::new("python3")
                .arg(SCRIPT)
                .args(way)
                .args([
                    "--model",
                    "m",
                    "--adapter",
                    "style.lora",
                    "--cache",
                    "saved",
                    "--max-new-tokens",
                    "100000",
                ])
                .output()
                .expect("python3 runs");
            let said = String::from_utf8_lossy(&output.stdout);
            let complained = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{family} {way:?}: {said}{complained}"
            );
            assert!(said.ends_with("OK\n"), "{said}");
        }
    }
}

#[test]
fn the_documents_commands_work() {
    let document =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json-rpc.md")).unwrap();
    let scenario = "tokens = [\"Because \", \"of \", \"scattering.\"]\nprefill-delay-ms = 5\n\
        token-delay-us = 2000\n[[answer]]\nwhen-prompt-contains = \"long story\"\n\
        repeat = { token = \"and then \", times = 1000 }\n";
    let served = Served::start(Setup::new().scenario("my-model", scenario));
    fs::write(served.state.join("adapters/my-adapter"), "an adapter").unwrap();
    let blocks: Vec<String> = document
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .map(|block| {
            block
                .replace("127.0.0.1:8080", &served.daemon.address.to_string())
                .replace("/run/rkllmd/rpc.sock", &served.socket.display().to_string())
        })
        .collect();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &block])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("bash runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}: {said}{complained}");
        assert!(!said.contains("\"error\":"), "{block}: {said}");
        assert!(!said.is_empty(), "{block}");
    }
}
