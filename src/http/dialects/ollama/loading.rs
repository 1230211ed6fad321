//! Requests that ask for an answer, or for a model to be loaded or unloaded and nothing else. The latter
//! are administrators', since they decide which models have the places ([`access::may_load`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::answer::Begun;
use super::keep_alive::KeepAlive;
use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{Asked, ChatDialect, answer_asked};
use crate::http::request::access::{self, Rule};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::{Parse, parsed};
use crate::http::response::notices::add_notices;
use crate::http::status::PublicError;
use crate::models::InstalledModel;
use crate::supervisor::Unloaded;

/// What a request asks for.
pub(super) enum Wanted<D> {
    Answer(Box<Asked<D>>),
    Loading(Loading),
}

/// A model is to be loaded, or unloaded where it is to be kept for no time.
pub(super) struct Loading {
    pub model: Arc<InstalledModel>,
    pub begun: Begun,
    pub keep_alive: Option<KeepAlive>,
    pub not_applied: Vec<&'static str>,
}

/// What came of it.
struct Loaded {
    done_reason: &'static str,
    /// How long it took; `None`: it was loaded.
    took: Option<Duration>,
    /// `keep_alive` was.
    is_applied: bool,
}

/// Answers either. `told` makes the answer of one that has no text: its reason, and how long loading took.
pub(super) async fn answer<D: ChatDialect, A: Serialize>(
    state: Arc<HttpState>,
    request: Request,
    parse: Parse<Wanted<D>>,
    told: impl FnOnce(&Begun, &'static str, Option<Duration>) -> A,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    context.is_generation(state.engine.metrics());
    // The router says it for every request.
    let rule = request.extensions().get().copied().unwrap_or(Rule::Keys);
    let may_load = access::may_load((rule, &context.caller), request.headers(), &state.http);
    let answered = async {
        match parsed(&state, &context, request, parse).await? {
            Wanted::Answer(asked) => answer_asked(&state, &context, *asked).await,
            Wanted::Loading(loading) => {
                may_load?;
                let loaded = loading.done(&state, &context).await?;
                // Nothing was evaluated for it.
                context.embedded(None);
                let answer = told(&loading.begun, loaded.done_reason, loaded.took);
                let mut response = Json(answer).into_response();
                let mut names = loading.not_applied;
                names.retain(|name| !(loaded.is_applied && *name == "keep_alive"));
                add_notices(&mut response, &names, &[]);
                Ok(response)
            }
        }
    };
    let answered = answered.await;
    match &answered {
        // Counted as such when its connection lets go of it.
        Ok(_) | Err(RequestError::ClientLeft) => {}
        Err(error) => context.failed(PublicError::of(error).code),
    }
    answered
}

impl Loading {
    async fn done(
        &self,
        state: &HttpState,
        context: &RequestContext,
    ) -> Result<Loaded, RequestError> {
        let done = match self.keep_alive {
            Some(KeepAlive::AtOnceNoMore) => self.unload(state).await,
            _ => self.load(state, context).await,
        };
        done.map_err(|error| RequestError::Generation {
            error: context.caller.may_read_error(error),
            prompt_param: "model",
        })
    }

    async fn load(
        &self,
        state: &HttpState,
        context: &RequestContext,
    ) -> Result<Loaded, GenerationError> {
        let status = state.engine.status().model(&self.model.id);
        let is_loaded = status.is_some_and(|status| status.phase.is_loaded());
        let mut took = None;
        if !is_loaded {
            let since = Instant::now();
            let supervisor = state.engine.supervisor().ok_or_else(no_workers)?;
            let id = Arc::clone(&self.model.id);
            supervisor.load(context.client.clone(), id).await?;
            took = Some(since.elapsed());
        }
        Ok(Loaded {
            done_reason: "load",
            took,
            is_applied: false,
        })
    }

    async fn unload(&self, state: &HttpState) -> Result<Loaded, GenerationError> {
        let supervisor = state.engine.supervisor().ok_or_else(no_workers)?;
        let unloaded = supervisor.unload(Arc::clone(&self.model.id)).await?;
        let done_reason = match unloaded {
            Unloaded::Yes => "unload",
            // It stays.
            Unloaded::StillWanted => "load",
            Unloaded::Unkillable => {
                return Err(GenerationError::ModelUnavailable {
                    model: self.model.id.to_string(),
                    reason: "its worker is still there although it was killed".to_owned(),
                    retry_after: None,
                });
            }
        };
        Ok(Loaded {
            done_reason,
            took: None,
            is_applied: unloaded == Unloaded::Yes,
        })
    }
}

fn no_workers() -> GenerationError {
    GenerationError::Internal("there are no workers here".to_owned())
}
