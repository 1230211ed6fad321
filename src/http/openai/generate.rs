//! What both endpoints do: read and check a request, submit it, and answer it whole or as a stream.
//!
//! A stream's status line waits for its first event, so that an early error has its true status,
//! but no longer than `header-delay`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::Endpoint;
use super::answer::Identity;
use super::chunk::{ChunkWriter, UsageChunk};
use super::parameters::SharedParameters;
use super::sse_body::{SseBody, ended_without_result};
use crate::admission::Generation;
use crate::generation::{Completion, GenerationError, GenerationRequest, RunStart, TokenEvent};
use crate::http::request_context::RequestContext;
use crate::http::request_error::{RequestError, quote};
use crate::http::status::verdict;
use crate::http::{HttpState, request_body, sse};
use crate::models::InstalledModel;

/// Above this size a request is parsed and rendered beside the event loop, where it cannot hold up
/// the tokens of other streams.
const INLINE_BYTES: usize = 32 * 1024;

static X_NOT_APPLIED: HeaderName = HeaderName::from_static("x-rkllmd-not-applied");

/// A checked request and the text the runtime gets for it.
pub(super) struct Prompted {
    pub model: Arc<InstalledModel>,
    pub prompt: String,
    pub max_new_tokens: Option<u32>,
    pub shared: SharedParameters,
}

/// Checks a body and makes its prompt, and tells the context which model it is for; the endpoint's
/// own part.
pub(super) type MakePrompt =
    fn(&HttpState, &RequestContext, &[u8]) -> Result<Prompted, RequestError>;

pub(super) fn find_model(
    state: &HttpState,
    context: &RequestContext,
    shared: &SharedParameters,
) -> Result<Arc<InstalledModel>, RequestError> {
    let name = shared.model()?;
    let model = state
        .engine
        .catalog()
        .find(name)
        .cloned()
        .ok_or_else(|| RequestError::UnknownModel { model: quote(name) })?;
    context.caller.check_model(&model)?;
    Ok(model)
}

pub(super) async fn answer(
    state: Arc<HttpState>,
    request: Request,
    endpoint: Endpoint,
    make_prompt: MakePrompt,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    context.is_generation(state.engine.metrics());
    let exchange = Exchange {
        state,
        endpoint,
        context: Arc::clone(&context),
    };
    let answered = exchange.answer(request, make_prompt).await;
    match &answered {
        // Counted as such when its connection lets go of it.
        Ok(_) | Err(RequestError::ClientLeft) => {}
        Err(error) => context.failed(verdict(error).code),
    }
    answered
}

/// One request on its way through an endpoint.
struct Exchange {
    state: Arc<HttpState>,
    endpoint: Endpoint,
    context: Arc<RequestContext>,
}

impl Exchange {
    async fn answer(
        self,
        request: Request,
        make_prompt: MakePrompt,
    ) -> Result<Response, RequestError> {
        let (head, body) = request.into_parts();
        let http = &self.state.http;
        let body = request_body::read(
            &head.headers,
            body,
            http.body_limit_bytes,
            http.slow_reader_timeout,
        )
        .await?;
        let prompted = if body.len() <= INLINE_BYTES {
            make_prompt(&self.state, &self.context, &body)?
        } else {
            self.make_large_prompt(body, make_prompt).await?
        };
        let Prompted {
            model,
            prompt,
            max_new_tokens,
            shared,
        } = prompted;
        let identity = Identity::new(
            self.endpoint,
            self.context.id.clone(),
            Arc::clone(&model.id),
        );
        let request = GenerationRequest {
            id: self.context.id.clone(),
            model: Arc::clone(&model.id),
            client: self.context.client.clone(),
            prompt: prompt.into(),
            sampling: shared.sampling()?,
            seed: shared.seed,
            strict_parameters: self.state.chat.strict_parameters,
            max_new_tokens,
            stop: shared.stop()?,
            resume: shared.resume.unwrap_or(self.state.resume),
            total_deadline: shared.total_deadline(self.state.total_deadline)?,
        };
        // What is known before the run has started, for a header that cannot wait for it.
        let status = self.state.engine.status().model(&model.id);
        let per_run = status
            .and_then(|status| status.facts)
            .and_then(|facts| facts.per_run_parameters);
        let expected = RunStart {
            not_applied: request.not_applied(per_run),
        };
        let generation = self
            .state
            .engine
            .submit(request)
            .map_err(|error| self.failed(error))?;
        self.context.submitted();
        if shared.stream == Some(true) {
            self.stream(generation, &identity, &shared, expected).await
        } else {
            self.whole(generation, &identity, &shared).await
        }
    }

