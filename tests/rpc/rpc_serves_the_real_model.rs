//! The vendor's API over JSON-RPC and HTTP with the CPU runtime and the demo model: what comes out is
//! what a C program gets from the same library, bit for bit, and nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon_support::{
    Setup, all_children, built_library, demo_model, descriptors, eventually, resident_bytes,
};
use crate::rpc_support::Transport;
use crate::rpc_support::served::Served;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Token ids of the demo model's vocabulary, without special ones.
const TOKENS: [i32; 12] = [
    1000, 2001, 3002, 4003, 5004, 6005, 7006, 8007, 9008, 10009, 11010, 12011,
];
const WIDTH: usize = 576;

fn setup() -> Setup {
    // As many as the C program has.
    Setup::new()
        .demo_model("m")
        .environment("RKLLM_CPU_THREADS", "1")
}

/// What the C program of rkllm-cpu's own tests gets from the library for `TOKENS`.
fn rows_of_the_c_program(folder: &Path, promise: &str) -> Vec<u8> {
    let (program, rows, tokens) = (
        folder.join("outputs"),
        folder.join("rows"),
        folder.join("tokens"),
    );
    let tests = PathBuf::from(ROOT).join("rkllm-cpu");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-O1", "-I"])
        .arg(tests.join("include"))
        .arg("-o")
        .arg(&program)
        .arg(tests.join("tests/c/outputs.c"))
        .arg(built_library("rkllm_cpu"))
        .arg("-lpthread")
        .status()
        .expect("cc runs");
    assert!(compiled.success());
    let ids: Vec<u8> = TOKENS.iter().flat_map(|id| id.to_ne_bytes()).collect();
    fs::write(&tokens, ids).unwrap();
    // The program asks for the library by the name that the vendor's has.
    std::os::unix::fs::symlink(built_library("rkllm_cpu"), folder.join("librkllmrt.so"))
        .expect("a link");
    let output = Command::new(&program)
        .env("LD_LIBRARY_PATH", folder)
        .arg(promise)
        .arg(demo_model())
        .env("RKLLM_CPU_THREADS", "1")
        .env("ROWS", &rows)
        .env("TOKENS", &tokens)
        .output()
        .expect("the program runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::read(rows).unwrap()
}

/// All rows of a run over `TOKENS`, as the bytes of little-endian f32.
fn rows_over_rpc(served: &Served, transport: Transport, mode: &str, field: &str) -> Vec<u8> {
    let mut client = served.client(transport);
    let handle = client.init("m", json!({}));
    let params = json!({
        "handle": handle,
        "rkllm_input": {"token_input": {"input_ids": TOKENS}},
        "rkllm_infer_params": {"mode": mode},
        "rows": "all",
    });
    let result = client.call("rkllm.run", params).unwrap();
    client.call("rkllm.destroy", json!([handle])).unwrap();
    let data = result["results"][0][field]["data"].as_str();
    let data = data.unwrap_or_else(|| panic!("no {field}: {result}"));
    STANDARD.decode(data).unwrap()
}

#[test]
fn the_real_models_hidden_states_are_the_c_programs() {
    let folder = tempfile::tempdir().unwrap();
    let expected = rows_of_the_c_program(folder.path(), "hidden_states_of_a_prompt");
    assert_eq!(expected.len(), TOKENS.len() * WIDTH * 4);
    let plain = "template = \"chatml\"\n[embeddings]\npooling = \"last\"\nnormalize = false\n";
    let served = Served::start(setup().model_file("m", "model.toml", plain));
    for transport in [Transport::Unix, Transport::WebSocket, Transport::Http] {
        let mode = "RKLLM_INFER_GET_LAST_HIDDEN_LAYER";
        let rows = rows_over_rpc(&served, transport, mode, "last_hidden_layer");
        assert!(rows == expected, "{transport:?}");
    }
    let body = json!({"model": "m", "input": TOKENS, "encoding_format": "base64"});
    let answer = served.daemon.post("/v1/embeddings", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    let embedding = STANDARD
        .decode(answer["data"][0]["embedding"].as_str().unwrap())
        .unwrap();
    assert!(embedding == expected[expected.len() - WIDTH * 4..]);
    assert_eq!(answer["usage"]["prompt_tokens"], TOKENS.len());
}

#[test]
fn the_real_models_logits_are_the_c_programs() {
    let folder = tempfile::tempdir().unwrap();
    let expected = rows_of_the_c_program(folder.path(), "logits_of_a_prompt_and_what_follows");
    let served = Served::start(setup());
    for transport in [Transport::Unix, Transport::WebSocket, Transport::Http] {
        let rows = rows_over_rpc(&served, transport, "RKLLM_INFER_GET_LOGITS", "logits");
        let row = rows.len() / TOKENS.len();
        assert!(row > 40_000 * 4, "a row of the vocabulary: {row} bytes");
        assert!(rows == expected[..rows.len()], "{transport:?}");
    }
}

#[test]
fn a_whole_session_of_the_python_client_with_the_real_model() {
    let served = Served::start(setup());
    let adapters = Command::new(format!("{ROOT}/scripts/make-test-adapters"))
        .output()
        .expect("python3 runs");
    assert!(adapters.status.success(), "{adapters:?}");
    let folder = String::from_utf8(adapters.stdout).unwrap();
    let adapter = Path::new(folder.trim().lines().last().unwrap()).join("first.gguf");
    fs::copy(adapter, served.state.join("adapters/first.gguf")).unwrap();
    let url = format!("ws://{}/rpc/ws", served.daemon.address);
    let unix = served.socket.display().to_string();
    for way in [["--unix", &unix], ["--url", &url]] {
        let output = Command::new("python3")
            .arg(format!("{ROOT}/examples/rpc_client.py"))
            .args(way)
            .args([
                "--model",
                "m",
                "--adapter",
                "first.gguf",
                "--cache",
                "saved",
            ])
            .output()
            .expect("python3 runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{way:?}: {said}{complained}");
        assert!(said.ends_with("OK\n"), "{said}");
    }
}

#[test]
fn fifty_cycles_of_init_and_destroy_of_a_real_model_leave_nothing() {
    // A look at the board's sensors has a file open for a moment.
    let setup = setup()
        .environment("RKLLMD_READER__IDLE_TIMEOUT", "1s")
        .environment("RKLLMD_BOARD__INTERVAL", "0s");
    let served = Served::start(setup);
    let daemon = served.daemon.pid();
    let mut client = served.unix();
    let mut cycle = |_| {
        let handle = client.init("m", json!({}));
        client.call("rkllm.destroy", json!([handle])).unwrap();
    };
    // Caches and pools fill first.
    (0..10).for_each(&mut cycle);
    // What a child printed is read to its end a moment after the child is gone.
    let inherited = descriptors(std::process::id());
    let steady = || {
        eventually("no child, and no pipe of one", || {
            let held = descriptors(daemon);
            let is_a_childs = |one: &(u32, String)| {
                one.0 > 2 && one.1.starts_with("pipe:") && !inherited.contains(one)
            };
            let is_alone = all_children(daemon).is_empty() && !held.iter().any(is_a_childs);
            is_alone.then_some(held)
        })
    };
    let before = (steady(), resident_bytes(daemon));
    (0..50).for_each(&mut cycle);
    let after = (steady(), resident_bytes(daemon));
    assert_eq!(after.0, before.0, "descriptors");
    let grown = after.1.saturating_sub(before.1);
    assert!(grown < 2 << 20, "{grown} bytes more after 50 cycles");
}
