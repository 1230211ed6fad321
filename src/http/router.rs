//! Which path is answered by whom, and what every answer has in common: the host check and the
//! key check before it, a request id on it, a log line after it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::Incoming;
use tower::ServiceExt;

use super::access::{self, Rule};
use super::connection::InFlight;
use super::request_context::RequestContext;
use super::request_error::{RequestError, quote};
use super::socket::Endpoints;
use super::{
    HttpState, health, host_guard, llama_server, loading_progress, metrics_page, openai, openapi,
    readiness, rpc,
};

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The router with its state; cheap to clone.
#[derive(Clone)]
pub(crate) struct Routes {
    router: Router,
    state: Arc<HttpState>,
    /// The listener's.
    rule: Rule,
}

impl Routes {
    pub fn new(state: Arc<HttpState>, rule: Rule) -> Self {
        let mut router = Router::new()
            .route("/v1/chat/completions", post(openai::chat::chat_completions))
            .route("/v1/completions", post(openai::completions::completions))
            .route("/v1/embeddings", post(openai::embeddings::embeddings))
            .route("/v1/models", get(openai::models::list_models))
            .route("/v1/models/{*id}", get(openai::models::retrieve_model))
            .route(
                "/apply-template",
                post(llama_server::apply_template::apply_template),
            )
            .route("/tokenize", post(llama_server::tokens::tokenize))
            .route("/detokenize", post(llama_server::tokens::detokenize))
            .route("/health", get(health::health))
            .route("/v1/ready", get(readiness::ready))
            .route(
                "/v1/loading/progress",
                get(loading_progress::loading_progress),
            )
            .route("/metrics", get(metrics_page::metrics))
            .route("/openapi.json", get(openapi::document))
            .method_not_allowed_fallback(other_method);
        if state.rpc.over_http() {
            router = router
                .route("/rpc", post(rpc::post))
                .route("/rpc/ws", get(rpc::websocket));
        }
        let router = router.fallback(unknown_path).with_state(Arc::clone(&state));
        Self {
            router,
            state,
            rule,
        }
    }

    pub async fn answer(
        self,
        request: hyper::Request<Incoming>,
        endpoints: Endpoints,
        in_flight: InFlight,
    ) -> Result<Response, Infallible> {
        let path = request.uri().path();
        let (caller, admitted) = access::admit(&self.state, self.rule, path, request.headers());
        let context = RequestContext::begin(&request, endpoints.peer, caller, in_flight);
        let head = (request.version(), request.uri(), request.headers());
        let allowed = &self.state.http.allowed_hosts;
        let mut response = match host_guard::check(endpoints.local, head, allowed).and(admitted) {
            Err(error) => error.into_response(),
            Ok(()) => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Arc::clone(&context));
                request.extensions_mut().insert(self.rule);
                match self.router.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        };
        if let Ok(id) = HeaderValue::from_str(&context.id.0) {
            response.headers_mut().insert(X_REQUEST_ID.clone(), id);
        }
        context.answered(response.status());
        Ok(response)
    }
}

/// A known path and another method; the router adds `allow`.
async fn other_method(request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    RequestError::MethodNotAllowed {
        method: quote(request.method().as_str()),
        path: quote(request.uri().path()),
    }
    .into_response()
}

async fn unknown_path(request: Request) -> RequestError {
    RequestError::UnknownPath {
        path: quote(request.uri().path()),
    }
}
