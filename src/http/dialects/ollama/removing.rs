//! `DELETE /api/delete` of an installed model: what a pull has brought goes again, for an administrator. Files that
//! came otherwise are not a request's to remove.

use std::sync::Arc;

use super::making::FILES;
use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::hub::{PullError, RemovalError};
use crate::models::InstalledModel;
use crate::supervisor::Unloaded;

/// Unloads it, removes its files, and returns once it is not served any more. `path` is the request's.
pub(super) async fn remove(
    state: &HttpState,
    context: &RequestContext,
    model: &InstalledModel,
    path: String,
) -> Result<(), RequestError> {
    let pulls = state.engine.pulls();
    let (Some(pulls), true) = (pulls, model.facts.source.is_some()) else {
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
    pulls.remove(model).await.map_err(|error| match error {
        RemovalError::InUse { path: name } => PullError::InUse { name }.into(),
        RemovalError::Linked { .. } | RemovalError::HoldsFolders { .. } => {
            let instead = FILES;
            RequestError::NotOffered { path, instead }
        }
        error @ (RemovalError::Gone { .. } | RemovalError::Folder { .. }) => {
            failed(GenerationError::Internal(error.to_string()))
        }
    })?;
    context.audit("removed a model", &model.id);
    Ok(())
}

fn failed(error: GenerationError) -> RequestError {
    RequestError::Generation {
        error,
        prompt_param: "model",
    }
}
