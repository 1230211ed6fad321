//! The frames of one WebSocket, read and written by one task.
//!
//! What the protocol owes the client (the answer to a ping or to a close) is written before anything
//! further is read, so that a client that sends and does not read is not listened to, and at most one
//! such answer is ever kept. Messages are written in fragments: a large one is never copied whole, and
//! reading goes on between its parts.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message};

use super::metered::Metered;
use crate::memory::{Account, Charge};

/// Bytes that are read at once; the buffer grows with a frame that is larger.
const READ_BYTES: usize = 8 * 1024;

/// Before the payload of a client's ping or pong.
const CONTROL_HEAD_BYTES: usize = 6;

/// Where in its message a fragment stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FragmentPosition {
    pub is_first: bool,
    pub is_last: bool,
}

/// Both directions of a WebSocket.
pub(crate) struct Frames<S>(Mutex<Shared<S>>);

struct Shared<S> {
    socket: WebSocketStream<Metered<S>>,
    /// Whether the protocol has an answer to write.
    owes: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// `limit_bytes`: of a message. What arrives is charged to `account`.
    pub async fn new(stream: S, limit_bytes: usize, account: &Account) -> Self {
        let stream = Metered::new(stream, account.open());
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            // Everything that is written is flushed before the next.
            .write_buffer_size(0)
            .max_message_size(Some(limit_bytes))
            .max_frame_size(Some(limit_bytes));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        Self(Mutex::new(Shared {
            socket,
            owes: false,
        }))
    }

    /// Writes what the protocol owes. Dropping the future loses nothing.
    pub async fn settle(&self) -> Result<(), Error> {
        std::future::poll_fn(|cx| self.lock().poll_settle(cx)).await
    }

    /// The next frame, once nothing is owed; a message comes whole. Dropping the future loses nothing.
    pub async fn read(&self) -> Option<Result<Message, Error>> {
        std::future::poll_fn(|cx| self.lock().poll_read(cx)).await
    }

    /// The charge for what was read since it was taken last: for a message that is there whole.
    pub fn take_charge(&self) -> Charge {
        self.lock().socket.get_mut().take_charge()
    }

    /// Writes the next fragment of a text message to the socket.
    pub async fn fragment(&self, text: Bytes, position: FragmentPosition) -> Result<(), Error> {
        let opcode = match position.is_first {
            true => OpCode::Data(Data::Text),
            false => OpCode::Data(Data::Continue),
        };
        let frame = Frame::message(text, opcode, position.is_last);
        self.send(Message::Frame(frame)).await
    }

    pub async fn ping(&self) -> Result<(), Error> {
        self.send(Message::Ping(Bytes::new())).await
    }

    pub async fn close(&self, frame: CloseFrame) -> Result<(), Error> {
        self.send(Message::Close(Some(frame))).await
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        let mut message = Some(message);
        std::future::poll_fn(|cx| self.lock().poll_send(cx, &mut message)).await
    }

