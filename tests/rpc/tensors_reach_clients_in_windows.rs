//! A tensor that is much larger than the memory for requests reaches its client whole and exact, on
//! every transport, while the daemon holds a window of it; one that is not read holds no more, and
//! goes with its client.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::daemon_support::{PATIENCE, Setup, descriptors, eventually, resident_bytes};
use crate::rpc_support::served::{Served, run_params};
use crate::rpc_support::{TRANSPORTS, Transport};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;
const LIMIT: u64 = 16 * MIB;
const COLUMNS: usize = 60_000;
const ROWS: usize = 190;
/// 45 MB, which are 61 MB of text.
const TENSOR_BYTES: usize = ROWS * COLUMNS * 4;
/// What the daemon may grow by while it hands a tensor on.
const GROWTH: u64 = 24 * MIB;

fn served(settings: &str) -> Served {
    let setup = Setup::new()
        .scenario(
            "m",
            &format!("tokens = [\"a\"]\nembedding-size = {COLUMNS}\n"),
        )
        .settings(&format!(
            "memory.requests-limit-bytes = {LIMIT}\n{settings}"
        ));
    Served::start(setup)
}

fn prompt() -> String {
    "word ".repeat(ROWS)
}

fn hidden(form: &str) -> Value {
    json!({
        "rkllm_infer_params": {"mode": "RKLLM_INFER_GET_LAST_HIDDEN_LAYER"},
        "rows": "all",
        "tensors": form,
        "stream": false,
    })
}

fn open(served: &Served) -> String {
    // Of the kind that outlives its request.
    let mut client = served.client(Transport::Http);
    let handle = client.init("m", json!({}));
    let plain = json!([handle, "", "", ""]);
    client.call("rkllm.set_chat_template", plain).unwrap();
    handle
}

fn open_on(client: &mut crate::rpc_support::Client) -> String {
    let handle = client.init("m", json!({}));
    let plain = json!([handle, "", "", ""]);
    client.call("rkllm.set_chat_template", plain).unwrap();
    handle
}

fn requests_memory(served: &Served) -> u64 {
    let page = served.daemon.get("/metrics").body;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("rkllmd_requests_memory_bytes "));
    line.expect("the figure").parse().expect("a number")
}

fn memory_files(served: &Served) -> usize {
    let open = descriptors(served.daemon.pid());
    open.iter()
        .filter(|(_, target)| target.contains("memfd"))
        .count()
}

/// The most that the daemon held between the start and the end.
struct Peak {
    watcher: JoinHandle<(u64, u64)>,
    enough: Arc<AtomicBool>,
}

impl Peak {
    fn watch(pid: u32) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&enough);
        let watcher = thread::spawn(move || {
            let before = resident_bytes(pid);
            let mut peak = before;
            while !told.load(Ordering::Relaxed) {
                peak = peak.max(resident_bytes(pid));
                // Growth is seen by sampling; there is no event for it.
                thread::sleep(Duration::from_millis(1));
            }
            (before, peak)
        });
        Self { watcher, enough }
    }

    fn assert_small(self, what: &str) {
        self.enough.store(true, Ordering::Relaxed);
        let (before, peak) = self.watcher.join().expect("the watcher");
        assert!(
            peak < before + GROWTH,
            "{what}: {before} bytes became {peak}, for a tensor of {TENSOR_BYTES}"
        );
    }
}

fn assert_exact(tensor: &Value, what: &str) {
    assert_eq!(tensor["shape"], json!([ROWS, COLUMNS]), "{what}");
    let bytes = STANDARD.decode(tensor["data"].as_str().expect("a text"));
    let bytes = bytes.expect("base64");
    assert_eq!(bytes.len(), TENSOR_BYTES, "{what}");
    let differs = bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .enumerate()
        .find(|(place, value)| *value != *place as f32);
    assert_eq!(differs, None, "{what}");
}

#[test]
fn a_tensor_larger_than_the_memory_arrives_whole_while_a_window_is_held() {
    let served = served("");
    for transport in TRANSPORTS {
        let what = format!("{transport:?}");
        let mut client = served.client(transport);
        let handle = open_on(&mut client);
        let peak = Peak::watch(served.daemon.pid());
        let result = client.run(&handle, &prompt(), hidden("base64")).unwrap();
        peak.assert_small(&what);
        assert_exact(&result["results"][0]["last_hidden_layer"], &what);
        client.call("rkllm.destroy", json!([handle])).unwrap();
    }
    eventually("the memory files to be given back", || {
        (memory_files(&served) == 0).then_some(())
    });
}

#[test]
fn notifications_and_numbers_come_in_windows_too() {
    let served = served("");
    let mut client = served.unix();
    let handle = open_on(&mut client);
    let mut params = hidden("json");
    params["stream"] = json!(true);
    let peak = Peak::watch(served.daemon.pid());
    client.run(&handle, &prompt(), params).unwrap();
    peak.assert_small("numbers");
    let notified = client.notifications("rkllm.result");
    let tensor = notified
        .iter()
        .find_map(|result| result.get("last_hidden_layer"))
        .expect("a notification with the tensor");
    let rows = tensor["data"].as_array().expect("rows");
    assert_eq!(rows.len(), ROWS);
    for (index, row) in rows.iter().enumerate() {
        let row = row.as_array().expect("a row");
        let differs = row
            .iter()
            .enumerate()
            .find(|(column, value)| value.as_f64() != Some((index * COLUMNS + column) as f64));
        assert!(row.len() == COLUMNS && differs.is_none(), "row {index}");
    }
}

