//! `POST /v1/responses`: a conversation of items, rendered with the model's chat template.

use std::sync::{Arc, OnceLock};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answer::{Answered, ResponseResource};
use super::background;
use super::echo::{Echo, MOST_OF_A_NAME, MOST_OF_A_TEXT, refuse_longer};
use super::event_writer::ResponseWriter;
use super::events::ResponseEvent;
use super::last_response::LastResponse;
use super::output::items;
use super::parameters::{Context, ContextParameters, Read, blamed};
use crate::chat::WholeReply;
use crate::generation::{Completion, DrawRequest, LogprobsRequest};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{
    self, Asked, ChatDialect, Identity, LongHistory, Options, Without, of_fields, unix_seconds,
};
use crate::http::dialects::failed;
use crate::http::dialects::openai::logprobs;
use crate::http::dialects::openai::parameters::SharedParameters;
use crate::http::request::access::Rule;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::{FreeObject, Outline, ValuesLeft};
use crate::http::request::parsed::parsed;
use crate::http::request::together::{Together, fields_of};
use crate::http::request::unread::Unread;
use crate::http::response::error_body::AnswerRefusals;
use crate::http::response::{notices, sse};
use crate::models::InstalledModel;

const LOGPROBS: &str = "message.output_text.logprobs";
const SEALED: &str = "reasoning.encrypted_content";
/// What is repeated of a request is written so often in a stream: in its first two events and its last.
const WRITTEN_IN_A_STREAM: usize = 3;
/// The most entries of `metadata`, as OpenAI has it.
const MOST_METADATA: usize = 16;

/// What only `/v1/responses` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct CreateParameters {
    /// Whether to answer with a stream of events. Default false.
    stream: Option<bool>,
    /// Nothing of it is done: events are never padded.
    #[schema(value_type = Option<Object>)]
    stream_options: Option<Outline>,
    /// Largest number of tokens to generate, thoughts included. Default: as many as the context leaves, or the
    /// model's own.
    #[schema(minimum = 1)]
    max_output_tokens: Option<i64>,
    /// Randomness, 0 to 2; 0 always takes the likeliest token.
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    /// Nucleus sampling, 0 to 1; 0 always takes the likeliest token.
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    /// Penalty on tokens that occurred at all, -2 to 2.
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f64>,
    /// Penalty on tokens by how often they occurred, -2 to 2.
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f64>,
    /// How many of the likeliest tokens to tell in each place, as `include` asks it with
    /// `message.output_text.logprobs`. Refused where the runtime cannot.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<i64>,
    /// `message.output_text.logprobs`: how likely tokens were; `reasoning.encrypted_content`: thoughts in a form that can be
    /// sent back. What else is asked for is named in `x-rkllmd-not-applied`.
    include: Option<Vec<String>>,
    /// Texts of the client's, which the response repeats.
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    metadata: Option<FreeObject>,
    /// The response repeats it.
    #[schema(max_length = 512)]
    user: Option<String>,
    /// The response repeats it.
    #[schema(max_length = 64)]
    safety_identifier: Option<String>,
    /// The response repeats it.
    #[schema(max_length = 64)]
    prompt_cache_key: Option<String>,
    /// The response repeats it.
    #[schema(max_length = 64)]
    service_tier: Option<String>,
    /// Nothing is done with it: whatever of a prompt a slot still holds is used again in any case.
    prompt_cache_retention: Option<String>,
    /// Nothing is done with it.
    #[schema(value_type = Option<Object>)]
    client_metadata: Option<FreeObject>,
    /// Whether the response is kept, so that requests may go on from it. Default true.
    store: Option<bool>,
    /// Whether the response is made whether or not its client waits; it is kept, so `store` must not be false. Default
    /// false.
    background: Option<bool>,
}

fields_of!(CreateParameters {
    stream,
    stream_options,
    max_output_tokens,
    temperature,
    top_p,
    presence_penalty,
    frequency_penalty,
    top_logprobs,
    include,
    metadata,
    user,
    safety_identifier,
    prompt_cache_key,
    service_tier,
    prompt_cache_retention,
    client_metadata,
    store,
    background,
});

/// How a response is answered.
pub(crate) struct ResponseAnswer(pub(super) Arc<Answered>);

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
        let output = items(reply, completion, self.0.sealing.as_ref());
        self.0.ended(identity, output, completion)
    }

    fn writer(&self, identity: &Identity) -> ResponseWriter {
        ResponseWriter::new(identity, Arc::clone(&self.0))
    }

    fn blamed(&self, error: RequestError) -> RequestError {
        blamed(error)
    }

    fn has_a_header(&self) -> bool {
        !self.0.echo.background
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
        match asked.dialect.0.echo.background {
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

/// What was read of a request. `last`: of its connection, where it is a message of one that has several.
pub(super) fn asked_of(
    state: &HttpState,
    context: &RequestContext,
    (shared, own, unread): (ContextParameters, CreateParameters, Unread),
    last: Option<&Arc<LastResponse>>,
) -> Result<Asked<ResponseAnswer>, RequestError> {
    let model = shared.model(state, context)?;
    let in_background = own.in_background(state)?;
    let max_output_tokens = own.max_output_tokens()?;
    let include = own.include()?;
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
    let before = last.map(|last| &**last);
    let made = shared.read_behind(state, context, &model, &unread, before)?;
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
        not_applied,
        mut unread,
        echoed,
    } = made;
    unread.extend(include.unread);
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
        format,
        calls: functions.calls,
        stop: Vec::new(),
        without: Without::default(),
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
        last: last.filter(|_| !keeps).cloned(),
        sealing: include.seals.then(|| state.sealing.clone()),
        at_end: OnceLock::new(),
    };
    Ok(Asked {
        source,
        options,
        reading: Some(reading),
        dialect: ResponseAnswer(Arc::new(answered)),
        model,
    })
}

