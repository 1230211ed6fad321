//! The files that the checks and the sensors read, and no others. A test packs boards and compares what is found
//! in the copies.

use crate::board::NpuLoad;
use crate::board::sensors::{frequency, hwmon, thermal};
use crate::doctor::runtime::{LIBRARY_FOLDERS, NEEDED};

/// Files of one kind: a folder, and how the names below it are, level by level. No level: `folder` is the file.
pub(super) struct ListedFiles {
    pub folder: String,
    pub parts: Parts,
    pub want: Want,
}

pub(super) type Parts = &'static [fn(&str) -> bool];

/// What is packed of a file.
#[derive(Clone, Copy)]
pub(super) enum Want {
    /// The kernel's own words and figures, in which no name of a host is.
    Text,
    /// What may name a host.
    Words,
    /// That there is such a folder.
    Folder,
    /// That there is such a file.
    Presence,
}

impl ListedFiles {
    /// One file.
    pub fn file(path: impl Into<String>, want: Want) -> Self {
        Self::below(path, &[], want)
    }

    pub fn below(folder: impl Into<String>, parts: Parts, want: Want) -> Self {
        Self {
            folder: folder.into(),
            parts,
            want,
        }
    }
}

const FILES: &[&str] = &[
    "/proc/device-tree/compatible",
    "/proc/device-tree/model",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/sys/module/rknpu/version",
    "/sys/kernel/debug/rknpu/version",
    "/sys/fs/cgroup/cgroup.controllers",
];

/// In which who built the kernel, or named a volume, may have written a host's name.
const WORDS: &[&str] = &["/proc/sys/kernel/osrelease", "/proc/swaps"];

const FOLDERS: &[&str] = &["/sys/module/rknpu", "/sys/module/rocket", "/sys/fs/cgroup"];

const BELOW: &[(&str, Parts)] = &[
    (
        frequency::CLUSTERS,
        &[
            |name| name.starts_with(frequency::CLUSTER),
            |name| {
                matches!(
                    name,
                    "related_cpus"
                        | "scaling_governor"
                        | "scaling_available_governors"
                        | "scaling_cur_freq"
                        | "scaling_min_freq"
                        | "scaling_max_freq"
                        | "cpuinfo_min_freq"
                        | "cpuinfo_max_freq"
                )
            },
        ],
    ),
    (
        frequency::DEVICES,
        &[
            |name| name == "dmc" || name.ends_with(".npu") || name.ends_with(".gpu"),
            |name| {
                matches!(
                    name,
                    "governor"
                        | "available_governors"
                        | "cur_freq"
                        | "min_freq"
                        | "max_freq"
                        | "available_frequencies"
                        | "load"
                )
            },
        ],
    ),
    (
        thermal::FOLDER,
        &[
            |name| name.starts_with(thermal::ZONES) || name.starts_with(thermal::COOLING_DEVICES),
            |name| {
                let is_trip = name.starts_with("trip_point_")
                    && (name.ends_with("_type") || name.ends_with("_temp"));
                is_trip || matches!(name, "type" | "temp" | "cur_state" | "max_state")
            },
        ],
    ),
    (
        hwmon::FOLDER,
        &[
            |name| name.starts_with(hwmon::DEVICES),
            |name| {
                let is = |before: &str, after: &str| {
                    let number = name.strip_prefix(before);
                    let number = number.and_then(|rest| rest.strip_suffix(after));
                    number.is_some_and(|number| number.parse::<u32>().is_ok())
                };
                name == "name"
                    || is("fan", "_input")
                    || is("pwm", "")
                    || is("power", "_input")
                    || is("power", "_average")
            },
        ],
    ),
];

pub(super) fn all() -> Vec<ListedFiles> {
    let files = |paths: &'static [&'static str], want: Want| {
        let paths = paths.iter();
        paths.map(move |path| ListedFiles::file(*path, want))
    };
    let below = BELOW.iter();
    let mut all: Vec<_> = files(FOLDERS, Want::Folder)
        .chain(files(FILES, Want::Text))
        .chain(files(&NpuLoad::FILES, Want::Text))
        .chain(files(WORDS, Want::Words))
        .chain(below.map(|&(folder, parts)| ListedFiles::below(folder, parts, Want::Text)))
        .collect();
    for folder in LIBRARY_FOLDERS {
        let names = NEEDED.iter().map(|(name, _)| format!("{folder}/{name}"));
        all.extend(names.map(|path| ListedFiles::file(path, Want::Presence)));
    }
    all
}
