//! What a transfer is told: everything that it needs of the settings, because it reads none itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ipc::RawPath;
use crate::settings::{HubProxy, HubSettings, Settings};

/// One model that is to be brought.
#[derive(Clone, Serialize, Deserialize)]
pub struct Job {
    /// As it was asked for; see [`Reference`](super::Reference).
    pub asked: String,
    /// The name of its folder instead of the repository's.
    pub name: Option<String>,
    /// Takes what was named although it may not suit this machine.
    pub force: bool,
    /// The models folder.
    pub models: RawPath,
    /// The vendor's library, whose version is looked at.
    pub npu_library: RawPath,
    pub hub: HubAccess,
    /// What a confined transfer never reaches; `None`: it is not to be confined.
    pub hidden: Option<Vec<RawPath>>,
}

/// The hub, and how it is reached.
#[derive(Clone, Serialize, Deserialize)]
pub struct HubAccess {
    pub endpoint: String,
    pub token_file: Option<RawPath>,
    pub redirect_hosts: Vec<String>,
    pub ca_file: Option<RawPath>,
    pub proxy: Option<String>,
    pub without_proxy: Vec<String>,
    pub offline: bool,
    pub quota_bytes: Option<u64>,
    pub keep_free_bytes: u64,
    pub max_tries: u32,
    pub retry_wait: Duration,
    pub connect_timeout: Duration,
    pub stall_timeout: Duration,
    pub slowest_bytes_per_second: u32,
}

impl Job {
    /// For the machine that these settings are of.
    pub fn new(asked: &str, settings: &Settings) -> Self {
        Self {
            asked: asked.to_owned(),
            name: None,
            force: false,
            models: RawPath::from(&settings.models.dir),
            npu_library: RawPath::from(&settings.runtime.npu_library),
            hub: HubAccess::of(&settings.hub),
            hidden: settings.confinement.pulls.then(|| {
                let hidden = [&settings.http.keys_file, &settings.library.state_dir];
                let hidden = hidden.into_iter().chain(&settings.prefixes.folder);
                hidden.map(RawPath::from).collect()
            }),
        }
    }
}

impl HubAccess {
    fn of(settings: &HubSettings) -> Self {
        let HubProxy { url, without } = settings.proxy();
        Self {
            endpoint: settings.endpoint.clone(),
            token_file: settings.token_file.as_deref().map(RawPath::from),
            redirect_hosts: settings.redirect_hosts.clone(),
            ca_file: settings.ca_file.as_deref().map(RawPath::from),
            proxy: url,
            without_proxy: without,
            offline: settings.offline,
            quota_bytes: settings.quota_bytes,
            keep_free_bytes: settings.keep_free_bytes,
            max_tries: settings.max_tries,
            retry_wait: settings.retry_wait,
            connect_timeout: settings.connect_timeout,
            stall_timeout: settings.stall_timeout,
            slowest_bytes_per_second: settings.slowest_bytes_per_second,
        }
    }
}
