//! What every dialect does with a request for a reply: have it parsed, rendered and submitted, and
//! answer it whole or as a stream. What a dialect adds is a [`ChatDialect`].
//!
//! A stream's status line waits for its first event, so that an early error has its true status,
//! but no longer than `header-delay`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::chat::{PromptSource, Reply, ReplyReading, WholeReply};
use crate::generation::{
    Completion, Deadline, DrawRequest, GenerationError, GenerationRequest, ModelId, ReplyEvent,
    RequestId, RunStart, SamplingRequest,
};
use crate::http::HttpState;
use crate::http::dialects::format::{self, AskedFormat};
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::nul::refuse_nul;
use crate::http::request::parsed::{Parse, parsed};
use crate::http::response::event_writer::EventWriter;
use crate::http::response::notices::add_notices;
use crate::http::response::stream_body::StreamBody;
use crate::http::status::PublicError;
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::prompt::TemplateError;
use crate::reader::ReaderError;

/// An answer that is collected is charged in steps of this size.
const TEXT_STEP_BYTES: usize = 64 * 1024;
/// What waits for the reader of a stream, in the connection and before it.
const STREAM_BYTES: usize = 64 * 1024;

/// How a dialect writes the answer to one request; it holds what the request says about that.
pub(crate) trait ChatDialect: Send + 'static {
    /// The field that prompts come from, blamed where one is wrong.
    const PROMPT_PARAM: &'static str;
    type Writer: EventWriter;

    /// The answer as a whole.
    fn whole(
        &self,
        identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>>;

    /// Writes the answer as a stream of events that `stream_headers` announces.
    fn writer(&self, identity: &Identity) -> Self::Writer;

    /// The same error, of a field that the request names otherwise.
    fn blamed(&self, error: RequestError) -> RequestError {
        error
    }

    /// An answer with `body`, a stream of events.
    fn stream(body: Body) -> Response;
}

/// A checked request.
pub(crate) struct Asked<D> {
    pub model: Arc<InstalledModel>,
    pub source: PromptSource,
    pub options: Options,
    /// `None`: all of the reply is content.
    pub reading: Option<ReplyReading>,
    pub dialect: D,
}

/// What a request says of its run and its answer, whatever the dialect.
pub(crate) struct Options {
    pub stream: bool,
    pub sampling: SamplingRequest,
    /// Values of `sampling` that the client did not ask for.
    pub implied: Vec<&'static str>,
    pub draws: DrawRequest,
    /// `None`: as many as the context leaves.
    pub max_new_tokens: Option<u32>,
    /// The name by which the client gave a budget of thoughts.
    pub thought_budget: Option<&'static str>,
    /// What the answer is kept to; `None`: it is free.
    pub format: Option<AskedFormat>,
    pub stop: Vec<String>,
    /// `None`: the daemon's own setting.
    pub resume: Option<bool>,
    pub total_deadline: Option<Duration>,
    /// What the request gives and the daemon does not read.
    pub ignored: Vec<&'static str>,
}

/// What the events of one stream, or one whole answer, have in common.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub id: RequestId,
    /// Seconds since the epoch; a clock before the epoch reads as the epoch.
    pub created: u64,
    pub model: ModelId,
}

/// Answers a request for a reply.
pub(crate) async fn answer<D: ChatDialect>(
    state: Arc<HttpState>,
    request: Request,
    parse: Parse<Asked<D>>,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    context.is_generation(state.engine.metrics());
    let answered = parse_and_answer(&state, &context, request, parse).await;
    match &answered {
        // Counted as such when its connection lets go of it.
        Ok(_) | Err(RequestError::ClientLeft) => {}
        Err(error) => context.failed(PublicError::of(error).code),
    }
    answered
}

/// The text that the runtime gets.
pub(crate) async fn render<D: ChatDialect>(
    state: &HttpState,
    model: &InstalledModel,
    source: PromptSource,
) -> Result<Prompt, RequestError> {
    let prompt = state.chats.render(model, source).await;
    let prompt = prompt.map_err(|error| match error {
        ReaderError::Template(error) => template_error(error, model),
        error => plain_error(error, |_| D::PROMPT_PARAM.to_owned()),
    })?;
    // Variables of the template can hold one as well.
    refuse_nul(&prompt.text, || "chat_template_kwargs".to_owned())?;
    Ok(prompt)
}

