//! What clients can make the daemon hold has one bound, one client does not use it up for others, no
//! body becomes many times its size, and what a burst took goes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, PATIENCE, Setup, eventually, resident_bytes};
use serde_json::json;

const MIB: u64 = 1024 * 1024;
/// Of what grows beside the bodies: connections, buffers, code that is read for the first time.
const SLACK: u64 = 24 * MIB;

fn daemon(settings: &str) -> Daemon {
    Setup::new()
        .scenario("echo", "tokens = [\"a\"]\n")
        .settings(settings)
        .start()
}

/// The most that is resident between its start and its end.
struct Peak {
    watcher: JoinHandle<u64>,
    enough: Arc<AtomicBool>,
}

impl Peak {
    fn watch(pid: u32) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&enough);
        let watcher = thread::spawn(move || {
            let mut peak = 0;
            while !told.load(Ordering::Relaxed) {
                peak = peak.max(resident_bytes(pid));
                // Growth is seen by sampling; there is no event for it.
                thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        Self { watcher, enough }
    }

    fn end(self) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        self.watcher.join().expect("the watcher")
    }
}

/// Sends a header and `body`, of which the header announces `announced` bytes.
fn begin(address: SocketAddr, path: &str, announced: usize, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the daemon accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it is sent");
    // A refusal may come before all of it is sent.
    let _ = stream.write_all(body);
    stream
}

/// The answer's status, header and body.
fn answer(mut stream: TcpStream) -> (u16, String, String) {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (status, head.to_lowercase(), body.to_owned())
}

fn post(address: SocketAddr, path: &str, body: &[u8]) -> (u16, String, String) {
    answer(begin(address, path, body.len(), body))
}

/// `item` again and again between the two, of about so many bytes.
fn filled(bytes: usize, before: &str, item: &str, after: &str) -> Vec<u8> {
    let count = (bytes - before.len() - after.len()) / (item.len() + 1);
    let mut body = before.as_bytes().to_vec();
    for index in 0..count {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item.as_bytes());
    }
    body.extend_from_slice(after.as_bytes());
    body
}

#[test]
fn bodies_that_arrive_have_one_bound_and_one_client_half_of_it() {
    let daemon = daemon("memory.requests-limit-bytes = 67108864");
    assert_eq!(daemon.get("/health").status, 200);
    let before = resident_bytes(daemon.pid());
    let body = vec![b'a'; 7 * 1024 * 1024];
    let clients: Vec<_> = (0..24)
        .map(|_| begin(daemon.address, "/v1/chat/completions", 8 << 20, &body))
        .collect();
    let is_answered = |client: &&TcpStream| {
        client.set_nonblocking(true).expect("a flag");
        let is_answered = client.peek(&mut [0]).is_ok();
        client.set_nonblocking(false).expect("a flag");
        is_answered
    };
    eventually("an answer to those that do not fit", || {
        (clients.iter().filter(is_answered).count() >= 20).then_some(())
    });
    let after = resident_bytes(daemon.pid());
    assert!(after < before + 32 * MIB + SLACK, "{before} became {after}");
    assert_eq!(daemon.get("/health").status, 200);
    let refused = clients.iter().filter(is_answered).count();
    assert_eq!(refused, 20, "four of 7 MiB fit into 32 MiB");
    for client in clients.iter().filter(is_answered) {
        let (status, head, body) = answer(client.try_clone().expect("a descriptor"));
        assert_eq!(status, 429, "{body}");
        assert!(head.contains("retry-after: 1"), "{head}");
        assert!(body.contains("\"memory_share_used\""), "{body}");
    }
    drop(clients);
    // Their bytes are free again once they have left.
    eventually("a request that is served", || {
        let body = json!({"model": "none", "messages": []}).to_string();
        (post(daemon.address, "/v1/chat/completions", body.as_bytes()).0 == 404).then_some(())
    });
}

#[test]
fn the_daemon_is_watched_while_its_clients_memory_is_used_up() {
    let daemon = daemon("memory.requests-limit-bytes = 67108864");
    let most = (8 << 20) - 8;
    let body = vec![b'a'; most];
    let clients: Vec<_> = (0..4)
        .map(|_| begin(daemon.address, "/v1/chat/completions", 8 << 20, &body))
        .collect();
    let asked = json!({"model": "none", "messages": []}).to_string();
    eventually("a client whose share is used up", || {
        let (status, _, body) = post(daemon.address, "/v1/chat/completions", asked.as_bytes());
        (status == 429 && body.contains("memory_share_used")).then_some(())
    });
    for path in ["/health", "/v1/ready", "/metrics"] {
        assert_eq!(daemon.get(path).status, 200, "{path}");
    }
    drop(clients);
}

