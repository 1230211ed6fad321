//! The daemon's end of a loaded worker's socket. One task always reads it and hands each slot its
//! events, so that a client that has no room holds up its own run and no other: that run's worker
//! thread waits for credit, of which there is never more than the slot's channel has room for.

mod commands;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::oneshot;

use super::{Connection, WorkerKind};
use crate::children::{ConnectionError, Incoming};
use crate::generation::ClientKey;
use crate::ipc::{Command, Event, FrameError, SlotCommand, SlotEvent};
use commands::Commands;

/// Events that a run may be ahead of its client, beside what the client's own channel holds.
pub const TOKEN_CREDIT: u32 = 1024;
/// Likewise of events that may hold tensors: each may hold files open.
pub const TENSOR_CREDIT: u32 = 8;
/// Events of a slot that take no credit: of these a worker sends few, and none of them twice.
const OTHER_EVENTS: u32 = 64;

/// A text is kept for as long as its slot is not used again, and is no request's any more: of one with longer
/// tokens than models make of texts the beginning is enough to find it by.
const MOST_BYTES_PER_CELL: usize = 16;

/// An event, and the files that came with it, in the order in which it refers to them.
#[derive(Debug)]
pub struct Arrived {
    pub event: SlotEvent,
    pub files: Vec<OwnedFd>,
}

/// One slot's end of the link.
#[derive(Debug)]
pub struct SlotLink {
    slot: u8,
    events: mpsc::UnboundedReceiver<Arrived>,
    shared: Arc<Shared>,
    /// Of the run in progress: its number and its whole credit.
    run: Option<(u64, u32)>,
    /// Events taken for which the worker has no new credit yet.
    taken: u32,
    /// The text that its cells are of, as far as it is known.
    holds: String,
    /// Whose that is; `None`: no client's.
    holder: Option<ClientKey>,
    /// The adapter of the last run: whatever its cells hold was computed with it.
    adapter: Option<Arc<str>>,
    /// A prompt cache is loaded beside the cells.
    has_loaded: bool,
    was_used: bool,
    /// A run has made a token behind that: all of it was evaluated.
    is_evaluated: bool,
    /// When it was used last.
    used: Instant,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// When anything came from the worker last, in milliseconds from `started`.
    heard_ms: AtomicU64,
    /// When an event of any slot came last, likewise.
    moved_ms: AtomicU64,
    /// For each slot: events that may still come.
    room: Vec<AtomicI64>,
    /// Why nothing comes any more.
    end: OnceLock<ConnectionError>,
    commands: Commands,
    looks: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

/// Commands to a worker that are for none of its slots.
#[derive(Clone, Debug)]
pub struct WorkerCommands(Arc<Shared>);

impl WorkerCommands {
    /// The runs begin that sequences of one handle were given.
    pub fn begin_batch(&self) -> Result<(), ConnectionError> {
        self.0.send(&Command::BeginBatch)
    }
}

/// Begins to read the worker's events. Returns an end for each of its slots.
pub fn start(connection: Connection, slots: u8) -> Vec<SlotLink> {
    let (incoming, stream) = connection.into_split();
    let (looks, asked) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        started: Instant::now(),
        heard_ms: AtomicU64::new(0),
        moved_ms: AtomicU64::new(0),
        room: (0..slots)
            .map(|_| AtomicI64::new(OTHER_EVENTS.into()))
            .collect(),
        end: OnceLock::new(),
        commands: Commands::new(stream),
        looks,
    });
    let (senders, links) = (0..slots)
        .map(|slot| {
            let (sender, events) = mpsc::unbounded_channel();
            let shared = Arc::clone(&shared);
            let link = SlotLink {
                slot,
                events,
                shared,
                run: None,
                taken: 0,
                holds: String::new(),
                holder: None,
                adapter: None,
                has_loaded: false,
                was_used: false,
                is_evaluated: false,
                used: Instant::now(),
            };
            (sender, link)
        })
        .unzip();
    tokio::spawn(read(incoming, senders, asked, shared));
    links
}

