//! Text of a client taken apart into calls. What is wrong with one call of a batch is that call's
//! error; only what makes the message as a whole unreadable is the message's.

use std::fmt;

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::{ErrorKind, RpcError};
use super::params::Params;
use crate::http::request::body::{no_number_at, without_mark};
use crate::http::request::json_words;

/// What a call's answer is matched by: a text, a number or null, given back as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Id(Box<str>);

impl Id {
    pub fn null() -> Self {
        Self("null".into())
    }

    /// JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    fn of(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        let allowed = matches!(text.as_bytes().first()?, b'"' | b'-' | b'0'..=b'9' | b'n');
        allowed.then(|| Self(text.into()))
    }
}

/// One call. Without an id it is a notification: it gets no answer, not even an error.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub id: Option<Id>,
    pub method: String,
    pub params: Params,
}

/// One element of a message.
#[derive(Debug, PartialEq)]
pub(crate) enum Entry {
    Call(Call),
    /// Not a request; answered under the id it had, or null.
    Invalid {
        id: Id,
        error: RpcError,
    },
}

#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    One(Entry),
    /// At least one.
    Batch(Vec<Entry>),
}

/// Reads a message with at most `batch_limit` calls.
///
/// # Errors
///
/// The one error that answers the whole message, with a null id.
pub(crate) fn parse(text: &[u8], batch_limit: usize) -> Result<Message, RpcError> {
    let text = std::str::from_utf8(without_mark(text)).map_err(|error| {
        RpcError::new(ErrorKind::ParseError, format!("not valid JSON: {error}"))
    })?;
    let not_json = |error| not_json(text, &error);
    if !text.trim_ascii_start().starts_with('[') {
        let raw: &RawValue = serde_json::from_str(text).map_err(not_json)?;
        return Ok(Message::One(entry(raw)));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let elements = AtMost(batch_limit)
        .deserialize(&mut json)
        .and_then(|elements| json.end().map(|()| elements))
        .map_err(not_json)?;
    match elements.as_deref() {
        Some([]) => Err(invalid("a batch has at least one call")),
        Some(elements) => Ok(Message::Batch(
            elements.iter().map(|raw| entry(raw)).collect(),
        )),
        None => Err(invalid(format!("a batch has at most {batch_limit} calls"))),
    }
}

fn not_json(text: &str, error: &serde_json::Error) -> RpcError {
    let message = match no_number_at(text.as_bytes(), error) {
        Some(word) => format!(
            "not valid JSON: {word} is no number (line {}, column {})",
            error.line(),
            error.column()
        ),
        None => format!("not valid JSON: {}", json_words::sentence(error)),
    };
    RpcError::new(ErrorKind::ParseError, message)
}

fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(ErrorKind::InvalidRequest, message)
}

/// A request object before it is known to be one. Other members are left unread.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    /// Null is an id; only an absent one makes a notification.
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn entry(raw: &RawValue) -> Entry {
    let refuse = |id, message: &str| Entry::Invalid {
        id,
        error: invalid(message),
    };
    // serde would take an array as the members in their order.
    if !raw.get().starts_with('{') {
        return refuse(Id::null(), "a request is an object");
    }
    let envelope: Envelope<'_> = match serde_json::from_str(raw.get()) {
        Ok(envelope) => envelope,
        Err(error) => {
            return refuse(
                Id::null(),
                &format!("not a request: {}", json_words::reason(&error)),
            );
        }
    };
    let id = match envelope.id.map(Id::of) {
        Some(None) => return refuse(Id::null(), "`id` is a string, a number or null"),
        Some(Some(id)) => Some(id),
        None => None,
    };
    let known = || id.clone().unwrap_or_else(Id::null);
    if text(envelope.jsonrpc).as_deref() != Some("2.0") {
        return refuse(known(), "`jsonrpc` must be \"2.0\"");
    }
    let Some(method) = text(envelope.method) else {
        return refuse(known(), "`method` must be a string");
    };
    let Some(params) = Params::of(envelope.params) else {
        return refuse(known(), "`params` is an object or an array");
    };
    Entry::Call(Call { id, method, params })
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// An array's elements; `None` once there are more than so many, which are then not kept.
pub(super) struct AtMost(pub usize);

impl<'de> DeserializeSeed<'de> for AtMost {
    type Value = Option<Vec<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtMost {
    type Value = Option<Vec<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if elements.len() == self.0 {
                // The rest must still be JSON, or the message is not one at all.
                while seq.next_element::<&RawValue>()?.is_some() {}
                return Ok(None);
            }
            elements.push(element);
        }
        Ok(Some(elements))
    }
}

#[cfg(test)]
mod tests;
