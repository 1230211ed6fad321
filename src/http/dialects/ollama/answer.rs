//! The shapes of answers, whole ones and a stream's last line. Durations are nanoseconds. What was not
//! measured is absent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

use super::context::NextContext;
use super::told_calls::ToldCall;
use crate::chat::WholeReply;
use crate::generation::{Completion, FinishReason};
use crate::http::dialects::logprobs::ContentLogprob;
use crate::http::dialects::whole_calls::as_content;
use crate::http::response::clock;

/// Who answers, and since when the request is here.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    /// The model's name as the request wrote it.
    pub model: Arc<str>,
    pub at: Instant,
    /// What its last line has of the conversation, where that is made.
    pub context: NextContext,
}

/// Counts and durations of an answer.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Figures {
    /// From the request's arrival to the answer's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_duration: Option<u64>,
    /// Waiting for a worker, the loading of the model included.
    #[serde(skip_serializing_if = "Option::is_none")]
    load_duration: Option<u64>,
    /// Tokens of the prompt, those found in the KV cache included.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<u32>,
    /// Prefill.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_duration: Option<u64>,
    /// Tokens generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_count: Option<u32>,
    /// For the tokens after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_duration: Option<u64>,
}

impl Figures {
    pub fn of(begun: &Begun, completion: &Completion) -> Self {
        let timings = &completion.timings;
        let usage = completion.usage;
        Self {
            total_duration: Some(nanoseconds(begun.at.elapsed())),
            load_duration: of_ms(timings.queue_ms),
            prompt_eval_count: usage.map(|usage| usage.prompt_tokens),
            prompt_eval_duration: of_ms(timings.prompt_ms),
            eval_count: usage
                .map(|usage| usage.completion_tokens)
                .or(timings.predicted_n),
            eval_duration: of_ms(timings.predicted_ms),
        }
    }

    /// Of a model that was loaded or not, for no answer.
    pub fn of_loading(begun: &Begun, load: Option<Duration>) -> Self {
        Self {
            total_duration: Some(nanoseconds(begun.at.elapsed())),
            load_duration: load.map(nanoseconds),
            ..Self::default()
        }
    }

    /// Of embeddings.
    pub fn of_embedding(begun: &Begun, prompt_tokens: Option<u32>) -> Self {
        Self {
            total_duration: Some(nanoseconds(begun.at.elapsed())),
            prompt_eval_count: prompt_tokens,
            ..Self::default()
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn of_ms(ms: Option<f32>) -> Option<u64> {
    let ms = ms.filter(|ms| ms.is_finite() && *ms >= 0.0)?;
    // An f32 has too few digits for nanoseconds; f64 adds none that are wrong.
    Some((f64::from(ms) * 1e6).round() as u64)
}

pub(super) fn done_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// A whole answer of `/api/chat`, and the last line of a streamed one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatAnswer {
    /// As the request named it.
    #[schema(value_type = String)]
    model: Arc<str>,
    /// When this was written, in UTC.
    #[schema(example = "2026-11-29T15:04:05.123456789Z")]
    created_at: String,
    message: AnswerMessage,
    /// Always true; false in the lines before the last.
    done: bool,
    /// `stop`: the model ended or a stop text was reached; `length`: the token budget or the context is
    /// used up; `load`, `unload`: the request asked for nothing else.
    #[schema(example = "stop")]
    done_reason: &'static str,
    /// How likely the tokens of the content were, where the request asks for it; in a stream, of what is
    /// new.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<ContentLogprob>,
    #[serde(flatten)]
    figures: Figures,
}

/// What the model says; in a stream, what is new of it.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct AnswerMessage {
    /// Always `assistant`.
    #[schema(example = "assistant")]
    role: &'static str,
    /// The answer.
    content: String,
    /// What the model thought before, where it can be told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    /// The calls that the model makes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToldCall>,
}

impl ChatAnswer {
    /// An answer that says nothing, or no more than was said before.
    pub fn ended(begun: &Begun, done_reason: &'static str, figures: Figures) -> Self {
        Self {
            model: Arc::clone(&begun.model),
            created_at: clock::now(),
            message: AnswerMessage {
                role: "assistant",
                ..AnswerMessage::default()
            },
            done: true,
            done_reason,
            logprobs: Vec::new(),
            figures,
        }
    }

