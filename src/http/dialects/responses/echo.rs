//! What a response repeats of its request. Every key is always there; null is what the request did not say and the
//! daemon does not know.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::dialects::whole_calls::without_white_space;
use crate::http::request::error::RequestError;

/// The most characters of a text that is repeated for nothing but its client, as OpenAI has them.
pub(super) const MOST_OF_A_NAME: usize = 64;
pub(super) const MOST_OF_A_TEXT: usize = 512;

/// What a response repeats of its request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Echo {
    /// Whether it is made whether or not its client waits.
    pub background: bool,
    /// As the request has them; of a request that goes on from another response its own.
    #[schema(required)]
    pub instructions: Option<String>,
    /// As the request has it.
    #[schema(required)]
    pub max_output_tokens: Option<u32>,
    /// Always null: no tool runs here.
    #[schema(required, value_type = Option<u32>)]
    pub max_tool_calls: Option<()>,
    /// Texts of the client's.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Whether an answer may have several calls.
    pub parallel_tool_calls: bool,
    /// The request's value, else the model's own; so are the next ones.
    #[schema(required)]
    pub temperature: Option<f32>,
    /// As `temperature`.
    #[schema(required)]
    pub top_p: Option<f32>,
    /// As `temperature`.
    #[schema(required)]
    pub presence_penalty: Option<f32>,
    /// As `temperature`.
    #[schema(required)]
    pub frequency_penalty: Option<f32>,
    /// The response that this one goes on from.
    #[schema(required)]
    pub previous_response_id: Option<String>,
    /// As the request has it.
    #[schema(required)]
    pub prompt_cache_key: Option<String>,
    pub reasoning: EchoedReasoning,
    /// As the request has it.
    #[schema(required)]
    pub safety_identifier: Option<String>,
    /// As the request has it.
    #[schema(required)]
    pub service_tier: Option<String>,
    /// Whether requests may go on from it, as long as it is kept.
    pub store: bool,
    pub text: EchoedText,
    /// As the request has it, else `auto`.
    #[schema(value_type = serde_json::Value)]
    pub tool_choice: Box<RawValue>,
    /// Functions; others are not known.
    pub tools: Vec<EchoedTool>,
    /// How many of the likeliest tokens are told in each place.
    pub top_logprobs: u8,
    /// `auto` where the oldest turns of a conversation that is too long are left out, else `disabled`.
    #[schema(example = "disabled")]
    pub truncation: &'static str,
    /// As the request has it.
    #[schema(required)]
    pub user: Option<String>,
}

/// What was wished of thoughts.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct EchoedReasoning {
    /// As the request has it.
    #[schema(required)]
    pub effort: Option<String>,
    /// As the request has it; there are none.
    #[schema(required)]
    pub summary: Option<String>,
}

/// What the answer's text was to be like.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct EchoedText {
    /// As the request has it, else a text.
    #[schema(value_type = Object)]
    pub format: Box<RawValue>,
}

/// A function as the request describes it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct EchoedTool {
    /// Always `function`.
    #[schema(example = "function")]
    pub r#type: &'static str,
    /// What the model calls it by.
    pub name: String,
    /// What it does.
    #[schema(required)]
    pub description: Option<String>,
    /// The schema of its arguments.
    #[schema(required, value_type = Option<Object>)]
    pub parameters: Option<Box<RawValue>>,
    /// Whether what the schema says must be kept, or the request is refused.
    pub strict: bool,
}

/// JSON of a client's in one line, as an event has to be.
pub(super) fn compact(json: &str) -> Box<RawValue> {
    RawValue::from_string(without_white_space(json))
        .expect("JSON without the white space between its tokens is JSON")
}

/// What is repeated is in memory several times, so it is short where it says nothing to the model.
pub(super) fn refuse_longer(
    field: &'static str,
    text: Option<&str>,
    most: usize,
) -> Result<(), RequestError> {
    match text.and_then(|text| text.chars().nth(most)) {
        Some(_) => Err(RequestError::out_of_range(
            field,
            format!("must not have a text of more than {most} characters"),
        )),
        None => Ok(()),
    }
}

impl Echo {
    /// About so many bytes are held.
    pub fn bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(0, |json| json.len())
    }
}