#[test]
fn a_slow_body_gives_way_where_memory_is_scarce() {
    let daemon =
        daemon("memory.requests-limit-bytes = 33554432\nhttp.slow-reader-timeout = \"1s\"");
    let body = vec![b'a'; 7 * 1024 * 1024];
    let mut slow: Vec<_> = (0..2)
        .map(|_| begin(daemon.address, "/v1/chat/completions", 8 << 20, &body))
        .collect();
    let until = Instant::now() + PATIENCE;
    // They go on, byte by byte, which is a thousand times the pace that is asked for otherwise.
    while Instant::now() < until {
        let ended = slow.iter_mut().any(|client| {
            client
                .set_read_timeout(Some(Duration::from_millis(100)))
                .expect("a timeout");
            let mut first = [0; 12];
            let _ = client.write_all(b"aaaaaaaa");
            matches!(client.read(&mut first), Ok(12) if first == *b"HTTP/1.1 408")
        });
        if ended {
            return;
        }
    }
    panic!("a slow body holds its memory");
}

#[test]
fn how_slowly_a_body_may_come_is_a_setting() {
    const BODY: &str = r#"{"model": "echo", "messages": [{"role": "user", "content": "x"}]}"#;
    for (rate, status) in [(1, "200"), (1 << 30, "408")] {
        let daemon = daemon(&format!(
            "http.slow-reader-timeout = \"2s\"\nhttp.slowest-bytes-per-second = {rate}"
        ));
        let (path, length) = ("/v1/chat/completions", BODY.len());
        let mut stream = begin(daemon.address, path, length, &[]);
        // Longer than the timeout in all, though never between two bytes.
        for byte in BODY.bytes() {
            let _ = stream.write_all(&[byte]);
            thread::sleep(Duration::from_millis(50));
        }
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{rate}: {answer}"
        );
        if status == "408" {
            let told = format!("less than {rate} bytes a second");
            assert!(answer.contains(&told), "{answer}");
        }
    }
}

/// What a text is made into counts beside the answer that is made of it.
#[test]
fn tokens_and_their_texts_are_charged_with_the_answers_made_of_them() {
    let long = "x".repeat(1000);
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{"id": 2, "content": long, "special": false, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false}],
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated",
            "invert": false},
        "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": {"[unknown]": 0, "a": 1}, "unk_token": "[unknown]"}
    });
    let daemon = Setup::new()
        .scenario("m", "tokens = [\"a\"]\n")
        .model_file("m", "tokenizer.json", &tokenizer.to_string())
        // A client has half of it.
        .settings("memory.requests-limit-bytes = 12582912\ndeadlines.reader-call = \"2m\"")
        .start();
    let tokenize = |bytes: usize| {
        let body = json!({"model": "m", "content": "a".repeat(bytes), "with_pieces": true});
        daemon.post("/tokenize", &body)
    };
    assert_eq!(tokenize(150_000).status, 200);
    // 4.9 MB of answer, and 2.2 MB of tokens and pieces.
    let refused = tokenize(240_000);
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (413, "request_too_large"),
        "{:.200}",
        refused.body
    );
    let detokenize = |tokens: usize| {
        let body = json!({"model": "m", "tokens": vec![2; tokens]});
        daemon.post("/detokenize", &body)
    };
    let answer = detokenize(2000);
    assert_eq!(answer.status, 200, "{:.200}", answer.body);
    assert_eq!(
        answer.json()["content"].as_str().map(str::len),
        Some(2_000_000)
    );
    // Its text fits, and the answer beside it does not.
    let refused = detokenize(4000);
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (413, "request_too_large"),
        "{:.200}",
        refused.body
    );
}

/// The client's own half is what is scarce: less than half of all is used.
#[test]
fn a_slow_body_gives_way_to_its_own_clients_requests() {
    let daemon =
        daemon("memory.requests-limit-bytes = 100663296\nhttp.slow-reader-timeout = \"1s\"");
    let body = vec![b'a'; 7 * 1024 * 1024];
    let mut slow: Vec<_> = (0..4)
        .map(|_| begin(daemon.address, "/v1/chat/completions", 8 << 20, &body))
        .collect();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let ended = slow.iter_mut().any(|client| {
            client
                .set_read_timeout(Some(Duration::from_millis(100)))
                .expect("a timeout");
            let mut first = [0; 12];
            let _ = client.write_all(b"aaaaaaaa");
            matches!(client.read(&mut first), Ok(12) if first == *b"HTTP/1.1 408")
        });
        if ended {
            return;
        }
    }
    panic!("a slow body holds its client's memory");
}

