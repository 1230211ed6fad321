//! A client that sees every byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// A client connection that keeps what it has not yet looked at.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", self.stream.write_all(bytes.as_ref()))
            .await
            .expect("an open connection");
    }

    /// One more read; false at the end of the stream.
    pub async fn read_some(&mut self) -> bool {
        let read = within("an answer", self.stream.read_buf(&mut self.unread)).await;
        // A reset is an end as well.
        read.unwrap_or(0) > 0
    }

    async fn read_until(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.unread, mark) {
                let rest = self.unread.split_off(at + mark.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            assert!(
                self.read_some().await,
                "the connection ended after {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
    }

    async fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.read_some().await, "the connection ended in a body");
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// Reads up to the end of the header.
    pub async fn head(&mut self) -> Answer {
        let head = self.read_until(b"\r\n\r\n").await;
        let head = String::from_utf8(head).expect("a header is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().expect("a status line");
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").expect("a header field");
                (name.to_ascii_lowercase(), value.to_owned())
            })
            .collect();
        Answer {
            status: status[9..12].parse().expect("a status"),
            headers,
            body: Vec::new(),
        }
    }

    /// The next piece of a chunked body; empty at its end.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size = self.read_until(b"\r\n").await;
        let size = std::str::from_utf8(&size).expect("a size").trim();
        let size = usize::from_str_radix(size, 16).expect("a hexadecimal size");
        let mut chunk = self.read_exactly(size + 2).await;
        chunk.truncate(size);
        chunk
    }

    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// A whole answer, its chunks put together.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        if method == "HEAD" || answer.status == 204 {
            return answer;
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a length");
            answer.body = self.read_exactly(length).await;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let chunk = self.chunk().await;
                if chunk.is_empty() {
                    break;
                }
                answer.body.extend_from_slice(&chunk);
            }
        }
        answer
    }

    /// Whether the server has closed without sending anything more.
    pub async fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && !self.read_some().await
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Checks that this is an error object with all four keys and returns (type, param, code).
    pub fn error(&self) -> (String, Option<String>, String) {
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.header("x-request-id").is_some_and(|id| !id.is_empty()));
        error_object(&self.json())
    }
}

pub fn error_object(body: &serde_json::Value) -> (String, Option<String>, String) {
    let body = body.as_object().expect("an object");
    let error = body["error"].as_object().expect("an error object");
    let mut keys: Vec<&str> = error.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["code", "message", "param", "type"]);
    let message = error["message"].as_str().expect("a message");
    assert!(!message.is_empty());
    (
        error["type"].as_str().expect("a type").to_owned(),
        error["param"].as_str().map(str::to_owned),
        error["code"].as_str().expect("a code").to_owned(),
    )
}
