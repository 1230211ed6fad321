//! What a daemon finds of kept responses when it starts. It reads in bounds, and goes by no name that is
//! not one of its own: what is surely the daemon's and is kept no more is removed, what is not is told and left.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::disk::FOLDER;
use super::file::{self, Kept, Unread};
use super::moment::Moment;
use super::{KeptResponse, RESPONSE_BYTES};
use crate::regular_file;
use crate::settings::ResponseSettings;

/// Entries of folders that are looked at beyond those that there may be.
const MORE_ENTRIES: usize = 4096;
/// So many times what may be kept is read: which of it stays is decided as ever, and what an earlier daemon had forgotten
/// may still be there.
const MOST_READ: usize = 2;
/// A byte in memory takes no more in a file.
const ESCAPED_BYTES: u64 = 8;
const HEAD_BYTES: u64 = 64 * 1024;

/// How many entries there were of each kind, but for those that are kept.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    broken: usize,
    half_written: usize,
    too_old: usize,
    /// There is no room for them.
    too_many: usize,
    /// Not the daemon's, or not this version's.
    foreign: usize,
    /// Neither read nor removed.
    failed: usize,
}

/// A file that may hold a response.
struct Candidate {
    path: PathBuf,
    folder: String,
    id: String,
    changed: SystemTime,
}

#[derive(Default)]
struct Listing {
    candidates: Vec<Candidate>,
    half_written: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    counts: Counts,
}

/// The responses that are to be kept, from the oldest on.
pub(super) fn read(
    state_folder: &Path,
    limits: &ResponseSettings,
) -> Vec<(KeptResponse, Kept, Duration)> {
    let root = state_folder.join(FOLDER);
    let Some(Listing {
        mut candidates,
        half_written,
        folders,
        mut counts,
    }) = listed(&root, limits)
    else {
        return Vec::new();
    };
    for path in half_written {
        counts.half_written += 1;
        remove(&path, &mut counts);
    }
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.changed));
    let most_bytes = limits.kept_limit_bytes.saturating_mul(MOST_READ);
    let (now, mut bytes, mut read) = (Moment::now(), 0, Vec::new());
    for candidate in candidates {
        if bytes >= most_bytes {
            counts.too_many += 1;
            remove(&candidate.path, &mut counts);
            continue;
        }
        let Some((response, kept)) = read_one(&candidate, limits, &mut counts) else {
            continue;
        };
        let age = kept.at.age(&now);
        if age >= limits.kept_for {
            counts.too_old += 1;
            remove(&candidate.path, &mut counts);
            continue;
        }
        bytes += response.bytes();
        read.push((response, kept, age));
    }
    read.sort_by_key(|(_, _, age)| std::cmp::Reverse(*age));
    tidy(&root, &folders);
    tell(&root, read.len(), &counts);
    read
}

/// Removes what an earlier daemon has kept, because this one keeps none.
pub(super) fn clear(state_folder: &Path, limits: &ResponseSettings) {
    let root = state_folder.join(FOLDER);
    let Some(listing) = listed(&root, limits) else {
        return;
    };
    let mut counts = listing.counts;
    let files = listing.candidates.into_iter().map(|it| it.path);
    let mut removed = 0;
    for path in files.chain(listing.half_written) {
        removed += 1;
        remove(&path, &mut counts);
    }
    tidy(&root, &listing.folders);
    let _ = fs::remove_dir(&root);
    if removed > 0 {
        let folder = root.display();
        tracing::warn!(
            %folder,
            removed,
            "responses that an earlier daemon has kept are removed, because `responses.keep-on-disk` is false"
        );
    }
    tell(&root, 0, &counts);
}

