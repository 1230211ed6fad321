//! `POST /api/chat`: a conversation, rendered with the model's chat template; without a message, the model
//! is loaded or unloaded.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use utoipa::ToSchema;

use super::answer::{Begun, ChatAnswer, Figures};
use super::error::AnswerRefusals;
use super::line_writer::{ChatLines, LineWriter};
use super::loading::{self, Loading, Wanted};
use super::messages::{OllamaMessage, conversation};
use super::parameters::{Read, Run, reading, show_format, source};
use crate::chat::{ReplyReading, WholeReply};
use crate::generation::Completion;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{Asked, ChatDialect, Identity};
use crate::http::dialects::format;
use crate::http::dialects::templates::has_template;
use crate::http::dialects::tools::{Given, ToolParameter};
use crate::http::request::body::{Object, fields};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::ndjson;

/// What only `/api/chat` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct OllamaChatParameters {
    /// The conversation, oldest first. A last message of the assistant is continued; none at all loads
    /// the model, or unloads it where `keep_alive` is 0.
    #[schema(value_type = Option<Vec<OllamaMessage>>)]
    messages: Option<Vec<Object<OllamaMessage>>>,
    /// Functions that the model may call; refused where it is not known how it writes calls.
    #[schema(value_type = Option<Vec<ToolParameter>>)]
    tools: Option<Vec<Object<ToolParameter>>>,
}

fields_of!(OllamaChatParameters { messages, tools });

/// How a chat is answered.
pub(super) struct ChatForm(Begun);

impl ChatDialect for ChatForm {
    const PROMPT_PARAM: &'static str = "messages";
    type Writer = LineWriter<ChatLines>;

    fn whole(
        &self,
        _identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&ChatAnswer::of(&self.0, reply, completion))
    }

    fn writer(&self, _identity: &Identity) -> Self::Writer {
        LineWriter::new(self.0.clone())
    }

    fn blamed(&self, error: RequestError) -> RequestError {
        match error {
            // A prompt with a NUL: no variable of a template can have brought it here, but the arguments of a call.
            RequestError::OutOfRange { param, requirement } if param == "chat_template_kwargs" => {
                RequestError::out_of_range(Self::PROMPT_PARAM, requirement)
            }
            other => other,
        }
    }

    fn stream(body: Body) -> Response {
        ndjson::response(body)
    }
}

/// Answer a conversation
///
/// Unless `stream` is false the answer is a stream of lines, each a ChatAnswer, whose
/// `message` has what is new; an error after the stream has begun is a line with an error object and
/// ends it.
#[utoipa::path(post, path = "/api/chat", tag = "ollama",
    request_body(content = super::bodies::OllamaChatRequest),
    responses(
        (status = 200, description = "The answer", content(
            (ChatAnswer = "application/json"),
            (ChatAnswer = "application/x-ndjson"))),
        AnswerRefusals))]
pub(crate) async fn chat(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    loading::answer(state, request, wanted, |begun, reason, load| {
        ChatAnswer::ended(begun, reason, Figures::of_loading(begun, load))
    })
    .await
}

fn wanted(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Wanted<ChatForm>, RequestError> {
    let Together(Together(mut shared, own), unread): Read<OllamaChatParameters> = fields(body)?;
    let (model, begun, keep_alive) = shared.begun(state, context)?;
    let messages = own.messages.unwrap_or_default();
    let is_empty = messages.is_empty();
    let mut messages = conversation(messages, &model)?;
    let given = Given {
        tools: own.tools,
        tool_choice: None,
        functions: None,
        function_call: None,
        parallel_tool_calls: None,
    };
    let functions = given.functions(&state.chat)?;
    functions.check_for(&model, "tools")?;
    let types = functions.types();
    let Run { mut options, wish } = shared.run(state, &model, keep_alive, unread)?;
    if is_empty {
        return Ok(Wanted::Loading(Loading {
            model,
            begun,
            keep_alive,
            not_applied: options.ignored,
            unread: options.unread,
        }));
    }
    options.calls = functions.calls;
    has_template(&model)?;
    format::refuse_beside_begun(options.format.as_ref(), &messages)?;
    show_format(state, &options, &mut messages);
    Ok(Wanted::Answer(Box::new(Asked {
        source: source(state, &wish, (messages, functions.tools)),
        options,
        reading: Some(ReplyReading {
            tools: types,
            ..reading(&model)
        }),
        dialect: ChatForm(begun),
        model,
    })))
}
