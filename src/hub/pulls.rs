//! The daemon's pulls: a child process each, so many at a time, and one for all who want the same. A pull goes
//! on while anyone follows it; when the last one has left it ends, and what has come is kept. It has succeeded
//! once the model is served.

mod transfer;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::{FileProgress, Job, PullError, Pulled, Reference, Removal, RemovalError, TransferKind};
use crate::apart::{self, Subject};
use crate::children::{ChildEnvironment, Host};
use crate::models::InstalledModel;
use crate::settings::Settings;

/// Taking a model's files out of the folder; their blocks are given back meanwhile.
const REMOVED_WITHIN: Duration = Duration::from_secs(60);
/// What becomes of pulls, for those who watch; who is later than this misses how far a file had come.
const NEWS: usize = 256;

/// Asks for the models folder to be read again, and for what is in it to be served.
pub type CatalogReload = mpsc::Sender<oneshot::Sender<Result<Problems, String>>>;
/// What is wrong with what lies where.
pub type Problems = Vec<(PathBuf, String)>;

/// How a pull goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PullState {
    pub step: Step,
    /// The file that comes.
    pub file: Option<FileProgress>,
    pub outcome: Option<Result<Pulled, PullError>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// Other pulls have all places.
    #[default]
    Waiting,
    Asking,
    Chosen,
    Bringing,
    Installing,
}

/// What has become of a pull.
#[derive(Clone, Debug, PartialEq)]
pub struct PullNews {
    /// As the model was asked for.
    pub model: Arc<str>,
    pub news: News,
}

#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// So much of a file has come.
    Progress(FileProgress),
    /// It is served.
    Finished,
    Failed(String),
}

type Following = Arc<watch::Sender<PullState>>;

#[derive(Clone)]
pub struct Pulls(Arc<Shared>);

struct Shared {
    /// Begun by the first pull: most daemons never see one.
    host: Mutex<Option<Host<TransferKind>>>,
    settings: RwLock<Settings>,
    places: Semaphore,
    running: Mutex<BTreeMap<String, Following>>,
    /// Pulls that go on although no client follows them, by the names that were asked for.
    unattended: Mutex<BTreeMap<String, AbortHandle>>,
    news: broadcast::Sender<PullNews>,
    reload: CatalogReload,
}

impl Pulls {
    /// `reload` has what was pulled served.
    pub fn new(settings: &Settings, reload: CatalogReload) -> Self {
        Self(Arc::new(Shared {
            host: Mutex::default(),
            places: Semaphore::new(settings.hub.max_pulls),
            settings: RwLock::new(settings.clone()),
            running: Mutex::default(),
            unattended: Mutex::default(),
            news: broadcast::Sender::new(NEWS),
            reload,
        }))
    }

    /// Takes over settings for the pulls that begin from now on.
    pub fn reload(&self, settings: &Settings) {
        let own = self.0.settings.write();
        *own.unwrap_or_else(PoisonError::into_inner) = settings.clone();
    }

    /// Whether nothing is pulled.
    pub fn is_offline(&self) -> bool {
        self.0.settings().hub.offline
    }

    /// Begins a pull that goes on until its end, although clients leave, or joins the one that brings the same.
    ///
    /// # Errors
    ///
    /// The name is no model's of a hub, or `hub.max-pulls` go on so already.
    pub fn begin(&self, asked: &str) -> Result<(), PullError> {
        Reference::parse(asked)?;
        let mut unattended = self.0.unattended();
        if unattended.contains_key(asked) {
            return Ok(());
        }
        let limit = self.0.settings().hub.max_pulls;
        if unattended.len() >= limit {
            return Err(PullError::TooMany { limit });
        }
        let mut follower = self.pull(asked)?;
        let (this, name) = (self.clone(), asked.to_owned());
        let followed = tokio::spawn(async move {
            let _ = follower.wait_for(|state| state.outcome.is_some()).await;
            this.0.unattended().remove(&name);
        });
        unattended.insert(asked.to_owned(), followed.abort_handle());
        Ok(())
    }

    /// Leaves a pull that [`begin`](Self::begin) has begun; it ends unless a client follows it. `false`: there is none.
    pub fn cancel(&self, asked: &str) -> bool {
        let found = self.0.unattended().remove(asked);
        let is_found = found.is_some();
        if let Some(followed) = found {
            followed.abort();
        }
        is_found
    }

    /// What becomes of pulls from now on.
    pub fn news(&self) -> broadcast::Receiver<PullNews> {
        self.0.news.subscribe()
    }