/// Reads until the worker has closed its end or says what it must not.
async fn read(
    mut incoming: Incoming<WorkerKind>,
    slots: Vec<mpsc::UnboundedSender<Arrived>>,
    mut asked: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    shared: Arc<Shared>,
) {
    let error = loop {
        let received = tokio::select! {
            biased;
            received = incoming.receive() => received,
            // All that is here was read before.
            Some(done) = asked.recv() => {
                let _ = done.send(());
                continue;
            }
        };
        if let Err(error) = received.and_then(|()| hand_out(&mut incoming, &slots, &shared)) {
            break error;
        }
    };
    // Before the channels close, so that a slot that finds its channel closed finds the reason.
    let _ = shared.end.set(error);
}

fn hand_out(
    incoming: &mut Incoming<WorkerKind>,
    slots: &[mpsc::UnboundedSender<Arrived>],
    shared: &Shared,
) -> Result<(), ConnectionError> {
    let now = shared.now_ms();
    shared.heard_ms.store(now, Ordering::Relaxed);
    while let Some(event) = incoming.buffered_event()? {
        let Event::Slot { slot, event } = event else {
            // A heartbeat; anything else belongs to a load, which is over.
            continue;
        };
        shared.moved_ms.store(now, Ordering::Relaxed);
        let index = usize::from(slot);
        let (Some(sender), Some(room)) = (slots.get(index), shared.room.get(index)) else {
            return Err(FrameError::Impossible("an event of a slot that is not there").into());
        };
        if room.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(FrameError::Impossible("more events than it has credit for").into());
        }
        let count = event.files();
        let files = (0..count).map_while(|_| incoming.take_file()).collect();
        // A slot that is not wanted any more wants no events either.
        let _ = sender.send(Arrived { event, files });
    }
    Ok(())
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long ago that was.
    fn since(&self, ms: &AtomicU64) -> Duration {
        let then = Duration::from_millis(ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(then)
    }

    fn add_room(&self, slot: u8, events: u32) {
        self.room[usize::from(slot)].fetch_add(events.into(), Ordering::Relaxed);
    }

    fn ended(&self) -> ConnectionError {
        let end = self.end.get().cloned();
        end.unwrap_or(ConnectionError::Closed)
    }
}

impl SlotLink {
    pub fn slot(&self) -> u8 {
        self.slot
    }

    pub fn holds(&self) -> &str {
        &self.holds
    }

    pub fn used(&self) -> Instant {
        self.used
    }

    /// What its cells hold is not known from now on.
    pub fn hold_nothing(&mut self) {
        self.hold(&[], 0);
    }

    /// As it was before a call that has left the cells as they were.
    pub fn restore(&mut self, text: String, holder: Option<ClientKey>) {
        self.holds = text;
        self.holder = holder;
        self.used = Instant::now();
    }

    /// Its cells, so many at the most, are of these texts from now on.
    pub fn hold(&mut self, texts: &[&str], cells: u32) {
        self.was_used |= cells > 0;
        self.holds = beginning(texts, cells as usize * MOST_BYTES_PER_CELL);
        self.used = Instant::now();
    }

    pub fn holder(&self) -> Option<&ClientKey> {
        self.holder.as_ref()
    }

    /// Whatever its cells are of is this client's.
    pub fn set_holder(&mut self, holder: Option<ClientKey>) {
        self.holder = holder;
    }

    pub fn adapter(&self) -> Option<&Arc<str>> {
        self.adapter.as_ref()
    }

    /// A run with this adapter begins.
    pub fn set_adapter(&mut self, adapter: Option<Arc<str>>) {
        self.adapter = adapter;
    }

    /// Whether a run has left a text that is known.
    pub fn was_used(&self) -> bool {
        self.was_used
    }

