//! What goes back: answers, alone or as the answers of a batch, and notifications.

use serde::Serialize;

use super::error::RpcError;
use super::message::Id;
use crate::http::rpc::outbound::Outbound;

/// The answers to one message, collected in the order of its calls.
pub(crate) struct Reply {
    batch: bool,
    message: Outbound,
}

impl Reply {
    pub fn to_one() -> Self {
        Self {
            batch: false,
            message: Outbound::default(),
        }
    }

    pub fn to_batch() -> Self {
        Self {
            batch: true,
            message: Outbound::default(),
        }
    }

    /// The answer to a message that could not be read.
    pub fn error(error: &RpcError) -> String {
        let mut text = String::new();
        add_error(&mut text, &Id::null(), error);
        text
    }

    /// Adds an answer; a notification (no id) has none.
    pub fn add(&mut self, id: Option<&Id>, outcome: Result<Outbound, &RpcError>) {
        let Some(id) = id else { return };
        let message = &mut self.message;
        if self.batch {
            message.push(if message.is_empty() { '[' } else { ',' });
        }
        match outcome {
            Ok(result) => {
                message.push_str(r#"{"jsonrpc":"2.0","result":"#);
                message.append(result);
                message.push_str(r#","id":"#);
                message.push_str(id.as_json());
                message.push('}');
            }
            Err(error) => {
                let mut text = String::new();
                add_error(&mut text, id, error);
                message.push_str(&text);
            }
        }
    }

    /// Bytes so far, tensors whole.
    pub fn len(&self) -> usize {
        self.message.whole_bytes()
    }

    /// What it takes of the daemon's memory so far.
    pub fn held_bytes(&self) -> usize {
        self.message.held_bytes()
    }

    /// The message to send; nothing when all calls were notifications.
    pub fn finish(mut self) -> Option<Outbound> {
        if self.message.is_empty() {
            return None;
        }
        if self.batch {
            self.message.push(']');
        }
        Some(self.message)
    }
}

fn add_error(text: &mut String, id: &Id, error: &RpcError) {
    text.push_str(r#"{"jsonrpc":"2.0","error":"#);
    // Only a map with keys that are no texts has no JSON form, and none is sent.
    text.push_str(&serde_json::to_string(error).unwrap_or_default());
    text.push_str(r#","id":"#);
    text.push_str(id.as_json());
    text.push('}');
}

/// A notification from here.
pub(crate) fn notification<T: Serialize>(method: &str, params: &T) -> Outbound {
    #[derive(Serialize)]
    struct Notification<'a, T> {
        jsonrpc: &'static str,
        method: &'a str,
        params: &'a T,
    }
    Outbound::of(&Notification {
        jsonrpc: "2.0",
        method,
        params,
    })
}