/// The fields whose control tokens were made plain text.
pub(crate) fn neutralised<D: ChatDialect>(prompt: &Prompt) -> Vec<&'static str> {
    let fields = prompt.neutralised.iter();
    fields.map(|field| field.name(D::PROMPT_PARAM)).collect()
}

/// `param` names the field that a text came from.
pub(crate) fn plain_error(error: ReaderError, param: impl Fn(usize) -> String) -> RequestError {
    match error {
        ReaderError::ControlToken { index, token } => RequestError::ControlToken {
            param: param(index),
            token: quote(&token),
        },
        error => error.into(),
    }
}

fn template_error(error: TemplateError, model: &InstalledModel) -> RequestError {
    match error {
        TemplateError::ControlToken {
            index,
            is_in_content,
            token,
        } => RequestError::ControlToken {
            param: match is_in_content {
                true => format!("messages[{index}].content"),
                false => format!("messages[{index}]"),
            },
            token,
        },
        TemplateError::ReservedVariable(name) => RequestError::out_of_range(
            format!("chat_template_kwargs.{name}"),
            "is a variable of the template's own and cannot be set",
        ),
        TemplateError::Variable { name, reason } => RequestError::out_of_range(
            format!("chat_template_kwargs.{name}"),
            format!("is of a kind that the chat template cannot use: {reason}"),
        ),
        TemplateError::Raised(_)
        | TemplateError::NotContinuable
        | TemplateError::Unfit(_)
        | TemplateError::TooMuch
        | TemplateError::TooManyCharacters => RequestError::TemplateRefused {
            reason: error.to_string(),
        },
        TemplateError::Broken(reason) => RequestError::TemplateBroken {
            model: model.id.to_string(),
            reason,
        },
    }
}

async fn parse_and_answer<D: ChatDialect>(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    request: Request,
    parse: Parse<Asked<D>>,
) -> Result<Response, RequestError> {
    let asked = parsed(state, context, request, parse).await?;
    answer_asked(state, context, asked).await
}

/// Answers what a request was found to ask for.
pub(crate) async fn answer_asked<D: ChatDialect>(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    asked: Asked<D>,
) -> Result<Response, RequestError> {
    let Asked {
        model,
        source,
        options,
        reading,
        dialect,
    } = asked;
    let kept = match options.format {
        None => None,
        Some(format) => Some(format::compiled(state, &model, format).await?),
    };
    let prompt = render::<D>(state, &model, source).await;
    let prompt = prompt.map_err(|error| dialect.blamed(error))?;
    // While it waits and runs, only this is there.
    let tokens = prompt.tokens.as_ref().map_or(0, Vec::len);
    let grammar = kept.as_ref().map_or(0, |kept| kept.grammar.len());
    let waiting = prompt.text.len() + tokens * size_of::<i32>() + grammar;
    context.hold(waiting)?;
    context.keep(waiting);
    let reply = reading.and_then(|reading| reading.plan(&model, &prompt));
    let (constraint, not_kept) = kept
        .map(|kept| format::constraint(state, &model, &prompt, kept))
        .unzip();
    let neutralised = neutralised::<D>(&prompt);
    let request = GenerationRequest {
        id: context.id.clone(),
        model: Arc::clone(&model.id),
        client: context.client.clone(),
        prompt: prompt.text.into(),
        prompt_tokens: prompt.tokens.map(Into::into),
        sampling: options.sampling,
        draws: options.draws,
        strict_parameters: state.chat.strict_parameters,
        max_new_tokens: options.max_new_tokens,
        constraint: constraint.map(Arc::new),
        reply,
        thought_budget: options.thought_budget,
        stop: options.stop,
        resume: options.resume.unwrap_or(state.resume),
        total_deadline: options.total_deadline,
    };
    // For a header that cannot wait for the run.
    let expected = state.chats.expected_start(&request);
    let is_own_deadline = request.total_deadline != state.total_deadline;
    let answering = Answering {
        state,
        context,
        own_deadline: request.total_deadline.filter(|_| is_own_deadline),
        identity: Identity {
            id: request.id.clone(),
            created: unix_seconds(),
            model: Arc::clone(&model.id),
        },
        dialect,
    };
    let reply = state.chats.chat(request);
    let reply = reply.map_err(|error| answering.failed(error))?;
    context.submitted();
    let (start, mut response) = match options.stream {
        true => answering.stream(reply, expected).await?,
        false => answering.whole(reply).await?,
    };
    let not_applied = start.not_applied.into_iter();
    let not_applied = not_applied.filter(|name| !options.implied.contains(name));
    let not_kept = not_kept.unwrap_or_default().into_iter().map(Cow::from);
    let names = not_applied.chain(options.ignored).map(Cow::from);
    let names: Vec<Cow<'_, str>> = names.chain(not_kept).collect();
    add_notices(&mut response, &names, &neutralised);
    Ok(response)
}

