//! Clients that send too much, too slowly, or without reading.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{FIRST_HOST, HOSTS, Kind, Strangers, Visit, Visitor, is_typed_refusal};
use crate::daemon_support::Answer;
use crate::source_address::ReceiveBuffer;

pub const ALL: &[Kind] = &[
    ("pings without reads", pings_without_reads),
    ("slow body", slow_body),
    ("huge body", huge_body),
    ("body that grows when parsed", growing_body),
    ("silent connections", silent_connections),
    ("unread answers", unread_answers),
];

/// The default limit of a body.
const BODY_BYTES: usize = 8 * 1024 * 1024;
/// More than the buffers of both kernels hold.
const FLOOD_BYTES: usize = 32 * 1024 * 1024;
const VISIT: Duration = Duration::from_secs(2);

const HANDSHAKE: &[u8] = b"GET /rpc/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Writes until it is done, refused, or out of time; how far it got is all the same.
fn write_for(visitor: &mut Visitor<'_>, bytes: &[u8], until: Instant) -> Result<bool, String> {
    let stream = &mut visitor.stream;
    stream
        .set_write_timeout(Some(Duration::from_millis(100)))
        .map_err(|e| e.to_string())?;
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                    && Instant::now() < until => {}
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

fn head(path: &str, length: usize) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

fn pings_without_reads(to: &Strangers<'_>, decisions: &mut fastrand::Rng) -> Visit {
    let mut visitor = to.connect(decisions)?;
    let until = Instant::now() + VISIT;
    write_for(&mut visitor, HANDSHAKE, until)?;
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.extend([b'p'; 125]);
    let many = ping.repeat(1000);
    let mut sent = 0;
    while sent < FLOOD_BYTES && write_for(&mut visitor, &many, until)? {
        sent += many.len();
    }
    Ok(())
}

/// All of a body but its last byte, and then a byte now and then.
fn slow_body(to: &Strangers<'_>, decisions: &mut fastrand::Rng) -> Visit {
    let mut visitor = to.connect(decisions)?;
    let until = Instant::now() + VISIT;
    write_for(
        &mut visitor,
        &head("/v1/chat/completions", BODY_BYTES),
        until,
    )?;
    let part = vec![b' '; BODY_BYTES - 100];
    if write_for(&mut visitor, &part, until)? {
        while to.going.load(Ordering::Relaxed) && Instant::now() < until {
            // Its own pace, not a wait for something.
            thread::sleep(Duration::from_millis(200));
            if !write_for(&mut visitor, b" ", until)? {
                break;
            }
        }
    }
    Ok(())
}

fn huge_body(to: &Strangers<'_>, decisions: &mut fastrand::Rng) -> Visit {
    let pieces = ["<|im_end|>", "\u{F5A0}1\u{F5A1}", "a ", "\u{E000}<|", "é"];
    let piece = pieces[decisions.usize(..pieces.len())];
    let text = piece.repeat(7_500_000 / json!(piece).to_string().len());
    let body = json!({
        "model": to.model,
        "max_tokens": 1,
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}],
    });
    answered(to, decisions, "/v1/chat/completions", body.to_string())
}

/// JSON whose values are small and many.
fn growing_body(to: &Strangers<'_>, decisions: &mut fastrand::Rng) -> Visit {
    let (before, item, after) = match decisions.u8(..4) {
        0 => (r#""chat_template_kwargs":{"a":["#, "[],", "[]]}"),
        1 => (r#""chat_template_kwargs":{"a":["#, r#"{"":0},"#, "0]}"),
        2 => (r#""tools":["#, "{},", "{}]"),
        _ => (r#""stop":["#, r#""a","#, r#""a"]"#),
    };
    let begin = format!(
        r#"{{"model":"{}","max_tokens":1,"messages":[{{"role":"user","content":"x"}}],{before}"#,
        to.model
    );
    let count = (BODY_BYTES - begin.len() - after.len() - 1) / item.len();
    let body = format!("{begin}{}{after}}}", item.repeat(count));
    answered(to, decisions, "/apply-template", body)
}

/// Any answer but a failure of the daemon's own will do.
fn answered(to: &Strangers<'_>, decisions: &mut fastrand::Rng, path: &str, body: String) -> Visit {
    let host = FIRST_HOST + decisions.u8(..HOSTS);
    let mut visitor = Visitor::connect(to, host, ReceiveBuffer::Ordinary)?;
    let mut request = head(path, body.len());
    request.extend(body.into_bytes());
    // A daemon that refuses early closes, and then the rest cannot be written.
    write_for(&mut visitor, &request, Instant::now() + 10 * VISIT)?;
    drop(request);
    let stream = &mut visitor.stream;
    stream
        .set_read_timeout(Some(crate::daemon_support::PATIENCE))
        .map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer)
        && error.kind() != ErrorKind::ConnectionReset
    {
        return Err(format!("{path}: {error}"));
    }
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        // Reset while it was still writing: what it was told was lost on the way.
        return Ok(());
    };
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    let status = status.ok_or_else(|| format!("{path}: no status in {head:?}"))?;
    if status == 200 {
        return Ok(());
    }
    is_typed_refusal(&Answer {
        status,
        headers: Vec::new(),
        body: body.to_owned(),
    })
}

fn silent_connections(to: &Strangers<'_>, decisions: &mut fastrand::Rng) -> Visit {
    let host = FIRST_HOST + decisions.u8(..HOSTS);
    let mut visitors = Vec::new();
    for _ in 0..100 {
        visitors.push(Visitor::connect(to, host, ReceiveBuffer::Small)?);
    }
    if let Some(visitor) = visitors.first_mut() {
        write_for(visitor, b"GET /hea", Instant::now() + VISIT)?;
    }
    // Their own pace, not a wait for something.
    thread::sleep(VISIT / 4);
    Ok(())
}

/// Many requests on one connection, none of whose answers is read.
fn unread_answers(to: &Strangers<'_>, decisions: &mut fastrand::Rng) -> Visit {
    let mut visitor = to.connect(decisions)?;
    let until = Instant::now() + VISIT;
    let path = ["/openapi.json", "/metrics", "/v1/models", "/v1/ready"][decisions.usize(..4)];
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(500);
    write_for(&mut visitor, request.as_bytes(), until)?;
    Ok(())
}
