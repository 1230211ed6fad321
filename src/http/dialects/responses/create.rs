//! `POST /v1/responses`: a conversation of items, rendered with the model's chat template.

use std::sync::{Arc, OnceLock};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;

use super::answer::{Answered, ResponseResource};
use super::background;
use super::create_parameters::CreateParameters;
use super::echo::Echo;
use super::event_writer::ResponseWriter;
use super::events::ResponseEvent;
use super::output::items;
use super::parameters::{Context, ContextParameters, OfSocket, Read, blamed};
use crate::chat::WholeReply;
use crate::generation::{Completion, DrawRequest};
use crate::http::HttpState;
use crate::http::dialects::background_responses::BackgroundResponse;
use crate::http::dialects::chat_dialect::{
    self, Asked, ChatDialect, Identity, LongHistory, Options, Without, of_fields, unix_seconds,
};
use crate::http::dialects::failed;
use crate::http::dialects::parameters::SharedParameters;
use crate::http::request::access::Rule;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::parsed;
use crate::http::request::together::Together;
use crate::http::request::unread::Unread;
use crate::http::response::error_body::AnswerRefusals;
use crate::http::response::sse;

/// What is repeated of a request is written so often in a stream: in its first two events and its last.
const WRITTEN_IN_A_STREAM: usize = 3;

/// How a response is answered.
pub(crate) struct ResponseAnswer {
    pub(super) answered: Arc<Answered>,
    /// Whose turn others of its client wait for.
    pub(super) in_background: Option<Arc<BackgroundResponse>>,
}

impl ChatDialect for ResponseAnswer {
    const PROMPT_PARAM: &'static str = "input";
    const TRUNCATE_PARAM: &'static str = "truncation";
    type Writer = ResponseWriter;

    fn whole(
        &self,
        identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        let output = items(reply, completion, self.answered.sealing.as_ref());
        self.answered.ended(identity, output, completion)
    }

    fn writer(&self, identity: &Identity) -> ResponseWriter {
        ResponseWriter::new(identity, Arc::clone(&self.answered))
    }

    fn is_in_line(&self) {
        if let Some(response) = &self.in_background {
            response.gets_in_line();
        }
    }

    fn blamed(&self, error: RequestError) -> RequestError {
        blamed(error)
    }

    fn has_a_header(&self) -> bool {
        !self.answered.echo.background
    }

    fn stream(body: Body) -> Response {
        sse::response(body)
    }
}

/// Answer a conversation of items
///
/// With `stream: true` the answer is a stream of events, each with its name and a ResponseEvent, from
/// `response.created` to one of `response.completed`, `response.incomplete` and `response.failed`, and then a line
/// `data: [DONE]`. With `background: true` the answer is the response as it is queued, and it is made whether or not its
/// client waits; a stream of it can be left and read again.
#[utoipa::path(post, path = "/v1/responses", tag = "openai",
    request_body(content = super::bodies::ResponseRequest),
    responses(
        (status = 200, description = "The response", content(
            (ResponseResource = "application/json"),
            (ResponseEvent = "text/event-stream"))),
        AnswerRefusals))]
pub(crate) async fn create(
    State(state): State<Arc<HttpState>>,
    Extension(rule): Extension<Rule>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    context.is_generation(state.engine.metrics());
    let answered = async {
        let asked = parsed(&state, &context, request, of_fields(asked)).await?;
        match asked.dialect.answered.echo.background {
            true => background::begin(&state, &context, rule, asked),
            false => chat_dialect::answer_asked(&state, &context, asked).await,
        }
    };
    let answered = answered.await;
    answered.map_err(|error| failed(&context, error))
}

fn asked(
    state: &HttpState,
    context: &RequestContext,
    Together(Together(shared, own), unread): Read<CreateParameters>,
) -> Result<Asked<ResponseAnswer>, RequestError> {
    asked_of(state, context, (shared, own, unread), None)
}

