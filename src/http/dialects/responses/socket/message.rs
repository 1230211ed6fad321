//! What a message asks for.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::MapAccess;

use crate::aside::aside;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::Asked;
use crate::http::dialects::responses::create::{self, ResponseAnswer};
use crate::http::dialects::responses::create_parameters::CreateParameters;
use crate::http::dialects::responses::last_response::{LastResponse, Stream};
use crate::http::dialects::responses::parameters::{OfSocket, Read};
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::together::{Fields, Together};

const CREATE: &str = "response.create";
const NAMES: [&str; 3] = ["type", "generate", STREAM];
pub(super) const STREAM: &str = "stream_id";
/// Of a stream's name.
const MOST_CHARACTERS: usize = 256;

/// What only a message has.
#[derive(Debug, Default)]
struct OfMessage {
    r#type: Option<String>,
    generate: Option<bool>,
    stream_id: Option<String>,
}

// By hand, as the name of a field is a word of the language.
impl<'de> Fields<'de> for OfMessage {
    fn place(name: &str) -> Option<usize> {
        NAMES.iter().position(|known| *known == name)
    }

    fn once(place: usize) -> Option<&'static str> {
        NAMES.get(place).copied()
    }

    fn take<A: MapAccess<'de>>(&mut self, place: usize, map: &mut A) -> Result<(), A::Error> {
        match place {
            0 => self.r#type = map.next_value()?,
            1 => self.generate = map.next_value()?,
            _ => self.stream_id = map.next_value()?,
        }
        Ok(())
    }
}

impl OfMessage {
    fn check(&self) -> Result<(), RequestError> {
        let [field, ..] = NAMES;
        match self.r#type.as_deref() {
            Some(CREATE) => match &self.stream_id {
                Some(name) if !is_stream_name(name) => Err(RequestError::BadStreamName),
                _ => Ok(()),
            },
            None => Err(RequestError::missing(field)),
            Some(other) => {
                let requirement = format!("must be `{CREATE}`, not `{}`", quote(other));
                Err(RequestError::out_of_range(field, requirement))
            }
        }
    }
}

fn is_stream_name(name: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=MOST_CHARACTERS).contains(&name.len()) && name.bytes().all(is_known)
}

/// The stream that a message names, before it is read as a whole. What is wrong is told by that.
pub(super) fn stream_of(text: &[u8]) -> Stream {
    #[derive(Deserialize)]
    struct Named {
        stream_id: Option<String>,
    }
    let named = aside(text.len(), || serde_json::from_slice::<Named>(text));
    let name = named.ok()?.stream_id?;
    is_stream_name(&name).then(|| name.into())
}

/// Reads a message. `last` is its stream's.
pub(super) fn asked(
    state: &HttpState,
    context: &RequestContext,
    text: &[u8],
    last: &Arc<LastResponse>,
) -> Result<Asked<ResponseAnswer>, RequestError> {
    let read: Read<Together<CreateParameters, OfMessage>> = fields(text)?;
    let Together(Together(shared, Together(own, message)), unread) = read;
    message.check()?;
    let own = own.on_a_socket()?;
    let socket = OfSocket {
        last,
        is_warm_up: message.generate == Some(false),
    };
    create::asked_of(state, context, (shared, own, unread), Some(socket))
}
