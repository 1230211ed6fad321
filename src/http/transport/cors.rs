//! Pages of other sites (the CORS protocol of the Fetch standard). Only origins that the settings name
//! may read answers; a browser asks for that with `Origin`, and before most requests with a preflight,
//! which it sends without any key.
//!
//! Keys travel in headers that a page sets itself, so no answer allows credentials: what a browser would
//! add by itself, such as cookies, is never needed here.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::http::request::id::{REQUEST_ID, X_REQUEST_ID};
use crate::settings::CorsOrigin;

static PRIVATE_NETWORK_ASKED: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
static PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// What the router's paths answer.
pub(in crate::http) const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, DELETE");
/// How long a browser may keep what a preflight said, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Of the daemon's own headers; those of this prefix beside the ones named in `expose`.
const OWN_PREFIX: &str = "x-rkllmd-";

/// What a request asks of this protocol, and what the settings say to it.
pub(in crate::http) struct Cors {
    /// `access-control-allow-origin`, where the request has an origin that is admitted.
    allow: Option<HeaderValue>,
    /// Whether answers depend on the request's origin.
    varies: bool,
    /// The rest of a preflight.
    preflight: Option<Preflight>,
}

struct Preflight {
    headers: Option<HeaderValue>,
    private_network: bool,
}

/// Whether an `Origin` is one of those that the settings name.
pub(in crate::http) fn admits(allowed: &[CorsOrigin], origin: &HeaderValue) -> bool {
    let origin = origin.to_str().ok();
    origin.is_some_and(|origin| allowed.iter().any(|allowed| allowed.admits(origin)))
}

impl Cors {
    pub fn of(method: &Method, headers: &HeaderMap, allowed: &[CorsOrigin]) -> Self {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none());
        let all = allowed.contains(&CorsOrigin::All);
        let is_preflight = *method == Method::OPTIONS
            && origin.is_some()
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        Self {
            allow: match origin {
                Some(_) if all => Some(HeaderValue::from_static("*")),
                Some(origin) if admits(allowed, origin) => Some(origin.clone()),
                _ => None,
            },
            varies: !allowed.is_empty() && !all,
            preflight: is_preflight.then(|| Preflight {
                headers: headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
                private_network: headers.contains_key(&PRIVATE_NETWORK_ASKED),
            }),
        }
    }

    /// Whether this asks what a page may ask, and for nothing else.
    pub fn is_preflight(&self) -> bool {
        self.preflight.is_some()
    }

    /// The answer to the preflight of an admitted origin. It is the same for all paths: what is wrong
    /// with the request itself is told to the request.
    pub fn preflight_answer(&self) -> Option<Response> {
        let preflight = self.preflight.as_ref().filter(|_| self.allow.is_some())?;
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if let Some(asked) = &preflight.headers {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        if preflight.private_network {
            headers.insert(PRIVATE_NETWORK.clone(), HeaderValue::from_static("true"));
        }
        for asked in [
            header::ACCESS_CONTROL_REQUEST_METHOD,
            header::ACCESS_CONTROL_REQUEST_HEADERS,
        ] {
            headers.append(header::VARY, HeaderValue::from_name(asked));
        }
        Some(response)
    }

    /// Lets the page read an answer, be it an error.
    pub fn admit(self, response: &mut Response) {
        let headers = response.headers_mut();
        if self.varies {
            headers.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
        }
        let Some(allow) = self.allow else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allow);
        if self.preflight.is_none()
            && let Some(names) = exposed(headers)
        {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, names);
        }
    }
}

/// Names of an answer's headers that a page cannot read without being told so.
fn exposed(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = [X_REQUEST_ID, REQUEST_ID, header::RETRY_AFTER, header::ALLOW];
    let names: Vec<&str> = headers
        .keys()
        .filter(|name| named.contains(name) || name.as_str().starts_with(OWN_PREFIX))
        .map(HeaderName::as_str)
        .collect();
    HeaderValue::from_str(&names.join(", ")).ok()
}
