//! How a WebSocket ends (RFC 6455): a close is answered with a close, whatever breaks the protocol gets
//! the code that says how, and then the connection is closed in order, so that the client sees it all.

use crate::http_support::*;
use rkllmd::settings::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT_FRAME: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A client's frame; `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    frame(FIN | CLOSE, &payload)
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, payload.len() as u8];
    bytes.extend_from_slice(payload);
    bytes
}

async fn opened(server: &Server) -> TcpStream {
    let mut client = server.client().await;
    client
        .send(
            "GET /rpc/ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    assert_eq!(head.status, 101);
    assert_eq!(
        head.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(head.header("keep-alive"), None);
    client.into_stream()
}

/// The server's frames up to the end of the connection, which is an end and no reset.
async fn frames(mut stream: TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let read = within("the end of the connection", stream.read_to_end(&mut bytes)).await;
    read.expect("an end in order");
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let [first, length, after @ ..] = rest {
        let (length, after) = match length {
            126 => (
                u16::from_be_bytes([after[0], after[1]]) as usize,
                &after[2..],
            ),
            127 => (
                u64::from_be_bytes(after[..8].try_into().unwrap()) as usize,
                &after[8..],
            ),
            short => (usize::from(*short), after),
        };
        frames.push((*first, after[..length].to_vec()));
        rest = &after[length..];
    }
    frames
}

async fn serving() -> Server {
    let mut settings = Settings::default();
    settings.rpc.message_limit_bytes = 4096;
    Server::replaying(settings, Vec::new).await
}

/// Sends some bytes; gives the code of the close that ends the connection, and its reason.
async fn ended_by(server: &Server, bytes: &[u8]) -> (Option<u16>, String) {
    let mut stream = opened(server).await;
    stream.write_all(bytes).await.unwrap();
    let frames = frames(stream).await;
    let (first, payload) = frames.last().expect("a frame").clone();
    assert_eq!(first, FIN | CLOSE, "{frames:?}");
    let closes = frames
        .iter()
        .filter(|(first, _)| first & 0xf == CLOSE)
        .count();
    assert_eq!(closes, 1, "{frames:?}");
    match payload[..] {
        [] => (None, String::new()),
        [high, low, ref reason @ ..] => {
            let reason = String::from_utf8(reason.to_vec()).unwrap();
            (Some(u16::from_be_bytes([high, low])), reason)
        }
        _ => panic!("half a code"),
    }
}

#[tokio::test]
async fn a_close_is_answered_with_a_close() {
    let server = serving().await;
    for code in [
        1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        assert_eq!(ended_by(&server, &close(code, "")).await.0, Some(code));
        assert_eq!(ended_by(&server, &close(code, "bye")).await.0, Some(code));
    }
    assert_eq!(ended_by(&server, &frame(FIN | CLOSE, b"")).await.0, None);
    // With something before it and after it.
    let mut bytes = frame(FIN | PING, b"p");
    bytes.extend(frame(
        FIN | TEXT_FRAME,
        br#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#,
    ));
    bytes.extend(close(1000, ""));
    bytes.extend(frame(FIN | TEXT_FRAME, b"more"));
    bytes.extend(vec![0; 100_000]);
    for _ in 0..20 {
        assert_eq!(ended_by(&server, &bytes).await.0, Some(1000));
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_breaks_the_protocol_is_told_by_its_code() {
    let server = serving().await;
    let long = [b'x'; 126];
    let fragments = |second: &[u8]| [frame(TEXT_FRAME, b"{"), second.to_vec()].concat();
    for (code, what, bytes) in [
        (1002, "code 0", close(0, "")),
        (1002, "code 999", close(999, "")),
        (1002, "code 1004", close(1004, "")),
        (1002, "code 1005", close(1005, "")),
        (1002, "code 1006", close(1006, "")),
        (1002, "code 1015", close(1015, "")),
        (1002, "code 1016", close(1016, "")),
        (1002, "code 2999", close(2999, "")),
        (1002, "code 5000", close(5000, "")),
        (1002, "code 65535", close(65535, "")),
        (1002, "half a code", frame(FIN | CLOSE, &[3])),
        (1007, "a reason", frame(FIN | CLOSE, &[3, 232, 0xff])),
        (1007, "a text", frame(FIN | TEXT_FRAME, b"\"\xff\"")),
        (
            1007,
            "a surrogate",
            frame(FIN | TEXT_FRAME, b"\"\xed\xa0\x80\""),
        ),
        (
            1007,
            "half a character",
            frame(FIN | TEXT_FRAME, b"\"\xe2\x82"),
        ),
        (
            1007,
            "a fragment",
            fragments(&frame(FIN | CONTINUATION, b"\xc0\xaf")),
        ),
        (1002, "bit 1", frame(FIN | 0x40 | TEXT_FRAME, b"{}")),
        (1002, "bit 2", frame(FIN | 0x20 | TEXT_FRAME, b"{}")),
        (1002, "bit 3", frame(FIN | 0x10 | PING, b"")),
        (1002, "opcode 3", frame(FIN | 3, b"{}")),
        (1002, "opcode 11", frame(FIN | 11, b"")),
        (1002, "no mask", unmasked(FIN | TEXT_FRAME, b"{}")),
        (1002, "a ping without mask", unmasked(FIN | PING, b"")),
        (
            1002,
            "a close without mask",
            unmasked(FIN | CLOSE, &[3, 232]),
        ),
        (1002, "a long ping", frame(FIN | PING, &long)),
        (1002, "a long close", frame(FIN | CLOSE, &long)),
        (1002, "half a ping", frame(PING, b"p")),
        (1002, "half a pong", frame(PONG, b"p")),
        (
            1002,
            "the middle of nothing",
            frame(FIN | CONTINUATION, b"{}"),
        ),
        (
            1002,
            "two beginnings",
            fragments(&frame(FIN | TEXT_FRAME, b"}")),
        ),
        (1003, "binary", frame(FIN | BINARY, b"{}")),
        (1009, "too large", frame(FIN | TEXT_FRAME, &[b' '; 5000])),
        (
            1009,
            "far too large",
            frame(FIN | TEXT_FRAME, &vec![b' '; 300_000]),
        ),
        (
            1009,
            "too large in parts",
            [frame(TEXT_FRAME, &[b' '; 3000]), frame(FIN, &[b' '; 3000])].concat(),
        ),
    ] {
        let (ended, _) = ended_by(&server, &bytes).await;
        assert_eq!(ended, Some(code), "{what}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn the_end_of_the_daemon_is_told() {
    let mut server = serving().await;
    let stream = opened(&server).await;
    server.ask_to_shut_down();
    let frames = frames(stream).await;
    assert_eq!(frames.last().unwrap().1[..2], 1001_u16.to_be_bytes());
    server.shut_down().await;
}
