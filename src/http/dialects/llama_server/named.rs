//! Which model a request of this dialect is about.

use std::sync::Arc;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::installed::{installed, refused_query};
use crate::models::InstalledModel;

/// What a query names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct NamedByQuery {
    /// Id or alias of an installed model.
    #[param(required = false)]
    model: Option<String>,
}

impl NamedByQuery {
    /// The model's name, unless it is empty.
    pub fn name(
        query: Result<Query<Self>, QueryRejection>,
    ) -> Result<Option<String>, RequestError> {
        let Query(Self { model }) = query.map_err(|rejection| refused_query(&rejection))?;
        Ok(model.filter(|name| !name.is_empty()))
    }
}

/// The model of this id or alias; without one, the only model there is.
pub(super) fn this_or_the_only(
    state: &HttpState,
    context: &RequestContext,
    name: Option<&str>,
) -> Result<Arc<InstalledModel>, RequestError> {
    let catalog = state.engine.catalog();
    let only = match catalog.models() {
        [only] => Some(&*only.id),
        _ => None,
    };
    let name = name.filter(|name| !name.is_empty()).or(only);
    installed(state, context, name)
}
