//! `rkllmd doctor --collect`: packs what the doctor and the sensors read of a board, so that it can be looked at
//! elsewhere as it is there.
//!
//! What is packed is listed, and nothing else is: no key, no configuration but where library and models lie, no
//! code of the vendor's, no model. Serial numbers, addresses of the network and names of hosts are hidden in
//! what is packed. A file that does not answer is left out and named; the others are packed all the same.

mod archive;
mod hidden;
mod large_files;
mod listed_files;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use archive::Archive;
use hidden::{Hidden, Words};
use large_files::Sparse;
use listed_files::{ListedFiles, Want};

use super::{COPYS_CONFIG, Patient, Report, access, models, reading, runtime};
use crate::apart::{self, Subject};
use crate::regular_file;

/// What one file is waited for.
const LIMIT: Duration = Duration::from_millis(400);
/// What library and models are waited for, which may lie on a slow card.
const LIMIT_OF_LARGE: Duration = Duration::from_secs(5);
/// What all of them are waited for.
const LIMIT_OF_ALL: Duration = Duration::from_secs(20);
/// The kernel's files are shorter.
const MOST_BYTES: u64 = 256 * 1024;

/// Where the report lies in the archive, and what the archive says of itself.
const REPORT: &str = "doctor.json";
const ABOUT: &str = "collected.txt";

/// A copy of a board.
pub struct Collected {
    /// A tar archive, packed by gzip.
    pub archive: Vec<u8>,
    /// How many files of the board are in it.
    pub files: usize,
    /// What the board has and the archive does not, with the reason.
    pub left_out: Vec<String>,
}

/// Packs a board's files and what the doctor found.
///
/// # Errors
///
/// The archive cannot be made.
pub fn collect(patient: Patient, report: &Report) -> io::Result<Collected> {
    let mut collection = Collection::new(patient)?;
    for files in listed_files::all() {
        collection.add_listed(&files)?;
    }
    collection.add_users()?;
    collection.add_devices()?;
    collection.add_library();
    collection.add_models();
    collection.add_config()?;
    collection.add_report(report)?;
    collection.finish()
}

struct Collection {
    patient: Arc<Patient>,
    hidden: Hidden,
    archive: Archive,
    deadline: Instant,
    files: usize,
    left_out: Vec<String>,
}

impl Collection {
    fn new(patient: Patient) -> io::Result<Self> {
        let mut collection = Self {
            patient: Arc::new(patient),
            hidden: Hidden::new(&Words::default()).map_err(io::Error::other)?,
            archive: Archive::new(),
            deadline: Instant::now() + LIMIT_OF_ALL,
            files: 0,
            left_out: Vec::new(),
        };
        let mut words = Words::default();
        for listener in &collection.patient.settings.http.listen {
            words.learn_listener(listener.ip());
        }
        for (kind, files) in hidden::sources() {
            for path in collection.paths(&files) {
                if let Some(text) = collection.text(&path) {
                    words.learn(kind, &text);
                }
            }
        }
        collection.hidden = Hidden::new(&words).map_err(io::Error::other)?;
        // It was told before anything was known.
        for told in &mut collection.left_out {
            *told = collection.hidden.in_words(told);
        }
        Ok(collection)
    }