    /// As many at a time as leave half of the cores to the streams.
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded work: the body has its limit and a template its fuel"
    )]
    async fn make_large_prompt(
        &self,
        body: Bytes,
        make_prompt: MakePrompt,
    ) -> Result<Prompted, RequestError> {
        let turn = Arc::clone(&self.state.large_requests)
            .acquire_owned()
            .await
            .ok();
        let (state, context) = (Arc::clone(&self.state), Arc::clone(&self.context));
        let work = move || {
            // Held by the work and not by the client that may leave while it goes on.
            let _turn = turn;
            make_prompt(&state, &context, &body)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| self.failed(GenerationError::Internal(error.to_string())))?
    }

    async fn whole(
        self,
        mut generation: Generation,
        identity: &Identity,
        shared: &SharedParameters,
    ) -> Result<Response, RequestError> {
        let mut text = String::new();
        let mut start = RunStart::default();
        let completion: Box<Completion> = loop {
            match generation.next().await {
                Some(TokenEvent::Started(run)) => {
                    self.context.run_started();
                    start = run;
                }
                Some(TokenEvent::Text(delta)) => {
                    if text.is_empty() {
                        self.context.first_text();
                    }
                    text.push_str(&delta.text);
                }
                Some(TokenEvent::Finished(completion)) => break completion,
                Some(TokenEvent::Failed(error)) => return Err(self.failed(error)),
                None => return Err(self.failed(ended_without_result())),
            }
        };
        self.context.completed(&completion);
        let json = identity
            .whole(text, &completion)
            .map_err(|error| self.failed(GenerationError::Internal(error.to_string())))?;
        let headers = [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )];
        let mut response = (headers, json).into_response();
        report_not_applied(&mut response, &start, shared);
        Ok(response)
    }

    async fn stream(
        self,
        mut generation: Generation,
        identity: &Identity,
        shared: &SharedParameters,
        expected: RunStart,
    ) -> Result<Response, RequestError> {
        let delay = self.state.http.header_delay;
        let (start, first) = beginning(&mut generation, &self.context, delay, expected)
            .await
            .map_err(|error| self.failed(error))?;
        let usage = match shared.include_usage() {
            true => UsageChunk::Wanted,
            false => UsageChunk::NotWanted,
        };
        let body = SseBody::new(
            generation,
            self.endpoint,
            ChunkWriter::new(identity, usage),
            first,
            self.state.http.keep_alive,
            self.context,
        );
        let mut response = sse::response(Body::new(body));
        report_not_applied(&mut response, &start, shared);
        Ok(response)
    }

    fn failed(&self, error: GenerationError) -> RequestError {
        RequestError::Generation {
            error,
            prompt_param: self.endpoint.prompt_param(),
        }
    }
}

/// Waits until a stream's status is certain: for the first text, the end or an error, or for
/// `delay`, after which it is 200 whatever comes. `start` stands in for a run that has not started.
async fn beginning(
    generation: &mut Generation,
    context: &RequestContext,
    delay: Duration,
    mut start: RunStart,
) -> Result<(RunStart, Option<TokenEvent>), GenerationError> {
    let mut delay = std::pin::pin!(tokio::time::sleep(delay));
    loop {
        let event = tokio::select! {
            biased;
            event = generation.next() => event,
            () = &mut delay => return Ok((start, None)),
        };
        match event {
            Some(TokenEvent::Started(run)) => {
                context.run_started();
                start = run;
            }
            Some(TokenEvent::Failed(error)) => return Err(error),
            Some(event) => return Ok((start, Some(event))),
            None => return Err(ended_without_result()),
        }
    }
}

/// Lists what the client asked for and the runtime cannot vary.
fn report_not_applied(response: &mut Response, start: &RunStart, shared: &SharedParameters) {
    let names: Vec<&str> = start
        .not_applied
        .iter()
        .copied()
        .filter(|name| shared.asked_for(name))
        .collect();
    if !names.is_empty()
        && let Ok(value) = HeaderValue::from_str(&names.join(", "))
    {
        response.headers_mut().insert(X_NOT_APPLIED.clone(), value);
    }
}
