//! What those are told who follow the daemon's changes: every state of a model that the status has shown, in
//! order.

use std::sync::Arc;

use crate::supervisor::status::StatusSnapshot;
use crate::telemetry::{Change, Changes};

/// Tells what is not as it was before.
pub(super) fn differences(changes: &Changes, before: &StatusSnapshot, now: &StatusSnapshot) {
    for (model, status) in now.iter() {
        let known = before.get(model);
        let pid = known.and_then(|known| known.pid);
        if let Some(pid) = status.pid.filter(|_| status.pid != pid) {
            let model = Arc::clone(model);
            changes.tell(|| Change::WorkerStarted { model, pid });
        }
        let state = status.phase.name();
        if known.is_none_or(|known| known.phase.name() != state) {
            let model = Arc::clone(model);
            changes.tell(|| Change::ModelState { model, state });
        }
    }
    for model in before.keys().filter(|model| !now.contains_key(*model)) {
        let (model, state) = (Arc::clone(model), "removed");
        changes.tell(|| Change::ModelState { model, state });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::supervisor::status::{ModelStatus, Phase};
    use crate::telemetry::Next;

    fn snapshot(models: &[(&str, Phase, Option<u32>)]) -> StatusSnapshot {
        let status = |phase: &Phase, pid| ModelStatus {
            phase: phase.clone(),
            since: Instant::now(),
            pid,
            facts: None,
            blocked: None,
            memory: None,
            plan: None,
            slots: None,
            decode_tokens_per_second: None,
            kept: Default::default(),
        };
        let models = models.iter();
        let models = models.map(|(id, phase, pid)| ((*id).into(), status(phase, *pid)));
        Arc::new(models.collect())
    }

    #[tokio::test]
    async fn each_difference_is_told_once() {
        let changes = Changes::default();
        let (_, mut followed) = changes.follow(64);
        let steps = [
            snapshot(&[("a", Phase::Unloaded, None)]),
            snapshot(&[("a", Phase::Spawning, Some(7))]),
            snapshot(&[("a", Phase::Spawning, Some(7))]),
            snapshot(&[("a", Phase::Ready, Some(7)), ("b", Phase::Unloaded, None)]),
            snapshot(&[("b", Phase::Unloaded, None)]),
        ];
        for pair in steps.windows(2) {
            differences(&changes, &pair[0], &pair[1]);
        }
        let mut told = Vec::new();
        for _ in 0..5 {
            let Some(Next::Change(change)) = followed.next().await else {
                panic!("one is missing after {told:?}");
            };
            told.push(match &change.change {
                Change::ModelState { model, state } => format!("{model} {state}"),
                Change::WorkerStarted { model, pid } => format!("{model} {pid}"),
                other => panic!("{other:?}"),
            });
        }
        let expected = ["a 7", "a spawning", "a ready", "b unloaded", "a removed"];
        assert_eq!(told, expected);
        let (last, _) = changes.follow(1);
        assert_eq!(last, 5, "nothing else was told");
    }
}