#[test]
fn no_body_becomes_many_times_its_size() {
    const BYTES: usize = 8_380_000;
    const MOST_TIMES: u64 = 6;
    let daemon = daemon("memory.requests-limit-bytes = 268435456\ndeadlines.reader-call = \"2m\"");
    let chat = r#"{"model":"echo","messages":[{"role":"user","content":"x"}],"#;
    let kwargs = format!(r#"{chat}"chat_template_kwargs":{{"a":["#);
    let names: Vec<String> = (0..700_000).map(|n| format!("\"{n}\":0")).collect();
    let names = format!(r#"{chat}"chat_template_kwargs":{{{}}}}}"#, names.join(","));
    let run = r#"{"jsonrpc":"2.0","id":1,"method":"rkllm.run","params":["0",{"embed_input":{"n_tokens":1,"embed":["#;
    let init = r#"{"jsonrpc":"2.0","id":1,"method":"rkllm.init","params":["#;
    let parts = r#"{"model":"echo","messages":[{"role":"user","content":["#;
    let inner = format!(
        "{{\"role\":\"user\",\"content\":\"\",\"tool_calls\":[{}]}}",
        vec!["0"; 60_000].join(",")
    );
    let cases = [
        (
            "kwargs of lists",
            "/apply-template",
            filled(BYTES, &kwargs, "[]", "]}}"),
        ),
        (
            "kwargs of numbers",
            "/apply-template",
            filled(BYTES, &kwargs, "0", "]}}"),
        ),
        (
            "kwargs of texts",
            "/apply-template",
            filled(BYTES, &kwargs, "\"\"", "]}}"),
        ),
        (
            "kwargs of objects",
            "/apply-template",
            filled(BYTES, &kwargs, r#"{"":0}"#, "]}}"),
        ),
        ("kwargs of names", "/apply-template", names.into_bytes()),
        (
            "empty messages",
            "/apply-template",
            filled(
                BYTES,
                r#"{"model":"echo","messages":["#,
                r#"{"role":"user","content":""}"#,
                "]}",
            ),
        ),
        (
            "messages that are nothing",
            "/apply-template",
            filled(BYTES, r#"{"model":"echo","messages":["#, "{}", "]}"),
        ),
        (
            "messages of large lists",
            "/apply-template",
            filled(BYTES, r#"{"model":"echo","messages":["#, &inner, "]}"),
        ),
        (
            "parts",
            "/apply-template",
            filled(BYTES, parts, r#"{"type":"text","text":""}"#, "]}]}"),
        ),
        (
            "tools",
            "/apply-template",
            filled(BYTES, &format!(r#"{chat}"tools":["#), "[]", "]}"),
        ),
        (
            "a text",
            "/apply-template",
            filled(
                BYTES,
                r#"{"model":"echo","messages":[{"role":"user","content":""#,
                "<|im_end|>",
                "\"}]}",
            ),
        ),
        ("a batch of nothing", "/rpc", filled(BYTES, "[", "1", "]")),
        (
            "parameters of lists",
            "/rpc",
            filled(BYTES, init, "[]", "]}"),
        ),
        ("an embedding", "/rpc", filled(BYTES, run, "0", "]}}]}")),
        (
            "embeddings of tokens",
            "/v1/embeddings",
            filled(BYTES, r#"{"model":"echo","input":["#, "1", "]}"),
        ),
        (
            "embeddings of lists",
            "/v1/embeddings",
            filled(BYTES, r#"{"model":"echo","input":["#, "[1]", "]}"),
        ),
        (
            "stops",
            "/v1/completions",
            filled(
                BYTES,
                r#"{"model":"echo","prompt":"x","stop":["#,
                "\"\"",
                "]}",
            ),
        ),
        (
            "tokens",
            "/detokenize",
            filled(BYTES, r#"{"model":"echo","tokens":["#, "1", "]}"),
        ),
    ];
    assert_eq!(daemon.get("/health").status, 200);
    let mut faults = Vec::new();
    for (name, path, body) in cases {
        let before = resident_bytes(daemon.pid());
        let peak = Peak::watch(daemon.pid());
        let begun = Instant::now();
        let (status, _, said) = post(daemon.address, path, &body);
        let grown = peak.end().saturating_sub(before);
        let said: String = said.chars().take(150).collect();
        eprintln!(
            "{name}: {} bytes took {grown}, {status} after {:?}: {said}",
            body.len(),
            begun.elapsed()
        );
        if grown > MOST_TIMES * body.len() as u64 || status >= 500 {
            faults.push(format!("{name}: {status}, {grown} bytes: {said}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A member of an object takes many times its text, and the members of all functions count together.
#[test]
fn functions_take_no_more_than_what_is_charged_for_them() {
    let daemon = daemon("memory.requests-limit-bytes = 67108864");
    let members: Vec<String> = (0..65_000).map(|n| format!("\"{n:x}\":0")).collect();
    let members = members.join(",");
    let body = |tools: usize| {
        let tool = |place| {
            let schema = format!(r#"{{"type":"object","properties":{{{members}}}}}"#);
            format!(r#"{{"function":{{"name":"f{place}","parameters":{schema}}}}}"#)
        };
        let tools: Vec<String> = (0..tools).map(tool).collect();
        let tools = tools.join(",");
        format!(
            r#"{{"model":"echo","messages":[{{"role":"user","content":"x"}}],"tools":[{tools}]}}"#
        )
    };
    assert_eq!(daemon.get("/health").status, 200);
    let before = resident_bytes(daemon.pid());
    let peak = Peak::watch(daemon.pid());
    let (status, _, said) = post(daemon.address, "/apply-template", body(3).as_bytes());
    let peak = peak.end();
    assert!(peak < before + 32 * MIB + SLACK, "{before} became {peak}");
    assert_eq!(status, 413, "{said}");
    let daemon = self::daemon("memory.requests-limit-bytes = 268435456");
    let (status, _, said) = post(daemon.address, "/apply-template", body(2).as_bytes());
    assert_eq!(status, 400, "{said}");
    assert!(
        said.contains("\"tools\"") && said.contains("65536"),
        "{said}"
    );
}

#[test]
fn what_a_burst_took_goes_back() {
    let daemon = daemon("");
    let chat = filled(
        1 << 20,
        r#"{"model":"echo","messages":[{"role":"user","content":""#,
        "<|im_end|>",
        "\"}]}",
    );
    let tokens = filled(8_380_000, r#"{"model":"echo","tokens":["#, "1", "]}");
    let (status, _, said) = post(daemon.address, "/apply-template", b"{}");
    assert_eq!(status, 400, "{said}");
    let before = resident_bytes(daemon.pid());
    let peak = Peak::watch(daemon.pid());
    let address = daemon.address;
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let (path, body) = match number % 2 {
                0 => ("/apply-template", chat.clone()),
                _ => ("/detokenize", tokens.clone()),
            };
            thread::spawn(move || post(address, path, &body).0)
        })
        .collect();
    for client in clients {
        let status = client.join().expect("a client");
        assert!([200, 400, 429, 503].contains(&status), "{status}");
    }
    let peak = peak.end();
    assert!(peak > before + 20 * MIB, "{before} became {peak}: no burst");
    let until = Instant::now() + Duration::from_secs(10);
    let mut after = resident_bytes(daemon.pid());
    while after > before + 20 * MIB && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
        after = resident_bytes(daemon.pid());
    }
    assert!(after <= before + 20 * MIB, "{before} became {after}");
}

#[test]
fn the_rows_of_embeddings_are_charged_while_more_are_made() {
    const COLUMNS: u64 = 32_768;
    const INPUTS: u64 = 128;
    let daemon = Setup::new()
        .scenario(
            "rows",
            &format!("embedding-size = {COLUMNS}\nprefill-delay-ms = 50\n"),
        )
        .settings("memory.requests-limit-bytes = 67108864")
        .start();
    let charged = || {
        let metrics = daemon.get("/metrics").body;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("rkllmd_requests_memory_bytes "));
        line.expect("the figure").parse::<u64>().expect("a number")
    };
    let request = |inputs: u64| {
        let inputs = vec!["x"; usize::try_from(inputs).expect("few")];
        json!({"model": "rows", "input": inputs, "encoding_format": "base64"}).to_string()
    };
    let rows = begin(
        daemon.address,
        "/v1/embeddings",
        request(INPUTS).len(),
        request(INPUTS).as_bytes(),
    );
    eventually("all rows being charged at the first", || {
        (charged() >= INPUTS * COLUMNS * 4).then_some(())
    });
    // What cannot be held is refused at its first row.
    let (status, _, body) = post(
        daemon.address,
        "/v1/embeddings",
        request(INPUTS * 4).as_bytes(),
    );
    assert_eq!(status, 413, "{body}");
    drop(rows);
    eventually("the charge going back", || (charged() < MIB).then_some(()));
}
