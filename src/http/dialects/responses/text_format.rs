//! What an answer is to be, as `text` says it.

use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::echo::compact;
use crate::constraint::Wanted;
use crate::http::dialects::format::AskedFormat;
use crate::http::request::body::Object;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::{FreeObject, ValuesLeft};
use crate::http::request::together::{Inner, Together, fields_of};
use crate::http::response::notices::unread_within;

const TYPE: &str = "text.format.type";
const SCHEMA: &str = "text.format.schema";

/// What the answer's text is to be like.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct TextParameter {
    /// `{"type":"text"}`, `{"type":"json_object"}` or, kept to a JSON schema,
    /// `{"type":"json_schema","name","schema","strict"}`.
    #[schema(value_type = Option<Object>)]
    format: Option<FreeObject>,
    /// Not applied.
    verbosity: Option<String>,
}

fields_of!(TextParameter { format, verbosity });

/// What it comes to.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub asked: Option<AskedFormat>,
    /// As the client wrote it.
    pub format: Option<Box<RawValue>>,
    pub not_applied: Vec<&'static str>,
    /// Names of what is not known.
    pub unread: Vec<String>,
}

pub(super) fn read(
    given: Option<Inner<TextParameter>>,
    values: &mut ValuesLeft,
) -> Result<Text, RequestError> {
    let Some(Object(Together(TextParameter { format, verbosity }, unread))) = given else {
        return Ok(Text::default());
    };
    let mut text = Text {
        unread: unread_within("text", &unread),
        ..Text::default()
    };
    if verbosity.is_some_and(|verbosity| verbosity != "medium") {
        text.not_applied.push("text.verbosity");
    }
    if let Some(format) = format {
        text.format = Some(compact(format.text()));
        text.asked = asked(&format, values)?;
    }
    Ok(text)
}

fn asked(
    format: &FreeObject,
    values: &mut ValuesLeft,
) -> Result<Option<AskedFormat>, RequestError> {
    let mut format = format.read("text.format", values)?;
    let kind = match format.get("type") {
        None | Some(Value::Null) => return Err(RequestError::missing(TYPE)),
        Some(Value::String(kind)) => kind.clone(),
        Some(_) => return Err(wrong_type(TYPE, "it must be a string")),
    };
    match kind.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(AskedFormat {
            wanted: Wanted::JsonObject,
            param: "text.format",
        })),
        "json_schema" => {
            let strict = match format.get("strict") {
                None | Some(Value::Null) => false,
                Some(Value::Bool(strict)) => *strict,
                Some(_) => return Err(wrong_type("text.format.strict", "it must be a boolean")),
            };
            let schema = format.remove("schema").filter(|schema| !schema.is_null());
            let schema = schema.ok_or_else(|| RequestError::missing(SCHEMA))?;
            Ok(Some(AskedFormat {
                wanted: Wanted::JsonSchema {
                    schema: schema.to_string(),
                    strict,
                },
                param: SCHEMA,
            }))
        }
        other => Err(RequestError::unsupported(
            TYPE,
            format!(
                "`text`, `json_object` and `json_schema` are, not `{}`",
                quote(other)
            ),
        )),
    }
}

fn wrong_type(param: &str, reason: &str) -> RequestError {
    RequestError::WrongType {
        param: param.to_owned(),
        reason: reason.to_owned(),
    }
}
