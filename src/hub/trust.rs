//! By what a hub is known, and what it is shown.

use std::path::Path;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::url::Url;
use super::{HubAccess, PullError};
use crate::regular_file;

const MOST_TOKEN_BYTES: u64 = 4096;
const MOST_CERTIFICATE_BYTES: u64 = 16 << 20;

/// Where a machine's certificates lie: on Debian, on Fedora, on openSUSE.
const CERTIFICATES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// The certificates are read for an endpoint without encryption too: it may lead to others.
pub(super) fn tls(hub: &HubAccess, endpoint: &Url) -> Result<TlsConfig, PullError> {
    let chosen = hub.ca_file.as_ref().map(|path| path.to_path());
    let own = CERTIFICATES.iter().map(Path::new);
    let path = match &chosen {
        Some(path) => Some(path.as_path()),
        None => own.into_iter().find(|path| path.is_file()),
    };
    let certificates = match path {
        Some(path) => certificates(path)?,
        None if endpoint.is_https => {
            let reason = "this machine has no certificates to know a hub by: install the package \
                          ca-certificates, or name a file of them";
            return Err(settings("hub.ca-file", reason));
        }
        None => Vec::new(),
    };
    let provider = rustls::crypto::ring::default_provider();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::from(certificates))
        .unversioned_rustls_crypto_provider(provider.into())
        .build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, PullError> {
    let shown = path.display().to_string();
    let text = regular_file::read_text(path, MOST_CERTIFICATE_BYTES)
        .map_err(|error| settings("hub.ca-file", &format!("{shown}: {error}")))?;
    let items = ureq::tls::parse_pem(text.as_bytes());
    let found: Vec<_> = items
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match found.is_empty() {
        true => Err(settings(
            "hub.ca-file",
            &format!("{shown} holds no certificate"),
        )),
        false => Ok(found),
    }
}

pub(super) fn token(hub: &HubAccess) -> Result<Option<String>, PullError> {
    let Some(path) = &hub.token_file else {
        return Ok(None);
    };
    let path = path.to_path();
    let wrong =
        |reason: String| settings("hub.token-file", &format!("{}: {reason}", path.display()));
    let text = regular_file::read_text(&path, MOST_TOKEN_BYTES);
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let token = text.trim();
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Some(token.to_owned())),
        false => Err(wrong("it holds no token".to_owned())),
    }
}

pub(super) fn settings(what: &str, reason: &str) -> PullError {
    PullError::Settings {
        what: what.to_owned(),
        reason: reason.to_owned(),
    }
}