    pub fn is_evaluated(&self) -> bool {
        self.is_evaluated
    }

    pub fn set_evaluated(&mut self, is_evaluated: bool) {
        self.is_evaluated = is_evaluated;
    }

    pub fn has_loaded(&self) -> bool {
        self.has_loaded
    }

    pub fn set_loaded(&mut self, has_loaded: bool) {
        self.has_loaded = has_loaded;
    }

    /// Hands a command to the slot. It never waits for the worker: one that does not read is missed by
    /// its heartbeat.
    pub fn send(&mut self, command: SlotCommand) -> Result<(), ConnectionError> {
        let run = match &command {
            SlotCommand::Run(spec) => Some((spec.run, spec.credit)),
            SlotCommand::RawRun(spec) => Some((spec.run, spec.credit)),
            SlotCommand::LibraryCall(_)
            | SlotCommand::Ask { .. }
            | SlotCommand::Abort { .. }
            | SlotCommand::Credit { .. } => None,
        };
        if let Some((_, credit)) = run {
            let room = OTHER_EVENTS.saturating_add(credit);
            self.shared.room[usize::from(self.slot)].store(room.into(), Ordering::Relaxed);
            self.run = run;
            self.taken = 0;
        }
        let slot = self.slot;
        self.shared.send(&Command::Slot { slot, command })
    }

    pub fn commands(&self) -> WorkerCommands {
        WorkerCommands(Arc::clone(&self.shared))
    }

    /// Asks the worker to end.
    pub fn unload(&self) -> Result<(), ConnectionError> {
        self.shared.send(&Command::Unload)
    }

    /// The next event that is already here.
    pub fn buffered_event(&mut self) -> Result<Option<Arrived>, ConnectionError> {
        match self.events.try_recv() {
            Ok(arrived) => Ok(Some(self.taken(arrived))),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(self.shared.ended()),
        }
    }

    /// The next event. It can be dropped at any time without losing one.
    pub async fn next_event(&mut self) -> Result<Arrived, ConnectionError> {
        match self.events.recv().await {
            Some(arrived) => Ok(self.taken(arrived)),
            None => Err(self.shared.ended()),
        }
    }

    /// Returns once all that has arrived by now can be taken.
    pub fn look(&self) -> impl Future<Output = ()> + use<> {
        let (done, looked) = oneshot::channel();
        let _ = self.shared.looks.send(done);
        async { drop(looked.await) }
    }

    /// How long nothing has come from the worker, whatever slot it would be for.
    pub fn silent_for(&self) -> Duration {
        self.shared.since(&self.shared.heard_ms)
    }

    /// How long no slot of the worker has told anything.
    pub fn still_for(&self) -> Duration {
        self.shared.since(&self.shared.moved_ms)
    }

    /// Makes room for as many events as were taken: at once in the channel, now and then by new credit.
    fn taken(&mut self, arrived: Arrived) -> Arrived {
        if !arrived.event.takes_credit() {
            self.shared.add_room(self.slot, 1);
            return arrived;
        }
        let Some((run, credit)) = self.run else {
            return arrived;
        };
        self.taken += 1;
        if self.taken > credit / 4 {
            let events = std::mem::take(&mut self.taken);
            self.shared.add_room(self.slot, events);
            // A worker that is gone needs none, and what it has said is not lost with it.
            let _ = self.send(SlotCommand::Credit { run, events });
        }
        arrived
    }
}

/// So many bytes of the texts together.
fn beginning(texts: &[&str], most_bytes: usize) -> String {
    let mut left = most_bytes;
    let mut parts = Vec::with_capacity(texts.len());
    for text in texts {
        let part = &text[..text.floor_char_boundary(left)];
        left -= part.len();
        parts.push(part);
        if part.len() < text.len() {
            break;
        }
    }
    parts.concat()
}

#[cfg(test)]
mod tests;