/// `None`: there is no such folder, or it cannot be read.
fn listed(root: &Path, limits: &ResponseSettings) -> Option<Listing> {
    let mut listing = Listing::default();
    let mut left = (limits.kept_limit_bytes / RESPONSE_BYTES).saturating_add(MORE_ENTRIES);
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                let folder = root.display();
                tracing::warn!(%folder, %error, "kept responses cannot be read");
            }
            return None;
        }
    };
    for entry in entries {
        if left == 0 {
            break;
        }
        left -= 1;
        let Some((entry, name)) = named(entry, &mut listing.counts) else {
            continue;
        };
        let is_folder = entry.file_type().is_ok_and(|it| it.is_dir());
        if !is_folder || !file::is_folder_name(&name) {
            listing.counts.foreign += 1;
            continue;
        }
        list_client(&entry.path(), &name, &mut left, &mut listing);
        listing.folders.push(entry.path());
    }
    if left == 0 {
        let folder = root.display();
        tracing::warn!(%folder, "there is more in it than can be kept, and not all of it was looked at");
    }
    Some(listing)
}

fn list_client(path: &Path, folder: &str, left: &mut usize, listing: &mut Listing) {
    let Ok(entries) = fs::read_dir(path) else {
        listing.counts.failed += 1;
        return;
    };
    for entry in entries {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let Some((entry, name)) = named(entry, &mut listing.counts) else {
            continue;
        };
        // Not that of what a link leads to.
        let metadata = entry.metadata().ok().filter(|it| it.is_file());
        let Some(metadata) = metadata else {
            listing.counts.foreign += 1;
            continue;
        };
        if file::is_half_written(&name) {
            listing.half_written.push(entry.path());
        } else if let Some(id) = file::id_of(&name) {
            listing.candidates.push(Candidate {
                path: entry.path(),
                folder: folder.to_owned(),
                id: id.to_owned(),
                changed: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        } else {
            listing.counts.foreign += 1;
        }
    }
}

fn named(entry: io::Result<DirEntry>, counts: &mut Counts) -> Option<(DirEntry, String)> {
    let Ok(entry) = entry else {
        counts.failed += 1;
        return None;
    };
    let Ok(name) = entry.file_name().into_string() else {
        counts.foreign += 1;
        return None;
    };
    Some((entry, name))
}

fn read_one(
    candidate: &Candidate,
    limits: &ResponseSettings,
    counts: &mut Counts,
) -> Option<(KeptResponse, Kept)> {
    let most = (limits.kept_limit_bytes as u64).saturating_mul(ESCAPED_BYTES);
    let text = regular_file::read_text(&candidate.path, most.saturating_add(HEAD_BYTES));
    let read = match text {
        Ok(text) => file::decode(&text),
        Err(error) => match error.kind() {
            io::ErrorKind::InvalidData => Err(Unread::Broken),
            io::ErrorKind::FileTooLarge => {
                counts.too_many += 1;
                remove(&candidate.path, counts);
                return None;
            }
            _ => {
                counts.failed += 1;
                return None;
            }
        },
    };
    // One that lies elsewhere than it was written would be found by nothing.
    let is_at_its_place = |(response, kept): &(KeptResponse, Kept)| {
        response.id == candidate.id && file::folder_name(&kept.client) == candidate.folder
    };
    match read {
        Ok(read) if is_at_its_place(&read) => Some(read),
        Err(Unread::OtherVersion) => {
            counts.foreign += 1;
            None
        }
        Ok(_) | Err(Unread::Broken) => {
            counts.broken += 1;
            remove(&candidate.path, counts);
            None
        }
    }
}

fn remove(path: &Path, counts: &mut Counts) {
    if fs::remove_file(path).is_err() {
        counts.failed += 1;
    }
}

/// No empty folder stays, and what was made or removed is so for good.
fn tidy(root: &Path, folders: &[PathBuf]) {
    for folder in folders {
        if fs::remove_dir(folder).is_err() {
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
    }
    let _ = File::open(root).and_then(|folder| folder.sync_all());
}

fn tell(root: &Path, kept: usize, counts: &Counts) {
    let folder = root.display();
    if *counts != Counts::default() {
        let Counts {
            broken,
            half_written,
            too_old,
            too_many,
            foreign,
            failed,
        } = counts;
        tracing::warn!(
            %folder, broken, half_written, too_old, too_many, foreign, failed,
            "of what lies there not all is kept: what is broken, half written, too old or too much is removed, what is \
             foreign or failed to be read or removed is left"
        );
    }
    if kept > 0 {
        tracing::info!(%folder, kept, "responses are kept from before");
    }
}
