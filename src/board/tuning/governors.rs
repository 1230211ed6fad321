//! The governors of a board: which there are, what each is, and what becomes of it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::apart::{self, Subject};
use crate::board::Sysroot;
use crate::board::sensors::ClockOf;
use crate::board::sensors::frequency::{CLUSTER, CLUSTERS, DEVICES, governor_file};
use crate::regular_file;

/// Does not wait for load before it raises the frequency.
pub(super) const WANTED: &str = "performance";
/// The vendor's scripts set it, with a frequency of their own (docs/vendor-library.md §9).
const BY_HAND: &str = "userspace";
/// What the kernel is waited for.
const LIMIT: Duration = Duration::from_secs(2);
const MOST_BYTES: u64 = 4096;

/// What a governor is, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    pub device: ClockOf,
    /// Its name in the kernel, such as `policy4` or `dmc`.
    pub name: String,
    pub governor: String,
}

impl Known {
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.device == other.device && self.name == other.name
    }

    /// Whether it leads to no other file.
    pub fn is_a_name(&self) -> bool {
        let is_sound = |text: &str| !text.is_empty() && !text.contains(['/', '\n', '\0']);
        is_sound(&self.name) && is_sound(&self.governor) && self.name != ".."
    }

    fn file(&self) -> String {
        governor_file(self.device, &self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Set,
    Keep(&'static str),
}

/// `available`: the governors that the kernel has for it; `None`: it does not tell.
pub(super) fn decide(now: &str, available: Option<&str>) -> Decision {
    let has_it = |all: &str| all.split_whitespace().any(|governor| governor == WANTED);
    match now {
        WANTED => Decision::Keep("as it is to be"),
        BY_HAND => Decision::Keep("at a frequency that was set by hand"),
        _ if available.is_some_and(|all| !has_it(all)) => {
            Decision::Keep("because the kernel has no `performance` for it")
        }
        _ => Decision::Set,
    }
}

/// Each with the governors that are available for it.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub known: Vec<(Known, Option<String>)>,
    /// What cannot be read, and so not be set, with the reason.
    pub unread: Vec<String>,
}

pub(super) struct Governors {
    sysroot: Sysroot,
}

impl Governors {
    pub fn of(sysroot: &Sysroot) -> Self {
        Self {
            sysroot: sysroot.clone(),
        }
    }

    /// CPU, NPU and memory: on the GPU no model runs.
    pub fn list(&self) -> Listed {
        let mut listed = Listed::default();
        for folder in [CLUSTERS, DEVICES] {
            let sysroot = self.sysroot.clone();
            let subject = Subject::Sensor(PathBuf::from(folder));
            let names = apart::ask_and_wait(subject, LIMIT, move || sysroot.names(folder));
            let Some(names) = names else {
                listed.unread.push(format!("{folder}: {}", no_answer()));
                continue;
            };
            for name in names {
                let device = match folder {
                    CLUSTERS => name.starts_with(CLUSTER).then_some(ClockOf::Cpu),
                    _ => ClockOf::device(&name).filter(|device| *device != ClockOf::Gpu),
                };
                if let Some(device) = device {
                    self.look_at(device, name, &mut listed);
                }
            }
        }
        listed
    }

    fn look_at(&self, device: ClockOf, name: String, listed: &mut Listed) {
        let file = governor_file(device, &name);
        let of_available = match device {
            ClockOf::Cpu => format!("{CLUSTERS}/{name}/scaling_available_governors"),
            _ => format!("{DEVICES}/{name}/available_governors"),
        };
        match self.read(&file) {
            Ok(governor) => {
                let known = Known {
                    device,
                    name,
                    governor,
                };
                listed.known.push((known, self.read(&of_available).ok()));
            }
            // A device without a governor of its own.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => listed.unread.push(format!("{file}: {error}")),
        }
    }

    pub fn now(&self, known: &Known) -> io::Result<String> {
        self.read(&known.file())
    }

    fn read(&self, file: &str) -> io::Result<String> {
        let path = self.sysroot.path(file);
        let subject = Subject::Sensor(path.clone());
        let read = move || regular_file::read_text(&path, MOST_BYTES);
        let told = apart::ask_and_wait(subject, LIMIT, read);
        told.unwrap_or_else(|| Err(no_answer()))
            .map(|text| text.trim().to_owned())
    }

    /// Sets it, and looks whether the kernel took it.
    pub fn set(&self, known: &Known, governor: &str) -> io::Result<()> {
        let file = known.file();
        let path = self.sysroot.path(&file);
        let (subject, text) = (Subject::Sensor(path.clone()), format!("{governor}\n"));
        let write = move || write(&path, text.as_bytes());
        apart::ask_and_wait(subject, LIMIT, write).unwrap_or_else(|| Err(no_answer()))?;
        let now = self.read(&file)?;
        if now == governor {
            return Ok(());
        }
        Err(io::Error::other(format!("the kernel keeps {now}")))
    }
}

fn no_answer() -> io::Error {
    let told = format!("the kernel does not answer within {} s", LIMIT.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, told)
}

/// In one write, as the kernel wants it, and to a file that is there.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file of the kernel's"));
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    file.write_all(text)
}
