//! What `make run` promises after its build: it says when it listens, and the curl line that it
//! prints streams an answer.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::daemon_support::demo_model;

/// The demo in the foreground; killed with the test, and its worker with it.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve_demo(listen: &str) -> Command {
    let model = demo_model();
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/serve-demo"));
    command
        .arg(env!("CARGO_BIN_EXE_rkllmd"))
        .arg(model.parent().expect("the models folder"))
        .arg(listen)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("PATH"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

#[test]
fn the_printed_curl_line_streams_an_answer() {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let mut demo = Demo(
        serve_demo(&format!("127.0.0.1:{port}"))
            .spawn()
            .expect("it starts"),
    );
    let printed = BufReader::new(demo.0.stderr.take().expect("piped"));
    let mut curl = String::new();
    let mut log = String::new();
    for line in printed.lines() {
        let line = line.expect("text");
        log.push_str(&line);
        log.push('\n');
        let command = line.trim();
        if curl.is_empty() && !command.starts_with("curl ") {
            continue;
        }
        curl.push_str(command.trim_end_matches('\\'));
        if !command.ends_with('\\') {
            break;
        }
    }
    assert!(curl.contains("/v1/chat/completions"), "{log}");

    // A budget, so that the test does not wait for a small model's whole essay.
    let curl = curl.replace("\"stream\": true", "\"stream\": true, \"max_tokens\": 16");
    let answer = Command::new("bash")
        .args(["-c", &curl])
        .output()
        .expect("bash and curl are installed");
    let answer = String::from_utf8(answer.stdout).expect("UTF-8");
    let chunks = answer
        .lines()
        .filter(|line| line.starts_with("data: {"))
        .count();
    assert!(chunks > 10, "{answer}");
    assert!(answer.contains("data: [DONE]"), "{answer}");
    assert!(!answer.contains("\"error\""), "{answer}");
}

#[test]
fn it_does_not_announce_somebody_elses_server() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = other.local_addr().expect("bound").to_string();
    let answering = std::thread::spawn(move || {
        use std::io::Write;
        let (mut client, _) = other.accept().expect("a client");
        client
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .expect("answered");
        client
    });
    let output = serve_demo(&listen).output().expect("it runs");
    drop(answering.join().expect("it was asked"));
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(printed.contains("already listens"), "{printed}");
}
