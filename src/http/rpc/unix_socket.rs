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

use super::Rpc;
use super::outgoing::Queue;
use super::pump::{End, Incoming, Source, pump};
use super::session::Session;
use crate::http::access::Caller;
use crate::http::{HttpState, UnixSocketFile};

/// How long accepting rests after an error that the next attempt would meet again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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
    if tokio::time::timeout(state.drain, drained).await.is_err() {
        connections.shutdown().await;
    }
}

async fn serve_connection(stream: UnixStream, rpc: &Arc<Rpc>, mut closing: watch::Receiver<bool>) {
    let user = stream.peer_cred().map(|peer| peer.uid()).ok();
    tracing::debug!(user, "connection to the socket");
    let (reader, writer) = stream.into_split();
    let (outgoing, queue) = rpc.outgoing();
    let mut lines = Lines {
        reader: BufReader::with_capacity(64 * 1024, reader),
        line: Vec::new(),
        limit_bytes: rpc.settings.message_limit_bytes,
        stall: rpc.slow_reader,
    };
    let mut writing = std::pin::pin!(write(writer, queue));
    let session = Session::of_connection(rpc, Caller::Trusted, outgoing.clone());
    let end = tokio::select! {
        end = pump(&mut lines, &session, &outgoing, &mut closing) => end,
        // The client is gone.
        () = &mut writing => End::ClientLeft,
    };
    drop((session, outgoing));
    if !matches!(end, End::ClientLeft | End::SlowReader) {
        let _ = tokio::time::timeout(LAST_WORDS, writing).await;
    }
    tracing::debug!(user, ?end, "connection to the socket ended");
}

async fn write(mut writer: OwnedWriteHalf, mut queue: Queue) {
    while let Some(mut message) = queue.recv().await {
        message.text.push('\n');
        if writer.write_all(message.text.as_bytes()).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// Bounded lines. One that is begun must go on arriving.
struct Lines {
    reader: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    limit_bytes: usize,
    stall: Duration,
}

impl Source for Lines {
    async fn next(&mut self) -> Incoming {
        loop {
            let reading = self.reader.fill_buf();
            let arrived = if self.line.is_empty() {
                reading.await
            } else {
                match tokio::time::timeout(self.stall, reading).await {
                    Ok(arrived) => arrived,
                    Err(_) => return Incoming::Unreadable(End::Broken),
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
            self.line.extend_from_slice(&bytes[..piece]);
            self.reader.consume(piece + usize::from(newline.is_some()));
            if newline.is_some() {
                let line = std::mem::take(&mut self.line);
                if !line.trim_ascii().is_empty() {
                    return Incoming::Message(line);
                }
            }
        }
    }
}
