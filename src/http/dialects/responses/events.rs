//! What the events of a stream hold, for the API's description.

use utoipa::ToSchema;

use super::answer::ResponseResource;
use super::output::OutputItem;

/// The data of a stream's event, by its `type`, which is the event's name too: `response.created`,
/// `response.queued` in the background, `response.in_progress` and the end (`response.completed`,
/// `response.incomplete` or `response.failed`) have the response; `response.output_item.added` and `.done` an item;
/// `response.content_part.added` and `.done` a part; `response.output_text`, `response.reasoning_text` and
/// `response.function_call_arguments` with `.delta` what is new, and with `.done` all of it; `error`, before
/// `response.failed`, what is wrong.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the writer of `event_writer` writes what it describes"
)]
pub(crate) struct ResponseEvent {
    /// The event's name.
    #[schema(example = "response.output_text.delta")]
    r#type: String,
    /// From 0, without a gap.
    sequence_number: u64,
    #[schema(required = false)]
    response: Option<ResponseResource>,
    /// Of an item's events: from 0.
    #[schema(required = false)]
    output_index: Option<u32>,
    #[schema(required = false)]
    item: Option<OutputItem>,
    /// Of an item's events: its id.
    #[schema(required = false)]
    item_id: Option<String>,
    /// Of a part's events: always 0.
    #[schema(required = false)]
    content_index: Option<u32>,
    /// Of a part's beginning and end: the part.
    #[schema(required = false, value_type = Option<Object>)]
    part: Option<()>,
    /// The next piece of a text or of arguments.
    #[schema(required = false)]
    delta: Option<String>,
    /// The whole text, at its end.
    #[schema(required = false)]
    text: Option<String>,
    /// The whole arguments, at their end.
    #[schema(required = false)]
    arguments: Option<String>,
    /// Of the end of arguments: the function.
    #[schema(required = false)]
    name: Option<String>,
    /// How likely the tokens of a text were, where it is asked for.
    #[schema(required = false, value_type = Option<Vec<Object>>)]
    logprobs: Option<()>,
    /// Of `error`, as its `code`, `message` and `param` are.
    #[schema(required = false, value_type = Option<Object>)]
    error: Option<()>,
}
