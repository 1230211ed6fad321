//! Sockets that the service manager passes are served in place of `http.listen`, and a restart loses
//! no client that connects to them. The test is the service manager: it holds the sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::daemon_support::{Daemon, EventStream, Setup, begin, chat, descriptors, eventually};
use rustix::process::Signal;
use serde_json::json;

const QUICK: &str = "tokens = [\"fine\"]\n";
const SLOW: &str = "token-delay-us = 10000\nrepeat = { token = \"w \", times = 100 }\n";
/// Longer than any of these tests takes to bring the next daemon up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Copies that a child inherits, with the words that make a shell pass them on from 3 up.
struct Passed {
    _copies: Vec<OwnedFd>,
    script: String,
}

fn pass(sockets: &[&dyn AsFd], pid: &str) -> Passed {
    let mut redirections = String::new();
    let mut copies = Vec::new();
    for (index, socket) in sockets.iter().enumerate() {
        // Not close-on-exec, unlike what the standard library makes; far from the numbers wanted.
        let copy = rustix::io::dup(socket.as_fd()).expect("a copy");
        let copy = {
            let far = rustix::io::fcntl_dupfd_cloexec(&copy, 50).expect("a copy");
            rustix::io::fcntl_setfd(&far, rustix::io::FdFlags::empty()).expect("inheritable");
            far
        };
        redirections += &format!(" {}<&{}", index + 3, copy.as_raw_fd());
        redirections += &format!(" {}<&-", copy.as_raw_fd());
        copies.push(copy);
    }
    let count = sockets.len();
    Passed {
        _copies: copies,
        script: format!("LISTEN_PID={pid} LISTEN_FDS={count} exec \"$@\"{redirections}"),
    }
}

fn start(setup: Setup, sockets: &[&dyn AsFd]) -> Daemon {
    let passed = pass(sockets, "$$");
    setup
        .launcher(&["bash", "-c", &passed.script, "launcher"])
        .start()
}

fn setup() -> Setup {
    Setup::new()
        .settings("models.max-loaded = 2")
        .scenario("m", QUICK)
        .scenario("slow", SLOW)
}

fn tcp() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

#[test]
fn several_sockets_are_served_in_place_of_listen() {
    let (first, first_address) = tcp();
    let (second, second_address) = tcp();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let local = UnixListener::bind(&path).expect("a socket");
    let daemon = start(setup(), &[&first, &second, &local]);
    daemon.log.wait_for("`http.listen` is not used");
    assert_eq!(daemon.address, first_address, "not --listen's");
    daemon.log.wait_for("listening address=unix:");
    let listening = daemon.log.lines();
    let listening = listening
        .iter()
        .filter(|line| line.contains("listening address="));
    assert_eq!(listening.count(), 3);
    assert_eq!(daemon.get("/health").status, 200);
    let stream = TcpStream::connect(second_address).expect("a connection");
    let answer = begin(stream, "GET", "/health", None).and_then(|begun| begun.into_answer());
    assert_eq!(answer.expect("an answer").status, 200);
    let mut local = UnixStream::connect(&path).expect("a connection");
    local.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    local
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("a request");
    let mut answer = String::new();
    local.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // No worker has them.
    let body = chat("m", "x", json!({}));
    assert_eq!(daemon.post("/v1/chat/completions", &body).content(), "fine");
    let own: Vec<String> = [first.as_raw_fd(), second.as_raw_fd()]
        .iter()
        .map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("a socket"))
        .map(|link| link.display().to_string())
        .collect();
    let has = |pid| {
        descriptors(pid)
            .iter()
            .any(|(_, target)| own.contains(target))
    };
    assert!(has(daemon.pid()), "the check is able to fail");
    assert!(!has(daemon.worker_pid()));
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert!(path.exists(), "it is not the daemon's to remove");
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let (socket, address) = tcp();
    let passed = pass(&[&socket], "1");
    let daemon = setup()
        .launcher(&["bash", "-c", &passed.script, "launcher"])
        .start();
    assert_ne!(daemon.address, address);
    assert_eq!(daemon.get("/health").status, 200);
}

/// Runs a daemon that is expected not to start; gives its exit code and what it said.
fn refused(sockets: &[&dyn AsFd]) -> (Option<i32>, String) {
    let passed = pass(sockets, "$$");
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("bash")
        .args(["-c", &passed.script, "launcher"])
        .args([env!("CARGO_BIN_EXE_rkllmd"), "serve", "--models"])
        .arg(folder.path())
        .env("RKLLMD_HTTP__KEYS_FILE", folder.path().join("keys"))
        .stdin(Stdio::null())
        .output()
        .expect("the daemon runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_passed_socket_needs_keys_by_where_it_is_bound() {
    let everywhere = TcpListener::bind("0.0.0.0:0").expect("a port");
    let (code, said) = refused(&[&everywhere]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("refusing to listen on 0.0.0.0:"), "{said}");
}

#[test]
fn what_is_no_listening_socket_is_named() {
    let (socket, _) = tcp();
    let file = std::fs::File::open("/dev/null").expect("a file");
    let (code, said) = refused(&[&socket, &file]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("descriptor 4"), "{said}");
    assert!(said.contains("ListenStream="), "{said}");
}

#[test]
fn a_restart_loses_no_connection_attempt() {
    let (socket, address) = tcp();
    let daemon = start(setup(), &[&socket]);
    let body = chat("slow", "x", json!({"stream": true}));
    let mut stream = EventStream::open(address, "/v1/chat/completions", &body);
    assert_eq!(stream.next_content().as_deref(), Some("w "));

    let (answered, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let ask = || {
        let connection = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        let body = chat("m", "x", json!({}));
        let answer = begin(connection, "POST", "/v1/chat/completions", Some(&body))
            .and_then(|begun| begun.into_answer())
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answered.fetch_add(1, Ordering::SeqCst);
    };
    let more = |count: usize| {
        let before = answered.load(Ordering::SeqCst);
        eventually("further answers", || {
            (answered.load(Ordering::SeqCst) >= before + count).then_some(())
        });
    };
    let next = std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    ask();
                }
            });
        }
        more(50);
        daemon.signal(Signal::TERM);
        // The stream that was under way is served to its end by the old daemon.
        let rest = std::iter::from_fn(|| stream.next_content()).count();
        assert_eq!(rest, 99);
        assert!(daemon.wait().success());
        // They wait in the backlog now; the next daemon finds them there.
        let next = start(setup(), &[&socket]);
        more(50);
        stop.store(true, Ordering::SeqCst);
        next
    });
    next.signal(Signal::TERM);
    assert!(next.wait().success());
}

/// Its daemon has accepted it, so that no other can.
#[test]
fn a_client_that_connected_before_the_signal_is_answered() {
    let (socket, _) = tcp();
    for daemon in [start(setup(), &[&socket]), setup().start()] {
        let silent = TcpStream::connect(daemon.address).expect("a connection");
        // Clients are let in one after the other.
        assert_eq!(daemon.get("/health").status, 200);
        daemon.signal(Signal::TERM);
        daemon.log.wait_for("shutting down");
        let answer = begin(silent, "GET", "/health", None).and_then(|begun| begun.into_answer());
        assert_eq!(answer.expect("an answer").status, 200);
        assert!(daemon.wait().success());
    }
}
