//! Carries events to the daemon. Who has an event writes it, where nothing is being written and the socket has
//! room: a token of its own wakes no other thread on its way. Whatever else comes meanwhile only waits its turn,
//! behind the write in progress, and shares the next one; nothing is held back to make a batch. No sender waits
//! for the socket: what has no room there, and what comes faster than single writes are worth, is left to a
//! thread of its own.
//!
//! ```text
//!            ┌─ an event ─► Caller ─┬─ nothing waits ─► Free
//!  Free ─────┤                      └─ no room, or more and more comes ─┐
//!            └─ they come too fast ─► Thread ◄──────────────────────────┘
//!                                     Thread ─ nothing waits ─► Free
//! ```

mod socket;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::ipc::{self, Event};
use crate::short_slice;

/// Events that may wait. The daemon always reads, so that it is a slow machine that fills this: the
/// callbacks wait then, and memory stays bounded.
const QUEUE_EVENTS: usize = 1024;
/// Events that share a write have no more than this.
const WRITE_BYTES: usize = 64 * 1024;
/// Most events are of one token.
const EVENT_BYTES: usize = 64;
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// What a caller writes behind its own event before the thread goes on in its place.
const WRITES_FOR_OTHERS: usize = 4;
/// In such a time callers begin to write so often at most: as many as runs may come together in one step of the
/// library, and a few. Where more come than that, a write for each would cost more than waking the thread.
const SPAN: Duration = Duration::from_millis(1);
const WRITES_IN_SPAN: u32 = 24;

/// The sending end; cloned freely.
#[derive(Clone)]
pub struct EventWriter(Arc<Sender>);

/// With the last one the thread ends, once everything is written.
struct Sender(Arc<Shared>);

struct Shared {
    socket: UnixStream,
    state: Mutex<State>,
    /// It is the thread's turn, or the end.
    work: Condvar,
    room: Condvar,
    /// A heartbeat is queued and not written yet.
    heartbeat_waits: AtomicBool,
}

#[derive(Default)]
struct State {
    turn: Turn,
    /// In their order. Only the last one may be added to.
    waiting: VecDeque<Write>,
    /// Events in these.
    events: usize,
    /// Senders that wait for room.
    waiters: usize,
    callers: Callers,
    /// The daemon has gone.
    is_gone: bool,
    /// No sender is left.
    is_over: bool,
}

/// Who writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Free,
    Caller,
    Thread,
}

/// How often callers began to write of late.
#[derive(Default)]
struct Callers {
    since: Option<Instant>,
    writes: u32,
}

/// Frames, and what goes with them.
#[derive(Default)]
struct Write {
    bytes: Vec<u8>,
    /// So many of the bytes are written.
    written: usize,
    events: usize,
    /// Of the last event, in the order in which it refers to them.
    files: Vec<OwnedFd>,
    has_heartbeat: bool,
    /// Answered when all of it, and so everything before it, is written.
    flushed: Vec<SyncSender<()>>,
}