/// What is told beside the answer.
#[derive(Debug, Default)]
struct Include {
    logprobs: Option<LogprobsRequest>,
    seals: bool,
    unread: Vec<String>,
}

/// Values that an answer is made with; `None`: the runtime's, which is not known.
struct InForce {
    temperature: Option<f32>,
    top_p: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
}

impl CreateParameters {
    fn max_output_tokens(&self) -> Result<Option<u32>, RequestError> {
        const FIELD: &str = "max_output_tokens";
        match self.max_output_tokens {
            None => Ok(None),
            // More than any context holds is as much as it leaves.
            Some(tokens @ 1..) => Ok(Some(u32::try_from(tokens).unwrap_or(u32::MAX))),
            Some(_) => Err(RequestError::out_of_range(FIELD, "must be at least 1")),
        }
    }

    /// As a message on a WebSocket has them, whose answer is events in any case.
    pub(super) fn on_a_socket(self) -> Result<Self, RequestError> {
        if self.background == Some(true) {
            return Err(RequestError::unsupported(
                "background",
                "a response on a WebSocket ends with that",
            ));
        }
        Ok(Self {
            stream: Some(true),
            ..self
        })
    }

    /// Whether it is made whether or not its client waits.
    fn in_background(&self, state: &HttpState) -> Result<bool, RequestError> {
        const FIELD: &str = "background";
        if self.background != Some(true) {
            return Ok(false);
        }
        if self.store == Some(false) {
            return Err(RequestError::out_of_range(
                FIELD,
                "needs `store`, by which its client finds it again",
            ));
        }
        if !state.kept_responses.keeps() || !state.background_responses.may_begin() {
            return Err(RequestError::unsupported(
                FIELD,
                "`max-background-per-key` or `max-kept-per-key` in the [responses] settings is 0: leave it out, and \
                 read the stream",
            ));
        }
        Ok(true)
    }

    fn include(&self) -> Result<Include, RequestError> {
        let mut include = Include::default();
        let mut tells_logprobs = self.top_logprobs.is_some_and(|top| top != 0);
        for name in self.include.iter().flatten() {
            match name.as_str() {
                LOGPROBS => tells_logprobs = true,
                SEALED => include.seals = true,
                other => {
                    notices::tell_unread(&mut include.unread, &format!("include[].{other}"));
                }
            }
        }
        include.logprobs = logprobs::of_chat(Some(tells_logprobs), self.top_logprobs)?;
        Ok(include)
    }

    fn metadata(&self, state: &HttpState) -> Result<Map<String, Value>, RequestError> {
        const FIELD: &str = "metadata";
        let Some(given) = &self.metadata else {
            return Ok(Map::new());
        };
        let metadata = given.read(FIELD, &mut ValuesLeft::of(&state.chat))?;
        if metadata.len() > MOST_METADATA {
            let requirement = format!("must not have more than {MOST_METADATA} entries");
            return Err(RequestError::out_of_range(FIELD, requirement));
        }
        for (name, value) in &metadata {
            let value = value.as_str().ok_or_else(|| RequestError::WrongType {
                param: FIELD.to_owned(),
                reason: "its values must be strings".to_owned(),
            })?;
            refuse_longer(FIELD, Some(name), MOST_OF_A_NAME)?;
            refuse_longer(FIELD, Some(value), MOST_OF_A_TEXT)?;
        }
        Ok(metadata)
    }

    fn refuse_long(&self) -> Result<(), RequestError> {
        for (field, text, most) in [
            ("user", &self.user, MOST_OF_A_TEXT),
            ("safety_identifier", &self.safety_identifier, MOST_OF_A_NAME),
            ("prompt_cache_key", &self.prompt_cache_key, MOST_OF_A_NAME),
            ("service_tier", &self.service_tier, MOST_OF_A_NAME),
        ] {
            refuse_longer(field, text.as_deref(), most)?;
        }
        Ok(())
    }

    fn values(&self, model: &InstalledModel) -> InForce {
        let usual = model.usual_sampling();
        let value = |given: Option<f64>| given.map(|value| value as f32);
        InForce {
            temperature: value(self.temperature).or(usual.temperature),
            top_p: value(self.top_p).or(usual.top_p),
            presence_penalty: value(self.presence_penalty).or(usual.presence_penalty),
            frequency_penalty: value(self.frequency_penalty).or(usual.frequency_penalty),
        }
    }
}
