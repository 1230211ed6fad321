//! What workers and transfers may reach of the file system.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Settings;

/// What children may reach, where the kernel has Landlock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConfinementSettings {
    /// Whether a worker reaches nothing of the daemon's, of other models' and of other tenants'.
    pub workers: bool,
    /// Whether a pull reaches nothing but the folder of pulls, and what it needs to find and trust a hub.
    pub pulls: bool,
    /// Further paths that a worker may read, and start programs of.
    pub worker_reads: Vec<PathBuf>,
    /// Further folders that a worker may read, write and remove files in.
    pub worker_writes: Vec<PathBuf>,
}

impl Default for ConfinementSettings {
    fn default() -> Self {
        Self {
            workers: true,
            pulls: true,
            worker_reads: Vec::new(),
            worker_writes: Vec::new(),
        }
    }
}

/// Keys with a path that is none from the root: its reader must not have to know where the daemon was
/// started.
pub(super) fn relative_paths(settings: &Settings) -> impl Iterator<Item = (&'static str, String)> {
    let wanted = &settings.confinement;
    let paths = [
        ("confinement.worker-reads", &wanted.worker_reads),
        ("confinement.worker-writes", &wanted.worker_writes),
    ];
    paths.into_iter().flat_map(|(key, paths)| {
        let relative = paths.iter().filter(|path| !path.is_absolute());
        relative.map(move |path| {
            let reason = format!("`{}` must begin with /", path.display());
            (key, reason)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_root() {
        let mut settings = Settings::default();
        settings.confinement.worker_reads = vec!["/opt/npu".into(), "etc".into()];
        settings.confinement.worker_writes = vec!["".into()];
        let keys: Vec<_> = relative_paths(&settings).map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            ["confinement.worker-reads", "confinement.worker-writes"]
        );
    }
}
