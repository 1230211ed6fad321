//! A client that only counts the events of a stream, in the bytes as they come from the socket, so
//! that what is measured is the daemon. JSON holds no raw line breaks, an event ends with two LF,
//! and everything else in an HTTP/1.1 answer ends with CR LF: so LF less CR is twice the events.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon_support::{PATIENCE, completion};

const BUFFER_BYTES: usize = 256 * 1024;
/// The final chunk with its finish_reason, and `[DONE]`.
const EVENTS_WITHOUT_TOKEN: usize = 2;

/// Reads a stream of exactly `tokens` tokens, an event each, to its end. Returns the time from its
/// first event to its last.
pub fn count_stream(address: SocketAddr, model: &str, tokens: u32) -> Duration {
    let body = completion(
        model,
        "count",
        json!({"stream": true, "max_tokens": tokens}),
    )
    .to_string();
    let mut stream = TcpStream::connect(address).expect("the daemon accepts connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .write_all(request.as_bytes())
        .expect("the request is taken");

    let mut buffer = vec![0; BUFFER_BYTES];
    let mut line_feeds = 0;
    let mut carriage_returns = 0;
    let mut first: Option<Instant> = None;
    let mut last = Instant::now();
    let mut beginning = String::new();
    loop {
        let size = stream.read(&mut buffer).expect("the answer");
        if size == 0 {
            break;
        }
        let bytes = &buffer[..size];
        line_feeds += occurrences(bytes, b'\n');
        carriage_returns += occurrences(bytes, b'\r');
        if line_feeds > carriage_returns {
            last = Instant::now();
            first.get_or_insert(last);
        }
        if beginning.is_empty() {
            beginning = String::from_utf8_lossy(&bytes[..size.min(1000)]).into_owned();
        }
    }
    let events = (line_feeds - carriage_returns) / 2;
    assert_eq!(
        events,
        tokens as usize + EVENTS_WITHOUT_TOKEN,
        "events of a stream of {tokens} tokens, which began with {beginning}"
    );
    last - first.expect("an event")
}

fn occurrences(bytes: &[u8], wanted: u8) -> usize {
    bytes.iter().filter(|&&byte| byte == wanted).count()
}
