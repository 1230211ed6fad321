//! What a child may reach of the file system, where the kernel has Landlock: it gives the rest up for itself,
//! without any privilege and for good, before it has a second thread and before it runs anything that is
//! not trusted.
//!
//! System paths are given generously, because it is not known what a vendor's library opens; what is the daemon's
//! is left out of them, wherever it lies. Without Landlock nothing is given up here, and the other walls stand.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use serde::{Deserialize, Serialize};

/// The newest sets of rights that are known here; older kernels take what they have of them.
const FILES: ABI = ABI::V5;
const NETWORK: ABI = ABI::V4;
const OTHERS: ABI = ABI::V6;
/// The first kernel with Landlock.
const FIRST_KERNEL: (u32, u32) = (5, 13);

/// Always hidden: what the package installs, and what of it the settings may not name.
const DAEMONS: [&str; 4] = [
    "/etc/rkllmd",
    "/var/lib/rkllmd",
    "/var/cache/rkllmd",
    "/run/rkllmd",
];
/// Libraries, programs, and what they ask of the system.
const SYSTEM: [&str; 14] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    "/vendor",
    "/oem",
    "/nix/store",
    "/gnu/store",
];
/// Finding and trusting a host. The first may lead anywhere.
const RESOLVING: [&str; 5] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/connman",
];

/// What may be done with what lies beneath a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Right {
    Read,
    /// And be started.
    Run,
    /// And changed.
    Write,
    /// The nodes of a driver.
    Device,
    /// Listing, making folders, and moving whole ones there; no file is read or written.
    Arrange,
}

impl Right {
    fn access(self) -> BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        match self {
            Self::Read => read,
            Self::Run => read | AccessFs::Execute,
            Self::Write => {
                read | AccessFs::WriteFile
                    | AccessFs::Truncate
                    | AccessFs::MakeReg
                    | AccessFs::MakeDir
                    | AccessFs::RemoveFile
                    | AccessFs::RemoveDir
                    | AccessFs::Refer
            }
            Self::Device => read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev,
            Self::Arrange => AccessFs::ReadDir | AccessFs::MakeDir | AccessFs::Refer,
        }
    }
}

/// All that a child may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The machine's, but for what is hidden.
    system: Vec<(PathBuf, Right)>,
    /// The child's, wherever it lies.
    own: Vec<(PathBuf, Right)>,
    hidden: Vec<PathBuf>,
    /// Whether it may open connections.
    network: bool,
}

impl Reach {
    /// That of a library whose source is not there: the system to read, the devices to use, and no network.
    pub fn of_library(hidden: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut this = Self::new(&SYSTEM, Right::Run, hidden);
        // A thread is given its name there.
        this.system.push(("/proc/self".into(), Right::Write));
        this.system.push(("/dev".into(), Right::Device));
        this.system.push(("/dev/shm".into(), Right::Write));
        this
    }

    /// That of a program of ours that speaks with other machines.
    pub fn of_client(hidden: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut this = Self::new(&SYSTEM, Right::Read, hidden);
        let resolving = RESOLVING.map(|path| (PathBuf::from(path), Right::Read));
        this.system.extend(resolving);
        let nodes = ["/dev/null", "/dev/random", "/dev/urandom"];
        let nodes = nodes.map(|path| (PathBuf::from(path), Right::Device));
        this.system.extend(nodes);
        this.network = true;
        this
    }