#[test]
fn answers_of_a_batch_stand_around_a_tensor() {
    let served = served("");
    let handle = open(&served);
    let batch = json!([
        {"jsonrpc": "2.0", "id": "a\n[\n]", "method": "rkllm.get_kv_cache_size", "params": [handle]},
        {"jsonrpc": "2.0", "id": 2, "method": "rkllm.run", "params": run_params(&handle, &prompt(), hidden("base64"))},
        {"jsonrpc": "2.0", "id": 3, "method": "rkllm.is_running", "params": [handle]},
        {"jsonrpc": "2.0", "id": 4, "method": "nothing", "params": []},
    ]);
    let (status, head, body) =
        crate::rpc_support::raw_post(served.daemon.address, &batch.to_string(), &[]);
    assert_eq!(status, 200, "{head}");
    let length = format!("content-length: {}", body.len());
    assert!(head.to_lowercase().contains(&length), "{head}");
    let answers: Vec<Value> = serde_json::from_str(&body).expect("a batch");
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&json!("a\n[\n]"), &json!(2), &json!(3), &json!(4)]);
    assert_exact(
        &answers[1]["result"]["results"][0]["last_hidden_layer"],
        "a batch",
    );
    assert_eq!(answers[2]["result"]["running"], json!(false));
    assert!(answers[3].get("error").is_some());
}

/// Begins to read an answer with a tensor, and reads no further than its first part.
fn begin(served: &Served, transport: Transport, handle: &str) -> Box<dyn Read> {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "rkllm.run",
        "params": run_params(handle, &prompt(), hidden("base64"))})
    .to_string();
    let mut reader: Box<dyn Read> = match transport {
        Transport::Unix => panic!("its handles are a connection's own"),
        Transport::WebSocket => panic!("likewise"),
        Transport::Http | Transport::EventStream => {
            let address = served.daemon.address;
            let mut stream = std::net::TcpStream::connect(address).expect("the daemon accepts");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let accept = match transport {
                Transport::EventStream => "text/event-stream",
                _ => "application/json",
            };
            let head = format!(
                "POST /rpc HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\ncontent-length: {}\r\n\r\n{call}",
                call.len()
            );
            stream.write_all(head.as_bytes()).expect("it is sent");
            Box::new(stream)
        }
    };
    let mut first = [0; 65_536];
    reader.read_exact(&mut first).expect("a part of the answer");
    reader
}

#[test]
fn a_client_that_stops_reading_holds_a_window_and_frees_it_when_it_leaves() {
    let served = served("");
    for transport in [Transport::Http, Transport::EventStream] {
        let what = format!("{transport:?}");
        let handle = open(&served);
        let before = requests_memory(&served);
        let peak = Peak::watch(served.daemon.pid());
        let client = begin(&served, transport, &handle);
        // The handle's next call waits for the answer that is not read, another client for nothing.
        let other = open(&served);
        let mut calls = served.client(Transport::Http);
        calls
            .call("rkllm.get_kv_cache_size", json!([other]))
            .unwrap();
        peak.assert_small(&what);
        let held = requests_memory(&served);
        assert!(held <= before + MIB, "{what}: {before} bytes became {held}");
        assert_eq!(memory_files(&served), 1, "{what}");
        drop(client);
        eventually("what the client held to be free", || {
            (requests_memory(&served) <= before && memory_files(&served) == 0).then_some(())
        });
        for handle in [handle, other] {
            calls.call("rkllm.destroy", json!([handle])).unwrap();
        }
    }
}

#[test]
fn a_connection_that_takes_nothing_of_a_tensor_is_ended() {
    let served = served("http.slow-reader-timeout = \"1s\"");
    let run = |handle: &str| {
        json!({"jsonrpc": "2.0", "id": 9, "method": "rkllm.run",
            "params": run_params(handle, &prompt(), hidden("base64"))})
        .to_string()
    };
    for transport in [Transport::Unix, Transport::WebSocket] {
        let mut client = served.client(transport);
        let handle = open_on(&mut client);
        client.send_text(&run(&handle));
        eventually("the tensor to be on its way", || {
            (memory_files(&served) == 1).then_some(())
        });
        eventually("the tensor to be given up", || {
            (memory_files(&served) == 0).then_some(())
        });
        drop(client);
    }
    // One that is slow and reads on gets all of it, and what was asked for behind it.
    let mut client = served.unix();
    let handle = open_on(&mut client);
    client.send_text(&run(&handle));
    let behind =
        json!({"jsonrpc": "2.0", "id": 10, "method": "rkllm.is_running", "params": [handle]});
    client.send_text(&behind.to_string());
    let (lines, took) = read_slowly(client.unix().try_clone().unwrap(), 2);
    assert!(took > Duration::from_secs(4), "{took:?} is not slow");
    let answers: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    let tensor = answers.iter().find(|answer| answer["id"] == 9).unwrap();
    assert_exact(&tensor["result"]["results"][0]["last_hidden_layer"], "slow");
    assert!(answers.iter().any(|answer| answer["id"] == 10));
}

/// About 12 MB a second.
fn read_slowly(mut stream: UnixStream, lines: usize) -> (Vec<String>, Duration) {
    let begun = Instant::now();
    let mut all = Vec::new();
    let mut piece = vec![0; 1 << 20];
    let mut left = lines;
    while left > 0 {
        let read = stream.read(&mut piece).expect("more of it in time");
        assert!(read > 0, "the connection ended after {} bytes", all.len());
        all.extend_from_slice(&piece[..read]);
        left -= piece[..read]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            .min(left);
        // The client's own work.
        thread::sleep(Duration::from_millis(read as u64 / 12_000));
    }
    let text = String::from_utf8(all).expect("text");
    (text.lines().map(str::to_owned).collect(), begun.elapsed())
}
