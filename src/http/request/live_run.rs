//! A run of a JSON-RPC handle as administrators see it, from when the handle was free for it until it has ended; and
//! the load by which a handle is opened.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::generation::{ModelId, RequestId};
use crate::http::request::context::{LiveView, Stage};
use crate::http::request::live::{Abort, LiveRequests};
use crate::telemetry::{Change, Changes};

/// JSON-RPC answers errors so, too.
const STATUS: u16 = 200;

/// Who runs what.
pub(crate) struct RunOf {
    pub id: RequestId,
    /// Name of the key; `None`: none was asked for.
    pub key: Option<String>,
    pub client: String,
    pub method: &'static str,
    pub model: ModelId,
}

pub(crate) struct LiveRun {
    pub id: RequestId,
    pub abort: Abort,
    of: RunOf,
    started: Instant,
    progress: Mutex<Progress>,
    live: Arc<LiveRequests>,
    changes: Changes,
}

struct Progress {
    stage: Stage,
    since: Instant,
    /// `None`: it was dropped because its client went away.
    status: Option<u16>,
    error: Option<&'static str>,
}

impl LiveRun {
    pub fn begin(of: RunOf, live: &Arc<LiveRequests>, changes: &Changes) -> Arc<Self> {
        let now = Instant::now();
        let run = Arc::new(Self {
            id: of.id.clone(),
            abort: Abort::default(),
            of,
            started: now,
            progress: Mutex::new(Progress {
                stage: Stage::Waiting,
                since: now,
                status: None,
                error: None,
            }),
            live: Arc::clone(live),
            changes: changes.clone(),
        });
        live.add_run(&run);
        changes.tell(|| Change::RequestBegan {
            request: Arc::clone(&run.id.0),
            path: run.of.method.to_owned(),
            key: run.of.key.clone(),
        });
        changes.tell(|| Change::RequestWaits {
            request: Arc::clone(&run.id.0),
            model: Some(ModelId::clone(&run.of.model)),
        });
        run
    }

    pub fn arrived(&self) -> Instant {
        self.started
    }

    /// It is on a worker.
    pub fn runs(&self) {
        {
            let mut progress = self.progress();
            if progress.stage == Stage::Running {
                return;
            }
            progress.stage = Stage::Running;
            progress.since = Instant::now();
        }
        self.changes.tell(|| Change::RequestRuns {
            request: Arc::clone(&self.id.0),
            model: Some(ModelId::clone(&self.of.model)),
        });
    }

    /// Its client is told so.
    pub fn ended(&self, error: Option<&'static str>) {
        let mut progress = self.progress();
        progress.status = Some(STATUS);
        progress.error = error;
    }

    pub fn view(&self) -> LiveView {
        let progress = self.progress();
        let age: Duration = self.started.elapsed();
        LiveView {
            id: self.id.clone(),
            key: self.of.key.clone(),
            client: self.of.client.clone(),
            path: self.of.method.to_owned(),
            model: Some(ModelId::clone(&self.of.model)),
            stage: progress.stage,
            age,
            stage_age: progress.since.elapsed(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Whole after every statement.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LiveRun {
    fn drop(&mut self) {
        self.live.remove_run(&self.id);
        let (status, error) = {
            let progress = self.progress();
            (progress.status, progress.error)
        };
        self.changes.tell(|| Change::RequestEnded {
            request: Arc::clone(&self.id.0),
            model: Some(ModelId::clone(&self.of.model)),
            status,
            error,
        });
    }
}
