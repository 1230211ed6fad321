//! Models that come and go by request, in whatever dialect: they come from the hub that the settings name, and what a
//! pull has brought goes again. Files that came otherwise are not a request's to remove.

use std::sync::Arc;

use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::hub::{PullError, Pulls, RemovalError};
use crate::models::{InstalledModel, LATEST};
use crate::supervisor::Unloaded;

const NO_FOLDER: &str = "there is no models folder here";
const OFFLINE: &str = "`offline` in the [hub] settings keeps this machine from it; an administrator puts models \
                       into the models folder, then reloads";
/// What to do instead.
pub(super) const FILES: &str = "an administrator adds and removes the files of models that no pull has brought in the models \
                     folder, then reloads; `rkllmd list` lists them";

/// What brings models, for a request that may have `name` brought. `path` is the request's.
pub(super) fn pulls(
    state: &HttpState,
    context: &RequestContext,
    name: &str,
    path: String,
) -> Result<Pulls, RequestError> {
    let not_offered = |instead| RequestError::NotOffered { path, instead };
    let Some(pulls) = state.engine.pulls() else {
        return Err(not_offered(NO_FOLDER));
    };
    if pulls.is_offline() {
        return Err(not_offered(OFFLINE));
    }
    check_key(context, name)?;
    Ok(pulls)
}

/// Refuses what is pulled by this name to a key that might not use it: the model would have the name.
pub(super) fn check_key(context: &RequestContext, name: &str) -> Result<(), RequestError> {
    let model = name.strip_suffix(LATEST).unwrap_or(name);
    if let Some(key) = context.caller.key()
        && !key.may_use([model])
    {
        return Err(RequestError::ModelNotAllowed {
            key: key.name.to_string(),
            model: quote(model),
        });
    }
    Ok(())
}

/// Unloads it, removes its files, and returns once it is not served any more. `path` is the request's.
pub(super) async fn remove(
    state: &HttpState,
    context: &RequestContext,
    model: &InstalledModel,
    path: String,
) -> Result<(), RequestError> {
    let pulls = state.engine.pulls();
    // An adapter is a part of its model, and not what a pull has brought.
    let is_pulled = model.facts.source.is_some() && model.adapted.is_none();
    let (Some(pulls), true) = (pulls, is_pulled) else {
        let instead = FILES;
        return Err(RequestError::NotOffered { path, instead });
    };
    // Who leaves does not wait for it.
    context.client_bound().bind();
    if let Some(supervisor) = state.engine.supervisor() {
        let unloaded = supervisor.unload(Arc::clone(&model.id)).await;
        match unloaded.map_err(failed)? {
            Unloaded::Yes => {}
            Unloaded::StillWanted => {
                return Err(RequestError::ModelInUse {
                    model: model.id.to_string(),
                });
            }
            Unloaded::Unkillable => {
                return Err(failed(GenerationError::ModelUnavailable {
                    model: model.id.to_string(),
                    reason: "its worker is still there although it was killed".to_owned(),
                    retry_after: None,
                }));
            }
        }
    }
    // Before it, because it goes on when the client leaves.
    context.audit("removes a model", &model.id);
    pulls.remove(model).await.map_err(|error| match error {
        RemovalError::InUse { path: name } => PullError::InUse { name }.into(),
        RemovalError::Linked { .. }
        | RemovalError::HoldsFolders { .. }
        | RemovalError::HoldsMore { .. } => {
            let instead = FILES;
            RequestError::NotOffered { path, instead }
        }
        error @ (RemovalError::Gone { .. } | RemovalError::Folder { .. }) => {
            failed(GenerationError::Internal(error.to_string()))
        }
    })
}

fn failed(error: GenerationError) -> RequestError {
    RequestError::Generation {
        error,
        prompt_param: "model",
    }
}
