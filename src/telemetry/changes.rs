//! What changes in the daemon, told as it happens to those who follow. A follower that reads slowly holds
//! nothing up: what it has missed is counted for it. While no client follows, a change is a number and no more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

/// One change. Never what a request or an answer holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Change {
    /// Where a model's worker is in its life.
    ModelState {
        model: Arc<str>,
        state: &'static str,
    },
    WorkerStarted {
        model: Arc<str>,
        pid: u32,
    },
    WorkerEnded {
        model: Arc<str>,
        pid: u32,
        /// By which the metrics call it.
        cause: &'static str,
        is_failure: bool,
    },
    /// How many requests wait for a model.
    Queue {
        model: Arc<str>,
        waiting: usize,
    },
    RequestBegan {
        request: Arc<str>,
        path: String,
        key: Option<String>,
    },
    RequestWaits {
        request: Arc<str>,
        model: Option<Arc<str>>,
    },
    RequestRuns {
        request: Arc<str>,
        model: Option<Arc<str>>,
    },
    RequestEnded {
        request: Arc<str>,
        model: Option<Arc<str>>,
        /// `None`: its client left before there was one.
        status: Option<u16>,
        /// The stable code of an error.
        error: Option<&'static str>,
    },
    Keys {
        keys: usize,
    },
    Reloaded {
        is_applied: bool,
        problems: Vec<String>,
    },
    /// Entries of the log that no follower read in time, in all.
    LogLost {
        entries: u64,
    },
}

impl Change {
    /// Its name as an event.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ModelState { .. } => "model_state",
            Self::WorkerStarted { .. } => "worker_started",
            Self::WorkerEnded { .. } => "worker_ended",
            Self::Queue { .. } => "queue",
            Self::RequestBegan { .. } => "request_began",
            Self::RequestWaits { .. } => "request_waits",
            Self::RequestRuns { .. } => "request_runs",
            Self::RequestEnded { .. } => "request_ended",
            Self::Keys { .. } => "keys",
            Self::Reloaded { .. } => "reloaded",
            Self::LogLost { .. } => "log_lost",
        }
    }
}

/// A change and its number, one more than that of the change before it.
#[derive(Debug)]
pub struct Numbered {
    pub number: u64,
    pub change: Change,
}

/// All changes of a daemon; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    last: u64,
    followers: Option<broadcast::Sender<Arc<Numbered>>>,
}

/// What one follower is told, in order.
#[derive(Debug)]
pub struct Followed {
    changes: broadcast::Receiver<Arc<Numbered>>,
}

/// What a follower is told next.
#[derive(Clone, Debug)]
pub enum Next {
    Change(Arc<Numbered>),
    /// So many changes were too many for it.
    Missed(u64),
}

impl Changes {
    /// Tells a change to all who follow. Waits for none of them.
    pub fn tell(&self, change: impl FnOnce() -> Change) {
        let mut told = self.lock();
        told.last += 1;
        let Some(followers) = &told.followers else {
            return;
        };
        let number = told.last;
        let change = change();
        if followers
            .send(Arc::new(Numbered { number, change }))
            .is_err()
        {
            // The last one has gone, and its buffer goes too.
            told.followers = None;
        }
    }

    /// Follows what is told from now on, `buffer` changes behind at most. Tells the last number before it.
    pub fn follow(&self, buffer: usize) -> (u64, Followed) {
        let mut told = self.lock();
        let changes = match &told.followers {
            Some(followers) if followers.receiver_count() > 0 => followers.subscribe(),
            _ => {
                let (followers, first) = broadcast::channel(buffer.max(1));
                told.followers = Some(followers);
                first
            }
        };
        (told.last, Followed { changes })
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Followed {
    /// The next change, once there is one. It may be given up and called again. `None`: no more will come.
    pub async fn next(&mut self) -> Option<Next> {
        match self.changes.recv().await {
            Ok(change) => Some(Next::Change(change)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a follower gets of so many changes: the numbers told, and how many it was said to have missed.
    async fn read(followed: &mut Followed, until: u64) -> (Vec<u64>, u64) {
        let (mut numbers, mut missed) = (Vec::new(), 0);
        while numbers.last() != Some(&until) {
            match followed.next().await.expect("more to come") {
                Next::Change(change) => numbers.push(change.number),
                Next::Missed(count) => missed += count,
            }
        }
        (numbers, missed)
    }

    #[tokio::test]
    async fn nothing_is_lost_that_is_not_said_to_be() {
        for buffer in [2048, 100] {
            let changes = Changes::default();
            let keys = |keys| move || Change::Keys { keys };
            changes.tell(keys(0));
            let (last, mut slow) = changes.follow(buffer);
            assert_eq!(last, 1);
            let (_, mut other) = changes.follow(buffer);
            for count in 0..1000 {
                changes.tell(keys(count));
                match other.next().await.expect("told") {
                    Next::Change(change) => {
                        assert_eq!(change.number, 2 + count as u64);
                        assert_eq!(change.change, Change::Keys { keys: count });
                    }
                    Next::Missed(count) => panic!("{count} missed by one that reads"),
                }
            }
            let (numbers, missed) = read(&mut slow, 1001).await;
            assert_eq!(numbers.len() as u64 + missed, 1000, "buffer {buffer}");
            assert_eq!(missed == 0, buffer > 1000);
            assert!(numbers.is_sorted());
        }
    }

    #[tokio::test]
    async fn a_change_that_nobody_follows_is_counted_and_not_made() {
        let changes = Changes::default();
        let (_, followed) = changes.follow(4);
        drop(followed);
        changes.tell(|| Change::Keys { keys: 1 });
        changes.tell(|| unreachable!("nobody follows"));
        let (last, _followed) = changes.follow(4);
        assert_eq!(last, 2);
    }
}
