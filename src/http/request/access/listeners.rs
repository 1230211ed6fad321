//! Which listeners ask for keys, and that none of the network's is open by mistake.

use crate::auth::{CurrentKeys, KeysFile};
use crate::http::transport::listener::ListenerAddress;
use crate::settings::{AuthPolicy, HttpSettings, UnixSocketAuth};

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

#[cfg(test)]
mod tests {
    use super::*;

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
