//! Other spellings of the router's paths: with a slash too many, and with `/v1` left out or given twice,
//! as base addresses and what clients append to them come together.
//!
//! A path is resolved before anything is decided about it, so that every spelling needs the rights of
//! the path it means. The router's own paths mean themselves. Nothing is decoded: an encoded slash is no
//! slash, and a path with a dot segment has no other spelling.

use std::borrow::Cow;

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// Every path of the router; a test holds it to the API's description.
pub(super) const PATHS: [&str; 27] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/ready",
    "/v1/loading/progress",
    "/apply-template",
    "/tokenize",
    "/detokenize",
    "/health",
    "/metrics",
    "/openapi.json",
    "/rpc",
    "/",
    "/api/version",
    "/api/tags",
    "/api/ps",
    "/api/show",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
];
/// Besides those.
const WEBSOCKET: &str = "/rpc/ws";
/// What follows is a model's id, which may have slashes.
const MODEL: &str = "/v1/models/";

/// The path that is meant; what has no other spelling is given back as it is.
pub(super) fn resolve(path: &str) -> Cow<'_, str> {
    if is_known(path) || !path.starts_with('/') || path.split('/').any(is_dots) {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        plain.push('/');
        plain.push_str(segment);
    }
    if is_known(&plain) {
        return Cow::Owned(plain);
    }
    let once = plain
        .strip_prefix("/v1")
        .filter(|rest| rest.starts_with("/v1/"));
    if let Some(once) = once
        && is_known(once)
    {
        return Cow::Owned(once.to_owned());
    }
    let with_version = format!("/v1{plain}");
    if is_known(&with_version) {
        return Cow::Owned(with_version);
    }
    Cow::Borrowed(path)
}

/// The same for the target of a request.
pub(super) fn resolve_uri(uri: &mut Uri) {
    let Cow::Owned(path) = resolve(uri.path()) else {
        return;
    };
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = std::mem::take(uri).into_parts();
    // It is made of pieces of one that was valid.
    if let Ok(target) = PathAndQuery::try_from(target) {
        parts.path_and_query = Some(target);
    }
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

fn is_known(path: &str) -> bool {
    let is_model = || {
        path.strip_prefix(MODEL).is_some_and(|id| {
            !id.is_empty() && !id.starts_with('/') && !id.ends_with('/') && !id.contains("//")
        })
    };
    path == WEBSOCKET || PATHS.contains(&path) || is_model()
}

/// `.` or `..`, in whichever spelling.
fn is_dots(segment: &str) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    while !rest.is_empty() {
        let after = rest
            .strip_prefix('.')
            .or_else(|| rest.strip_prefix("%2e"))
            .or_else(|| rest.strip_prefix("%2E"));
        let Some(after) = after else { return false };
        rest = after;
        dots += 1;
    }
    matches!(dots, 1 | 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::request::access;

    #[test]
    fn every_spelling_means_its_path() {
        for (spelling, path) in [
            ("/v1/chat/completions/", "/v1/chat/completions"),
            ("/v1//chat/completions", "/v1/chat/completions"),
            ("//v1/chat/completions", "/v1/chat/completions"),
            ("///v1///chat//completions///", "/v1/chat/completions"),
            ("/chat/completions", "/v1/chat/completions"),
            ("/chat/completions/", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/v1//v1/chat/completions/", "/v1/chat/completions"),
            ("/models", "/v1/models"),
            ("/v1/models/", "/v1/models"),
            ("/v1/models//a", "/v1/models/a"),
            ("/v1/models/a/b/", "/v1/models/a/b"),
            ("/v1/v1/models/a%2Fb", "/v1/models/a%2Fb"),
            ("/models/v1/models", "/v1/models/v1/models"),
            ("/health/", "/health"),
            ("/metrics/", "/metrics"),
            ("//metrics", "/metrics"),
            ("/rpc/", "/rpc"),
            ("/rpc//ws", "/rpc/ws"),
            ("/openapi.json/", "/openapi.json"),
            ("//api/chat", "/api/chat"),
            ("/api//tags/", "/api/tags"),
        ] {
            assert_eq!(resolve(spelling), path, "{spelling}");
        }
    }

    #[test]
    fn nothing_else_has_another_spelling() {
        for path in [
            "/",
            "//",
            "",
            "*",
            "/v1",
            "/v1/",
            "/V1/models",
            "/Metrics",
            "/metrics/x",
            "/v1/metrics/x",
            "/v1/v1/v1/models",
            "/v1/../metrics",
            "/./metrics",
            "/metrics/.",
            "/x/../metrics",
            "/%2e%2e/metrics",
            "/.%2E/metrics",
            "/metrics%2f",
            "/%2Fmetrics",
            "/v1%2Fmodels",
            "/%6detrics",
            "/rpc/ws/x",
            "/rpc/%77s",
            "/metrics;/",
            "/v1/metrics",
            "/v1/rpc",
            "/v1/api/chat",
            "/chat",
            "/tags",
        ] {
            assert_eq!(resolve(path), path);
        }
    }

    #[test]
    fn a_target_keeps_its_query_and_its_authority() {
        for (from, to) in [
            ("/v1/ready/?model=a//b", "/v1/ready?model=a//b"),
            (
                "http://localhost:1/models/?x",
                "http://localhost:1/v1/models?x",
            ),
            ("/v1/models?x=/", "/v1/models?x=/"),
        ] {
            let mut uri: Uri = from.parse().unwrap();
            resolve_uri(&mut uri);
            assert_eq!(uri.to_string(), to);
        }
    }

    proptest! {
        /// Whatever is resolved needs the rights of what it is resolved to, and is resolved for good.
        #[test]
        fn resolving_ends(path in "(/|//|v1|models|metrics|rpc|ws|chat|completions|\\.|%2e|%2f|a){0,8}") {
            let resolved = resolve(&path).into_owned();
            prop_assert_eq!(resolve(&resolved).into_owned(), resolved.clone());
            if resolved != path {
                prop_assert!(is_known(&resolved));
                prop_assert!(!path.contains("/../") && !path.contains("/./"));
            }
            if resolved == "/metrics" {
                prop_assert_eq!(access::need(&resolved), access::Need::Key(crate::auth::Role::Admin));
            }
        }
    }
}
