//! Every path there is, and who may ask it what: the one table that the router, the other spellings of
//! paths, the key check and the API's description go by. A path that is not in it is refused, whatever
//! route there may be, so that no client is let in where its role was not thought of.

use axum::http::Method;

use crate::auth::Role;

/// What a request to a path needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: probes have no key.
    Nothing,
    Key(Role),
}

/// Who may ask a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Everyone,
    Users,
    Admins,
    /// Users may read, and admins change.
    UsersToRead,
}

impl For {
    fn need(self, method: &Method) -> Need {
        match self {
            Self::Everyone => Need::Nothing,
            Self::Users => Need::Key(Role::User),
            Self::Admins => Need::Key(Role::Admin),
            Self::UsersToRead if changes(method) => Need::Key(Role::Admin),
            Self::UsersToRead => Need::Key(Role::User),
        }
    }
}

/// A path, or what paths begin with where it ends with something in braces.
const TABLE: &[(&str, For)] = &[
    // It says no more than that there is a server, which the connection has said.
    ("/", For::Everyone),
    ("/health", For::Everyone),
    ("/v1/ready", For::Everyone),
    ("/v1/loading/progress", For::Users),
    // It shows what every client does, with all models.
    ("/metrics", For::Admins),
    ("/v1/status", For::Admins),
    ("/openapi.json", For::Users),
    ("/v1/doctor", For::Admins),
    ("/v1/admin/keys", For::Admins),
    ("/v1/admin/keys/{name}", For::Admins),
    ("/v1/admin/requests", For::Admins),
    ("/v1/admin/requests/{id}", For::Admins),
    ("/v1/admin/logs", For::Admins),
    ("/v1/admin/events", For::Admins),
    // OpenAI's API.
    ("/v1/chat/completions", For::Users),
    ("/v1/completions", For::Users),
    ("/v1/embeddings", For::Users),
    ("/v1/models", For::UsersToRead),
    // An id may have slashes.
    ("/v1/models/{id}", For::UsersToRead),
    // Those of llama.cpp's server.
    ("/apply-template", For::Users),
    ("/tokenize", For::Users),
    ("/detokenize", For::Users),
    ("/completion", For::Users),
    ("/infill", For::Users),
    ("/v1/rerank", For::Users),
    ("/props", For::Users),
    // It shows what every client does.
    ("/slots", For::Admins),
    ("/models/load", For::Admins),
    ("/models/unload", For::Admins),
    ("/models/sse", For::Users),
    // Ollama's API. What changes the models that others use is for admins.
    ("/api/version", For::Users),
    ("/api/tags", For::Users),
    ("/api/ps", For::Users),
    ("/api/show", For::Users),
    ("/api/chat", For::Users),
    ("/api/generate", For::Users),
    ("/api/embed", For::Users),
    ("/api/embeddings", For::Users),
    ("/api/pull", For::Admins),
    ("/api/push", For::Admins),
    ("/api/create", For::Admins),
    ("/api/copy", For::Admins),
    ("/api/delete", For::Admins),
    ("/api/blobs/{digest}", For::Admins),
    // Anthropic's API.
    ("/v1/messages", For::Users),
    ("/v1/messages/count_tokens", For::Users),
    // OpenAI's responses.
    ("/v1/responses", For::Users),
    ("/v1/responses/input_tokens", For::Users),
    ("/v1/responses/compact", For::Users),
    ("/v1/responses/{id}", For::Users),
    ("/v1/responses/{id}/input_items", For::Users),
    ("/v1/responses/{id}/cancel", For::Users),
    // The vendor's functions.
    ("/rpc", For::Users),
    ("/rpc/ws", For::Users),
];

/// Whether a request may change anything; what only reads has a method that says so.
pub(crate) fn changes(method: &Method) -> bool {
    !method.is_safe()
}

/// What a request to this path needs; `None`: there is no such path.
pub(crate) fn need(method: &Method, path: &str) -> Option<Need> {
    let row = TABLE.iter().find(|(row, _)| *row == path);
    let row = row.or_else(|| TABLE.iter().find(|(row, _)| begins(row, path)));
    row.map(|(_, who)| who.need(method))
}

pub(crate) fn is_named(path: &str) -> bool {
    need(&Method::GET, path).is_some()
}

/// The table's paths.
#[cfg(test)]
pub(in crate::http) fn all() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(path, _)| *path)
}

/// Whether `path` is a row's beginning and something behind it.
fn begins(row: &str, path: &str) -> bool {
    let Some((before, _)) = row.split_once('{') else {
        return false;
    };
    path.strip_prefix(before).is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && !rest.ends_with('/') && !rest.contains("//")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_or_begins_with_a_name() {
        for path in [
            "/",
            "/v1/models",
            "/v1/models/a",
            "/v1/models/a/b",
            "/rpc/ws",
        ] {
            assert!(is_named(path), "{path}");
        }
        for path in [
            "",
            "*",
            "/v1",
            "/v1/models/",
            "/v1/models//a",
            "/v1/models/a/",
            "/v1/models/{id}/",
            "/api/blobs",
            "/api/blobs/",
            "/metrics/x",
            "/healthy",
        ] {
            assert!(!is_named(path), "{path}");
        }
    }

    #[test]
    fn what_users_may_read_admins_may_change() {
        let models = |method| need(&method, "/v1/models");
        assert_eq!(models(Method::GET), Some(Need::Key(Role::User)));
        assert_eq!(models(Method::HEAD), Some(Need::Key(Role::User)));
        for method in [Method::POST, Method::DELETE, Method::PUT, Method::PATCH] {
            assert_eq!(models(method), Some(Need::Key(Role::Admin)));
        }
        let metrics = need(&Method::GET, "/metrics");
        assert_eq!(metrics, Some(Need::Key(Role::Admin)));
    }

    #[test]
    fn no_path_has_two_rows() {
        for (index, (path, _)) in TABLE.iter().enumerate() {
            let others = &TABLE[index + 1..];
            assert!(others.iter().all(|(other, _)| other != path), "{path}");
        }
    }
}
