//! Carries events to the daemon. The callback only pushes; a thread of its own encodes and writes,
//! and events that are already waiting share a write, so that none is held back to make a batch.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::ipc::{self, Event};

/// Events that may wait. When the daemon stops reading, the callback waits here: generation pauses
/// and memory stays bounded.
const QUEUE_EVENTS: usize = 1024;
/// A write is not made larger than about this.
const WRITE_BYTES: usize = 64 * 1024;
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

enum Item {
    Event(Event),
    /// Answered when everything before it was written.
    Flush(SyncSender<()>),
}

/// The sending end; cloned freely.
#[derive(Clone)]
pub struct EventWriter {
    queue: SyncSender<Item>,
}

impl EventWriter {
    pub fn start(socket: UnixStream) -> std::io::Result<Self> {
        let (queue, items) = sync_channel(QUEUE_EVENTS);
        thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || write_events(socket, &items))?;
        Ok(Self { queue })
    }

    /// Queues an event. Once the daemon is gone events are dropped; the reader notices that.
    pub fn send(&self, event: Event) {
        let _ = self.queue.send(Item::Event(event));
    }

    /// Queues an event without waiting; gives it back when the queue is full.
    pub fn try_send(&self, event: Event) -> Result<(), Event> {
        match self.queue.try_send(Item::Event(event)) {
            Err(TrySendError::Full(Item::Event(event))) => Err(event),
            _ => Ok(()),
        }
    }

    /// Waits until everything so far was written, but not for ever.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _: Result<(), RecvTimeoutError> = written.recv_timeout(FLUSH_LIMIT);
        }
    }
}

fn write_events(mut socket: UnixStream, items: &Receiver<Item>) {
    let mut buffer = Vec::with_capacity(WRITE_BYTES);
    let mut flushed = Vec::new();
    while let Ok(first) = items.recv() {
        let mut next = Some(first);
        while let Some(item) = next.take() {
            match item {
                Item::Event(event) => {
                    if let Err(error) = ipc::encode(&event, &mut buffer) {
                        eprintln!("E rkllmd-worker: an event cannot be sent: {error}");
                    }
                }
                Item::Flush(done) => flushed.push(done),
            }
            if buffer.len() < WRITE_BYTES {
                next = items.try_recv().ok();
            }
        }
        if socket.write_all(&buffer).is_err() {
            return;
        }
        buffer.clear();
        for done in flushed.drain(..) {
            let _ = done.send(());
        }
    }
}
