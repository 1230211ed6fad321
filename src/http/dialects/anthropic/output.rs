//! What an answer is to be: `output_config`, and the older `output_format`.

use serde_json::Value;
use utoipa::ToSchema;

use crate::constraint::Wanted;
use crate::http::dialects::format::AskedFormat;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::{FreeObject, ValuesLeft};
use crate::http::request::together::fields_of;

/// What the answer is to be like.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct OutputConfig {
    /// How much to think, for templates that can be told: `low`, `medium`, `high`, `xhigh` or `max`.
    #[schema(example = "low")]
    pub effort: Option<String>,
    /// What the answer is kept to: `{"type":"json_schema","schema"}`.
    #[schema(value_type = Option<Object>)]
    pub format: Option<FreeObject>,
}

fields_of!(OutputConfig { effort, format });

/// The names of a field, and of what is in it.
struct Field {
    own: &'static str,
    kind: &'static str,
    schema: &'static str,
}

const NEWER: Field = Field {
    own: "output_config.format",
    kind: "output_config.format.type",
    schema: "output_config.format.schema",
};
const OLDER: Field = Field {
    own: "output_format",
    kind: "output_format.type",
    schema: "output_format.schema",
};

/// What of both forms is given; the newer one goes first.
pub(super) fn format(
    newer: Option<FreeObject>,
    older: Option<FreeObject>,
    values: &mut ValuesLeft,
) -> Result<Option<AskedFormat>, RequestError> {
    let given = newer.map(|format| (format, NEWER));
    let Some((format, field)) = given.or(older.map(|format| (format, OLDER))) else {
        return Ok(None);
    };
    let mut format = format.read(field.own, values)?;
    match format.get("type") {
        Some(Value::String(kind)) if kind == "json_schema" => {}
        None | Some(Value::Null) => return Err(RequestError::missing(field.kind)),
        Some(other) => {
            let other = other.as_str().map_or(other.to_string(), str::to_owned);
            return Err(RequestError::unsupported(
                field.kind,
                format!("only `json_schema` is, not `{}`", quote(&other)),
            ));
        }
    }
    let schema = format.remove("schema").filter(|schema| !schema.is_null());
    let schema = schema.ok_or_else(|| RequestError::missing(field.schema))?;
    Ok(Some(AskedFormat {
        wanted: Wanted::JsonSchema {
            schema: schema.to_string(),
            // What is asked for by this name is promised, or refused.
            strict: true,
        },
        param: field.schema,
    }))
}
