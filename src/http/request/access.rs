//! Who a request is from and what it may do, decided before any handler sees it.
//!
//! What each path needs is in the table of [`paths`](super::paths). Where no key is asked for none is
//! looked at. Keys are compared as SHA-256, in constant time.

mod listeners;

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, header};

use crate::auth::{ApiKey, CurrentKeys, Keyring, Role};
use crate::http::HttpState;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::paths::Need;
use crate::memory::Standing;
use crate::models::InstalledModel;
use crate::settings::HttpSettings;
pub(crate) use listeners::Rule;
pub use listeners::{ExposedWithoutKeys, check_exposure, exposure};

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Whether a path shows the daemon's state, which must be seen most of all when memory is short.
pub(crate) fn is_watching(path: &str) -> bool {
    matches!(path, "/health" | "/v1/ready" | "/metrics" | "/v1/status")
}

/// Who a request is from.
#[derive(Clone)]
pub(crate) enum Caller {
    /// No key was asked for.
    Trusted,
    Key(Arc<ApiKey>),
    /// Without a valid key, on an open path.
    Stranger,
}

impl Caller {
    pub fn key(&self) -> Option<&ApiKey> {
        match self {
            Self::Key(key) => Some(key),
            Self::Trusted | Self::Stranger => None,
        }
    }

    /// Whether what is kept back for administrators is for them. The pages by which the daemon is
    /// watched are theirs, whichever client was let in to read them.
    pub fn standing(&self, path: &str) -> Standing {
        match self {
            _ if is_watching(path) => Standing::Administrator,
            Self::Key(key) if key.role == Role::Admin => Standing::Administrator,
            Self::Key(_) | Self::Trusted | Self::Stranger => Standing::Ordinary,
        }
    }

    pub fn may_use(&self, model: &InstalledModel) -> bool {
        match self {
            Self::Trusted => true,
            Self::Key(key) => key.may_use(model.names()),
            Self::Stranger => false,
        }
    }

    /// Refuses a model that is not among the key's own.
    pub fn check_model(&self, model: &InstalledModel) -> Result<(), RequestError> {
        if self.may_use(model) {
            return Ok(());
        }
        Err(RequestError::ModelNotAllowed {
            key: self
                .key()
                .map(|key| key.name.to_string())
                .unwrap_or_default(),
            model: quote(model.name()),
        })
    }
}

/// Finds out who is calling, and why they may not if so; they are a stranger then. `need` is the path's;
/// `None`: there is no such path, which who needs a key and has none is not told.
pub(crate) fn admit(
    state: &HttpState,
    rule: Rule,
    need: Option<Need>,
    (path, headers): (&str, &HeaderMap),
) -> (Caller, Result<(), RequestError>) {
    let keyring = match (rule, state.keys.get()) {
        (Rule::Open | Rule::OpenToAll, _) | (Rule::KeysOncePresent, None) => None,
        (_, keyring) => Some(keyring.unwrap_or_default()),
    };
    let caller = match keyring.map(|keyring| identified(&keyring, headers)) {
        None => Caller::Trusted,
        Some(Ok(key)) => Caller::Key(key),
        Some(Err(_)) if need == Some(Need::Nothing) => Caller::Stranger,
        Some(Err(error)) => return (Caller::Stranger, Err(error)),
    };
    let admitted = match need {
        Some(Need::Nothing | Need::Key(Role::User)) => Ok(()),
        Some(Need::Key(Role::Admin)) => administers((rule, &caller), quote(path), &state.http),
        None => Err(RequestError::UnknownPath { path: quote(path) }),
    };
    (caller, admitted)
}

fn identified(keyring: &Keyring, headers: &HeaderMap) -> Result<Arc<ApiKey>, RequestError> {
    let shown = shown_key(headers)?;
    keyring.find(shown).ok_or(RequestError::InvalidKey)
}

/// Whether a caller may do what is for administrators: one with such a key, and where no key is asked for
/// who is on this machine.
fn administers(
    (rule, caller): (Rule, &Caller),
    what: String,
    settings: &HttpSettings,
) -> Result<(), RequestError> {
    match caller {
        Caller::Key(key) if key.role != Role::Admin => Err(RequestError::RoleNotAllowed {
            key: key.name.to_string(),
            path: what,
        }),
        Caller::Trusted if rule == Rule::OpenToAll && !settings.open_admin => {
            Err(RequestError::AdminNotOpen { path: what })
        }
        Caller::Key(_) | Caller::Trusted => Ok(()),
        Caller::Stranger => Err(RequestError::MissingKey),
    }
}