    fn new(system: &[&str], right: Right, hidden: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            system: system.iter().map(|path| (path.into(), right)).collect(),
            hidden: DAEMONS.iter().map(PathBuf::from).chain(hidden).collect(),
            ..Self::default()
        }
    }

    /// As the system's paths: what is hidden in it stays so.
    pub fn sees(&mut self, path: impl Into<PathBuf>, right: Right) {
        self.system.push((path.into(), right));
    }

    /// Even where it lies among what is hidden.
    pub fn owns(&mut self, path: impl Into<PathBuf>, right: Right) {
        self.own.push((path.into(), right));
    }

    /// What the child owns and is not there.
    pub fn missing(&self) -> impl Iterator<Item = &Path> {
        let own = self.own.iter().map(|(path, _)| path.as_path());
        own.filter(|path| !path.exists())
    }

    /// Whether what is hidden lies in a folder, by any of their names.
    pub fn hides_something_in(&self, folder: &Path) -> bool {
        let folders: Vec<PathBuf> = real(folder).collect();
        let mut hidden = self.hidden.iter().flat_map(|path| real(path));
        hidden.any(|path| folders.iter().any(|folder| path.starts_with(folder)))
    }

    /// Gives up all else, for this process and what it starts. To be called while it has one thread.
    ///
    /// # Errors
    ///
    /// A kernel that has Landlock did not do it. One that lacks it, or a part of it, is none.
    pub fn enter(&self) -> Result<(), RulesetError> {
        self.rules()?.enter()
    }

    /// Finds what may be reached, which waits for the disk, and gives nothing up yet.
    ///
    /// # Errors
    ///
    /// As `enter`.
    pub fn rules(&self) -> Result<Rules, RulesetError> {
        let mut rules = Ruleset::default().handle_access(AccessFs::from_all(FILES))?;
        if !self.network {
            rules = rules.handle_access(AccessNet::from_all(NETWORK))?;
        }
        let mut rules = rules.scope(Scope::from_all(OTHERS))?.create()?;
        for (path, right) in self.paths() {
            rules = rules.add_rules(path_beneath_rules([path], right.access()))?;
        }
        Ok(Rules(rules))
    }

    /// Those that are there.
    fn paths(&self) -> Vec<(PathBuf, Right)> {
        let hidden: Vec<PathBuf> = self.hidden.iter().flat_map(|path| real(path)).collect();
        let mut paths = self.own.clone();
        for (path, right) in &self.system {
            // What the system's links lead to counts where it lies.
            if let Ok(path) = fs::canonicalize(path) {
                let mut seen = Vec::new();
                leave_out(&path, &hidden, &mut seen);
                paths.extend(seen.into_iter().map(|path| (path, *right)));
            }
        }
        paths
    }
}

/// All that may be reached, found and not yet entered.
#[derive(Debug)]
pub struct Rules(RulesetCreated);

impl Rules {
    /// Gives up all else, as [`Reach::enter`].
    ///
    /// # Errors
    ///
    /// The kernel did not do it.
    pub fn enter(self) -> Result<(), RulesetError> {
        self.0.restrict_self().map(drop)
    }
}

/// As it is written and as it lies.
fn real(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let written = std::path::absolute(path).ok();
    let lies = fs::canonicalize(path).ok().or_else(|| in_its_folder(path));
    written.into_iter().chain(lies)
}

/// What is not there yet will lie where its folder does.
fn in_its_folder(path: &Path) -> Option<PathBuf> {
    let folder = fs::canonicalize(path.parent()?).ok()?;
    Some(folder.join(path.file_name()?))
}

/// `path` in as few parts as leave out what is hidden beneath it.
fn leave_out(path: &Path, hidden: &[PathBuf], seen: &mut Vec<PathBuf>) {
    if hidden.iter().any(|it| path.starts_with(it)) {
        return;
    }
    if !hidden.iter().any(|it| it.starts_with(path)) {
        seen.push(path.to_owned());
        return;
    }
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        // A link would be followed, to what may be hidden.
        if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            leave_out(&entry.path(), hidden, seen);
        }
    }
}

/// Whether the kernel has Landlock for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// At least this version of it.
    There(u8),
    Missing(&'static str),
}

impl Landlock {
    /// As it was found when it was first asked for.
    pub fn of_this_machine() -> Self {
        static FOUND: OnceLock<Landlock> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let newest = VERSIONS.iter().rfind(|(_, abi)| has(*abi));
            match newest {
                Some((version, _)) => Self::There(*version),
                None => Self::Missing(reason()),
            }
        })
    }

    /// `None`: there is none.
    pub fn version(self) -> Option<u8> {
        match self {
            Self::There(version) => Some(version),
            Self::Missing(_) => None,
        }
    }

    /// Whether a process that is confined may still move a folder to another one.
    pub fn lets_folders_move(self) -> bool {
        self.version() >= Some(2)
    }
}

const VERSIONS: [(u8, ABI); 6] = [
    (1, ABI::V1),
    (2, ABI::V2),
    (3, ABI::V3),
    (4, ABI::V4),
    (5, ABI::V5),
    (6, ABI::V6),
];

/// Whether the kernel makes rules of all that this version has. Nothing is given up.
fn has(abi: ABI) -> bool {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi));
    let network = AccessNet::from_all(abi);
    if !network.is_empty() {
        rules = rules.and_then(|rules| rules.handle_access(network));
    }
    let others = Scope::from_all(abi);
    if !others.is_empty() {
        rules = rules.and_then(|rules| rules.scope(others));
    }
    rules.and_then(Ruleset::create).is_ok()
}

fn reason() -> &'static str {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match is_too_old(&release) {
        true => "the kernel is older than 5.13",
        false => "it is not switched on in the kernel, or refused to this process",
    }
}

fn is_too_old(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    match (number(), number()) {
        (Some(major), Some(minor)) => (major, minor) < FIRST_KERNEL,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
