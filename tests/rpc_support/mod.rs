//! A client of JSON-RPC over each transport. It reads what comes and keeps what it does not wait for.

#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod document;
pub mod served;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::daemon_support::PATIENCE;

/// How a daemon is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Unix,
    WebSocket,
    /// `POST /rpc`, answered whole.
    Http,
    /// `POST /rpc`, answered as an event stream.
    EventStream,
}

pub const TRANSPORTS: [Transport; 4] = [
    Transport::Unix,
    Transport::WebSocket,
    Transport::Http,
    Transport::EventStream,
];

/// An error of the protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub code: i64,
    pub message: String,
    pub data: Value,
}

impl Failure {
    /// `data.code`.
    pub fn name(&self) -> &str {
        self.data["code"].as_str().unwrap_or_default()
    }
}

enum Connection {
    Unix(BufReader<UnixStream>),
    WebSocket(Box<WebSocket<TcpStream>>),
    Http(SocketAddr),
    EventStream(SocketAddr),
}

pub struct Client {
    connection: Connection,
    next_id: u64,
    /// Messages that came and were not waited for: notifications, answers to other calls.
    pub waiting: VecDeque<Value>,
}

impl Client {
    /// A client on a WebSocket that a key opened.
    pub fn with_key(address: SocketAddr, key: Option<&str>) -> Self {
        Self {
            connection: Connection::WebSocket(Box::new(web_socket_with_key(address, key))),
            next_id: 1,
            waiting: VecDeque::new(),
        }
    }

    pub fn connect(transport: Transport, address: SocketAddr, socket: &Path) -> Self {
        let connection = match transport {
            Transport::Unix => {
                let stream = UnixStream::connect(socket).expect("the socket accepts");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                Connection::Unix(BufReader::new(stream))
            }
            Transport::WebSocket => Connection::WebSocket(Box::new(web_socket(address))),
            Transport::Http => Connection::Http(address),
            Transport::EventStream => Connection::EventStream(address),
        };
        Self {
            connection,
            next_id: 1,
            waiting: VecDeque::new(),
        }
    }

    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        let id = self.send(method, params);
        self.answer_to(id)
    }

    /// Sends a call and gives its id; its answer is read later. Over HTTP it is read now.
    pub fn send(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let call = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send_text(&call.to_string());
        id
    }

    pub fn send_text(&mut self, text: &str) {
        match &mut self.connection {
            Connection::Unix(stream) => stream
                .get_mut()
                .write_all(format!("{text}\n").as_bytes())
                .expect("the socket takes it"),
            Connection::WebSocket(socket) => socket
                .send(Message::text(text))
                .expect("the WebSocket takes it"),
            Connection::Http(address) => {
                let (status, body) = post(*address, text, false);
                if status != 204 {
                    let answer =
                        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"));
                    self.waiting.push_back(answer);
                }
            }
            Connection::EventStream(address) => {
                let (_, body) = post(*address, text, true);
                for line in body.lines() {
                    if let Some(data) = line.strip_prefix("data: ") {
                        let message = serde_json::from_str(data).expect("an event is JSON");
                        self.waiting.push_back(message);
                    }
                }
            }
        }
    }

    /// The answer to a call; what comes before it is kept.
    pub fn answer_to(&mut self, id: u64) -> Result<Value, Failure> {
        let answer =
            self.wait_for(|message| message["id"] == json!(id) && message.get("method").is_none());
        outcome(&answer)
    }

    /// The first message that fits, of those that came or will come.
    pub fn wait_for(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(index) = self.waiting.iter().position(&fits) {
            return self.waiting.remove(index).expect("it is there");
        }
        loop {
            let message = self.read().expect("the connection is open");
            if fits(&message) {
                return message;
            }
            self.waiting.push_back(message);
        }
    }

    /// Takes the notifications that came before what was last waited for.
    pub fn notifications(&mut self, method: &str) -> Vec<Value> {
        let (found, rest) = self
            .waiting
            .drain(..)
            .partition(|message| message["method"] == method);
        self.waiting = rest;
        let found: VecDeque<Value> = found;
        found
            .into_iter()
            .map(|message| message["params"].clone())
            .collect()
    }

    /// The next message; `None` once the connection is closed.
    pub fn read(&mut self) -> Option<Value> {
        match &mut self.connection {
            Connection::Unix(stream) => {
                let mut line = String::new();
                let read = stream.read_line(&mut line).expect("a line in time");
                (read > 0).then(|| serde_json::from_str(&line).expect("a line is JSON"))
            }
            Connection::WebSocket(socket) => loop {
                match socket.read() {
                    Ok(Message::Text(text)) => {
                        return Some(serde_json::from_str(&text).expect("a frame is JSON"));
                    }
                    Ok(Message::Close(_)) | Err(_) => return None,
                    Ok(_) => {}
                }
            },
            Connection::Http(_) | Connection::EventStream(_) => None,
        }
    }

    /// The WebSocket underneath.
    pub fn web_socket(&mut self) -> &mut WebSocket<TcpStream> {
        match &mut self.connection {
            Connection::WebSocket(socket) => socket,
            _ => panic!("not a WebSocket"),
        }
    }

    /// The Unix stream underneath.
    pub fn unix(&mut self) -> &mut UnixStream {
        match &mut self.connection {
            Connection::Unix(stream) => stream.get_mut(),
            _ => panic!("not a Unix socket"),
        }
    }
}

pub fn outcome(answer: &Value) -> Result<Value, Failure> {
    match answer.get("error") {
        None => Ok(answer["result"].clone()),
        Some(error) => Err(Failure {
            code: error["code"].as_i64().expect("a code"),
            message: error["message"].as_str().expect("a message").to_owned(),
            data: error["data"].clone(),
        }),
    }
}

pub fn web_socket(address: SocketAddr) -> WebSocket<TcpStream> {
    web_socket_with_key(address, None)
}

pub fn web_socket_with_key(address: SocketAddr, key: Option<&str>) -> WebSocket<TcpStream> {
    use tungstenite::client::IntoClientRequest;

    let stream = TcpStream::connect(address).expect("the daemon accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut request = format!("ws://{address}/rpc/ws")
        .into_client_request()
        .expect("a request");
    if let Some(key) = key {
        let key = key.parse().expect("a header's value");
        request.headers_mut().insert("x-api-key", key);
    }
    let (socket, _) = tungstenite::client(request, stream).expect("a handshake");
    socket
}

/// `POST /rpc`: status and body.
pub fn post(address: SocketAddr, text: &str, events: bool) -> (u16, String) {
    let accept = if events {
        "text/event-stream"
    } else {
        "application/json"
    };
    let (status, _, body) = raw_post(address, text, &[("accept", accept)]);
    (status, body)
}

/// Status, header and body of any `POST /rpc`.
pub fn raw_post(
    address: SocketAddr,
    text: &str,
    headers: &[(&str, &str)],
) -> (u16, String, String) {
    use std::io::Read;

    let mut stream = TcpStream::connect(address).expect("the daemon accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    // HTTP/1.0: the body comes without chunks and ends with the connection.
    let head = format!(
        "POST /rpc HTTP/1.0\r\nhost: localhost\r\n{headers}content-length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).expect("the daemon reads");
    // A refusal may come before the whole body is read.
    let _ = stream.write_all(text.as_bytes());
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    (status, head.to_owned(), body.to_owned())
}
