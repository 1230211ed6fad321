//! Carries events to the daemon. The callback only pushes; a thread of its own encodes and writes,
//! and events that are already waiting share a write, so that none is held back to make a batch.

use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::ipc::{self, Event};
use crate::short_slice;

/// Events that may wait. The daemon always reads, so that it is a slow machine that fills this: the
/// callbacks wait then, and memory stays bounded.
const QUEUE_EVENTS: usize = 1024;
/// A write is not made larger than about this.
const WRITE_BYTES: usize = 64 * 1024;
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

enum Item {
    /// With its files, in the order in which it refers to them.
    Event(Event, Vec<OwnedFd>),
    /// Answered when everything before it was written.
    Flush(SyncSender<()>),
}

/// The sending end; cloned freely.
#[derive(Clone)]
pub struct EventWriter {
    queue: SyncSender<Item>,
    /// A heartbeat is queued and not written yet.
    heartbeat_waits: Arc<AtomicBool>,
}

impl EventWriter {
    pub fn start(socket: UnixStream) -> std::io::Result<Self> {
        let (queue, items) = sync_channel(QUEUE_EVENTS);
        let heartbeat_waits = Arc::new(AtomicBool::new(false));
        let heartbeat = Arc::clone(&heartbeat_waits);
        thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || write_events(socket, &items, &heartbeat))?;
        Ok(Self {
            queue,
            heartbeat_waits,
        })
    }

    /// Queues an event. Once the daemon is gone events are dropped; the reader notices that.
    pub fn send(&self, event: Event) {
        self.send_with_files(event, Vec::new());
    }

    /// Queues an event without waiting; gives it back when the queue is full.
    pub fn try_send(&self, event: Event) -> Result<(), Event> {
        let sent = self.try_send_with_files(event, Vec::new());
        sent.map_err(|(event, _)| event)
    }

    /// Queues an event with its files.
    pub fn send_with_files(&self, event: Event, files: Vec<OwnedFd>) {
        let _ = self.queue.send(Item::Event(event, files));
    }

    /// As `try_send`, with files.
    pub fn try_send_with_files(
        &self,
        event: Event,
        files: Vec<OwnedFd>,
    ) -> Result<(), (Event, Vec<OwnedFd>)> {
        match self.queue.try_send(Item::Event(event, files)) {
            Err(TrySendError::Full(Item::Event(event, files))) => Err((event, files)),
            _ => Ok(()),
        }
    }

    /// Queues a heartbeat unless one waits already or there is no room: a daemon that does not read
    /// finds one when it does, and no queue of old ones.
    pub fn heartbeat(&self) {
        if !self.heartbeat_waits.swap(true, Ordering::Relaxed)
            && self.try_send(Event::Heartbeat).is_err()
        {
            self.heartbeat_waits.store(false, Ordering::Relaxed);
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

fn write_events(mut socket: UnixStream, items: &Receiver<Item>, heartbeat_waits: &AtomicBool) {
    // Beside the library's threads, which compute on all processors.
    short_slice::ask();
    let mut buffer = Vec::with_capacity(WRITE_BYTES);
    let mut flushed = Vec::new();
    let mut files: Vec<OwnedFd> = Vec::new();
    let mut beats = false;
    while let Ok(first) = items.recv() {
        let mut next = Some(first);
        while let Some(item) = next.take() {
            match item {
                Item::Event(event, of_event) => {
                    beats |= matches!(event, Event::Heartbeat);
                    encode(&event, &mut buffer);
                    files = of_event;
                }
                Item::Flush(done) => flushed.push(done),
            }
            // The files of one event at most go with a write.
            if buffer.len() < WRITE_BYTES && files.is_empty() {
                next = items.try_recv().ok();
            }
        }
        let sent = if files.is_empty() {
            socket.write_all(&buffer)
        } else {
            send_with_files(&mut socket, &buffer, &files)
        };
        if sent.is_err() {
            return;
        }
        files.clear();
        ipc::empty(&mut buffer);
        if std::mem::take(&mut beats) {
            heartbeat_waits.store(false, Ordering::Relaxed);
        }
        for done in flushed.drain(..) {
            let _ = done.send(());
        }
    }
}

fn encode(event: &Event, buffer: &mut Vec<u8>) {
    if let Err(error) = ipc::encode(event, buffer) {
        eprintln!("E rkllmd-worker: an event cannot be sent: {error}");
    }
}

/// The files travel with the first byte of `bytes`, so they are there when the frame is.
fn send_with_files(socket: &mut UnixStream, bytes: &[u8], files: &[OwnedFd]) -> io::Result<()> {
    let files: Vec<BorrowedFd<'_>> = files.iter().map(OwnedFd::as_fd).collect();
    let room = SendAncillaryMessage::ScmRights(&files).size();
    let mut space = vec![MaybeUninit::uninit(); room];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("no room for the files of an event"));
    }
    let parts = [IoSlice::new(bytes)];
    let sent = loop {
        match rustix::net::sendmsg(&*socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            sent => break sent?,
        }
    };
    socket.write_all(&bytes[sent..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::FrameReader;
    use std::io::Read;

    #[test]
    fn a_daemon_that_does_not_read_finds_one_heartbeat() {
        let (mut daemon, worker) = UnixStream::pair().unwrap();
        let events = EventWriter::start(worker).unwrap();
        // More than a socket holds, so the writer is stuck when the heartbeats come.
        let filler = Event::LoadFailed {
            reason: "x".repeat(4 << 20),
            failure: None,
        };
        events.send(filler.clone());
        for _ in 0..100 {
            events.heartbeat();
        }
        events.send(Event::Hello { protocol: 0 });
        let mut frames = FrameReader::default();
        let mut received = Vec::new();
        let mut chunk = vec![0; 1 << 16];
        while received.last() != Some(&Event::Hello { protocol: 0 }) {
            let count = daemon.read(&mut chunk).unwrap();
            frames.buffer().extend_from_slice(&chunk[..count]);
            while let Some(event) = frames.next_message().unwrap() {
                received.push(event);
            }
        }
        assert_eq!(received[0], filler);
        assert_eq!(
            received[1..],
            [Event::Heartbeat, Event::Hello { protocol: 0 }]
        );
        events.flush();
        events.heartbeat();
        let count = daemon.read(&mut chunk).unwrap();
        frames.buffer().extend_from_slice(&chunk[..count]);
        assert_eq!(frames.next_message().unwrap(), Some(Event::Heartbeat));
    }
}
