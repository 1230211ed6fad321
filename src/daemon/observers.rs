//! What is told to administrators that no request causes, and the examination that they may ask for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::auth::CurrentKeys;
use crate::board::Sysroot;
use crate::confinement::Landlock;
use crate::doctor::{Examiner, Patient, Whose};
use crate::http::Examine;
use crate::settings::{ConfinementSettings, Settings};
use crate::telemetry::{self, Change, Changes};

/// Entries of the log that are lost within this time are told of together.
const TOGETHER: Duration = Duration::from_secs(1);

/// Tells how many keys there are whenever they have changed.
pub(super) async fn tell_keys(keys: CurrentKeys, changes: Changes) {
    keys.follow(|keyring| {
        let keys = keyring.keys().count();
        changes.tell(|| Change::Keys { keys });
    })
    .await;
}

/// Says once to what workers and pulls are confined.
pub(super) fn tell_confinement(settings: &Settings) {
    let ConfinementSettings { workers, pulls, .. } = settings.confinement;
    match Landlock::of_this_machine() {
        Landlock::Missing(reason) => tracing::warn!(
            reason,
            "no Landlock: workers and pulls reach what the daemon's user does; the unit's other walls stand"
        ),
        Landlock::There(version) => {
            let pulls = pulls && Landlock::of_this_machine().lets_folders_move();
            tracing::info!(
                landlock = version,
                workers,
                pulls,
                "who is confined to its own files"
            );
        }
    }
}

/// Tells of lost entries of the log.
pub(super) async fn tell_log_loss(changes: Changes) {
    loop {
        telemetry::log_entry_lost().await;
        let entries = telemetry::log_entries_dropped();
        changes.tell(|| Change::LogLost { entries });
        tokio::time::sleep(TOGETHER).await;
    }
}

/// What `rkllmd doctor` does, with the settings that the daemon runs with then.
pub(super) fn examination(settings: &watch::Sender<Arc<Settings>>) -> Arc<Examine> {
    let (settings, examiner) = (settings.subscribe(), Examiner::default());
    Arc::new(move || {
        let settings = Settings::clone(&settings.borrow());
        let mut patient = Patient::new(Sysroot::own(), settings);
        patient.whose = Whose::OwnDaemon;
        examiner.examine(patient).to_json()
    })
}
