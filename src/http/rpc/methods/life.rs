//! The life of a handle.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::calls::{Done, HandleParam};
use super::run::run_of;
use super::{Method, Scope, failure};
use crate::generation::ModelId;
use crate::http::request::error::quote;
use crate::http::request::installed::still_read;
use crate::http::request::live_run::LiveRun;
use crate::http::rpc::protocol::{ErrorKind, RpcError};
use crate::http::rpc::session::Session;
use crate::library_calls::{DefaultParam, Param};
use crate::models::NoModel;
use crate::supervisor::Supervisor;

/// Errors of a load, which administrators see and may end: the last one says so.
const LOAD_ERRORS: &[ErrorKind] = &[
    ErrorKind::UnknownModel,
    ErrorKind::ModelNotAllowed,
    ErrorKind::ModelUnavailable,
    ErrorKind::CallFailed,
    ErrorKind::NotInRuntime,
    ErrorKind::DeadlinePassed,
    ErrorKind::WorkerDied,
    ErrorKind::LimitReached,
    ErrorKind::TooLarge,
    ErrorKind::ShuttingDown,
    ErrorKind::AbortedByAdministrator,
];

/// Errors of whatever needs a worker: no administrator ends it.
const WORKER_ERRORS: &[ErrorKind] = LOAD_ERRORS.split_at(LOAD_ERRORS.len() - 1).0;

pub(crate) struct CreateDefaultParam;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateDefaultParamParams {
    /// Id or alias of an installed model: the library that runs it is asked. Absent: the NPU's library.
    model_path: Option<String>,
}

impl Method for CreateDefaultParam {
    const NAME: &'static str = "rkllm.createDefaultParam";
    const SUMMARY: &'static str = "What the library's own rkllm_createDefaultParam returns, asked anew. \
        A field that this release does not have is null.";
    const ERRORS: &'static [ErrorKind] = WORKER_ERRORS;
    type Params = CreateDefaultParamParams;
    type Result = DefaultParam;

    async fn call(scope: Scope<'_>, params: Self::Params) -> Result<DefaultParam, RpcError> {
        let session = scope.session;
        let model = match params.model_path {
            Some(name) => Some(installed(session, &name)?),
            None => None,
        };
        let answer = supervisor(session)?.default_param(model).await;
        answer.map_err(|error| failure::of(error, &session.caller))
    }
}

pub(crate) struct Init;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InitParams {
    /// Id or alias of an installed model.
    model_path: String,
    /// `RKLLMParam` without `model_path` and `is_async`. What is absent or null is what
    /// `rkllm.createDefaultParam` says.
    #[serde(default)]
    param: Option<Param>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct InitResult {
    return_code: i32,
    /// 128 random bits in hexadecimal digits.
    handle: String,
    /// Id of the model.
    model_path: String,
}

impl Method for Init {
    const NAME: &'static str = "rkllm.init";
    const SUMMARY: &'static str = "Loads a model for the caller alone, in a process of its own. The handle \
        belongs to the connection, over plain HTTP to the client; it ends with its connection, with \
        rkllm.destroy, or when no call used it for rpc.handle-idle-timeout.";
    const ERRORS: &'static [ErrorKind] = LOAD_ERRORS;
    type Params = InitParams;
    type Result = InitResult;

    async fn call(scope: Scope<'_>, params: Self::Params) -> Result<InitResult, RpcError> {
        let session = scope.session;
        let model = installed(session, &params.model_path)?;
        let reservation = session.rpc.handles.reserve(&session.owner)?;
        let param = params.param.unwrap_or_default();
        let charge = session.account.charge(param.held_bytes());
        let charge = charge.map_err(RpcError::of_budget)?;
        let client = session.account.client().clone();
        let supervisor = supervisor(session)?;
        let changes = session.rpc.engine.metrics().changes();
        let live = run_of(session, &model, Self::NAME);
        let live = LiveRun::begin(live, &session.rpc.live, changes);
        let opened = supervisor.open_handle(client, model.clone(), param);
        let opened = tokio::select! {
            biased;
            // What is dropped is not opened, and its worker ends.
            () = live.abort.wanted() => Err(RpcError::new(
                ErrorKind::AbortedByAdministrator,
                "an administrator has ended the load",
            )),
            opened = opened => opened.map_err(|error| failure::of(error, &session.caller)),
        };
        live.ended(opened.as_ref().err().map(RpcError::name));
        let handle = opened?;
        Ok(InitResult {
            return_code: 0,
            handle: reservation.fill((handle, charge)),
            model_path: model.to_string(),
        })
    }
}

pub(crate) struct Destroy;

impl Method for Destroy {
    const NAME: &'static str = "rkllm.destroy";
    const SUMMARY: &'static str = "Aborts the handle's run, if there is one, unloads its model and waits \
        until the model's place is free.";
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::UnknownHandle, ErrorKind::DeadlinePassed];
    type Params = HandleParam;
    type Result = Done;

    async fn call(scope: Scope<'_>, params: HandleParam) -> Result<Done, RpcError> {
        let session = scope.session;
        let handle = session.rpc.handles.remove(&params.handle, &session.owner)?;
        let closed = handle.close().await;
        closed.map_err(|error| failure::of(error, &session.caller))?;
        Ok(Done::default())
    }
}

fn installed(session: &Session, name: &str) -> Result<ModelId, RpcError> {
    let catalog = session.rpc.engine.catalog();
    let model = catalog.look_up(name).map_err(|reason| match reason {
        NoModel::Unknown => RpcError::new(
            ErrorKind::UnknownModel,
            format!("no model `{}` is installed", quote(name)),
        ),
        NoModel::Unread => failure::of(still_read(&quote(name)).into(), &session.caller),
    })?;
    session
        .caller
        .check_model(model)
        .map_err(|error| RpcError::new(ErrorKind::ModelNotAllowed, error.to_string()))?;
    if let Some(adapter) = model.adapter() {
        return Err(RpcError::new(
            ErrorKind::UnknownModel,
            format!(
                "a handle is of a model as it is, and `{}` is one with an adapter: init `{}`, load `{}` with \
                 `rkllm.load_lora`, and name it in `lora_params`",
                quote(model.name()),
                quote(&model.id),
                adapter.name
            ),
        ));
    }
    Ok(model.id.clone())
}

fn supervisor(session: &Session) -> Result<Supervisor, RpcError> {
    session.rpc.engine.supervisor().ok_or_else(|| {
        RpcError::new(
            ErrorKind::InternalError,
            "this daemon runs without workers, so there is no library to call",
        )
    })
}
