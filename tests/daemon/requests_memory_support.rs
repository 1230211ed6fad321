//! A daemon whose clients take memory, and how much that is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::daemon_support::{Daemon, PATIENCE, Setup, resident_bytes};

pub const MIB: u64 = 1024 * 1024;
/// Of what grows beside the bodies: connections, buffers, code that is read for the first time.
pub const SLACK: u64 = 24 * MIB;

pub fn daemon(settings: &str) -> Daemon {
    Setup::new()
        .scenario("echo", "tokens = [\"a\"]\n")
        .settings(settings)
        .start()
}

/// The most that is resident between its start and its end.
pub struct Peak {
    watcher: JoinHandle<u64>,
    enough: Arc<AtomicBool>,
}

impl Peak {
    pub fn watch(pid: u32) -> Self {
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

    pub fn end(self) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        self.watcher.join().expect("the watcher")
    }
}

/// Sends a header and `body`, of which the header announces `announced` bytes.
pub fn begin(address: SocketAddr, path: &str, announced: usize, body: &[u8]) -> TcpStream {
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
pub fn answer(mut stream: TcpStream) -> (u16, String, String) {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (status, head.to_lowercase(), body.to_owned())
}

pub fn post(address: SocketAddr, path: &str, body: &[u8]) -> (u16, String, String) {
    answer(begin(address, path, body.len(), body))
}

/// `item` again and again between the two, of about so many bytes.
pub fn filled(bytes: usize, before: &str, item: &str, after: &str) -> Vec<u8> {
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
