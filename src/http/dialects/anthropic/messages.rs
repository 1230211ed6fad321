//! `POST /v1/messages`: a conversation, rendered with the model's chat template.

use axum::body::Body;
use axum::response::Response;
use utoipa::ToSchema;

use super::answer::{AnswerForm, AnsweredMessage, MessageEvent};
use super::conversation::OF_SYSTEM;
use super::error::MessageRefusals;
use super::event_writer::MessageWriter;
use super::parameters::Read;
use super::thinking::BUDGET;
use crate::chat::WholeReply;
use crate::generation::{Completion, DrawRequest};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{
    Asked, Asking, ChatDialect, Identity, LongHistory, Options, Without,
};
use crate::http::dialects::parameters::{SharedParameters, stop_texts};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::FreeObject;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::sse;
use crate::ipc::Prompt;

/// What only `/v1/messages` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct MessagesParameters {
    /// Largest number of tokens to generate, thoughts included; at the most what the context leaves.
    #[schema(required, nullable = false, minimum = 1)]
    max_tokens: Option<i64>,
    /// Whether to answer with a stream of events. Default false.
    stream: Option<bool>,
    /// Texts that end the answer and are not part of it: up to 64, unless `chat.max-stops` says otherwise.
    stop_sequences: Option<Vec<String>>,
    /// Randomness, 0 to 2; 0 always takes the likeliest token.
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    /// Nucleus sampling, 0 to 1; 0 always takes the likeliest token.
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    /// Sample among this many likeliest tokens; 0 or -1: among all.
    #[schema(minimum = -1, maximum = 2147483647)]
    top_k: Option<i64>,
    /// Whether the oldest turns of a conversation that is too long are left out, which the header
    /// `x-rkllmd-dropped-messages` tells; otherwise it is refused. Default: the model's own, else false.
    truncate: Option<bool>,
    /// What the client knows of its user; nothing is done with it.
    #[schema(value_type = Option<Object>)]
    metadata: Option<FreeObject>,
}

fields_of!(MessagesParameters {
    max_tokens,
    stream,
    stop_sequences,
    temperature,
    top_p,
    top_k,
    truncate,
    metadata,
});

/// How a conversation is answered.
pub(super) struct MessagesAnswer(pub AnswerForm);

impl ChatDialect for MessagesAnswer {
    const PROMPT_PARAM: &'static str = "messages";
    type Writer = MessageWriter;

    fn whole(
        &self,
        identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&AnsweredMessage::of(identity, reply, completion, self.0))
    }

    fn rendered(&mut self, prompt: &Prompt) {
        let tokens = prompt.tokens.as_ref().map(Vec::len);
        self.0.prompt_tokens = tokens.and_then(|tokens| u32::try_from(tokens).ok());
    }

    fn writer(&self, identity: &Identity) -> MessageWriter {
        MessageWriter::new(identity, self.0)
    }

    fn blamed(&self, error: RequestError) -> RequestError {
        blamed(error)
    }

    fn stream(body: Body) -> Response {
        sse::response(body)
    }
}

/// The same error, of a field of messages: what the system says has one of its own.
pub(super) fn blamed(error: RequestError) -> RequestError {
    match error {
        RequestError::ControlToken { param, token }
            if param.starts_with(&format!("messages[{OF_SYSTEM}]")) =>
        {
            let param = "system".to_owned();
            RequestError::ControlToken { param, token }
        }
        // A prompt with a NUL: no variable of a template can have brought it here, but the input of a call.
        RequestError::OutOfRange { param, requirement } if param == "chat_template_kwargs" => {
            RequestError::out_of_range("messages", requirement)
        }
        other => other,
    }
}

/// Answer a conversation
///
/// With `stream: true` the answer is a stream of events, each with its name and a MessageEvent, from
/// `message_start` to `message_stop`; an error after the stream has begun is an event `error` and ends it.
#[utoipa::path(post, path = "/v1/messages", tag = "anthropic",
    request_body(content = super::bodies::MessagesRequest),
    responses(
        (status = 200, description = "The answer", content(
            (AnsweredMessage = "application/json"),
            (MessageEvent = "text/event-stream"))),
        MessageRefusals))]
pub(crate) async fn messages(asking: Asking) -> Result<Response, RequestError> {
    asking.answer(asked).await
}

fn asked(
    state: &HttpState,
    context: &RequestContext,
    Together(Together(shared, own), unread): Read<MessagesParameters>,
) -> Result<Asked<MessagesAnswer>, RequestError> {
    let model = shared.model(state, context)?;
    let max_tokens = own.max_tokens()?;
    let sampling = SharedParameters {
        temperature: own.temperature,
        top_p: own.top_p,
        top_k: own.top_k,
        ..SharedParameters::default()
    };
    let stops = own.stop_sequences.as_deref().unwrap_or_default();
    let stop = stop_texts("stop_sequences", stops, &state.chat)?;
    let sampling = sampling.sampling()?;
    let made = shared.read(state, &model, &unread)?;
    let reading = made.reading(&model);
    let options = Options {
        stream: own.stream == Some(true),
        sampling,
        implied: match own.top_k {
            None => vec!["top_k"],
            Some(_) => Vec::new(),
        },
        draws: DrawRequest::default(),
        choices: 1,
        more_prompts: Vec::new(),
        max_new_tokens: Some(max_tokens),
        thought_budget: made.thoughts.budget_tokens.map(|_| BUDGET),
        format: made.format,
        calls: made.functions.calls,
        without: Without {
            stop: own.stop_sequences.as_ref().is_some_and(Vec::is_empty),
            ..Without::default()
        },
        stop,
        resume: None,
        total_deadline: state.total_deadline,
        long_history: LongHistory::of(own.truncate, &model, false),
        keep_alive: None,
        ignored: made.thoughts.not_applied,
        unread: made.unread,
    };
    Ok(Asked {
        source: made.source,
        options,
        reading: Some(reading),
        dialect: MessagesAnswer(AnswerForm {
            max_tokens,
            display: made.thoughts.display,
            prompt_tokens: None,
        }),
        model,
    })
}

impl MessagesParameters {
    fn max_tokens(&self) -> Result<u32, RequestError> {
        const FIELD: &str = "max_tokens";
        match self.max_tokens {
            None => Err(RequestError::missing(FIELD)),
            // More than any context holds is as much as it leaves.
            Some(tokens @ 1..) => Ok(u32::try_from(tokens).unwrap_or(u32::MAX)),
            Some(_) => Err(RequestError::out_of_range(FIELD, "must be at least 1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_blamed_where_it_came_from() {
        let of_range = |param: &str| RequestError::out_of_range(param.to_owned(), "must not");
        assert_eq!(
            blamed(of_range("chat_template_kwargs")),
            of_range("messages")
        );
        assert_eq!(blamed(of_range("top_p")), of_range("top_p"));
        let control = |param: &str| RequestError::ControlToken {
            param: param.to_owned(),
            token: "<|im_end|>".to_owned(),
        };
        let system = format!("messages[{OF_SYSTEM}].content");
        assert_eq!(blamed(control(&system)), control("system"));
        let other = "messages[1].content";
        assert_eq!(blamed(control(other)), control(other));
    }
}