/// Whether a request to a path of users may decide which models are loaded, if it asks for nothing else.
pub(crate) fn may_load(
    asking: (Rule, &Caller),
    settings: &HttpSettings,
) -> Result<(), RequestError> {
    let what = "a request that loads or unloads a model, and asks for no answer,";
    administers(asking, what.to_owned(), settings)
}

/// Resolves when a connection that outlives its first request may not go on: the caller's key was
/// revoked, lost models or is no admin's any more, or keys are asked for now where none were.
pub(crate) async fn shut_out(keys: &CurrentKeys, rule: Rule, caller: &Caller) {
    keys.wait_for(|keyring| !is_still_in(keyring, rule, caller))
        .await;
}

fn is_still_in(keyring: Option<&Keyring>, rule: Rule, caller: &Caller) -> bool {
    match (rule, caller) {
        (Rule::Open | Rule::OpenToAll, _) => true,
        (_, Caller::Key(key)) => keyring
            .and_then(|keyring| keyring.find_again(key))
            .is_some_and(|now| {
                let is_demoted = key.role == Role::Admin && now.role != Role::Admin;
                now.may_use_all_of(key) && !is_demoted
            }),
        (Rule::KeysOncePresent, Caller::Trusted) => keyring.is_none(),
        (Rule::Keys, Caller::Trusted) | (_, Caller::Stranger) => false,
    }
}

/// The one key that the headers show. Another scheme than Bearer is for another program, such as a
/// proxy's, and does not count.
fn shown_key(headers: &HeaderMap) -> Result<&[u8], RequestError> {
    let bearer = headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .filter_map(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
    let api_key = headers.get_all(&X_API_KEY).iter();
    let mut shown = bearer
        .chain(api_key.map(|value| value.as_bytes()))
        .map(<[u8]>::trim_ascii)
        .filter(|key| !key.is_empty());
    let first = shown.next().ok_or(RequestError::MissingKey)?;
    if shown.any(|other| other != first) {
        return Err(RequestError::InvalidKey);
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_key_is_shown_in_either_header() {
        for fields in [
            &[("authorization", "Bearer k")][..],
            &[("authorization", "bearer  k ")],
            &[("x-api-key", "k")],
            &[("authorization", "Bearer k"), ("x-api-key", "k")],
            &[("authorization", "Basic dTpw"), ("x-api-key", "k")],
            &[("authorization", "Bearer "), ("x-api-key", "k")],
        ] {
            assert_eq!(shown_key(&headers(fields)), Ok(&b"k"[..]), "{fields:?}");
        }
    }

    #[test]
    fn no_key_and_two_keys_are_told_apart() {
        for fields in [
            &[][..],
            &[("authorization", "Basic dTpw")],
            &[("authorization", "Bearer")],
            &[("authorization", "k")],
            &[("x-api-key", "")],
        ] {
            let headers = headers(fields);
            assert_eq!(
                shown_key(&headers),
                Err(RequestError::MissingKey),
                "{fields:?}"
            );
        }
        for fields in [
            [("authorization", "Bearer k"), ("x-api-key", "l")],
            [("authorization", "Bearer k"), ("authorization", "Bearer l")],
        ] {
            let headers = headers(&fields);
            assert_eq!(
                shown_key(&headers),
                Err(RequestError::InvalidKey),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn who_was_an_admin_and_is_a_user_now_is_shut_out() {
        let key = |role| ApiKey {
            name: "a".parse().unwrap(),
            digest: crate::auth::KeyDigest::of(b"a"),
            role,
            models: None,
            weight: crate::generation::Weight::default(),
            tenant: None,
            created: String::new(),
        };
        for (was, is, stays) in [
            (Role::Admin, Role::Admin, true),
            (Role::Admin, Role::User, false),
            (Role::User, Role::Admin, true),
            (Role::User, Role::User, true),
        ] {
            let mut keyring = Keyring::default();
            keyring.add(key(is)).unwrap();
            let caller = Caller::Key(Arc::new(key(was)));
            let still = is_still_in(Some(&keyring), Rule::Keys, &caller);
            assert_eq!(still, stays, "{was} {is}");
        }
    }
}
