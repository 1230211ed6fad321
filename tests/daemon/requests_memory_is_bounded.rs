//! What clients can make the daemon hold has one bound, one client does not use it up for others, no
//! body becomes many times its size, and what a burst took goes back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, PATIENCE, eventually, resident_bytes};
use serde_json::json;

use super::requests_memory_support::{MIB, SLACK, answer, begin, daemon, post};

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
    let hold = || begin(daemon.address, "/v1/chat/completions", 8 << 20, &body);
    let mut clients: Vec<_> = (0..4).map(|_| hold()).collect();
    let asked = json!({"model": "none", "messages": []}).to_string();
    eventually("a client whose share is used up", || {
        let (status, _, body) = post(daemon.address, "/v1/chat/completions", asked.as_bytes());
        let is_used_up = status == 429 && body.contains("memory_share_used");
        if !is_used_up {
            // What the others' buffers held for a moment may have kept one of them out.
            clients.push(hold());
        }
        is_used_up.then_some(())
    });
    for path in ["/health", "/v1/ready", "/metrics", "/v1/status"] {
        assert_eq!(daemon.get(path).status, 200, "{path}");
    }
    drop(clients);
}

/// Whether one of so many bodies of 8 MiB, of which the last MiB comes byte by byte, is ended.
fn one_gives_way(daemon: &Daemon, bodies: usize) -> bool {
    let body = vec![b'a'; 7 * 1024 * 1024];
    let mut slow: Vec<_> = (0..bodies)
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
            return true;
        }
    }
    false
}

#[test]
fn a_slow_body_gives_way_where_memory_is_scarce() {
    let daemon =
        daemon("memory.requests-limit-bytes = 33554432\nhttp.slow-reader-timeout = \"1s\"");
    assert!(one_gives_way(&daemon, 2), "a slow body holds its memory");
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

/// The client's own half is what is scarce: less than half of all is used.
#[test]
fn a_slow_body_gives_way_to_its_own_clients_requests() {
    let daemon =
        daemon("memory.requests-limit-bytes = 100663296\nhttp.slow-reader-timeout = \"1s\"");
    assert!(
        one_gives_way(&daemon, 4),
        "a slow body holds its client's memory"
    );
}
