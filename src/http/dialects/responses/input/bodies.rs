//! What the items of a request and their parts hold, as clients send them: the bodies that `/openapi.json` describes.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::schemas::message_content;
use crate::http::request::body::{Object, TextOrList};
use crate::http::request::free_form::Outline;

/// A text, or parts or items.
pub(in crate::http::dialects::responses) type Texts = TextOrList<Box<RawValue>>;

/// What an item or a part is told by, which is read before it.
#[derive(Deserialize)]
pub(super) struct Kind {
    pub(super) r#type: Option<String>,
    pub(super) role: Option<String>,
    pub(super) id: Option<IgnoredAny>,
}

/// What somebody says.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputMessage {
    /// `message`, or absent.
    #[schema(example = "message")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// As an answer had it.
    pub(super) id: Option<String>,
    /// `user`, `assistant`, `system` or `developer`.
    #[schema(required, nullable = false, example = "user")]
    pub(super) role: Option<String>,
    /// A string or parts.
    #[schema(schema_with = message_content)]
    pub(super) content: Option<Texts>,
}

/// A call that the assistant made.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputCall {
    /// Always `function_call`.
    #[schema(required, nullable = false, example = "function_call")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// As the answer had it.
    pub(super) id: Option<String>,
    /// What its result names.
    #[schema(required, nullable = false)]
    pub(super) call_id: Option<String>,
    /// The function.
    #[schema(required, nullable = false)]
    pub(super) name: Option<String>,
    /// JSON text; absent or empty where it takes none.
    #[schema(example = "{}")]
    pub(super) arguments: Option<String>,
}

/// The result of a call.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputResult {
    /// Always `function_call_output`.
    #[schema(required, nullable = false, example = "function_call_output")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// The client's own.
    pub(super) id: Option<String>,
    /// As the call had it.
    #[schema(required, nullable = false)]
    pub(super) call_id: Option<String>,
    /// A string or texts.
    #[schema(schema_with = message_content)]
    pub(super) output: Option<Texts>,
}

/// What the assistant thought.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputReasoning {
    /// Always `reasoning`.
    #[schema(required, nullable = false, example = "reasoning")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// As the answer had it.
    pub(super) id: Option<String>,
    /// Its text.
    #[schema(value_type = Option<Vec<InputPart>>)]
    pub(super) content: Option<Vec<Object<InputPart>>>,
    /// Is no thought. Alone, it is left out, and named in `x-rkllmd-not-applied`.
    #[schema(value_type = Option<Vec<Object>>)]
    pub(super) summary: Option<Outline>,
    /// As the answer had it. What the daemon has not made is left out, and named in `x-rkllmd-not-applied`.
    pub(super) encrypted_content: Option<String>,
}

/// An item of a response that is kept.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputReference {
    /// `item_reference`, or absent.
    #[schema(example = "item_reference")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// As the response had it, or the client.
    #[schema(required, nullable = false)]
    pub(super) id: Option<String>,
}

/// The newest turns of a conversation, as `/v1/responses/compact` has given them.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputCompaction {
    /// Always `compaction`.
    #[schema(required, nullable = false, example = "compaction")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// As it was given. What the daemon has not made is left out, and named in `x-rkllmd-not-applied`.
    pub(super) encrypted_content: Option<String>,
}

/// A piece of a text.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputPart {
    /// `input_text`, `output_text` or, of a thought, `reasoning_text`; or `refusal`.
    #[schema(required, nullable = false, example = "input_text")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// The text.
    pub(super) text: Option<String>,
    /// Of a `refusal`: likewise.
    pub(super) refusal: Option<String>,
}