impl EventWriter {
    pub fn start(socket: UnixStream) -> std::io::Result<Self> {
        let writer = Self::without_thread(socket);
        let shared = Arc::clone(&writer.0.0);
        thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                // Beside the library's threads, which compute on all processors.
                short_slice::ask();
                shared.write_for_callers();
            })?;
        Ok(writer)
    }

    fn without_thread(socket: UnixStream) -> Self {
        Self(Arc::new(Sender(Arc::new(Shared {
            socket,
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            heartbeat_waits: AtomicBool::new(false),
        }))))
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
        let write = Write::of(&event, files);
        let mut state = self.shared().lock();
        while !state.has_room() {
            state.waiters += 1;
            let room = self.shared().room.wait(state);
            state = room.unwrap_or_else(PoisonError::into_inner);
            state.waiters -= 1;
        }
        self.shared().put(state, write);
    }

    /// As `try_send`, with files.
    pub fn try_send_with_files(
        &self,
        event: Event,
        files: Vec<OwnedFd>,
    ) -> Result<(), (Event, Vec<OwnedFd>)> {
        if !self.shared().lock().has_room() {
            return Err((event, files));
        }
        // Made without the lock. What others have put there meanwhile is as many events as there are senders.
        let write = Write::of(&event, files);
        self.shared().put(self.shared().lock(), write);
        Ok(())
    }

    /// Queues a heartbeat unless one waits already or there is no room: a daemon that does not read
    /// finds one when it does, and no queue of old ones.
    pub fn heartbeat(&self) {
        let heartbeat_waits = &self.shared().heartbeat_waits;
        if !heartbeat_waits.swap(true, Ordering::Relaxed)
            && self.try_send(Event::Heartbeat).is_err()
        {
            heartbeat_waits.store(false, Ordering::Relaxed);
        }
    }

    /// Waits until everything so far was written, but not for ever.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        let flush = Write {
            flushed: vec![done],
            ..Write::default()
        };
        self.shared().put(self.shared().lock(), flush);
        let _: Result<(), RecvTimeoutError> = written.recv_timeout(FLUSH_LIMIT);
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.work.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes it now, or leaves it to whose turn it is.
    fn put(&self, mut state: MutexGuard<'_, State>, write: Write) {
        if state.is_gone {
            return;
        }
        if state.turn != Turn::Free {
            return state.add(write);
        }
        if !state.callers.may_write(Instant::now()) || write.bytes.len() > WRITE_BYTES {
            state.add(write);
            return self.leave_to_thread(state);
        }
        state.turn = Turn::Caller;
        drop(state);
        self.write_as_caller(write);
    }

    fn write_as_caller(&self, own: Write) {
        let mut next = own;
        for _ in 0..=WRITES_FOR_OTHERS {
            match socket::write_what_has_room(&self.socket, &mut next) {
                Ok(true) => self.is_written(next),
                Ok(false) => return self.leave_rest_to_thread(next),
                Err(_) => return self.daemon_has_gone(),
            }
            match self.take_next(&mut self.lock()) {
                Some(waiting) => next = waiting,
                None => return,
            }
        }
        self.leave_rest_to_thread(next);
    }

    fn write_for_callers(&self) {
        loop {
            let mut state = self.lock();
            while state.turn != Turn::Thread && !state.is_over {
                let work = self.work.wait(state);
                state = work.unwrap_or_else(PoisonError::into_inner);
            }
            if state.turn != Turn::Thread {
                return;
            }
            let Some(mut next) = self.take_next(&mut state) else {
                continue;
            };
            drop(state);
            match socket::write_all(&self.socket, &mut next) {
                Ok(()) => self.is_written(next),
                Err(_) => return self.daemon_has_gone(),
            }
        }
    }

    /// What is written next by whose turn it is; it is that no more if nothing waits.
    fn take_next(&self, state: &mut State) -> Option<Write> {
        let next = state.waiting.pop_front();
        match &next {
            Some(next) => state.events -= next.events,
            None => state.turn = Turn::Free,
        }
        if state.waiters > 0 && state.has_room() {
            self.room.notify_all();
        }
        next
    }

    /// What is not written, or not wholly, comes before all that waits.
    fn leave_rest_to_thread(&self, rest: Write) {
        let mut state = self.lock();
        state.events += rest.events;
        state.waiting.push_front(rest);
        self.leave_to_thread(state);
    }

    fn leave_to_thread(&self, mut state: MutexGuard<'_, State>) {
        state.turn = Turn::Thread;
        drop(state);
        self.work.notify_one();
    }

    fn is_written(&self, write: Write) {
        if write.has_heartbeat {
            self.heartbeat_waits.store(false, Ordering::Relaxed);
        }
        for done in write.flushed {
            let _ = done.send(());
        }
    }

    /// All senders that wait go on.
    fn daemon_has_gone(&self) {
        let mut state = self.lock();
        state.is_gone = true;
        state.turn = Turn::Free;
        state.events = 0;
        let unwritten = std::mem::take(&mut state.waiting);
        drop(state);
        self.room.notify_all();
        drop(unwritten);
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.events < QUEUE_EVENTS || self.is_gone
    }

    fn add(&mut self, write: Write) {
        self.events += write.events;
        match self.waiting.back_mut() {
            Some(last) if last.takes(&write) => last.append(write),
            _ => self.waiting.push_back(write),
        }
    }
}

impl Callers {
    fn may_write(&mut self, now: Instant) -> bool {
        let is_of_before = |since| now.duration_since(since) >= SPAN;
        if self.since.is_none_or(is_of_before) {
            self.since = Some(now);
            self.writes = 0;
        }
        self.writes += 1;
        self.writes <= WRITES_IN_SPAN
    }
}

impl Write {
    fn of(event: &Event, mut files: Vec<OwnedFd>) -> Self {
        let mut bytes = Vec::with_capacity(EVENT_BYTES);
        if let Err(error) = ipc::encode(event, &mut bytes) {
            eprintln!("E rkllmd-worker: an event cannot be sent: {error}");
            files.clear();
        }
        Self {
            bytes,
            files,
            events: 1,
            has_heartbeat: matches!(event, Event::Heartbeat),
            ..Self::default()
        }
    }

    /// The files of one event at most go with a write, and no large event is copied while others wait for the lock.
    fn takes(&self, more: &Self) -> bool {
        let has_room = self.bytes.len() + more.bytes.len() <= WRITE_BYTES;
        has_room && self.files.is_empty() && self.written == 0
    }

    fn append(&mut self, more: Self) {
        self.bytes.extend_from_slice(&more.bytes);
        self.events += more.events;
        self.files = more.files;
        self.has_heartbeat |= more.has_heartbeat;
        self.flushed.extend(more.flushed);
    }
}

#[cfg(test)]
mod tests;
