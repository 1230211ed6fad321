//! What every dialect does with a request for a reply: have it parsed, rendered and submitted, and
//! answer it whole or as a stream. What a dialect adds is a [`ChatDialect`].
//!
//! A stream's status line waits for its first event, so that an early error has its true status,
//! but no longer than `header-delay`.

mod answering;
mod asking;
mod identity;
mod options;
mod rendering;

use answering::Answering;
pub(crate) use asking::{Asking, Check, of_fields};
pub(crate) use identity::Identity;
pub(crate) use options::{LongHistory, Options, Without};
pub(crate) use rendering::{neutralised, plain_error, render, render_whole};

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;

use crate::chat::{ChatService, Closing, PromptSource, Replies, ReplyReading, WholeReply};
use crate::constraint::Need;
use crate::generation::{Completion, GenerationRequest};
use crate::http::HttpState;
use crate::http::dialects::calls::{self, AskedCalls};
use crate::http::dialects::failed;
use crate::http::dialects::format::{self, AnswerOf};
use crate::http::dialects::variants;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::{Parse, parsed};
use crate::http::response::event_writer::EventWriter;
use crate::http::response::notices::{
    add_notices, tell_dropped, tell_dropped_tokens, tell_run_mode,
};
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::reply::CallsAt;

/// How a dialect writes the answer to one request; it holds what the request says about that.
pub(crate) trait ChatDialect: Send + 'static {
    /// The field that prompts come from, blamed where one is wrong.
    const PROMPT_PARAM: &'static str;
    /// The field that files beside a gap come from.
    const FILES_PARAM: &'static str = Self::PROMPT_PARAM;
    /// The field that asks for a history that is too long to be cut.
    const TRUNCATE_PARAM: &'static str = "truncate";
    type Writer: EventWriter;

    /// The field that one of a prompt's texts came from.
    fn prompt_param(_text: usize) -> String {
        Self::PROMPT_PARAM.to_owned()
    }

    /// The answer as a whole.
    fn whole(
        &self,
        identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>>;

    /// The answers as a whole, where there are several; `all` is what they come to.
    fn whole_of_all(
        &self,
        identity: &Identity,
        replies: Vec<(WholeReply, Completion)>,
        all: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        let mut replies = replies.into_iter();
        let only = replies.next().map(|(reply, _)| reply);
        self.whole(identity, only.unwrap_or_default(), all)
    }

    /// Is told each prompt as it was rendered.
    fn rendered(&mut self, _prompt: &Prompt) {}

    /// Is told that its runs are in their model's queue.
    fn is_in_line(&self) {}

    /// What is made of the reply before its end is told, of a request that has one.
    fn closing(
        &mut self,
        _chats: &ChatService,
        _model: &Arc<InstalledModel>,
    ) -> Option<Box<dyn Closing>> {
        None
    }

    /// Writes the answer as a stream of events that `stream_headers` announces.
    fn writer(&self, identity: &Identity) -> Self::Writer;

    /// The same error, of a field that the request names otherwise.
    fn blamed(&self, error: RequestError) -> RequestError {
        error
    }

    /// Whether a client waits for the header of a stream, which is then held back for the first piece, so that an error
    /// before it has its own status.
    fn has_a_header(&self) -> bool {
        true
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

/// Answers a request for a reply.
async fn answer<D: ChatDialect>(
    state: Arc<HttpState>,
    request: Request,
    parse: impl Parse<Asked<D>>,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    context.is_generation(state.engine.metrics());
    let answered = parse_and_answer(&state, &context, request, parse).await;
    answered.map_err(|error| failed(&context, error))
}

async fn parse_and_answer<D: ChatDialect>(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    request: Request,
    parse: impl Parse<Asked<D>>,
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
        mut options,
        reading,
        mut dialect,
    } = asked;
    if let Some(variant) = &model.variant {
        variants::fill_in(&mut options, &variant.values);
    }
    options.check_deterministic(&model)?;
    let answer = match &reading {
        Some(_) => AnswerOf::Chat,
        None => AnswerOf::Text,
    };
    let (mut asked, calls) = (options.format.take(), options.calls.take());
    if calls.as_ref().is_some_and(AskedCalls::is_forced) {
        // There is nothing but calls that it could be of.
        let ignored = asked.take().map(|format| format.told());
        options.ignored.extend(ignored);
    }
    let format = asked.as_ref().map(|format| format.param);
    let calls_at = match asked.as_ref().map(|asked| asked.wanted.is_json()) {
        Some(true) => CallsAt::Beginning,
        Some(false) => CallsAt::FirstCharacter,
        None => CallsAt::Anywhere,
    };
    let kept = match (asked, calls) {
        (None, None) => None,
        (Some(format), None) => {
            let compiled = format::compiled(state, &model, format, answer).await?;
            Some((compiled, Need::Needed))
        }
        (otherwise, Some(calls)) => {
            let if_not_kept = calls.told_if_not_kept();
            let compiled = calls::compiled(state, &model, calls, otherwise).await;
            let compiled = compiled.map_err(|error| dialect.blamed(error))?;
            options
                .ignored
                .extend(if_not_kept.filter(|_| compiled.is_none()));
            compiled
        }
    };
    let mut prompts = Vec::with_capacity(1 + options.more_prompts.len());
    // While it waits and runs, only this is there.
    let mut waiting = kept.as_ref().map_or(0, |(kept, _)| kept.grammar.len());
    let (mut dropped, mut dropped_tokens) = (0, 0);
    let more_prompts = std::mem::take(&mut options.more_prompts);
    for source in std::iter::once(source).chain(more_prompts) {
        let goes_by_tokens = source.goes_by_tokens();
        let fitted = render::<D>(state, &model, source, &mut options).await;
        let fitted = fitted.map_err(|error| dialect.blamed(error))?;
        let prompt = fitted.prompt;
        dropped += fitted.dropped;
        dropped_tokens += fitted.dropped_tokens;
        dialect.rendered(&prompt);
        let tokens = prompt.tokens.as_ref().map_or(0, Vec::len);
        waiting += prompt.text.len() + tokens * size_of::<i32>();
        context.hold(waiting)?;
        prompts.push((prompt, goes_by_tokens));
    }
    let closing = dialect.closing(&state.chats, &model);
    waiting += closing.as_ref().map_or(0, |it| it.waiting_bytes());
    context.hold(waiting)?;
    context.keep(waiting);
    let mut neutralised: Vec<&'static str> = prompts
        .iter()
        .flat_map(|(prompt, _)| neutralised::<D>(prompt))
        .collect();
    neutralised.dedup();
    let mut not_kept = Vec::new();
    let mut requests = Vec::with_capacity(prompts.len() * options.choices);
    for (prompt, goes_by_tokens) in prompts {
        let reply = reading
            .as_ref()
            .and_then(|reading| reading.plan(&model, &prompt, calls_at));
        let (constraint, places) = kept
            .clone()
            .map(|kept| format::constraint(state, &model, &prompt, answer, kept))
            .unzip();
        not_kept = places.unwrap_or_default();
        let request = GenerationRequest {
            id: context.id.clone(),
            model: Arc::clone(&model.id),
            adapter: model.adapter().cloned(),
            client: context.client.clone(),
            prompt: prompt.text.into(),
            prompt_tokens: prompt.tokens.map(Into::into),
            goes_by_tokens,
            sampling: options.sampling,
            draws: options.draws.clone(),
            strict_parameters: state.chat.strict_parameters,
            max_new_tokens: options.most_tokens(),
            constraint: constraint.map(Arc::new),
            redraws: state.constraints.redraws(),
            reply,
            thought_budget: options.thought_budget,
            stop: options.stop.clone(),
            resume: options.resume.unwrap_or(state.resume),
            total_deadline: options.total_deadline,
            keep_alive: options.keep_alive,
        };
        requests.extend((0..options.choices).map(|choice| request.of_choice(choice)));
    }
    // For a header that cannot wait for the run.
    let expected = requests
        .first()
        .map(|first| state.chats.expected_start(first));
    let is_own_deadline = options.total_deadline != state.total_deadline;
    let answering = Answering {
        state,
        context,
        own_deadline: options.total_deadline.filter(|_| is_own_deadline),
        format,
        identity: Identity {
            id: context.id.clone(),
            created: unix_seconds(),
            model: Arc::clone(model.name()),
            fingerprint: None,
            choice: 0,
        },
        dialect,
        count: requests.len(),
        of_prompt: options.choices,
    };
    let at_once = state.chat.max_choices;
    let replies = Replies::begin(state.chats.clone(), requests, at_once);
    let replies = replies.map_err(|error| answering.failed(error))?;
    let replies = replies.closing_with(closing);
    context.submitted();
    answering.dialect.is_in_line();
    let (start, mut response) = match options.stream {
        true => {
            let expected = expected.unwrap_or_default();
            answering.stream(replies, expected).await?
        }
        false => answering.whole(replies).await?,
    };
    tell_run_mode(&mut response, &start);
    let not_applied = start.not_applied.into_iter();
    let not_applied = not_applied.filter(|name| !options.implied.contains(name));
    let not_kept = not_kept.into_iter().map(Cow::from);
    let names = not_applied.chain(options.ignored).map(Cow::from);
    let unread = options.unread.into_iter().map(Cow::from);
    let names: Vec<Cow<'_, str>> = names.chain(unread).chain(not_kept).collect();
    add_notices(&mut response, &names, &neutralised);
    tell_dropped(&mut response, dropped);
    tell_dropped_tokens(&mut response, dropped_tokens);
    Ok(response)
}

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
