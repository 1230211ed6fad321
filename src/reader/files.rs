//! Opening a model's files: before anything is read of them, and in such a way that none of them can
//! hold the reader up or do anything by being opened.
//!
//! A file is looked at without being opened (`O_PATH`) and opened only if it is a regular one, so a
//! FIFO does not wait for a writer and a device is not touched. What must lie in the folder is looked for
//! part by part, so that no link leads out of it.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::ipc::{EntryKind, ListedEntry, RawPath};

/// Entries of a folder that are looked at.
pub const MOST_ENTRIES: usize = 4096;

/// Links that are followed on the way to one file.
const MOST_LINKS: usize = 8;

/// Where links may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Anywhere. Only for the model's file: an administrator links it from where it was
    /// downloaded to, and nothing of it is shown to a client unless it is a model.
    Anywhere,
    /// Not out of the folder.
    InFolder,
}

/// A regular file, opened for reading.
#[derive(Debug)]
pub struct OpenFile {
    pub file: File,
    pub len: u64,
    /// Seconds since the epoch.
    pub modified: u64,
}

/// Opens a folder, whatever links lead to it.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(open_anywhere(CWD, path, flags)?)
}

/// Opens a regular file; `None`: there is none of this name. The error is a sentence about the file.
pub fn open_file(folder: &OwnedFd, name: &Path, links: Links) -> Result<Option<OpenFile>, String> {
    let looked = match links {
        Links::Anywhere => open_anywhere(folder, name, OFlags::PATH | OFlags::CLOEXEC),
        Links::InFolder => look_beneath(folder, name),
    };
    let found = match looked {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::XDEV) => {
            return Err("it leads out of the model's folder; put the file itself there".to_owned());
        }
        Err(Errno::LOOP) => {
            return Err("its symbolic links go round, or through /proc".to_owned());
        }
        Err(error) => return Err(format!("it cannot be opened: {}", plain(error))),
    };
    let stat = rustix::fs::fstat(&found).map_err(|e| format!("it cannot be read: {}", plain(e)))?;
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return reopen(&found, &stat).map(Some),
        FileType::Directory => "a folder",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    };
    Err(format!("it is {what}, not a regular file"))
}

/// The same file, for reading.
fn reopen(found: &OwnedFd, stat: &Stat) -> Result<OpenFile, String> {
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| format!("it cannot be opened: {}", plain(e)))?;
    Ok(OpenFile {
        file: file.into(),
        len: u64::try_from(stat.st_size).unwrap_or(0),
        modified: u64::try_from(stat.st_mtime).unwrap_or(0),
    })
}

/// The names in a folder, hidden ones left out, in order; and whether there are more than are looked at.
pub fn list(folder: &OwnedFd) -> io::Result<(Vec<ListedEntry>, bool)> {
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name.starts_with(b".") {
            continue;
        }
        if entries.len() == MOST_ENTRIES {
            entries.sort();
            return Ok((entries, true));
        }
        entries.push(ListedEntry {
            name: RawPath::from(OsStr::from_bytes(name)),
            kind: match entry.file_type() {
                FileType::RegularFile => EntryKind::File,
                FileType::Directory => EntryKind::Folder,
                FileType::Symlink => EntryKind::Link,
                FileType::Unknown => EntryKind::Unknown,
                _ => EntryKind::Other,
            },
        });
    }
    entries.sort();
    Ok((entries, false))
}

/// Opens whatever links lead to it, but none of /proc where the kernel can tell them. A service that may
/// make no set-user-ID files (`RestrictSUIDSGID`) has no openat2.
fn open_anywhere(folder: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let resolve = ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&folder, &path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS) => rustix::fs::openat(&folder, &path, flags, Mode::empty()),
        opened => opened,
    }
}

/// Looks at what lies beneath a folder. Each part of the path is looked at by itself and links are
/// followed by hand, so that no link can lead anywhere else, whatever changes meanwhile. Nothing goes
/// upwards.
fn look_beneath(folder: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut parts = VecDeque::new();
    go_on_with(path, &mut parts)?;
    let mut links = 0;
    let mut at: Option<OwnedFd> = None;
    while let Some(part) = parts.pop_front() {
        let here = at.as_ref().unwrap_or(folder);
        let found = rustix::fs::openat(here, &part, flags, Mode::empty())?;
        let mode = rustix::fs::fstat(&found)?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::Symlink {
            at = Some(found);
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::LOOP);
        }
        let target = rustix::fs::readlinkat(here, &part, Vec::new())?;
        go_on_with(Path::new(OsStr::from_bytes(target.as_bytes())), &mut parts)?;
    }
    at.ok_or(Errno::NOENT)
}

/// Puts the parts of a path before those that are left.
fn go_on_with(path: &Path, parts: &mut VecDeque<OsString>) -> Result<(), Errno> {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => parts.push_front(name.to_owned()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(Errno::XDEV);
            }
        }
    }
    Ok(())
}

/// As Rust's own errors say it, without the number.
fn plain(error: Errno) -> String {
    let text = io::Error::from(error).to_string();
    match text.split_once(" (os error") {
        Some((plain, _)) => plain.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn said(folder: &Path, name: &str, links: Links) -> String {
        let folder = open_folder(folder).unwrap();
        match open_file(&folder, Path::new(name), links) {
            Ok(Some(file)) => format!("{} bytes", file.len),
            Ok(None) => "nothing".to_owned(),
            Err(problem) => problem,
        }
    }

    #[test]
    fn only_regular_files_in_the_folder_are_opened() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("model");
        std::fs::create_dir_all(folder.join("inner")).unwrap();
        std::fs::write(root.path().join("secret"), "outside").unwrap();
        std::fs::write(folder.join("plain"), "text").unwrap();
        symlink("plain", folder.join("inside")).unwrap();
        symlink("../secret", folder.join("dots")).unwrap();
        symlink(root.path().join("secret"), folder.join("absolute")).unwrap();
        symlink("/proc/self/environ", folder.join("proc")).unwrap();
        symlink("/proc/self/fd/0", folder.join("magic")).unwrap();
        symlink("/dev/zero", folder.join("device")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        symlink("gone", folder.join("dangling")).unwrap();
        rustix::fs::mknodat(
            CWD,
            folder.join("fifo"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
        let out = "it leads out of the model's folder; put the file itself there";
        for (name, expected) in [
            ("plain", "4 bytes"),
            ("inside", "4 bytes"),
            ("none", "nothing"),
            ("dangling", "nothing"),
            ("../secret", out),
            ("/etc/passwd", out),
            ("/proc/self/environ", out),
            ("dots", out),
            ("absolute", out),
            ("proc", out),
            ("magic", out),
            ("device", out),
            ("inner", "it is a folder, not a regular file"),
            ("fifo", "it is a FIFO, not a regular file"),
            ("socket", "it is a socket, not a regular file"),
            ("loop", "its symbolic links go round, or through /proc"),
        ] {
            assert_eq!(said(&folder, name, Links::InFolder), expected, "{name}");
        }
        for (name, expected) in [
            ("dots", "7 bytes"),
            ("absolute", "7 bytes"),
            ("device", "it is a device, not a regular file"),
            ("magic", "its symbolic links go round, or through /proc"),
        ] {
            assert_eq!(said(&folder, name, Links::Anywhere), expected, "{name}");
        }
    }
}
