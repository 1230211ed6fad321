//! Who a request is from and what it may do, decided before any handler sees it.
//!
//! What each path needs is in the table of [`paths`](super::paths). Where no key is asked for none is
//! looked at. Keys are compared as SHA-256, in constant time.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, header};

use crate::auth::{ApiKey, CurrentKeys, Keyring, KeysFile, Role};
use crate::http::HttpState;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::paths::Need;
use crate::http::transport::listener::ListenerAddress;
use crate::memory::Standing;
use crate::models::InstalledModel;
use crate::settings::{AuthPolicy, HttpSettings, UnixSocketAuth};

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Whether a listener asks for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It does not, and is this machine's alone.
    Open,
    /// It does not, whichever client reaches it.
    OpenToAll,
    /// As soon as there is a file of keys.
    KeysOncePresent,
    Keys,
}

impl Rule {
    pub fn of(address: &ListenerAddress, settings: &HttpSettings) -> Self {
        match (address, settings.auth, settings.unix_socket_auth) {
            (ListenerAddress::Unix(_), _, UnixSocketAuth::Keys) => Self::Keys,
            (ListenerAddress::Unix(Some(_)), _, UnixSocketAuth::Permissions) => Self::Open,
            // Without a path it has no permissions: every user of this machine may connect.
            (ListenerAddress::Unix(None), AuthPolicy::Keys, _) => Self::KeysOncePresent,
            (ListenerAddress::Unix(None), AuthPolicy::None, _) => Self::Open,
            (ListenerAddress::Tcp(address), AuthPolicy::None, _) => {
                match address.ip().to_canonical().is_loopback() {
                    true => Self::Open,
                    false => Self::OpenToAll,
                }
            }
            (ListenerAddress::Tcp(address), AuthPolicy::Keys, _) => {
                if address.ip().to_canonical().is_loopback() {
                    Self::KeysOncePresent
                } else {
                    Self::Keys
                }
            }
        }
    }
}

/// The daemon would let in every client of the network, or none.
#[derive(Debug, thiserror::Error)]
#[error(
    "refusing to listen on {address}, which is more than loopback, without any key in {keys_file}. \
     Add one with `rkllmd keys add NAME`; or listen on a loopback address; or let every client in by \
     writing `auth = \"none\"` under [http] in the configuration"
)]
pub struct ExposedWithoutKeys {
    address: ListenerAddress,
    keys_file: String,
}

/// Whether listeners at these addresses may be served with the keys there are. Asked once, before
/// serving.
///
/// # Errors
///
/// One of them is reachable from the network and there is no key.
pub fn check_exposure(
    addresses: &[ListenerAddress],
    settings: &HttpSettings,
    keys: &CurrentKeys,
) -> Result<(), ExposedWithoutKeys> {
    let has_keys = keys.get().is_some_and(|keyring| !keyring.is_empty());
    for address in addresses {
        if !matches!(address, ListenerAddress::Tcp(_)) {
            continue;
        }
        match Rule::of(address, settings) {
            Rule::Keys if !has_keys => {
                return Err(ExposedWithoutKeys {
                    address: address.clone(),
                    keys_file: settings.keys_file.display().to_string(),
                });
            }
            Rule::OpenToAll => {
                tracing::warn!(%address, "every client that reaches this address may use every model: http.auth is \"none\"");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Why a daemon with these settings would not start, as far as this user may read the keys.
pub fn exposure(settings: &HttpSettings) -> Option<ExposedWithoutKeys> {
    let keyring = KeysFile::new(&settings.keys_file).read().ok()?;
    let listen = settings.listen.iter();
    let addresses: Vec<_> = listen.map(|&a| ListenerAddress::Tcp(a)).collect();
    check_exposure(&addresses, settings, &CurrentKeys::fixed(keyring)).err()
}

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

    #[test]
    fn a_listener_asks_for_keys_by_its_bound_address() {
        let rule = |address: &str, auth| {
            let settings = HttpSettings {
                auth,
                ..HttpSettings::default()
            };
            Rule::of(&ListenerAddress::Tcp(address.parse().unwrap()), &settings)
        };
        for loopback in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert_eq!(rule(loopback, AuthPolicy::Keys), Rule::KeysOncePresent);
            assert_eq!(rule(loopback, AuthPolicy::None), Rule::Open);
        }
        for beyond in ["0.0.0.0:1", "[::]:1", "192.168.1.2:1", "[fe80::1]:1"] {
            assert_eq!(rule(beyond, AuthPolicy::Keys), Rule::Keys);
            assert_eq!(rule(beyond, AuthPolicy::None), Rule::OpenToAll);
        }
        let path = || Some("/run/socket".into());
        for (path, auth, unix_socket_auth, expected) in [
            (
                path(),
                AuthPolicy::Keys,
                UnixSocketAuth::Permissions,
                Rule::Open,
            ),
            (path(), AuthPolicy::Keys, UnixSocketAuth::Keys, Rule::Keys),
            (path(), AuthPolicy::None, UnixSocketAuth::Keys, Rule::Keys),
            // An abstract one.
            (
                None,
                AuthPolicy::Keys,
                UnixSocketAuth::Permissions,
                Rule::KeysOncePresent,
            ),
            (
                None,
                AuthPolicy::None,
                UnixSocketAuth::Permissions,
                Rule::Open,
            ),
            (None, AuthPolicy::None, UnixSocketAuth::Keys, Rule::Keys),
        ] {
            let settings = HttpSettings {
                auth,
                unix_socket_auth,
                ..HttpSettings::default()
            };
            assert_eq!(Rule::of(&ListenerAddress::Unix(path), &settings), expected);
        }
    }
}
