//! Whether the service's user may read what it needs: the library, what lies in the models' folder, and the keys. Who
//! copies files as root reads them as root, and the service does not.

use std::fs;
use std::path::{Path, PathBuf};

use super::access::{NO_USER, SERVICE_USER, User, service_user};
use super::{Check, Patient, Whose};
use crate::board::Sysroot;

/// What is read of a model is in files with these ends.
const READ: [&str; 6] = ["rkllm", "gguf", "json", "jinja", "toml", "model"];
/// Entries looked at, and folders under another.
const MOST: usize = 4096;
const DEEPEST: usize = 4;

// As digits of a mode.
const PASS: u32 = 0o1;
const READ_FILE: u32 = 0o4;
const READ_FOLDER: u32 = 0o5;

/// Something that a user may not read, as the board names it.
struct Closed {
    path: String,
    /// It lies on the way there.
    is_above: bool,
}

/// The first on the way to a path, or the path, that does not let the user do what it must. What is not there is
/// not closed.
fn closed(user: &User, sysroot: &Sysroot, path: &Path, wanted: u32) -> Option<Closed> {
    let root = sysroot.path("/");
    let root = fs::canonicalize(&root).unwrap_or(root);
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let below = path.strip_prefix(&root).ok()?;
    let mut here = root;
    let mut parts = below.components().peekable();
    while let Some(part) = parts.next() {
        here.push(part);
        let is_above = parts.peek().is_some();
        fs::metadata(&here).ok()?;
        if !user.may(&here, if is_above { PASS } else { wanted }) {
            let path = of_board(sysroot, &here);
            return Some(Closed { path, is_above });
        }
    }
    None
}

fn of_board(sysroot: &Sysroot, here: &Path) -> String {
    let root = sysroot.path("/");
    let root = fs::canonicalize(&root).unwrap_or(root);
    let below = here.strip_prefix(&root).unwrap_or(here);
    Path::new("/").join(below).display().to_string()
}

/// The user of the unit, where there is one and the configuration is the unit's.
fn reader(patient: &Patient) -> Option<User> {
    service_user(&patient.sysroot).filter(|user| match patient.whose {
        Whose::Service => true,
        Whose::OwnDaemon => user.is(rustix::process::geteuid().as_raw()),
        Whose::Other => false,
    })
}

/// What the user may not read of the library, where it is there.
pub(super) fn library(patient: &Patient) -> Option<Check> {
    let user = reader(patient)?;
    let here = patient.sysroot.path(&patient.settings.runtime.npu_library);
    let closed = closed(&user, &patient.sysroot, &here, READ_FILE)?;
    let wanted = if closed.is_above { "x" } else { "r" };
    Some(
        Check::fail(may_not_read(&closed.path))
            .expected("a library that the service's user may read")
            .remedy(format!("chmod o+{wanted} {}", closed.path)),
    )
}

/// What the user may not read of the file of keys, where it is there.
pub(super) fn keys(patient: &Patient) -> Option<Check> {
    let user = reader(patient)?;
    let path = &patient.settings.http.keys_file;
    let closed = closed(&user, &patient.sysroot, path, READ_FILE)?;
    let remedy = match closed.is_above {
        true => format!("chmod o+x {}", closed.path),
        false => format!("chown {SERVICE_USER}: {}", closed.path),
    };
    Some(
        Check::fail(may_not_read(&closed.path))
            .expected("keys that the service's user may read")
            .remedy(remedy),
    )
}

fn may_not_read(path: &str) -> String {
    format!("the user {SERVICE_USER} may not read {path}")
}

/// Whether the user of the unit, where there is one, may read a file.
pub(super) fn may_be_read(sysroot: &Sysroot, path: &Path) -> bool {
    let user = service_user(sysroot);
    user.is_none_or(|user| closed(&user, sysroot, path, READ_FILE).is_none())
}

pub(super) fn models(patient: &Patient) -> Check {
    let sysroot = &patient.sysroot;
    let Some(user) = reader(patient) else {
        return Check::skip(match service_user(sysroot) {
            None => NO_USER,
            Some(_) => "the configuration is not the service's",
        });
    };
    let folder = patient.settings.models.dir.display().to_string();
    let here = sysroot.path(&folder);
    if let Some(closed) = closed(&user, sysroot, &here, READ_FOLDER) {
        let remedy = match closed.is_above {
            true => format!("chmod o+x {}", closed.path),
            false => format!("chmod o+rx {}", closed.path),
        };
        return told_closed(&closed.path, 0).remedy(remedy);
    }
    let found = look(&user, &here);
    if let Some(first) = found.closed.first() {
        let first = of_board(sysroot, first);
        let remedy = format!("chmod -R o+rX {folder}");
        return told_closed(&first, found.closed.len() - 1).remedy(remedy);
    }
    if found.open == 0 {
        return Check::skip(format!("nothing of a model's is in {folder}"));
    }
    let files = match found.open {
        1 => "the file".to_owned(),
        many => format!("{many} files"),
    };
    Check::ok(format!(
        "the user {SERVICE_USER} may read {files} of models"
    ))
}

fn told_closed(first: &str, further: usize) -> Check {
    let mut observed = may_not_read(first);
    if further > 0 {
        observed = format!("{observed}, nor {further} more");
    }
    Check::fail(observed).expected("models that the service's user may read")
}

#[derive(Default)]
struct Looked {
    open: usize,
    closed: Vec<PathBuf>,
}

/// Everything in a folder that is open itself; what lies in one that is closed is closed with it.
fn look(user: &User, folder: &Path) -> Looked {
    let mut found = Looked::default();
    let mut folders = vec![(folder.to_owned(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            seen += 1;
            if seen > MOST {
                break;
            }
            let path = entry.path();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let is_read = || {
                let end = path.extension().and_then(|end| end.to_str());
                end.is_some_and(|end| READ.contains(&end))
            };
            let wanted = match kind {
                _ if is_hidden => continue,
                kind if kind.is_dir() && depth < DEEPEST => READ_FOLDER,
                kind if kind.is_file() && is_read() => READ_FILE,
                _ => continue,
            };
            if !user.may(&path, wanted) {
                found.closed.push(path);
            } else if kind.is_dir() {
                folders.push((path, depth + 1));
            } else {
                found.open += 1;
            }
        }
    }
    found.closed.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::doctor::Status;
    use crate::settings::Settings;

    #[test]
    fn a_daemon_with_another_user_is_not_asked_what_the_services_may_read() {
        let own = rustix::process::geteuid().as_raw();
        // What is this user's own is open to it, and closed to the next.
        for (user, whose, status) in [
            (own + 1, Whose::Service, Status::Fail),
            (own + 1, Whose::OwnDaemon, Status::Skip),
            (own + 1, Whose::Other, Status::Skip),
            (own, Whose::Service, Status::Ok),
            (own, Whose::OwnDaemon, Status::Ok),
        ] {
            let root = tempfile::tempdir().unwrap();
            let mut patient = Patient::new(Sysroot::new(root.path()), Settings::default());
            patient.whose = whose;
            let etc = root.path().join("etc");
            fs::create_dir(&etc).unwrap();
            // In a group of which nothing is.
            let line = format!("{SERVICE_USER}:x:{user}:4294967294::/:/usr/sbin/nologin\n");
            fs::write(etc.join("passwd"), line).unwrap();
            let folder = patient.sysroot.path(&patient.settings.models.dir);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("m.gguf"), "").unwrap();
            let closed = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&folder, closed).unwrap();
            let told = models(&patient);
            assert_eq!(told.status, status, "{user} {whose:?}: {}", told.observed);
        }
    }
}
