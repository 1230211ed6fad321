//! What the events of a stream hold, but for deltas.

use serde::Serialize;

use super::answer::ResponseResource;
use super::output::OutputItem;
use crate::http::dialects::logprobs::ContentLogprob;

#[derive(Serialize)]
pub(super) struct Event<'a, B> {
    pub r#type: &'static str,
    #[serde(flatten)]
    pub body: &'a B,
    pub sequence_number: u64,
}

#[derive(Serialize)]
pub(super) struct OfResponse {
    pub response: ResponseResource,
}

#[derive(Serialize)]
pub(super) struct CallDone<'a> {
    pub item_id: &'a str,
    pub output_index: usize,
    pub name: &'a str,
    pub arguments: &'a str,
}

#[derive(Serialize)]
pub(super) struct OfItem<'a> {
    pub output_index: usize,
    pub item: &'a OutputItem,
}

#[derive(Serialize)]
pub(super) struct OfPart<'a, P> {
    pub item_id: &'a str,
    pub output_index: usize,
    pub content_index: u32,
    pub part: &'a P,
}

#[derive(Serialize)]
pub(super) struct OfText<'a> {
    pub item_id: &'a str,
    pub output_index: usize,
    pub content_index: u32,
    pub text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<&'a [ContentLogprob]>,
}
