//! A request for a reply, as its endpoint gets it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::response::Response;
use serde::de::DeserializeOwned;

use super::{Asked, ChatDialect, answer};
use crate::http::HttpState;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::Parse;

/// A request whose body has not been read, and what it is answered with.
pub(crate) struct Asking {
    pub state: Arc<HttpState>,
    pub request: Request,
}

/// Checks a body's fields and finds what they ask for.
pub(crate) type Check<F, T> = fn(&HttpState, &RequestContext, F) -> Result<T, RequestError>;

/// Has a body's fields read, and checked.
pub(crate) fn of_fields<F, T>(check: Check<F, T>) -> impl Parse<T>
where
    F: DeserializeOwned + 'static,
    T: 'static,
{
    move |state: &HttpState, context: &RequestContext, body: &[u8]| {
        check(state, context, fields(body)?)
    }
}

impl FromRequest<Arc<HttpState>> for Asking {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &Arc<HttpState>) -> Result<Self, Infallible> {
        let state = Arc::clone(state);
        Ok(Self { state, request })
    }
}

impl Asking {
    /// Answers it as `check` finds it to ask.
    pub async fn answer<F, D>(self, check: Check<F, Asked<D>>) -> Result<Response, RequestError>
    where
        F: DeserializeOwned + 'static,
        D: ChatDialect,
    {
        answer(self.state, self.request, of_fields(check)).await
    }
}
