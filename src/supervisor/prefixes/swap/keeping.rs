//! From a place to write to, to a prefix that is there: what waits for the disk around a save and a load.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apart::{self, Subject};
use crate::supervisor::handle::{SavedPrompt, Unsaved};
use crate::supervisor::prefixes::hatch::{Given, Hatch};
use crate::supervisor::prefixes::marks::{Text, mark};
use crate::supervisor::prefixes::state::{Fault, LoadOrder, NotKept, SaveOrder, record_of};
use crate::supervisor::prefixes::{Inner, hour_now};
use crate::supervisor::worker::Worker;

/// For what is no reading or writing of many bytes.
const LIMIT: Duration = Duration::from_secs(10);
/// A file's disk keeps so many times its size free.
const LEAST_FREE: u64 = 2;

/// A save that was ordered. Dropped, it gives back what was kept for it; what it has written counts, whatever
/// became of that.
#[derive(Debug)]
pub struct Saving {
    prefixes: Arc<Inner>,
    pub order: SaveOrder,
    /// Something may have been written that is not counted.
    is_begun: bool,
    /// In which it is written; kept also when its worker is gone.
    hatch: Option<Arc<Hatch>>,
}

impl Saving {
    pub fn new(prefixes: &Arc<Inner>, order: SaveOrder) -> Self {
        Self {
            prefixes: Arc::clone(prefixes),
            order,
            is_begun: false,
            hatch: None,
        }
    }

    /// A place to write to, on a disk that writes and has room.
    pub async fn begin(&mut self, run: u64, worker: &Worker) -> Option<SavedPrompt> {
        let folder = self.prefixes.folder.clone();
        self.hatch.clone_from(&worker.hatch);
        let saved = self.hatch.as_ref().map(|hatch| hatch.saved());
        let (id, bytes) = (self.order.id, self.order.assumed_bytes);
        let made = apart::ask(self.prefixes.subject(), LIMIT, move || {
            let has_room = |free: u64| free >= bytes.saturating_mul(LEAST_FREE);
            if !folder.free_bytes().is_none_or(has_room) {
                return Err("no room is left on the disk".to_owned());
            }
            let proven = folder.prove_writable();
            let place = proven.and_then(|()| folder.place(id, run, saved.as_deref()));
            place.map_err(|error| error.to_string())
        });
        match made.await {
            Some(Ok(place)) => {
                self.is_begun = true;
                Some(place)
            }
            Some(Err(reason)) => {
                self.prefixes.rest(&reason);
                None
            }
            None => {
                self.prefixes.disk_hangs();
                None
            }
        }
    }

    /// It has come to nothing.
    pub async fn give_up(mut self, place: SavedPrompt) {
        let written = place.size().await;
        self.wrote(written.unwrap_or(self.order.assumed_bytes));
        let (folder, daily) = (
            self.prefixes.folder.clone(),
            self.prefixes.lock().daily().clone(),
        );
        apart::begin(self.prefixes.subject(), move || {
            if let Err(error) = folder.remember(&daily) {
                tracing::debug!(%error, "what a day has written is not remembered");
            }
        });
    }

    fn wrote(&mut self, bytes: u64) {
        self.is_begun = false;
        self.prefixes.lock().wrote(self.order.id, bytes, hour_now());
    }

