//! Tensors that wait for their readers are bounded in all, however slowly they are read: the sum of the
//! daemon's memory files, which are in no process's resident memory, never passes a client's share.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::daemon_support::{Setup, eventually};
use crate::rpc_support::Client;
use crate::rpc_support::served::{Served, run_params};
use serde_json::json;

const COLUMNS: usize = 50_000;
const ROWS: usize = 20;
const TENSOR_BYTES: u64 = (ROWS * COLUMNS * 4) as u64;
/// A client has half of it: two tensors.
const HELD: u64 = 16 << 20;

fn served(settings: &str) -> Served {
    let scenario = format!("tokens = [\"a\"]\nembedding-size = {COLUMNS}\n");
    let limits = format!(
        "library.tensor-limit-bytes = {}\nlibrary.tensors-held-limit-bytes = {HELD}\n{settings}",
        4 << 20
    );
    Served::start(Setup::new().scenario("m", &scenario).settings(&limits))
}

/// Sends a run for a tensor on a connection of its own, and reads nothing yet.
fn ask(served: &Served) -> Client {
    let mut client = served.unix();
    let handle = client.init("m", json!({}));
    let plain = json!([handle, "", "", ""]);
    client.call("rkllm.set_chat_template", plain).unwrap();
    let extra = json!({
        "rkllm_infer_params": {"mode": "RKLLM_INFER_GET_LAST_HIDDEN_LAYER"}, "rows": "all",
    });
    let params = run_params(&handle, &"word ".repeat(ROWS), extra);
    let call = json!({"jsonrpc": "2.0", "id": 77, "method": "rkllm.run", "params": params});
    client.send_text(&call.to_string());
    client
}

/// Bytes that the kernel holds for the daemon's memory files.
fn held_bytes(served: &Served) -> u64 {
    let folder = format!("/proc/{}/fd", served.daemon.pid());
    let open = fs::read_dir(folder).expect("the daemon's descriptors");
    let files = open.flatten().map(|entry| entry.path()).filter(|path| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("rkllm-tensor"))
    });
    files
        .filter_map(|path| fs::metadata(path).ok())
        .map(|file| file.blocks() * 512)
        .sum()
}

fn metric(served: &Served, name: &str) -> u64 {
    let page = served.daemon.get("/metrics").body;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect("the figure").parse().expect("a number")
}

#[test]
fn clients_that_do_not_read_hold_no_more_than_their_share() {
    let served = served("");
    let mut first: Vec<Client> = Vec::new();
    for number in 1..=2 {
        first.push(ask(&served));
        eventually("a tensor to wait", || {
            (held_bytes(&served) >= number * TENSOR_BYTES).then_some(())
        });
    }
    // Each is another connection with a handle of its own, and all are of one user.
    for _ in 0..2 {
        let refused = ask(&served).answer_to(77).expect_err("no place for it");
        assert_eq!(refused.name(), "limit_reached", "{refused:?}");
        let held = held_bytes(&served);
        assert!(held <= HELD / 2, "{held} bytes");
    }
    let counted = metric(&served, "rkllmd_tensors_memory_bytes");
    assert_eq!(counted, 2 * TENSOR_BYTES);
    assert_eq!(metric(&served, "rkllmd_tensors_memory_refusals_total"), 2);
    // What is read, or left, makes place for others.
    let read = first
        .pop()
        .expect("a client")
        .answer_to(77)
        .expect("its tensor");
    assert_eq!(
        read["results"][0]["last_hidden_layer"]["shape"],
        json!([ROWS, COLUMNS])
    );
    drop(first);
    eventually("the tensors to be given back", || {
        let counted = metric(&served, "rkllmd_tensors_memory_bytes");
        (counted == 0 && held_bytes(&served) == 0).then_some(())
    });
    ask(&served).answer_to(77).expect("there is place again");
}

#[test]
fn a_client_that_trickles_is_given_up() {
    let served = served("http.slow-reader-timeout = \"3s\"");
    let mut client = ask(&served);
    eventually("a tensor to wait", || {
        (held_bytes(&served) > 0).then_some(())
    });
    // 32 KiB a second: there is always something taken in time, and the message would take minutes.
    let begun = Instant::now();
    let mut taken = 0;
    let mut piece = vec![0; 4 * 1024];
    eventually("the tensor to be given up", || {
        while taken < begun.elapsed().as_millis() * 32 {
            taken += client.unix().read(&mut piece).unwrap_or(0).max(1) as u128;
        }
        (held_bytes(&served) == 0).then_some(())
    });
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(15), "it stalled: {took:?}");
}