/// A request whose reply is on its way.
struct Answering<'r, D> {
    state: &'r HttpState,
    context: &'r Arc<RequestContext>,
    /// The client's own deadline, where it is the shorter one.
    own_deadline: Option<Duration>,
    identity: Identity,
    dialect: D,
}

impl<D: ChatDialect> Answering<'_, D> {
    async fn whole(&self, mut reply: Reply) -> Result<(RunStart, Response), RequestError> {
        let before = self.context.held();
        let (mut whole, mut held) = (WholeReply::default(), TEXT_STEP_BYTES);
        let mut start = RunStart::default();
        let completion = loop {
            let is_first = whole.bytes() == 0;
            match reply.next().await {
                Some(ReplyEvent::Started(run)) => {
                    self.context.run_started();
                    start = run;
                    continue;
                }
                Some(ReplyEvent::Piece(piece)) => whole.push(piece),
                Some(ReplyEvent::Pieces(pieces)) => {
                    pieces.into_iter().for_each(|piece| whole.push(piece));
                }
                Some(ReplyEvent::Finished(completion)) => break completion,
                Some(ReplyEvent::Failed(error)) => return Err(self.failed(error)),
                None => {
                    let error = "the reply was taken to its end before".to_owned();
                    return Err(self.failed(GenerationError::Internal(error)));
                }
            }
            if is_first {
                self.context.first_text();
            }
            // In steps, that no token pays for.
            while whole.bytes() > held {
                held += TEXT_STEP_BYTES;
                self.context.hold(before + held)?;
            }
        };
        self.context.completed(&completion);
        let json = self
            .dialect
            .whole(&self.identity, whole, &completion)
            .map_err(|error| self.failed(GenerationError::Internal(error.to_string())))?;
        let headers = [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )];
        Ok((start, (headers, json).into_response()))
    }

    async fn stream(
        &self,
        mut reply: Reply,
        expected: RunStart,
    ) -> Result<(RunStart, Response), RequestError> {
        self.context.hold(self.context.held() + STREAM_BYTES)?;
        let delay = self.state.http.header_delay;
        let (start, first) = reply
            .begun(delay, expected, || self.context.run_started())
            .await
            .map_err(|error| self.failed(error))?;
        let body = StreamBody::new(
            reply,
            self.dialect.writer(&self.identity),
            first,
            self.state.http.keep_alive,
            D::PROMPT_PARAM,
            Arc::clone(self.context),
        );
        Ok((start, D::stream(Body::new(body))))
    }

    fn failed(&self, error: GenerationError) -> RequestError {
        if let GenerationError::DeadlineExceeded { deadline, limit } = &error
            && *deadline == Deadline::Total
            && Some(*limit) == self.own_deadline
        {
            return RequestError::OwnDeadline { limit: *limit };
        }
        RequestError::Generation {
            error: self.context.caller.may_read_error(error),
            prompt_param: D::PROMPT_PARAM,
        }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
