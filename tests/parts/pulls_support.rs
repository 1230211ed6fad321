//! A models folder, and pulls into it in this very process.

use std::fs;
use std::path::{Path, PathBuf};

use crate::hub_support::{Hub, Reply, Repo, random_bytes};
use rkllmd::hub::{FileProgress, Job, PullError, Pulled, Told, pull};
use rkllmd::settings::Settings;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What models are of.
pub const MODEL: &str = "model-Q4_0.gguf";
/// Where that of a [`repo`] is put.
pub const PLACE: &str = "owner/name";

pub struct Folder(pub tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn place(&self) -> PathBuf {
        self.path().join(PLACE)
    }

    /// A pull of `asked` from this hub, which waits for nothing.
    pub fn job(&self, hub: &Hub, asked: &str) -> Job {
        let mut settings = Settings::default();
        settings.models.dir = self.path().to_owned();
        settings.hub.endpoint = hub.endpoint();
        settings.hub.retry_wait = Duration::ZERO;
        settings.hub.keep_free_bytes = 0;
        let mut job = Job::new(asked, &settings);
        // Not that of this machine.
        job.hub.proxy = None;
        job
    }

    pub fn pull(&self, hub: &Hub) -> Result<Pulled, PullError> {
        pull(&self.job(hub, PLACE), &mut |_| {})
    }

    /// The file, which is there by its name only when it is right.
    pub fn model(&self) -> Option<Vec<u8>> {
        fs::read(self.place().join(MODEL)).ok()
    }

    pub fn has_leftovers(&self) -> bool {
        self.path().join(".pulls").exists()
    }
}

/// What a pull told of its files.
pub fn files_told(job: &Job) -> (Result<Pulled, PullError>, Vec<FileProgress>) {
    let mut told = Vec::new();
    let pulled = pull(job, &mut |it| {
        if let Told::File(file) = it {
            told.push(file);
        }
    });
    (pulled, told)
}

/// A model of so many bytes, alone.
pub fn repo(bytes: usize) -> Repo {
    Repo::new(&[(MODEL, &random_bytes(bytes as u64, bytes))])
}

/// Answers files with `file`, which gets a well hub's reply and how many times it was asked, and all else as a
/// well hub does.
pub fn hub_of(repo: Repo, file: impl Fn(Reply, usize) -> Reply + Send + Sync + 'static) -> Hub {
    let asked = AtomicUsize::new(0);
    Hub::start(move |request, _| {
        let reply = repo.answer(request);
        match request.is_for_file() {
            true => file(reply, asked.fetch_add(1, Ordering::Relaxed)),
            false => reply,
        }
    })
}