    /// Takes a model's files away that a pull has brought, and has what is left served; also where the future is
    /// dropped. One whose files are gone already is not served any more.
    ///
    /// # Errors
    ///
    /// Its files are not gone, or it is not known whether they are.
    pub async fn remove(&self, model: &InstalledModel) -> Result<(), RemovalError> {
        let path = model.path.display().to_string();
        let location = model.location.as_ref();
        let location = location.ok_or_else(|| RemovalError::Gone { path: path.clone() })?;
        let removal = Removal::of(&self.0.settings().models.dir, location)?;
        let subject = Subject::File(model.path.clone());
        let shared = Arc::clone(&self.0);
        let failed = |reason: String| RemovalError::Folder { path, reason };
        // The client that asked for it may leave in the middle, and what is gone by then is not to be served.
        let removing = tokio::spawn(async move {
            let removed = apart::ask(subject, REMOVED_WITHIN, move || {
                removal.remove_what_was_pulled()
            });
            let removed = removed.await;
            let stays = matches!(
                removed,
                Some(Err(RemovalError::Linked { .. }
                    | RemovalError::HoldsFolders { .. }
                    | RemovalError::HoldsMore { .. }
                    | RemovalError::InUse { .. }))
            );
            let served = match stays {
                true => Ok(()),
                false => shared.serve().await.map(drop),
            };
            (removed, served)
        });
        let limit = REMOVED_WITHIN.as_secs();
        let (removed, served) = match removing.await {
            Ok(outcome) => outcome,
            Err(error) => return Err(failed(error.to_string())),
        };
        match removed {
            None => return Err(failed(format!("the disk gave no answer within {limit} s"))),
            Some(Ok(()) | Err(RemovalError::Gone { .. })) => {}
            Some(Err(error)) => return Err(error),
        }
        served.map_err(|error| failed(error.to_string()))
    }

    /// Has the models folder read again, and what is in it served.
    ///
    /// # Errors
    ///
    /// It cannot be read, or the daemon is shutting down.
    pub async fn rescan(&self) -> Result<(), PullError> {
        self.0.serve().await.map(drop)
    }

    /// Begins a pull, or joins the one that brings the same.
    ///
    /// # Errors
    ///
    /// The name is no model's of a hub.
    pub fn pull(&self, asked: &str) -> Result<watch::Receiver<PullState>, PullError> {
        let reference = Reference::parse(asked)?;
        let settings = self.0.settings();
        if settings.hub.offline {
            return Err(PullError::Offline);
        }
        // Who asks by another name is to find it by that.
        let key = format!("{reference:?} {asked}");
        let mut running = self.0.running();
        if let Some(following) = running.get(&key) {
            return Ok(following.subscribe());
        }
        let (sender, follower) = watch::channel(PullState::default());
        let following = Arc::new(sender);
        running.insert(key.clone(), Arc::clone(&following));
        drop(running);
        let job = Job::new(asked, &settings);
        tokio::spawn(Arc::clone(&self.0).run(key, job, following));
        Ok(follower)
    }
}

impl Shared {
    fn settings(&self) -> Settings {
        // Whole after every statement.
        let settings = self.settings.read();
        settings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be called inside the runtime that will watch the children.
    fn host(&self) -> io::Result<Host<TransferKind>> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = &*host {
            return Ok(host.clone());
        }
        let environment = ChildEnvironment::bare(self.settings().runtime.core_dumps);
        let started = Host::start(environment)?;
        Ok(host.insert(started).clone())
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Following>> {
        // Whole after every statement.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unattended(&self) -> MutexGuard<'_, BTreeMap<String, AbortHandle>> {
        // Whole after every statement.
        let unattended = self.unattended.lock();
        unattended.unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, model: &str, news: News) {
        // It may be that no client watches.
        let _ = self.news.send(PullNews {
            model: model.into(),
            news,
        });
    }

    async fn run(self: Arc<Self>, key: String, job: Job, following: Following) {
        let name = job.asked.clone();
        let outcome = tokio::select! {
            outcome = self.transfer(job, &following) => outcome,
            () = self.nobody_follows(&key, &following) => {
                tracing::info!(model = name, "a pull has ended because no client follows it any more");
                self.tell(&name, News::Failed("no client follows it any more".to_owned()));
                return;
            }
        };
        match &outcome {
            Ok(pulled) => tracing::info!(model = pulled.id, folder = pulled.folder, "pulled"),
            Err(error) => tracing::warn!(model = name, "not pulled: {error}"),
        }
        self.running().remove(&key);
        self.tell(
            &name,
            match &outcome {
                Ok(_) => News::Finished,
                Err(error) => News::Failed(error.to_string()),
            },
        );
        following.send_modify(|state| state.outcome = Some(outcome));
    }

    /// Takes it from those that others may join.
    async fn nobody_follows(&self, key: &str, following: &Following) {
        loop {
            following.closed().await;
            let mut running = self.running();
            // One may have joined in between.
            if following.receiver_count() == 0 {
                running.remove(key);
                return;
            }
        }
    }

    /// Has what was installed served.
    async fn serve(&self) -> Result<Problems, PullError> {
        let (reply, served) = oneshot::channel();
        let asked = self.reload.send(reply).await;
        asked.map_err(|_| PullError::ShuttingDown)?;
        let served = served.await.map_err(|_| PullError::ShuttingDown)?;
        served.map_err(|reason| PullError::Folder {
            path: "the models folder, in which it is".to_owned(),
            reason,
        })
    }
}