    /// Asks the board apart. `None`: it does not answer, which is told.
    fn ask<T: Send + 'static>(
        &mut self,
        path: &str,
        call: impl FnOnce(&Patient) -> T + Send + 'static,
    ) -> Option<T> {
        self.ask_within(LIMIT, path, call)
    }

    fn ask_within<T: Send + 'static>(
        &mut self,
        limit: Duration,
        path: &str,
        call: impl FnOnce(&Patient) -> T + Send + 'static,
    ) -> Option<T> {
        let subject = Subject::Sensor(PathBuf::from(path));
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || apart::is_stuck(&subject) {
            self.leave_out(path, "too many others before it did not answer");
            return None;
        }
        let patient = Arc::clone(&self.patient);
        let answer = apart::ask_and_wait(subject, limit.min(left), move || call(&patient));
        if answer.is_none() {
            let why = format!("no answer within {} ms", limit.as_millis());
            self.leave_out(path, &why);
        }
        answer
    }

    fn leave_out(&mut self, path: &str, why: &str) {
        let told = self.hidden.in_words(&format!("{path}: {why}"));
        if !self.left_out.contains(&told) {
            self.left_out.push(told);
        }
    }

    /// What a file says. A file that is not there is not told.
    fn text(&mut self, path: &str) -> Option<String> {
        let asked = path.to_owned();
        let read = self.ask(path, move |patient| {
            regular_file::read_text(&patient.sysroot.path(asked), MOST_BYTES)
        })?;
        match read {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.leave_out(path, &error.to_string());
                None
            }
        }
    }

    fn names(&mut self, folder: &str) -> Vec<String> {
        let asked = folder.to_owned();
        let names = self.ask(folder, move |patient| patient.sysroot.names(&asked));
        names.unwrap_or_default()
    }

    fn has(&mut self, path: &str) -> bool {
        let asked = path.to_owned();
        self.ask(path, move |patient| patient.sysroot.has(&asked))
            .unwrap_or(false)
    }

    /// The listed files that the board has, by name.
    fn paths(&mut self, listed: &ListedFiles) -> Vec<String> {
        let mut folders = vec![listed.folder.clone()];
        for part in listed.parts {
            let mut below = Vec::new();
            for folder in folders {
                let names = self.names(&folder).into_iter();
                below.extend(
                    names
                        .filter(|name| part(name))
                        .map(|name| format!("{folder}/{name}")),
                );
            }
            folders = below;
        }
        folders
    }

    fn add_listed(&mut self, listed: &ListedFiles) -> io::Result<()> {
        for path in self.paths(listed) {
            match listed.want {
                Want::Text => {
                    if let Some(text) = self.text(&path) {
                        let text = self.hidden.in_kernels_text(&text);
                        self.add(&path, 0o644, text.as_bytes())?;
                    }
                }
                Want::Words => {
                    if let Some(text) = self.text(&path) {
                        let text = self.hidden.in_words(&text);
                        self.add(&path, 0o644, text.as_bytes())?;
                    }
                }
                Want::Folder if self.has(&path) => self.archive.folder(&path)?,
                Want::Presence if self.has(&path) => self.add(&path, 0o644, b"")?,
                Want::Folder | Want::Presence => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.files += 1;
        self.archive.file(path, mode, content)
    }

    /// The service's user and its groups, and no other.
    fn add_users(&mut self) -> io::Result<()> {
        let asked = self.ask("/etc/passwd", |patient| {
            access::service_user(&patient.sysroot)
        });
        let Some(user) = asked.flatten() else {
            return Ok(());
        };
        self.add("/etc/passwd", 0o644, user.passwd_line().as_bytes())?;
        self.add("/etc/group", 0o644, user.group_lines().as_bytes())
    }

    /// The NPU's devices as empty files, whose mode says only whether the service's user may open them: a copy
    /// is unpacked by any user.
    fn add_devices(&mut self) -> io::Result<()> {
        let asked = self.ask("/dev", |patient| access::told_nodes(&patient.sysroot));
        for (path, is_open) in asked.unwrap_or_default() {
            self.add(&path, if is_open { 0o666 } else { 0o600 }, b"")?;
        }
        Ok(())
    }

    fn add_library(&mut self) {
        let path = self.patient.settings.runtime.npu_library.clone();
        let path = path.to_string_lossy().into_owned();
        let asked = self.ask_within(LIMIT_OF_LARGE, &path, |patient| {
            let here = patient.sysroot.path(&patient.settings.runtime.npu_library);
            let library = large_files::library(&here, || runtime::version_text(patient).ok())?;
            Ok::<_, io::Error>((library, reading::may_be_read(&patient.sysroot, &here)))
        });
        match asked {
            Some(Ok((library, is_open))) => self.add_sparse(&path, &library, is_open),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                self.leave_out(&path, &error.to_string());
            }
            Some(Err(_)) | None => {}
        }
    }

    /// A path or a shape that an archive cannot have costs the one file. What the service's user may not read is
    /// closed in the copy, too; the folders on the way are open, whatever the umask is where it is unpacked.
    fn add_sparse(&mut self, path: &str, file: &Sparse, is_open: bool) {
        let mode = if is_open { 0o644 } else { 0o600 };
        let packed = self.hidden.in_words(path);
        let folders: Vec<_> = packed
            .match_indices('/')
            .map(|(at, _)| &packed[..at])
            .collect();
        let mut folders = folders.into_iter().filter(|folder| !folder.is_empty());
        let done = folders
            .try_for_each(|folder| self.archive.folder(folder))
            .and_then(|()| self.archive.sparse(&packed, mode, file));
        match done {
            Ok(()) => self.files += 1,
            Err(error) => self.leave_out(path, &error.to_string()),
        }
    }

    fn add_models(&mut self) {
        let folder = self.patient.settings.models.dir.clone();
        let folder = folder.to_string_lossy();
        let asked = self.ask_within(LIMIT_OF_LARGE, &folder, models::told_models);
        for model in asked.unwrap_or_default() {
            let content = large_files::model(model.bytes, model.toolkit.as_deref());
            self.add_sparse(&model.path, &content, model.is_open);
        }
    }

    fn add_config(&mut self) -> io::Result<()> {
        let settings = &self.patient.settings;
        let quoted = |path: &std::path::Path| {
            let path = self.hidden.in_words(&path.to_string_lossy());
            toml::Value::String(path).to_string()
        };
        let config = format!(
            "[runtime]\nnpu-library = {}\n\n[models]\ndir = {}\n",
            quoted(&settings.runtime.npu_library),
            quoted(&settings.models.dir),
        );
        self.add(COPYS_CONFIG, 0o644, config.as_bytes())
    }

    fn add_report(&mut self, report: &Report) -> io::Result<()> {
        let mut report = report.clone();
        for check in &mut report.checks {
            let hide = |text: &mut String| *text = self.hidden.in_words(text);
            hide(&mut check.observed);
            check.expected.iter_mut().for_each(hide);
            check.remedy.iter_mut().for_each(hide);
        }
        self.archive
            .file(REPORT, 0o644, report.to_json().as_bytes())
    }

    fn finish(mut self) -> io::Result<Collected> {
        let mut about = format!(
            "Collected by rkllmd {}. Look at it: rkllmd doctor --sysroot THIS_FOLDER\n\
             Serial numbers, addresses of the network, keys and names of hosts are hidden. Of the library \
             there are its headers and its version, of models their sizes and the toolkit's version.\n",
            env!("CARGO_PKG_VERSION"),
        );
        for left_out in &self.left_out {
            about.push_str(&format!("left out: {left_out}\n"));
        }
        self.archive.file(ABOUT, 0o644, about.as_bytes())?;
        Ok(Collected {
            archive: self.archive.finish()?,
            files: self.files,
            left_out: self.left_out,
        })
    }
}

#[cfg(test)]
mod tests;
