//! WebSockets (RFC 6455): the handshake, their frames, the messages that they bring, and how they end. A
//! connection is served by the task of the HTTP connection it was, so that it counts among `max-connections`
//! and is drained with the others.
//!
//! Close codes: the client's own where it closes, 1001 the daemon shuts down or the connection is as old as it
//! may become, 1002 a broken frame, 1003 a binary message, 1007 a text that is not UTF-8, 1008 the client did
//! not read, or its key was revoked or may do less than before, 1009 a message is too large, 1013 there is no
//! memory for it now.

mod frames;
mod handshake;
mod metered;

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::future::BoxFuture;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::timeout;
use tungstenite::Message;
use tungstenite::error::{CapacityError, Error as WsError};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::http::transport::connection::Upgrades;
use crate::http::transport::messages::{ChargedText, End, Incoming, Source};
use crate::memory::OverBudget;
pub(crate) use frames::{FragmentPosition, Frames};
pub(crate) use handshake::NoHandshake;
use metered::over_budget;

/// How long the last words of a connection that ends may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(crate) type Socket = Frames<TokioIo<Upgraded>>;

/// A connection that may become a WebSocket.
pub(crate) struct Upgradable {
    upgrades: Upgrades,
    upgrade: OnUpgrade,
}

impl Upgradable {
    /// `None`: the request asks for no upgrade.
    pub fn of(head: &mut Parts) -> Option<Self> {
        Some(Self {
            upgrades: head.extensions.remove::<Upgrades>()?,
            upgrade: head.extensions.remove::<OnUpgrade>()?,
        })
    }

    /// Answers the handshake; the connection is served once the client has the answer.
    pub fn accept<S>(self, headers: &HeaderMap, serve: S) -> Result<Response, NoHandshake>
    where
        S: FnOnce(TokioIo<Upgraded>, watch::Receiver<bool>) -> BoxFuture<'static, ()>
            + Send
            + 'static,
    {
        let accept = handshake::accepted(headers)?;
        let upgrade = self.upgrade;
        self.upgrades.serve(|closing| {
            Box::pin(async move {
                // The client may leave before it is answered.
                let Ok(upgraded) = upgrade.await else { return };
                serve(TokioIo::new(upgraded), closing).await;
            })
        });
        Ok(handshake::response(accept))
    }
}

/// Closes a socket as its end is to be told, once what is still to be written is: `writing`.
pub(crate) async fn close(
    socket: &Socket,
    end: &End,
    writing: impl Future<Output = Result<(), WsError>>,
) {
    let last_words = async {
        match close_frame(end) {
            Some(frame) => {
                writing.await?;
                socket.close(frame).await
            }
            // Messages that are still to be written would follow the answer to its close.
            None => socket.settle().await,
        }
    };
    let _ = timeout(LAST_WORDS, last_words).await;
}

/// `None`: the client closed it, and is answered by the protocol.
fn close_frame(end: &End) -> Option<CloseFrame> {
    let (code, reason) = match end {
        End::ClientLeft => return None,
        End::ShuttingDown => (CloseCode::Away, "the daemon is shutting down"),
        End::TooOld => (CloseCode::Away, "the connection is as old as it may become"),
        End::Broken => (CloseCode::Protocol, "broken frame"),
        End::NotUtf8 => (CloseCode::Invalid, "messages are UTF-8"),
        End::NotText => (CloseCode::Unsupported, "messages are text"),
        End::SlowReader => (CloseCode::Policy, "the client did not read"),
        End::TooSlow { .. } => (CloseCode::Policy, "the message did not go on arriving"),
        End::ShutOut => (
            CloseCode::Policy,
            "the key was revoked or may do less now, or a key is needed now",
        ),
        End::TooLong { .. } | End::OverBudget(OverBudget::NeverFits { .. }) => {
            (CloseCode::Size, "the message is too large")
        }
        End::OverBudget(_) => (CloseCode::Again, "there is no memory for the message now"),
    };
    Some(CloseFrame {
        code,
        reason: reason.into(),
    })
}

/// The messages of a socket.
pub(crate) struct Messages<'a> {
    pub socket: &'a Socket,
    /// A client that does not even answer a ping within this time is gone.
    pub silence: Duration,
    /// One that takes no answer to its own pings for so long does not read.
    pub slow_reader: Duration,
    pub limit_bytes: usize,
}

impl Source for Messages<'_> {
    async fn next(&mut self) -> Incoming {
        loop {
            match timeout(self.slow_reader, self.socket.settle()).await {
                Err(_) => return Incoming::Unreadable(End::SlowReader),
                Ok(Err(_)) => return Incoming::Left,
                Ok(Ok(())) => {}
            }
            let frame = match timeout(self.silence, self.socket.read()).await {
                Err(_) | Ok(None) => return Incoming::Left,
                Ok(Some(Err(error))) => return Incoming::Unreadable(self.end_of(&error)),
                Ok(Some(Ok(frame))) => frame,
            };
            match frame {
                Message::Text(text) => {
                    let charge = self.socket.take_charge();
                    let text = text.into();
                    return Incoming::Message(ChargedText { text, charge });
                }
                Message::Binary(_) => return Incoming::Unreadable(End::NotText),
                Message::Close(_) => return Incoming::Left,
                // A ping is answered by the protocol's own layer; a lone frame is never read.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

impl Messages<'_> {
    fn end_of(&self, error: &WsError) -> End {
        match error {
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => End::TooLong {
                limit_bytes: self.limit_bytes,
            },
            WsError::Io(error) if let Some(over) = over_budget(error) => End::OverBudget(over),
            WsError::Utf8(_) => End::NotUtf8,
            WsError::Protocol(_) => End::Broken,
            _ => End::ClientLeft,
        }
    }
}
