//! JSON-RPC on a Unix socket, a message a line. The socket's file is the right to use it: its mode is
//! in force before the first connection can be made, and it is removed when the listener ends.
//!
//! A connection is one whole: a client that closes its sending end has left.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Rpc;
use super::outgoing::Queue;
use super::pump::pump;
use super::session::Session;
use crate::http::HttpState;
use crate::http::request::access::Caller;
use crate::http::request::pace::{Pace, SlowestPace};
use crate::http::transport::messages::{ChargedText, End, Incoming, Source};
use crate::http::transport::socket::Peer;
use crate::http::transport::unix_socket::UnixSocketFile;
use crate::memory::{Charge, Standing};

/// How long accepting rests after an error that the next attempt would meet again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a line are charged in steps of this size.
const STEP_BYTES: usize = 16 * 1024;
/// How long the last words of a connection that ends may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves a socket until `shutdown` resolves; then the calls under way get the drain deadline to end.
pub async fn serve(
    (listener, file): (UnixListener, UnixSocketFile),
    state: Arc<HttpState>,
    shutdown: impl Future<Output = ()>,
) {
    let rpc = &state.rpc;
    let places = Arc::new(Semaphore::new(rpc.settings.max_connections));
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
            }
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let (rpc, closing) = (Arc::clone(rpc), closing.clone());
                    connections.spawn(async move {
                        serve_connection(stream, &rpc, closing).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop((listener, file));
    close.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(state.drain, drained).await.is_err() {
        connections.shutdown().await;
    }
}

async fn serve_connection(stream: UnixStream, rpc: &Arc<Rpc>, mut closing: watch::Receiver<bool>) {
    let user = stream.peer_cred().map(|peer| peer.uid()).ok();
    // A peer that the kernel does not name shares with the others of that kind.
    let client = Peer::User(user.unwrap_or(u32::MAX)).client();
    let account = rpc.accountant.account(client, Standing::Ordinary);
    tracing::debug!(user, "connection to the socket");
    let (reader, writer) = stream.into_split();
    let (outgoing, queue) = rpc.outgoing(&account);
    let mut lines = Lines {
        reader: BufReader::with_capacity(64 * 1024, reader),
        line: Vec::new(),
        slowest: rpc.slowest_pace,
        pace: Pace::new(rpc.slowest_pace),
        charge: account.open(),
        limit_bytes: rpc.settings.message_limit_bytes,
    };
    let mut writing = std::pin::pin!(write(writer, queue));
    let session = Session::of_connection(rpc, Caller::Trusted, outgoing.clone());
    let end = tokio::select! {
        end = pump(&mut lines, &session, &outgoing, &mut closing) => end,
        // The client is gone, and what has ended is not asked again.
        () = &mut writing => End::ClientLeft,
    };
    drop((session, outgoing));
    if !matches!(end, End::ClientLeft | End::SlowReader) {
        let _ = timeout(LAST_WORDS, writing).await;
    }
    tracing::debug!(user, ?end, "connection to the socket ended");
}

async fn write(mut writer: OwnedWriteHalf, mut queue: Queue) {
    while let Some(message) = queue.recv().await {
        let stall = message.stall();
        let (mut pieces, room) = message.framed(|message| message.push('\n')).into_pieces();
        let is_long = pieces.has_tensors();
        while let Ok(Some(piece)) = pieces.next_piece() {
            let written = writer.write_all(&piece);
            let written = match is_long {
                false => written.await,
                true => match timeout(stall, written).await {
                    Ok(written) => written,
                    Err(_) => return,
                },
            };
            if written.is_err() {
                return;
            }
        }
        // The rest could not be read, and nothing may stand in its place.
        if !pieces.is_empty() {
            return;
        }
        drop(room);
    }
    let _ = writer.shutdown().await;
}

/// Bounded lines. One that is begun must go on arriving.
struct Lines {
    reader: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    slowest: SlowestPace,
    /// Of the line.
    pace: Pace,
    /// For its bytes.
    charge: Charge,
    limit_bytes: usize,
}

impl Lines {
    fn too_slow(&self, bytes_per_second: u32) -> Incoming {
        Incoming::Unreadable(End::TooSlow {
            stall: self.slowest.stall,
            bytes_per_second,
        })
    }
}

impl Source for Lines {
    async fn next(&mut self) -> Incoming {
        loop {
            let reading = self.reader.fill_buf();
            let arrived = if self.line.is_empty() {
                reading.await
            } else {
                let arrived = u32::try_from(self.line.len()).unwrap_or(u32::MAX);
                match timeout(self.pace.patience(arrived), reading).await {
                    Ok(arrived) => arrived,
                    Err(_) => return self.too_slow(self.slowest.rate),
                }
            };
            let Ok(bytes) = arrived else {
                return Incoming::Left;
            };
            if bytes.is_empty() {
                return Incoming::Left;
            }
            let newline = bytes.iter().position(|byte| *byte == b'\n');
            let piece = newline.unwrap_or(bytes.len());
            if self.line.len() + piece > self.limit_bytes {
                return Incoming::Unreadable(End::TooLong {
                    limit_bytes: self.limit_bytes,
                });
            }
            if self.line.is_empty() {
                self.pace = Pace::new(self.slowest);
            }
            let arrived = u32::try_from(self.line.len() + piece).unwrap_or(u32::MAX);
            if self.pace.is_too_slow(arrived) && self.charge.account().is_scarce() {
                return self.too_slow(self.slowest.rate_while_scarce);
            }
            let steps = (self.line.len() + piece).div_ceil(STEP_BYTES);
            if let Err(over) = self.charge.grow_to(steps * STEP_BYTES) {
                return Incoming::Unreadable(End::OverBudget(over));
            }
            self.line.extend_from_slice(&bytes[..piece]);
            self.reader.consume(piece + usize::from(newline.is_some()));
            if newline.is_some() {
                let text = std::mem::take(&mut self.line);
                let charge = self.charge.split(self.charge.bytes());
                if !text.trim_ascii().is_empty() {
                    return Incoming::Message(ChargedText {
                        text: text.into(),
                        charge,
                    });
                }
            }
        }
    }
}
