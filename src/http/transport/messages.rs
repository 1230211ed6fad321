//! What a connection that outlives one request reads: messages, each with the charge for it, until one
//! cannot be read or the client leaves.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::memory::{Charge, OverBudget};

/// A client's message with the charge for it: both go at once, unless its refusal takes the charge over.
pub(crate) struct ChargedText {
    pub text: Bytes,
    pub charge: Charge,
}

/// Where a connection's messages come from.
pub(crate) trait Source: Send {
    /// The next message. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Incoming> + Send;
}

/// What a source gives.
pub(crate) enum Incoming {
    Message(ChargedText),
    /// It cannot be read; the connection ends.
    Unreadable(End),
    Left,
}

/// Why a connection is no longer served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    ClientLeft,
    ShuttingDown,
    /// It is as old as it may become.
    TooOld,
    SlowReader,
    /// The caller may not go on.
    ShutOut,
    TooLong {
        limit_bytes: usize,
    },
    NotText,
    NotUtf8,
    Broken,
    /// A message that was begun did not go on arriving.
    TooSlow {
        stall: Duration,
        bytes_per_second: u32,
    },
    /// There is no memory for the message.
    OverBudget(OverBudget),
}

/// Resolves when a connection is to end.
pub(crate) async fn asked_to_close(closing: &mut watch::Receiver<bool>) {
    // An error means that the listener has gone, which also means: close.
    let _ = closing.wait_for(|closing| *closing).await;
}
