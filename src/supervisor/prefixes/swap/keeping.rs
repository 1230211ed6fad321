//! From a place to write to, to a prefix that is there: what waits for the disk around a save.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apart;
use crate::supervisor::handle::{SavedPrompt, Unsaved};
use crate::supervisor::prefixes::state::{LoadOrder, SaveOrder, record_of};
use crate::supervisor::prefixes::{Inner, hour_now};

/// For what is no reading or writing of many bytes.
const LIMIT: Duration = Duration::from_secs(10);
/// A file's disk keeps so many times its size free.
const LEAST_FREE: u64 = 2;

/// Makes room, and a place to write to.
pub(super) async fn begin(
    prefixes: &Inner,
    order: &SaveOrder,
    run: u64,
) -> Result<SavedPrompt, String> {
    let folder = prefixes.folder.clone();
    let (id, remove, bytes) = (order.id, order.remove.clone(), order.assumed_bytes);
    let made = apart::ask(prefixes.subject(), LIMIT, move || {
        folder.remove(&remove);
        if folder
            .free_bytes()
            .is_some_and(|free| free < bytes.saturating_mul(LEAST_FREE))
        {
            return Err("no room is left on the disk".to_owned());
        }
        folder.place(id, run).map_err(|error| error.to_string())
    });
    made.await
        .unwrap_or_else(|| Err("the disk does not answer".to_owned()))
}

/// Brings what was written to the disk and into the index.
pub(super) async fn keep(
    prefixes: &Arc<Inner>,
    place: SavedPrompt,
    order: SaveOrder,
    (started, limit): (Instant, Duration),
) {
    let hour = hour_now();
    let named = match place.publish(limit).await {
        Ok(()) => {
            let (folder, id) = (prefixes.folder.clone(), order.id);
            apart::ask(prefixes.subject(), LIMIT, move || folder.written(id)).await
        }
        Err(Unsaved::Disk(reason)) => return prefixes.rest(&reason),
        Err(Unsaved::Library(reason)) => {
            return prefixes.failed(&order.of, "save", &reason, false);
        }
    };
    let bytes = match named {
        Some(Ok(bytes)) => bytes,
        Some(Err(error)) => return prefixes.rest(&error.to_string()),
        None => return prefixes.rest("the disk does not answer"),
    };
    let daily = {
        let mut state = prefixes.lock();
        state.wrote(bytes, hour);
        state.daily().clone()
    };
    prefixes.metrics.prefix_written(&order.of.model, bytes);
    let (folder, id, record) = (prefixes.folder.clone(), order.id, record_of(&order, bytes));
    let published = apart::ask(prefixes.subject(), LIMIT, move || {
        folder.remember(&daily)?;
        folder.publish(id, &record)
    });
    match published.await {
        Some(Ok(())) => {
            let going = prefixes.lock().saved(&order, bytes, started.elapsed());
            prefixes.remove(going);
        }
        Some(Err(error)) => {
            prefixes.remove(vec![id]);
            prefixes.rest(&error.to_string());
        }
        None => {
            prefixes.remove(vec![id]);
            prefixes.rest("the disk does not answer");
        }
    }
}

/// A prefix that could not be used goes. One that went meanwhile has failed nobody.
pub(super) fn give_up(prefixes: &Inner, order: &LoadOrder, reason: &str, for_good: bool) {
    let was_there = prefixes.lock().remove(order.id);
    if was_there {
        prefixes.remove(vec![order.id]);
        prefixes.failed(&order.of, "load", reason, for_good);
    }
}