/// What was read of a request. `socket`: where it is a message on one.
pub(super) fn asked_of(
    state: &HttpState,
    context: &RequestContext,
    (shared, own, unread): (ContextParameters, CreateParameters, Unread),
    socket: Option<OfSocket<'_>>,
) -> Result<Asked<ResponseAnswer>, RequestError> {
    let model = shared.model(state, context)?;
    let in_background = own.in_background(state)?;
    let max_output_tokens = own.max_output_tokens()?;
    let mut include = own.include()?;
    let sampling = SharedParameters {
        temperature: own.temperature,
        top_p: own.top_p,
        presence_penalty: own.presence_penalty,
        frequency_penalty: own.frequency_penalty,
        ..SharedParameters::default()
    };
    let sampling = sampling.sampling()?;
    own.refuse_long()?;
    let metadata = own.metadata(state)?;
    let made = shared.read_behind(state, context, &model, &unread, socket.as_ref())?;
    let is_warm_up = socket.as_ref().is_some_and(|socket| socket.is_warm_up);
    let reading = made.reading(&model);
    let stream = own.stream == Some(true);
    let top_logprobs = include.logprobs.map_or(0, |asked| asked.top);
    let keeps = own.store != Some(false) && state.kept_responses.keeps();
    let Context {
        source,
        items,
        functions,
        format,
        long_history,
        mut not_applied,
        mut unread,
        echoed,
    } = made;
    not_applied.extend(own.not_applied());
    unread.extend(include.unread);
    if is_warm_up {
        // Of no token is anything told.
        include.logprobs = None;
    }
    let options = Options {
        stream,
        sampling,
        implied: vec!["top_k"],
        draws: DrawRequest {
            logprobs: include.logprobs,
            ..DrawRequest::default()
        },
        choices: 1,
        more_prompts: Vec::new(),
        max_new_tokens: max_output_tokens.or(model.facts.max_new_tokens),
        thought_budget: None,
        // There is nothing to be kept to one.
        format: format.filter(|_| !is_warm_up),
        calls: functions.calls.filter(|_| !is_warm_up),
        stop: Vec::new(),
        without: Without {
            answer: is_warm_up,
            ..Without::default()
        },
        resume: None,
        total_deadline: state.total_deadline,
        long_history,
        keep_alive: None,
        ignored: not_applied,
        unread,
    };
    let value = own.values(&model);
    let echo = Echo {
        background: in_background,
        instructions: echoed.instructions,
        max_output_tokens,
        max_tool_calls: None,
        metadata,
        parallel_tool_calls: echoed.parallel_tool_calls,
        temperature: value.temperature,
        top_p: value.top_p,
        presence_penalty: value.presence_penalty,
        frequency_penalty: value.frequency_penalty,
        previous_response_id: echoed.previous_response_id,
        prompt_cache_key: own.prompt_cache_key,
        reasoning: echoed.reasoning,
        safety_identifier: own.safety_identifier,
        service_tier: own.service_tier,
        store: keeps,
        text: echoed.text,
        tool_choice: echoed.tool_choice,
        tools: echoed.tools,
        top_logprobs,
        truncation: match long_history {
            LongHistory::IsCut { .. } => "auto",
            LongHistory::IsRefused => "disabled",
        },
        user: own.user,
    };
    let written = match stream || in_background {
        true => WRITTEN_IN_A_STREAM,
        false => 1,
    };
    let bytes = (1 + written) * echo.bytes() + items.iter().map(|item| item.bytes()).sum::<usize>();
    let answered = Answered {
        _held: context.account().charge(bytes)?,
        echo,
        items,
        created: unix_seconds(),
        client: context.client.clone(),
        kept: keeps.then(|| Arc::clone(&state.kept_responses)),
        last: socket.map(|socket| Arc::clone(socket.last)),
        is_warm_up,
        sealing: include.seals.then(|| state.sealing.clone()),
        at_end: OnceLock::new(),
    };
    Ok(Asked {
        source,
        options,
        reading: Some(reading),
        dialect: ResponseAnswer {
            answered: Arc::new(answered),
            in_background: None,
        },
        model,
    })
}
