//! What goes back: answers, alone or as the answers of a batch, and notifications.

use serde::Serialize;

use super::error::{ErrorKind, RpcError};
use super::message::Id;

/// The answers to one message, collected in the order of its calls.
pub(crate) struct Reply {
    batch: bool,
    text: String,
}

impl Reply {
    pub fn to_one() -> Self {
        Self {
            batch: false,
            text: String::new(),
        }
    }

    pub fn to_batch() -> Self {
        Self {
            batch: true,
            text: String::new(),
        }
    }

    /// The answer to a message that could not be read.
    pub fn error(error: &RpcError) -> String {
        answer(&Id::null(), Err::<&(), _>(error))
    }

    /// Adds an answer; a notification (no id) has none.
    pub fn add<T: Serialize + ?Sized>(&mut self, id: Option<&Id>, outcome: Result<&T, &RpcError>) {
        let Some(id) = id else { return };
        if self.batch {
            self.text.push(if self.text.is_empty() { '[' } else { ',' });
        }
        self.text.push_str(&answer(id, outcome));
    }

    /// The text to send; nothing when all calls were notifications.
    pub fn finish(mut self) -> Option<String> {
        if self.text.is_empty() {
            return None;
        }
        if self.batch {
            self.text.push(']');
        }
        Some(self.text)
    }
}

/// The text of a notification from here.
pub(crate) fn notification<T: Serialize>(method: &str, params: &T) -> String {
    #[derive(Serialize)]
    struct Notification<'a, T> {
        jsonrpc: &'static str,
        method: &'a str,
        params: &'a T,
    }
    to_text(&Notification {
        jsonrpc: "2.0",
        method,
        params,
    })
    .unwrap_or_default()
}

fn answer<T: Serialize + ?Sized>(id: &Id, outcome: Result<&T, &RpcError>) -> String {
    let (member, body) = match outcome {
        Ok(result) => ("result", to_text(result)),
        Err(error) => ("error", to_text(error)),
    };
    match body {
        Ok(body) => format!(
            r#"{{"jsonrpc":"2.0","{member}":{body},"id":{}}}"#,
            id.as_json()
        ),
        // Only a map with keys that are no texts has no JSON form, and no result has one.
        Err(error) => answer::<()>(
            id,
            Err(&RpcError::new(ErrorKind::InternalError, error.to_string())),
        ),
    }
}

fn to_text<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    serde_json::to_string(value)
}