    /// Brings what was written to the disk and into the index.
    pub async fn keep(mut self, place: SavedPrompt, (started, limit): (Instant, Duration)) {
        let prefixes = Arc::clone(&self.prefixes);
        let written = match place.written(limit).await {
            Ok(written) => written,
            Err(unsaved) => {
                self.unsaved(unsaved);
                return self.give_up(place).await;
            }
        };
        self.wrote(written.bytes);
        prefixes
            .metrics
            .prefix_written(&self.order.of.model, written.bytes);
        let whole = prefixes.lock().whole(&self.order, written);
        let going = match whole {
            Ok(going) => going,
            Err(NotKept::Unwanted) => return,
            Err(NotKept::CutShort { cell_bytes }) => {
                let reason = format!(
                    "it was cut short: it has {} bytes for each token, and others have {cell_bytes}",
                    written.cell_bytes.unwrap_or(0)
                );
                return prefixes.failed(&self.order.of, "save", &reason, Fault::Own);
            }
        };
        prefixes.tell_memory();
        let folder = prefixes.folder.clone();
        let removed = apart::ask(prefixes.subject(), LIMIT, move || folder.remove(&going));
        if removed.await.is_none() {
            return prefixes.disk_hangs();
        }
        if let Err(unsaved) = place.publish(limit).await {
            return self.unsaved(unsaved);
        }
        let (folder, id) = (prefixes.folder.clone(), self.order.id);
        let record = record_of(&self.order, written);
        let daily = prefixes.lock().daily().clone();
        let published = apart::ask(prefixes.subject(), LIMIT, move || {
            folder.written(id)?;
            folder.remember(&daily)?;
            folder.publish(id, &record)
        });
        match published.await {
            Some(Ok(())) => {
                let took = started.elapsed();
                let text = Text::from(self.order.text.as_str());
                mark(&[&text]);
                let text = text.marked();
                let going = prefixes.lock().saved(&self.order, text, written, took);
                prefixes.remove(going);
            }
            Some(Err(error)) => {
                prefixes.remove(vec![id]);
                prefixes.rest(&error.to_string());
            }
            None => {
                prefixes.remove(vec![id]);
                prefixes.disk_hangs();
            }
        }
    }

    fn unsaved(&self, unsaved: Unsaved) {
        match unsaved {
            Unsaved::Disk(reason) => self.prefixes.rest(&reason),
            Unsaved::Library(reason) => {
                self.prefixes
                    .failed(&self.order.of, "save", &reason, Fault::Own);
            }
        }
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        if self.is_begun {
            self.wrote(self.order.assumed_bytes);
        }
        self.prefixes.lock().save_ended(self.order.id);
    }
}

/// Where a prefix is to be loaded from, once it has been read and is whole. `None`: it is not to be.
pub(super) async fn ready(
    prefixes: &Inner,
    order: &LoadOrder,
    limit: Duration,
    worker: &Worker,
) -> Option<Given> {
    let (folder, id, bytes) = (prefixes.folder.clone(), order.id, order.file_bytes);
    let given = worker.hatch.as_ref().map(|hatch| hatch.given());
    let subject = Subject::File(folder.cache(id));
    let read = move || -> io::Result<Option<io::Result<Given>>> {
        if !folder.read_through(id, bytes)? {
            return Ok(None);
        }
        match Given::new(&folder, id, given.as_deref()) {
            // It went meanwhile.
            Err(error) if !folder.cache(id).exists() => Err(error),
            given => Ok(Some(given)),
        }
    };
    match apart::ask(subject, limit, read).await {
        Some(Ok(Some(Ok(given)))) => Some(given),
        // It is whole, and another worker may have it.
        Some(Ok(Some(Err(error)))) => {
            prefixes.rest(&format!("a worker's folder takes nothing: {error}"));
            None
        }
        Some(Ok(None)) => {
            give_up(prefixes, order, "its file is not whole", Fault::None);
            None
        }
        Some(Err(error)) => {
            give_up(prefixes, order, &error.to_string(), Fault::None);
            None
        }
        None => {
            prefixes.disk_hangs();
            None
        }
    }
}

/// A prefix that could not be used goes. One that went meanwhile is no failure.
pub(super) fn give_up(prefixes: &Inner, order: &LoadOrder, reason: &str, fault: Fault) {
    let was_there = prefixes.lock().remove(order.id);
    if was_there {
        prefixes.remove(vec![order.id]);
        prefixes.failed(&order.of, "load", reason, fault);
    }
}
