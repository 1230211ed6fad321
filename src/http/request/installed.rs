use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;

use super::context::RequestContext;
use super::error::{RequestError, quote};
use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::models::{Catalog, InstalledModel, NoModel};

/// The model of this id or alias, which must be given and open to the caller, and have an adapter that can be
/// used if it is one with an adapter.
pub(crate) fn installed(
    state: &HttpState,
    context: &RequestContext,
    name: Option<&str>,
) -> Result<Arc<InstalledModel>, RequestError> {
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| RequestError::missing("model"))?;
    let catalog = state.engine.catalog();
    let model = look_up(&catalog, name)?;
    context.caller.check_model(model)?;
    context.for_model(&model.id);
    if let Some(problem) = model.adapter_problem() {
        return Err(RequestError::Generation {
            error: GenerationError::ModelUnavailable {
                model: model.name().to_string(),
                reason: format!("its adapter cannot be used: {problem}"),
                retry_after: None,
            },
            prompt_param: "model",
        });
    }
    Ok(Arc::clone(model))
}

/// What is wrong with a query that cannot be read for a model's name.
pub(crate) fn refused_query(rejection: &QueryRejection) -> RequestError {
    let reason = rejection.body_text();
    match reason.contains("duplicate field") {
        true => RequestError::out_of_range("model", "must not be there twice"),
        false => RequestError::WrongType {
            param: "model".to_owned(),
            reason: quote(&reason),
        },
    }
}

/// The model of this id or alias, for any client.
pub(crate) fn look_up<'a>(
    catalog: &'a Catalog,
    name: &str,
) -> Result<&'a Arc<InstalledModel>, RequestError> {
    catalog.look_up(name).map_err(|reason| match reason {
        NoModel::Unknown => RequestError::UnknownModel { model: quote(name) },
        NoModel::Unread => RequestError::Generation {
            error: still_read(&quote(name)),
            prompt_param: "model",
        },
    })
}

/// A model that is not known yet.
pub(crate) fn still_read(name: &str) -> GenerationError {
    GenerationError::ModelUnavailable {
        model: name.to_owned(),
        reason: "it is not among the models that are known, and some are still being read"
            .to_owned(),
        retry_after: Some(Duration::from_secs(1)),
    }
}