    pub fn of(begun: &Begun, reply: WholeReply, completion: &Completion) -> Self {
        let (mut content, mut tool_calls) = (reply.text, Vec::new());
        for call in reply.calls {
            let told = match call.is_whole {
                true => ToldCall::of(tool_calls.len(), call),
                false => Err(as_content(&call)),
            };
            match told {
                Ok(call) => tool_calls.push(call),
                Err(text) => content.push_str(&text),
            }
        }
        let reason = done_reason(completion.reason);
        Self {
            logprobs: reply.logprobs.iter().map(ContentLogprob::of).collect(),
            message: AnswerMessage {
                role: "assistant",
                content,
                thinking: Some(reply.reasoning).filter(|text| !text.is_empty()),
                tool_calls,
            },
            ..Self::ended(begun, reason, Figures::of(begun, completion))
        }
    }
}

/// A whole answer of `/api/generate`, and the last line of a streamed one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextAnswer {
    /// As the request named it.
    #[schema(value_type = String)]
    model: Arc<str>,
    /// When this was written, in UTC.
    #[schema(example = "2026-11-29T15:04:05.123456789Z")]
    created_at: String,
    /// What the model says; in a stream, what is new of it.
    response: String,
    /// What the model thought before, where it can be told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    /// Always true; false in the lines before the last.
    done: bool,
    /// `stop`: the model ended or a stop text was reached; `length`: the token budget or the context is
    /// used up; `load`, `unload`: the request asked for nothing else.
    #[schema(example = "stop")]
    done_reason: &'static str,
    /// How likely the tokens of the content were, where the request asks for it; in a stream, of what is
    /// new.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<ContentLogprob>,
    /// The conversation so far as the ids of its tokens, sealed, for the `context` of a request that goes on with it;
    /// of a model whose tokenizer is known, and not with `raw` or `suffix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<i32>>)]
    context: Option<Arc<[i32]>>,
    #[serde(flatten)]
    figures: Figures,
}

impl TextAnswer {
    /// An answer that says nothing, or no more than was said before.
    pub fn ended(begun: &Begun, done_reason: &'static str, figures: Figures) -> Self {
        Self {
            model: Arc::clone(&begun.model),
            created_at: clock::now(),
            response: String::new(),
            thinking: None,
            done: true,
            done_reason,
            logprobs: Vec::new(),
            context: begun.context.ids(),
            figures,
        }
    }

    pub fn of(begun: &Begun, reply: WholeReply, completion: &Completion) -> Self {
        let reason = done_reason(completion.reason);
        Self {
            logprobs: reply.logprobs.iter().map(ContentLogprob::of).collect(),
            response: reply.text,
            thinking: Some(reply.reasoning).filter(|text| !text.is_empty()),
            ..Self::ended(begun, reason, Figures::of(begun, completion))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::Timings;

    #[test]
    fn durations_are_nanoseconds_and_what_was_not_measured_is_absent() {
        let begun = Begun {
            model: "m".into(),
            at: Instant::now(),
            context: NextContext::default(),
        };
        let mut completion = Completion {
            reason: FinishReason::Stop,
            stop_text: None,
            usage: None,
            timings: Timings {
                prompt_ms: Some(10.0),
                predicted_ms: Some(0.25),
                queue_ms: Some(f32::NAN),
                ..Timings::default()
            },
        };
        let figures = Figures::of(&begun, &completion);
        assert!(figures.total_duration.is_some());
        assert_eq!(figures.prompt_eval_duration, Some(10_000_000));
        assert_eq!(figures.eval_duration, Some(250_000));
        assert_eq!(figures.load_duration, None);
        assert_eq!(
            (figures.prompt_eval_count, figures.eval_count),
            (None, None)
        );
        completion.timings.predicted_n = Some(7);
        assert_eq!(Figures::of(&begun, &completion).eval_count, Some(7));
    }
}
