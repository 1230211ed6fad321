//! Other spellings of the router's paths: with a slash too many, and with `/v1` left out or given twice,
//! as base addresses and what clients append to them come together.
//!
//! A path is resolved before anything is decided about it, so that every spelling needs the rights of
//! the path it means. The router's own paths mean themselves. Nothing is decoded: an encoded slash is no
//! slash, and a path with a dot segment has no other spelling.

use std::borrow::Cow;

use axum::http::uri::PathAndQuery;
use axum::http::{Method, Uri};

use crate::http::request::paths::is_named;

/// What other servers call paths of this one.
const OTHER_NAMES: [(&str, &str); 4] = [
    ("/v1/health", "/health"),
    ("/reranking", "/v1/rerank"),
    ("/v1/reranking", "/v1/rerank"),
    ("/v2/rerank", "/v1/rerank"),
];
/// Likewise, beneath OpenAI's base address: to who reads they are names of models.
const POSTED: [(&str, &str); 2] = [
    ("/v1/models/load", "/models/load"),
    ("/v1/models/unload", "/models/unload"),
];

/// The path that is meant; what has no other spelling is given back as it is.
pub(super) fn resolve(path: &str) -> Cow<'_, str> {
    if is_named(path) || !path.starts_with('/') || path.split('/').any(is_dots) {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        plain.push('/');
        plain.push_str(segment);
    }
    if is_named(&plain) {
        return Cow::Owned(plain);
    }
    if let Some(&(_, path)) = OTHER_NAMES.iter().find(|(name, _)| *name == plain) {
        return Cow::Borrowed(path);
    }
    let once = plain
        .strip_prefix("/v1")
        .filter(|rest| rest.starts_with("/v1/"));
    if let Some(once) = once
        && is_named(once)
    {
        return Cow::Owned(once.to_owned());
    }
    let with_version = format!("/v1{plain}");
    if is_named(&with_version) {
        return Cow::Owned(with_version);
    }
    Cow::Borrowed(path)
}

/// The same for the target of a request.
pub(super) fn resolve_uri(method: &Method, uri: &mut Uri) {
    let resolved = resolve(uri.path());
    let mut posted = POSTED.iter().filter(|_| *method == Method::POST);
    let path = posted.find(|(name, _)| *name == resolved);
    let path = path.map_or(&*resolved, |&(_, path)| path);
    if path == uri.path() {
        return;
    }
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = std::mem::take(uri).into_parts();
    // It is made of pieces of one that was valid.
    if let Ok(target) = PathAndQuery::try_from(target) {
        parts.path_and_query = Some(target);
    }
    *uri = Uri::from_parts(parts).unwrap_or_default();
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
    use crate::http::request::paths::{Need, need};

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
            ("/v1/health", "/health"),
            ("/v1//health/", "/health"),
            ("/rerank", "/v1/rerank"),
            ("/reranking", "/v1/rerank"),
            ("/v2/rerank/", "/v1/rerank"),
            ("//models/load/", "/models/load"),
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
            resolve_uri(&Method::GET, &mut uri);
            assert_eq!(uri.to_string(), to);
        }
    }

    #[test]
    fn a_model_is_loaded_beneath_either_base_address() {
        for (method, from, to) in [
            (Method::POST, "/v1/models/load", "/models/load"),
            (Method::POST, "/v1//models/unload/?x", "/models/unload?x"),
            (Method::GET, "/v1/models/load", "/v1/models/load"),
            (Method::POST, "/v1/models/load/x", "/v1/models/load/x"),
        ] {
            let mut uri: Uri = from.parse().unwrap();
            resolve_uri(&method, &mut uri);
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
                prop_assert!(is_named(&resolved));
                prop_assert!(!path.contains("/../") && !path.contains("/./"));
            }
            if resolved == "/metrics" {
                let need = need(&axum::http::Method::GET, &resolved);
                prop_assert_eq!(need, Some(Need::Key(crate::auth::Role::Admin)));
            }
        }
    }
}
