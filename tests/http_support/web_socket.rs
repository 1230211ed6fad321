//! A client of WebSockets that makes each of its bytes, right or wrong.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Server, within};

pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT_FRAME: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A client's frame; `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
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

pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    frame(FIN | CLOSE, &payload)
}

pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, payload.len() as u8];
    bytes.extend_from_slice(payload);
    bytes
}

/// A WebSocket on a path, with more lines of a header if any.
pub async fn opened(server: &Server, path: &str, headers: &str) -> TcpStream {
    let mut client = server.client().await;
    client.send(handshake(path, headers)).await;
    let head = client.head().await;
    assert_eq!(head.status, 101);
    assert_eq!(
        head.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(head.header("keep-alive"), None);
    client.into_stream()
}

pub fn handshake(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// The server's frames up to the end of the connection, which is an end and no reset.
pub async fn frames(stream: TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut socket = WebSocket::new(stream);
    let mut frames = Vec::new();
    while let Some(frame) = socket.frame().await {
        frames.push(frame);
    }
    frames
}

/// Code and reason of a close.
pub fn farewell(payload: &[u8]) -> (Option<u16>, String) {
    match *payload {
        [] => (None, String::new()),
        [high, low, ref reason @ ..] => {
            let reason = String::from_utf8(reason.to_vec()).unwrap();
            (Some(u16::from_be_bytes([high, low])), reason)
        }
        _ => panic!("half a code"),
    }
}

/// What the server says that is no ping.
#[derive(Debug, PartialEq)]
pub enum Told {
    Text(String),
    Close(Option<u16>),
}

/// A client that sees every frame.
pub struct WebSocket {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl WebSocket {
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

    pub async fn say(&mut self, text: &str) {
        self.send(frame(FIN | TEXT_FRAME, text.as_bytes())).await;
    }

    /// The next message; its fragments are one.
    pub async fn told(&mut self) -> Option<Told> {
        let mut text = Vec::new();
        loop {
            let (first, payload) = self.frame().await?;
            match first & 0xf {
                TEXT_FRAME | CONTINUATION => {
                    text.extend(payload);
                    if first & FIN != 0 {
                        return Some(Told::Text(String::from_utf8(text).expect("UTF-8")));
                    }
                }
                CLOSE => return Some(Told::Close(farewell(&payload).0)),
                _ => {}
            }
        }
    }

    /// The next frame; `None` at the end of the connection, which is an end and no reset.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.exactly(2).await?;
        let length = match head[1] {
            126 => {
                let length = self.exactly(2).await.expect("a length");
                u16::from_be_bytes(length.try_into().unwrap()).into()
            }
            127 => {
                let length = self.exactly(8).await.expect("a length");
                u64::from_be_bytes(length.try_into().unwrap()) as usize
            }
            short => usize::from(short),
        };
        let payload = self.exactly(length).await.expect("a whole frame");
        Some((head[0], payload))
    }

    /// Every byte to the end of the connection, be it a reset.
    pub async fn rest(&mut self) -> Vec<u8> {
        let read = self.stream.read_to_end(&mut self.unread);
        let _ = within("the end of the connection", read).await;
        std::mem::take(&mut self.unread)
    }

    async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            let read = within("a frame", self.stream.read_buf(&mut self.unread)).await;
            if read.expect("an end in order") == 0 {
                assert!(self.unread.is_empty(), "the end is in a frame");
                return None;
            }
        }
        let rest = self.unread.split_off(count);
        Some(std::mem::replace(&mut self.unread, rest))
    }
}
