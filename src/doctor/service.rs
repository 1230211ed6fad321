//! What the service itself stands on: keys, listeners, disk and clock.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::memory::mib;
use super::{Check, Patient, reading};
use crate::auth::KeysFile;
use crate::confinement::Landlock;
use crate::http;

/// The time of this program's first release, before which no clock is right.
const FIRST_RELEASE: u64 = 1_767_225_600; // 2026-01-01
/// Below it nothing can be kept.
const FULL_BYTES: u64 = 64 << 20;
const SCARCE_BYTES: u64 = 1 << 30;
/// Fewer files than a conversation or two leave, models aside.
const FEW_FILES: u64 = 1000;

const CONFINED: &str = "workers and pulls that reach nothing but their own files";

const COPY: &str = "a copy does not tell";

pub(super) fn exposure(patient: &Patient) -> Check {
    if !patient.sysroot.is_own() {
        return Check::skip(COPY);
    }
    let settings = &patient.settings.http;
    if let Some(exposed) = http::exposure(settings) {
        return Check::fail(exposed.to_string())
            .expected("a key, where the network can reach the daemon")
            .remedy("rkllmd keys add NAME");
    }
    let listen: Vec<_> = settings.listen.iter().map(ToString::to_string).collect();
    Check::ok(format!("listens on {}", listen.join(", ")))
}

pub(super) fn keys(patient: &Patient) -> Check {
    if !patient.sysroot.is_own() {
        return Check::skip(COPY);
    }
    let path = &patient.settings.http.keys_file;
    let shown = path.display();
    let Ok(metadata) = fs::metadata(path) else {
        return Check::skip(format!("there is no {shown} that can be looked at"));
    };
    if metadata.mode() & 0o007 != 0 {
        return Check::fail(format!("{shown} is open to every user of this machine"))
            .expected("closed to others")
            .remedy(format!("chmod o= {shown}"));
    }
    if let Some(closed) = reading::keys(patient) {
        return closed;
    }
    match KeysFile::new(path).read() {
        Ok(keyring) => {
            let keys = keyring.as_ref().map_or(0, |keyring| keyring.keys().count());
            Check::ok(format!("{keys} keys in {shown}"))
        }
        Err(error) if rustix::process::geteuid().is_root() => Check::fail(error.to_string())
            .expected("a file that `rkllmd keys` wrote")
            .remedy(format!("mv {shown} {shown}.broken && rkllmd keys add NAME")),
        Err(error) => Check::skip(error.to_string()),
    }
}

pub(super) fn disk(patient: &Patient) -> Check {
    if !patient.sysroot.is_own() {
        return Check::skip(COPY);
    }
    let folder = &patient.settings.library.state_dir;
    let shown = folder.display();
    let Ok(disk) = rustix::fs::statvfs(folder.as_path()) else {
        return Check::skip(format!("{shown} is not there yet"));
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let observed = format!("{} free for {shown}", mib(free));
    if disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Check::fail(format!("{shown} is mounted for reading only"))
            .expected("a file system that can be written")
            .remedy("mount -o remount,rw / after fsck; a card that wears out ends like this");
    }
    if free < FULL_BYTES {
        return Check::fail(observed)
            .expected(format!("at least {}", mib(SCARCE_BYTES)))
            .remedy("du -xh / | sort -h | tail -n 20");
    }
    // Some file systems make room for as many as there are bytes for, and tell 0.
    if disk.f_files > 0 && disk.f_favail < FEW_FILES {
        return Check::fail(format!("room for {} more files in {shown}", disk.f_favail))
            .expected(format!("for at least {FEW_FILES}"))
            .remedy("du -x --inodes / | sort -n | tail -n 20");
    }
    if free < SCARCE_BYTES {
        return Check::warn(observed)
            .expected(format!("at least {}", mib(SCARCE_BYTES)))
            .remedy("du -xh / | sort -h | tail -n 20");
    }
    Check::ok(observed)
}

pub(super) fn landlock(patient: &Patient) -> Check {
    if !patient.sysroot.is_own() {
        return Check::skip(COPY);
    }
    let wanted = &patient.settings.confinement;
    match Landlock::of_this_machine() {
        Landlock::Missing(reason) => Check::warn(format!("no Landlock: {reason}"))
            .expected(CONFINED)
            .remedy(
                "a newer kernel, or landlock in lsm= on the kernel's command line; the unit's other \
                 walls stand without it",
            ),
        Landlock::There(version) if !wanted.workers || !wanted.pulls => {
            let mut off = Vec::new();
            off.extend((!wanted.workers).then_some("confinement.workers"));
            off.extend((!wanted.pulls).then_some("confinement.pulls"));
            let off = off.join(" and ");
            Check::warn(format!("Landlock {version}, and {off} switched off"))
                .expected(CONFINED)
                .remedy("take it out of /etc/rkllmd/rkllmd.toml, where nothing needs it off any more")
        }
        Landlock::There(version) if !Landlock::of_this_machine().lets_folders_move() => {
            Check::ok(format!("Landlock {version}, which confines workers but no pulls"))
        }
        Landlock::There(version) => Check::ok(format!("Landlock {version}")),
    }
}

pub(super) fn clock(patient: &Patient) -> Check {
    if !patient.sysroot.is_own() {
        return Check::skip(COPY);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    if seconds < FIRST_RELEASE {
        return Check::fail("before the first release of this program")
            .expected("the time of day; without it no TLS certificate holds")
            .remedy("timedatectl set-ntp true");
    }
    Check::ok("later than the first release of this program")
}
