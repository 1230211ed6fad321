//! The blocks that content is made of, each read by its kind.

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, Schema, Type};

use crate::conversation::ToolCall;
use crate::http::request::body::TextOrList;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::fields_within;
use crate::http::request::nul::refuse_nul;

#[derive(Deserialize)]
struct Kind {
    r#type: Option<String>,
}

/// A piece of a text.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TextBlock {
    /// Always `text`.
    #[schema(required, nullable = false, example = "text")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// The text.
    #[schema(required, nullable = false)]
    pub(super) text: Option<String>,
}

/// A call that an assistant made.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ToolUseBlock {
    /// Always `tool_use`.
    #[schema(required, nullable = false, example = "tool_use")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// As the answer had it.
    #[schema(required, nullable = false)]
    id: Option<String>,
    /// The tool.
    #[schema(required, nullable = false)]
    name: Option<String>,
    /// What it was called with: an object, absent where it takes none.
    #[schema(value_type = Option<Object>)]
    input: Option<Box<RawValue>>,
}

/// The result of a call.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ToolResultBlock {
    /// Always `tool_result`.
    #[schema(required, nullable = false, example = "tool_result")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// The call's id.
    #[schema(required, nullable = false)]
    pub(super) tool_use_id: Option<String>,
    /// A string or blocks of text.
    #[schema(schema_with = text_content)]
    pub(super) content: Option<TextOrList<Box<RawValue>>>,
    /// Whether the call has failed; the model is told so before the content.
    pub(super) is_error: Option<bool>,
}

/// What an assistant thought.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ThinkingBlock {
    /// Always `thinking`.
    #[schema(required, nullable = false, example = "thinking")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// Its text; empty where it was not shown.
    pub(super) thinking: Option<String>,
    /// As the answer had it; any is taken.
    pub(super) signature: Option<String>,
}

pub(super) fn kind(block: &RawValue, field: &str) -> Result<String, RequestError> {
    let kind: Kind = fields_within(block, field)?;
    kind.r#type
        .ok_or_else(|| RequestError::missing(format!("{field}.type")))
}

/// Adds a text that says something.
pub(super) fn said(text: String, field: &str, parts: &mut Vec<String>) -> Result<(), RequestError> {
    refuse_nul(&text, || field.to_owned())?;
    if !text.is_empty() {
        parts.push(text);
    }
    Ok(())
}

impl ToolUseBlock {
    pub(super) fn checked(self, field: &str) -> Result<ToolCall, RequestError> {
        let field = |name: &str| format!("{field}.{name}");
        let some = |text: Option<String>, name: &str| {
            let text = text.filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| RequestError::missing(field(name)))?;
            refuse_nul(&text, || field(name))?;
            Ok::<_, RequestError>(text)
        };
        let input = self.input.as_deref().map(RawValue::get);
        Ok(ToolCall {
            id: some(self.id, "id")?,
            name: some(self.name, "name")?,
            arguments: match input {
                None => "{}".to_owned(),
                Some(object) if object.starts_with('{') => object.to_owned(),
                Some(_) => {
                    return Err(RequestError::WrongType {
                        param: field("input"),
                        reason: "it must be an object".to_owned(),
                    });
                }
            },
        })
    }
}

fn blocks(of: &[&str], description: &str) -> Schema {
    let kinds = of.iter().fold(OneOfBuilder::new(), |kinds, name| {
        kinds.item(Ref::from_schema_name(*name))
    });
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(ArrayBuilder::new().items(kinds))
        .description(Some(description))
        .into()
}

pub(super) fn message_content() -> Schema {
    blocks(
        &[
            "TextBlock",
            "ToolUseBlock",
            "ToolResultBlock",
            "ThinkingBlock",
        ],
        "A string or blocks: `text`; of an assistant `tool_use`, `thinking` and `redacted_thinking`; of a user \
         `tool_result`. Blocks of kinds that are not known are left out and named in \
         `x-rkllmd-not-applied`; images and documents are refused.",
    )
}

pub(super) fn text_content() -> Schema {
    blocks(&["TextBlock"], "A string or blocks of the type `text`.")
}
