//! An HTTP client that sees when each event arrives. Written by hand because that is what is
//! tested: a client library would buffer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};

use super::PATIENCE;

/// A chat request with one user message; `extra` adds or replaces fields.
pub fn chat(model: &str, content: &str, extra: Value) -> Value {
    let mut body = json!({
        "model": model,
        "messages": [{"role": "user", "content": content}],
    });
    merge(&mut body, extra);
    body
}

/// A `/v1/completions` request.
pub fn completion(model: &str, prompt: &str, extra: Value) -> Value {
    let mut body = json!({"model": model, "prompt": prompt});
    merge(&mut body, extra);
    body
}

fn merge(body: &mut Value, extra: Value) {
    if let (Value::Object(body), Value::Object(extra)) = (body, extra) {
        body.extend(extra);
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| {
            panic!(
                "{error} in an answer of status {}: {}",
                self.status, self.body
            )
        })
    }

    /// `error.code` of an error answer.
    pub fn error_code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The text of a chat answer.
    pub fn content(&self) -> String {
        let body = self.json();
        body["choices"][0]["message"]["content"]
            .as_str()
            .unwrap_or_else(|| panic!("no content in {body}"))
            .to_owned()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).expect("the daemon accepts connections")
}

/// An answer whose header has been read and whose body has not.
pub struct Begun {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    body: BufReader<TcpStream>,
    sent_at: Instant,
}

/// Sends a request and reads its answer's header.
pub fn begin(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> io::Result<Begun> {
    send(&mut stream, method, path, body)?;
    let sent_at = Instant::now();
    let mut body = BufReader::new(stream);
    let (status, headers) = read_head(&mut body)?;
    Ok(Begun {
        status,
        headers,
        body,
        sent_at,
    })
}

/// Sends a request; nothing of its answer may stay silent for longer than [`PATIENCE`].
pub fn send(
    stream: &mut TcpStream,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())
}

impl Begun {
    pub fn into_answer(mut self) -> io::Result<Answer> {
        let chunked = self
            .headers
            .iter()
            .any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let mut body = String::new();
        if chunked {
            Chunks::of(self.body).read_to_string(&mut body)?;
        } else {
            self.body.read_to_string(&mut body)?;
        }
        Ok(Answer {
            status: self.status,
            headers: self.headers,
            body,
        })
    }

    pub fn into_events(self) -> EventStream {
        EventStream {
            status: self.status,
            headers: self.headers,
            lines: BufReader::new(Chunks::of(self.body)),
            sent_at: self.sent_at,
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no status in {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        // A value may be empty.
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim_start().to_owned()));
            }
            None => return Ok((status, headers)),
        }
    }
}

/// Undoes chunked transfer encoding.
struct Chunks<R> {
    inner: R,
    left: usize,
    ended: bool,
}

impl<R> Chunks<R> {
    fn of(inner: R) -> Self {
        Self {
            inner,
            left: 0,
            ended: false,
        }
    }
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut line = String::new();
            self.inner.read_line(&mut line)?;
            if line.trim().is_empty() {
                line.clear();
                self.inner.read_line(&mut line)?;
            }
            self.left = usize::from_str_radix(line.trim(), 16).map_err(|error| {
                std::io::Error::other(format!("{error} in chunk size {line:?}"))
            })?;
            self.ended = self.left == 0;
        }
        let most = buffer.len().min(self.left);
        let count = self.inner.read(&mut buffer[..most])?;
        self.left -= count;
        Ok(count)
    }
}

pub fn request(address: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Answer {
    begin(connect(address), method, path, body)
        .and_then(Begun::into_answer)
        .expect("an answer")
}

/// A streamed answer, read line by line. Dropping it closes the connection.
pub struct EventStream {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    lines: BufReader<Chunks<BufReader<TcpStream>>>,
    /// When the request had been sent.
    pub sent_at: Instant,
}

impl EventStream {
    pub fn open(address: SocketAddr, path: &str, body: &Value) -> Self {
        begin(connect(address), "POST", path, Some(body))
            .expect("an answer")
            .into_events()
    }

    /// The answer to a request without a body.
    pub fn of_get(address: SocketAddr, path: &str) -> Self {
        begin(connect(address), "GET", path, None)
            .expect("an answer")
            .into_events()
    }

    /// The next event's data; `None` at the end of the stream.
    pub fn next_data(&mut self) -> Option<String> {
        self.try_next_data().expect("an event")
    }

    /// Likewise for a reader to whom a broken stream is a result.
    pub fn try_next_data(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            if let Some(data) = line.trim_end().strip_prefix("data: ") {
                return Ok(Some(data.to_owned()));
            }
        }
    }

    /// The next chunk that carries text, with the text.
    pub fn next_content(&mut self) -> Option<String> {
        loop {
            let data = self.next_data()?;
            if data == "[DONE]" {
                return None;
            }
            let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
            let choice = &chunk["choices"][0];
            let text = choice["delta"]["content"]
                .as_str()
                .or(choice["text"].as_str());
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                return Some(text.to_owned());
            }
        }
    }

    /// All data of the stream with the time each arrived.
    pub fn collect(mut self) -> Vec<(Instant, String)> {
        std::iter::from_fn(|| self.next_data().map(|data| (Instant::now(), data))).collect()
    }
}
