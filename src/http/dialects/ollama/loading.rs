//! Requests that ask for an answer, or for a model to be loaded or unloaded and nothing else. The latter
//! are administrators', since they decide which models have the places ([`may_load`]).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::answer::Begun;
use super::keep_alive::{AT_ONCE_NO_MORE, PARAM};
use crate::generation::{GenerationError, KeepAlive};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{Asked, ChatDialect, answer_asked};
use crate::http::dialects::permission::{may_load, permit};
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
    pub unread: Vec<String>,
}

/// What came of it.
struct Loaded {
    done_reason: &'static str,
    /// How long it took; `None`: it was loaded before.
    took: Option<Duration>,
    /// `keep_alive` was.
    is_applied: bool,
}

/// Answers either. `told` makes the answer of one that has no text: its reason, and how long loading took.
pub(super) async fn answer<D: ChatDialect, A: Serialize>(
    state: Arc<HttpState>,
    request: Request,
    parse: impl Parse<Wanted<D>>,
    told: impl FnOnce(&Begun, &'static str, Option<Duration>) -> A,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    context.is_generation(state.engine.metrics());
    let may_load = may_load(&state, &context, &request);
    let answered = async {
        match parsed(&state, &context, request, parse).await? {
            Wanted::Answer(mut asked) => {
                let options = &mut asked.options;
                permit(&may_load, &mut options.keep_alive, &mut options.ignored);
                answer_asked(&state, &context, *asked).await
            }
            Wanted::Loading(loading) => {
                may_load?;
                // It has said all that it has to.
                context.keep(0);
                let loaded = loading.done(&state, &context).await?;
                let did = match loaded.done_reason {
                    "unload" => "unloaded a model",
                    _ => "kept a model loaded",
                };
                // A model that is still wanted stays as it was.
                if loaded.is_applied {
                    context.audit(did, &loading.model.id);
                }
                // Nothing was evaluated for it.
                context.embedded(None);
                let answer = told(&loading.begun, loaded.done_reason, loaded.took);
                let mut response = Json(answer).into_response();
                let names = loading.not_applied.into_iter();
                let names = names.chain((!loaded.is_applied).then_some(PARAM));
                let unread = loading.unread.into_iter().map(Cow::from);
                let names: Vec<Cow<'_, str>> = names.map(Cow::from).chain(unread).collect();
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
            Some(AT_ONCE_NO_MORE) => self.unload(state).await,
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
        let id = Arc::clone(&self.model.id);
        let status = state.engine.status().model(&id);
        let is_loaded = status.is_some_and(|status| status.phase.is_loaded());
        let took = match state.engine.supervisor() {
            Some(supervisor) => {
                let client = context.client.clone();
                supervisor.load(client, id, self.keep_alive).await?
            }
            None if is_loaded => None,
            None => return Err(no_workers()),
        };
        Ok(Loaded {
            done_reason: "load",
            took,
            is_applied: true,
        })
    }

    async fn unload(&self, state: &HttpState) -> Result<Loaded, GenerationError> {
        let supervisor = state.engine.supervisor().ok_or_else(no_workers)?;
        let unloaded = supervisor
            .unload_once_idle(Arc::clone(&self.model.id))
            .await?;
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
