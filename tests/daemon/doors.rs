//! The addresses that a daemon with two models listens on, and requests by any key at each.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::daemon_support::{Daemon, Setup, eventually};
use serde_json::Value;

/// Where the daemon is reached.
pub enum Door {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn code(&self) -> String {
        let body = self.json();
        // Ollama's errors have it beside their text.
        let code = body["error"]["code"].as_str().or(body["code"].as_str());
        code.unwrap_or_default().to_owned()
    }

    /// Of a path whose errors have the shape of JSON-RPC, which has numbers for the protocol's own.
    pub fn is_json_rpc(&self) -> bool {
        self.json()["jsonrpc"] == "2.0"
    }
}

impl Door {
    pub fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let json = match headers.contains("content-type:") {
            true => "",
            false => "content-type: application/json\r\n",
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}{json}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = Vec::new();
        match self {
            Self::Tcp(address) => {
                exchange(TcpStream::connect(address).unwrap(), &request, &mut answer)
            }
            Self::Unix(path) => exchange(UnixStream::connect(path).unwrap(), &request, &mut answer),
        }
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole header");
        Answer {
            status: head[9..12].parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub fn get(&self, path: &str, key: Option<&str>) -> Answer {
        self.ask("GET", path, &bearer(key), "")
    }
}

fn exchange(mut stream: impl Read + Write, request: &str, answer: &mut Vec<u8>) {
    stream.write_all(request.as_bytes()).unwrap();
    // A stream that waits for a model to be loaded does not end by itself.
    let streams = [
        "/loading/progress?model=",
        "/models/sse",
        "GET /v1/admin/events",
    ];
    let waits = streams.iter().any(|path| request.contains(path));
    loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).unwrap();
        answer.extend_from_slice(&piece[..read]);
        let has_event = || String::from_utf8_lossy(answer).contains("data: ");
        if read == 0 || waits && has_event() {
            return;
        }
    }
}

pub fn bearer(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| {
        format!("authorization: Bearer {key}\r\n")
    })
}

pub fn setup() -> Setup {
    let scenario = "tokens = ['Hello']\n";
    Setup::new()
        .settings("models.max-loaded = 2")
        .scenario("own", scenario)
        .model_file(
            "own",
            "model.toml",
            "template = 'chatml'\naliases = ['own-alias']\n",
        )
        .scenario("other", scenario)
        .model_file(
            "other",
            "model.toml",
            "template = 'chatml'\naliases = ['other-alias']\n",
        )
}

/// All addresses that the daemon says it listens on.
pub fn doors(daemon: &Daemon, count: usize) -> Vec<Door> {
    let listening = eventually("all listeners", || {
        let lines = daemon.log.lines();
        let lines: Vec<String> = lines
            .iter()
            .filter_map(|line| Some(line.split_once("listening address=")?.1.trim().to_owned()))
            .collect();
        (lines.len() == count).then_some(lines)
    });
    let door = |address: &String| match address.strip_prefix("unix:") {
        Some(path) => Door::Unix(path.into()),
        None => {
            let mut address: SocketAddr = address.parse().unwrap();
            // Every address of this machine, also this one.
            address.set_ip("127.0.0.1".parse().unwrap());
            Door::Tcp(address)
        }
    };
    listening.iter().map(door).collect()
}
