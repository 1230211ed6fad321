//! JSON-RPC 2.0 as its specification says it, and nothing of what is called.
//!
//! Pure: text in, calls out; results in, text out. No task, no socket, no clock, so that all of it
//! is held by property tests. Nothing is built from a message before its size and the number of its
//! calls are known to be within the limits, and parameters stay the client's text until the method
//! that knows their types reads them: a message of arrays never becomes a tree of values.
//!
//! `jsonrpsee` would bring a server of its own beside the one that guards connections here, without
//! a Unix socket; what is needed of the protocol is small enough to be read.

mod error;
mod message;
mod params;
mod reply;

pub(crate) use error::{ErrorKind, RpcError};
pub(crate) use message::{Call, Entry, Message, parse};
pub(crate) use params::Params;
pub(crate) use reply::{Reply, notification};
