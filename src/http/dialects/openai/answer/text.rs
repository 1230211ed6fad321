//! The shape of continued texts.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::{UsageBody, finish_reason};
use crate::chat::WholeReply;
use crate::generation::Completion;
use crate::http::dialects::chat_dialect::Identity;
use crate::http::dialects::openai::logprobs::{Echo, Offset, TextLogprobs};
use crate::http::dialects::timings::TimingsBody;

/// The form of a continued text.
#[derive(Clone, Debug, Default)]
pub(crate) struct TextForm {
    /// The prompt, where it stands before the answer.
    pub echo: Option<Echo>,
    pub tells_logprobs: bool,
}

/// A whole answer of `/v1/completions`.
#[derive(Serialize, ToSchema)]
pub(crate) struct TextCompletion {
    /// Also in the `x-request-id` header.
    #[schema(value_type = String, example = "cmpl-5a0c7d1e93b24f6ab8d01c2f")]
    id: Arc<str>,
    /// Always `text_completion`.
    #[schema(example = "text_completion")]
    object: &'static str,
    /// Seconds since the epoch.
    created: u64,
    /// Id of the model that answered.
    #[schema(value_type = String)]
    model: Arc<str>,
    /// What made the answer; `-varies` and `-resumed` at its end say that the same seed need not repeat it,
    /// and before it stands of how many slots its worker was: `-slots4-varies`. Absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<String>,
    /// As many for each prompt as `n` asks for, prompt after prompt.
    choices: Vec<TextChoice>,
    /// Null when a count is not known.
    #[schema(required)]
    usage: Option<UsageBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsBody>,
}

impl TextCompletion {
    /// `form` says of each choice how it is written.
    pub fn of(
        identity: &Identity,
        replies: Vec<(WholeReply, Completion)>,
        all: &Completion,
        form: impl Fn(usize) -> TextForm,
    ) -> Self {
        let choices = replies.into_iter().enumerate();
        Self {
            id: Arc::clone(&identity.id.0),
            object: "text_completion",
            created: identity.created,
            model: Arc::clone(&identity.model),
            system_fingerprint: identity.fingerprint(all.timings.resumptions),
            choices: choices
                .map(|(index, (reply, completion))| {
                    TextChoice::of(index, reply, &completion, form(index))
                })
                .collect(),
            usage: all.usage.map(UsageBody::of),
            timings: TimingsBody::of(&all.timings),
        }
    }
}

impl TextChoice {
    fn of(index: usize, mut reply: WholeReply, completion: &Completion, form: TextForm) -> Self {
        let (mut text, mut offset) = (String::new(), Offset::default());
        let mut logprobs = form.tells_logprobs.then(TextLogprobs::default);
        if let Some(mut echo) = form.echo {
            text.push_str(echo.next(&mut reply.prompt_logprobs));
            text.push_str(echo.rest());
            if let Some(logprobs) = &mut logprobs {
                logprobs.push(&reply.prompt_logprobs, &mut offset);
            }
            offset = Offset::behind(&text);
        }
        text.push_str(&reply.text);
        if let Some(logprobs) = &mut logprobs {
            logprobs.push(&reply.logprobs, &mut offset);
        }
        Self {
            index,
            text,
            logprobs,
            finish_reason: Some(finish_reason(completion.reason)),
        }
    }
}

/// The continuation, or a piece of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct TextChoice {
    /// Which of the answers it is, prompt after prompt.
    index: usize,
    /// The text; in a chunk one token's.
    text: String,
    /// Null unless the request asks for them.
    #[schema(required)]
    logprobs: Option<TextLogprobs>,
    /// Null in all chunks but the last.
    #[schema(required, example = "stop")]
    finish_reason: Option<&'static str>,
}
