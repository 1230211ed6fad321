//! What goes back: answers, alone or as the answers of a batch, and notifications.

use serde::Serialize;
use serde_json::value::RawValue;

use super::error::RpcError;
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
        let mut reply = Self::to_one();
        reply.add(Some(&Id::null()), Err(error));
        reply.text
    }

    /// Adds an answer; a notification (no id) has none.
    pub fn add(&mut self, id: Option<&Id>, outcome: Result<&RawValue, &RpcError>) {
        let Some(id) = id else { return };
        if self.batch {
            self.text.push(if self.text.is_empty() { '[' } else { ',' });
        }
        self.text.push_str(r#"{"jsonrpc":"2.0","#);
        match outcome {
            // May be large: copied once.
            Ok(result) => {
                self.text
                    .reserve(result.get().len() + id.as_json().len() + 32);
                self.text.push_str(r#""result":"#);
                self.text.push_str(result.get());
            }
            Err(error) => {
                self.text.push_str(r#""error":"#);
                self.text.push_str(&to_text(error));
            }
        }
        self.text.push_str(r#","id":"#);
        self.text.push_str(id.as_json());
        self.text.push('}');
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.text.len()
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
}

fn to_text<T: Serialize + ?Sized>(value: &T) -> String {
    // Only a map with keys that are no texts has no JSON form, and none is sent.
    serde_json::to_string(value).unwrap_or_default()
}
