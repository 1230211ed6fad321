//! What a message asks for.

use std::sync::Arc;

use serde::de::MapAccess;

use crate::http::HttpState;
use crate::http::dialects::chat_dialect::Asked;
use crate::http::dialects::responses::create::{self, ResponseAnswer};
use crate::http::dialects::responses::create_parameters::CreateParameters;
use crate::http::dialects::responses::last_response::LastResponse;
use crate::http::dialects::responses::parameters::{OfSocket, Read};
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::together::{Fields, Together};

const CREATE: &str = "response.create";
const NAMES: [&str; 2] = ["type", "generate"];

/// What only a message has.
#[derive(Debug, Default)]
struct OfMessage {
    r#type: Option<String>,
    generate: Option<bool>,
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
            _ => self.generate = map.next_value()?,
        }
        Ok(())
    }
}

impl OfMessage {
    fn check(&self) -> Result<(), RequestError> {
        let [field, _] = NAMES;
        match self.r#type.as_deref() {
            Some(CREATE) => Ok(()),
            None => Err(RequestError::missing(field)),
            Some(other) => {
                let requirement = format!("must be `{CREATE}`, not `{}`", quote(other));
                Err(RequestError::out_of_range(field, requirement))
            }
        }
    }
}

/// Reads a message. `last` is the connection's.
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