    /// Only the one task locks it, so it never waits.
    fn lock(&self) -> MutexGuard<'_, Shared<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Shared<S> {
    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.owes {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.owes = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if let Err(error) = ready!(self.poll_settle(cx)) {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(Pin::new(&mut self.socket).poll_next(cx));
        self.owes = matches!(frame, Some(Ok(Message::Ping(_) | Message::Close(_))));
        if let Some(Ok(Message::Ping(payload) | Message::Pong(payload))) = &frame {
            let stream = self.socket.get_mut();
            stream.forget(payload.len() + CONTROL_HEAD_BYTES);
        }
        Poll::Ready(frame)
    }

    /// Takes the message when there is room, and is done when it is in the socket.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Option<Message>,
    ) -> Poll<Result<(), Error>> {
        let mut socket = Pin::new(&mut self.socket);
        if message.is_some() {
            ready!(socket.as_mut().poll_ready(cx))?;
            if let Some(message) = message.take() {
                socket.as_mut().start_send(message)?;
            }
        }
        socket.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::generation::ClientKey;
    use crate::memory::{Accountant, Standing};

    const LIMIT: usize = 1 << 20;
    const FRAGMENT_BYTES: usize = 64 * 1024;

    async fn write(frames: &Frames<DuplexStream>, text: String) -> Result<(), Error> {
        let mut rest = Bytes::from(text);
        let mut is_first = true;
        loop {
            let fragment = rest.split_to(rest.len().min(FRAGMENT_BYTES));
            let is_last = rest.is_empty();
            frames
                .fragment(fragment, FragmentPosition { is_first, is_last })
                .await?;
            if is_last {
                return Ok(());
            }
            is_first = false;
        }
    }

    async fn pair(room: usize) -> (Frames<DuplexStream>, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(room);
        let accountant = Accountant::new(64 << 20);
        let account = accountant.account(ClientKey::new("one"), Standing::Ordinary);
        (Frames::new(ours, LIMIT, &account).await, theirs)
    }

    /// A masked frame, the mask being zero.
    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a short one");
        let mut bytes = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
        bytes.extend_from_slice(payload);
        bytes
    }

    #[tokio::test]
    async fn a_client_that_reads_no_pongs_is_not_read_from() {
        let (frames, mut client) = pair(4096).await;
        let ping = frame(9, &[b'p'; 125]);
        let flood = async {
            let mut sent = 0;
            while tokio::time::timeout(
                std::time::Duration::from_millis(200),
                client.write_all(&ping),
            )
            .await
            .is_ok_and(|written| written.is_ok())
            {
                sent += ping.len();
            }
            sent
        };
        let reading = async { while let Some(Ok(_)) = frames.read().await {} };
        let sent = tokio::select! {
            sent = flood => sent,
            () = reading => panic!("the client is there"),
        };
        assert!(sent < 32 * 1024, "{sent} bytes of pings were taken");
        // It reads again, and is answered again.
        let mut pongs = vec![0; 127];
        let (read, answered) = tokio::join!(client.read_exact(&mut pongs), frames.read());
        read.unwrap();
        assert_eq!(pongs[..2], [0x8a, 125]);
        assert!(matches!(answered, Some(Ok(Message::Ping(_)))));
    }

    #[tokio::test]
    async fn messages_are_read_while_a_large_one_waits_for_its_reader() {
        let (frames, mut client) = pair(4096).await;
        client.write_all(&frame(1, b"stop")).await.unwrap();
        let got = tokio::select! {
            biased;
            _ = write(&frames, "x".repeat(LIMIT)) => panic!("it is not read"),
            got = frames.read() => got,
        };
        assert_eq!(got.unwrap().unwrap(), Message::text("stop"));
    }

    #[tokio::test]
    async fn a_close_is_answered() {
        let (frames, mut client) = pair(4096).await;
        client.write_all(&frame(8, &[3, 232])).await.unwrap();
        assert!(matches!(frames.read().await, Some(Ok(Message::Close(_)))));
        frames.settle().await.unwrap();
        drop(frames);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [0x88, 2, 3, 232]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn a_message_arrives_whole_whatever_its_length(
            length in prop_oneof![
                0..4_usize,
                FRAGMENT_BYTES - 2..FRAGMENT_BYTES + 3,
                2 * FRAGMENT_BYTES - 1..5 * FRAGMENT_BYTES,
            ],
        ) {
            let text: String = ('a'..='z').chain(['ä', '€']).cycle().take(length).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let got = runtime.block_on(async {
                let (frames, client) = pair(1 << 16).await;
                let mut client =
                    WebSocketStream::from_raw_socket(client, Role::Client, None).await;
                let (sent, got) = tokio::join!(
                    write(&frames, text.clone()),
                    std::future::poll_fn(|cx| Pin::new(&mut client).poll_next(cx)),
                );
                sent.unwrap();
                got
            });
            prop_assert_eq!(got.unwrap().unwrap(), Message::text(text));
        }
    }
}
