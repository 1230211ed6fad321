//! Which path is answered by whom, and what every answer has in common: the host check and the
//! key check before it, a request id on it, a log line after it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower::ServiceExt;

use super::dialects::{anthropic, llama_server, ollama, openai, responses};
use super::pages::{admin, health, loading_progress, metrics, openapi, readiness, status};
use super::response::charged_body;
use super::transport::{host_guard, transfer_coding};
use super::{HttpState, path_alias, rpc};
use crate::http::request::access::{self, Rule};
use crate::http::request::context::RequestContext;
use crate::http::request::endpoints::Endpoints;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::id::X_REQUEST_ID;
use crate::http::request::paths::{self, Need};
use crate::http::response::error_shape::ErrorShape;
use crate::http::status::PublicError;
use crate::http::transport::connection::{InFlight, WatchedBody};
use crate::http::transport::cors::{self, Cors};
use crate::http::transport::origin;
use crate::http::transport::socket;
use crate::reader::on_behalf_of;

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
        let router = endpoints(state.rpc.over_http())
            .into_router()
            // For the routes that are there by now.
            .method_not_allowed_fallback(other_method)
            .fallback(unknown_path)
            .with_state(Arc::clone(&state));
        Self {
            router,
            state,
            rule,
        }
    }

    pub async fn answer(
        self,
        mut request: hyper::Request<WatchedBody>,
        endpoints: socket::Endpoints,
        in_flight: InFlight,
    ) -> Result<Response, Infallible> {
        let asked_for = quote(request.uri().path());
        let method = request.method().clone();
        path_alias::resolve_uri(&method, request.uri_mut());
        let http = &self.state.http;
        let cors = Cors::of(request.method(), request.headers(), &http.cors_origins);
        let asks_what_all_paths_allow = method == Method::OPTIONS && request.uri().path() == "*";
        let need = match cors.is_preflight() || asks_what_all_paths_allow {
            true => Some(Need::Nothing),
            false => paths::need(request.method(), request.uri().path()),
        };
        let shown = (request.uri().path(), request.headers());
        let (caller, admitted) = access::admit(&self.state, self.rule, need, shown);
        let caller = (endpoints.peer, caller);
        let shared = (&self.state.accountant, &self.state.live);
        let context = RequestContext::begin(&request, asked_for, caller, shared, in_flight);
        let head = (request.version(), request.uri(), request.headers());
        let shape = ErrorShape::of_request(request.uri().path(), request.headers());
        let own_page = match paths::changes(request.method()) {
            true => origin::check(request.headers(), http),
            false => Ok(()),
        };
        let host = host_guard::check(endpoints.local, head, http);
        let coding = transfer_coding::check(request.headers());
        let response = match host.and(own_page).and(admitted).and(coding) {
            Err(error) => shape.response(error, &context.id),
            Ok(()) => 'answer: {
                if let Some(answer) = cors.preflight_answer() {
                    break 'answer answer;
                }
                if asks_what_all_paths_allow {
                    let allow = [(header::ALLOW, cors::METHODS)];
                    break 'answer (StatusCode::NO_CONTENT, allow).into_response();
                }
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Arc::clone(&context));
                request.extensions_mut().insert(self.rule);
                let answer = self.router.oneshot(request);
                let answered = tokio::select! {
                    biased;
                    answered = on_behalf_of(context.client.clone(), answer) => Some(answered),
                    // What it has is dropped, which frees it. Its stream, once it has one, looks itself.
                    () = context.abort.wanted() => None,
                };
                match answered {
                    Some(Ok(response)) => shape.shaped(response, &context.id),
                    Some(Err(never)) => match never {},
                    None => {
                        let error = RequestError::Aborted;
                        context.failed(PublicError::of(&error).code);
                        shape.response(error, &context.id)
                    }
                }
            }
        };
        let mut response = charged_body::charged(response, &context, shape);
        if let Ok(id) = HeaderValue::from_str(&context.id.0) {
            if let Some(name) = shape.id_header() {
                response.headers_mut().insert(name, id.clone());
            }
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        // What is told here is true now; nothing between the daemon and its client may repeat it later.
        let no_store = HeaderValue::from_static("no-store");
        let cache_control = response.headers_mut().entry(header::CACHE_CONTROL);
        cache_control.or_insert(no_store);
        cors.admit(&mut response);
        context.answered(response.status());
        Ok(response)
    }
}

/// Everything there is to ask.
fn endpoints(with_rpc: bool) -> Endpoints<Arc<HttpState>> {
    let own = Endpoints::new()
        .route("/health", get(health::health))
        .route("/v1/ready", get(readiness::ready))
        .route("/v1/status", get(status::status))
        .route(
            "/v1/loading/progress",
            get(loading_progress::loading_progress),
        )
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::document));
    let all = own
        .merge(admin::routes())
        .merge(openai::routes())
        .merge(llama_server::routes())
        .merge(ollama::routes())
        .merge(anthropic::routes())
        .merge(responses::routes());
    match with_rpc {
        true => all
            .route("/rpc", post(rpc::post))
            .route("/rpc/ws", get(rpc::websocket)),
        false => all,
    }
}

/// A known path and another method; the router adds `allow`.
async fn other_method(request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let error = RequestError::MethodNotAllowed {
        method: quote(request.method().as_str()),
        path: quote(request.uri().path()),
    };
    // The header `allow` is added to this very answer.
    let shape = ErrorShape::of_request(request.uri().path(), request.headers());
    shape.response(error, &RequestContext::of(request.extensions()).id)
}

async fn unknown_path(request: Request) -> RequestError {
    RequestError::UnknownPath {
        path: quote(request.uri().path()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_stands_in_the_table_of_paths_and_no_other_path() {
        let of = |with_rpc| {
            let paths = endpoints(with_rpc);
            let paths = paths.paths().map(|path| path.replace("{*", "{"));
            paths.collect::<BTreeSet<String>>()
        };
        let named: BTreeSet<String> = paths::all().map(str::to_owned).collect();
        assert_eq!(of(true), named);
        let rpc = named.difference(&of(false)).cloned().collect::<Vec<_>>();
        assert_eq!(rpc, ["/rpc", "/rpc/ws"]);
    }
}
