//! Control groups of a test's own, to make the kernel do to a worker what it does on a bad day. They
//! need root, and are gone when the test ends, however it ends.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than the kernel needs to freeze or to forget a process.
const PATIENCE: Duration = Duration::from_secs(30);

/// A mounted hierarchy of control groups.
struct Hierarchy {
    folder: PathBuf,
    unified: bool,
}

/// All that are mounted whole; `controller` is for v1, where each has its own.
fn mounted(controller: &str) -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let hierarchy = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
        let unified = kind == "cgroup2";
        let v1 = kind == "cgroup" && options.split(',').any(|option| option == controller);
        (unified || v1).then(|| Hierarchy {
            folder: PathBuf::from(mount.split(' ').nth(4).expect("a mount point")),
            unified,
        })
    };
    mounts.lines().filter_map(hierarchy).collect()
}

fn write(folder: &Path, file: &str, value: &str) -> Result<(), String> {
    let path = folder.join(file);
    fs::write(&path, value).map_err(|error| format!("{value} to {}: {error}", path.display()))
}

/// One control group.
struct Group {
    folder: PathBuf,
}

impl Group {
    fn create(hierarchy: &Path) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = hierarchy.join(format!("rkllmd-test-{}-{number}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => Ok(Self { folder }),
            Err(error) => Err(format!("{}: {error}", folder.display())),
        }
    }

    fn add(&self, pid: u32) {
        if let Err(error) = write(&self.folder, "cgroup.procs", &pid.to_string()) {
            panic!("process {pid} cannot be moved: {error}");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group can be removed once it is empty, and an ended process leaves it a little later.
        let until = Instant::now() + PATIENCE;
        loop {
            let members = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
            if let Some(parent) = self.folder.parent() {
                for pid in members.lines() {
                    let _ = write(parent, "cgroup.procs", pid);
                }
            }
            match fs::remove_dir(&self.folder) {
                Ok(()) => return,
                Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
                Err(error) => {
                    eprintln!("{} stays behind: {error}", self.folder.display());
                    return;
                }
            }
        }
    }
}

/// A control group that may have only so much memory: its processes are OOM-killed beyond.
pub struct NarrowMemory(Group);

impl NarrowMemory {
    /// What processes have when they are moved in is not counted.
    pub fn of_bytes(bytes: u64) -> Self {
        let mut failures = Vec::new();
        for hierarchy in mounted("memory") {
            match Self::in_hierarchy(&hierarchy, bytes) {
                Ok(group) => return Self(group),
                Err(failure) => failures.push(failure),
            }
        }
        panic!(
            "this test needs a memory control group of its own, so it has to run as root where \
             the memory controller of cgroup v1 or v2 is mounted and writable; tried: {failures:?}"
        );
    }

    fn in_hierarchy(hierarchy: &Hierarchy, bytes: u64) -> Result<Group, String> {
        let limit = bytes.to_string();
        if !hierarchy.unified {
            let group = Group::create(&hierarchy.folder)?;
            write(&group.folder, "memory.limit_in_bytes", &limit)?;
            if group.folder.join("memory.memsw.limit_in_bytes").exists() {
                write(&group.folder, "memory.memsw.limit_in_bytes", &limit)?;
            }
            return Ok(group);
        }
        write(&hierarchy.folder, "cgroup.subtree_control", "+memory")?;
        let group = Group::create(&hierarchy.folder)?;
        write(&group.folder, "memory.max", &limit)?;
        if group.folder.join("memory.swap.max").exists() {
            write(&group.folder, "memory.swap.max", "0")?;
        }
        Ok(group)
    }

    pub fn add(&self, pid: u32) {
        self.0.add(pid);
    }
}

/// A control group whose processes do not run and, which cgroup v2 cannot do, do not even die:
/// until they are thawed, they are as unkillable as one that hangs in a driver.
pub struct Freezer {
    // Removed before what it is in.
    group: Group,
    _mount: Option<Mount>,
}

impl Freezer {
    pub fn new() -> Self {
        let mounted = mounted("freezer").into_iter().find(|found| !found.unified);
        let (folder, mount) = match mounted {
            Some(hierarchy) => (hierarchy.folder, None),
            None => {
                let mount = Mount::freezer();
                (mount.folder.path().to_owned(), Some(mount))
            }
        };
        let group = Group::create(&folder).unwrap_or_else(|failure| {
            panic!(
                "this test needs a freezer control group (v1), so it has to run as root: {failure}"
            )
        });
        Self {
            group,
            _mount: mount,
        }
    }

    /// Stops a process until [`Freezer::thaw`] or the end of this.
    pub fn freeze(&self, pid: u32) {
        self.group.add(pid);
        self.set("FROZEN").expect("freezing");
        let until = Instant::now() + PATIENCE;
        while self.state() != "FROZEN" {
            assert!(Instant::now() < until, "{pid} is not frozen");
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn thaw(&self) {
        self.set("THAWED").expect("thawing");
    }

    fn set(&self, state: &str) -> Result<(), String> {
        write(&self.group.folder, "freezer.state", state)
    }

    fn state(&self) -> String {
        let state = fs::read_to_string(self.group.folder.join("freezer.state"));
        state.expect("the state").trim().to_owned()
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // Frozen processes could neither leave nor die.
        let _ = self.set("THAWED");
    }
}

/// The v1 freezer of a machine that mounts only v2; the kernel has both.
struct Mount {
    folder: tempfile::TempDir,
}

impl Mount {
    fn freezer() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = Command::new("mount")
            .args(["-t", "cgroup", "-o", "freezer", "cgroup"])
            .arg(folder.path())
            .output()
            .expect("mount(8) runs");
        assert!(
            output.status.success(),
            "this test freezes a process so that SIGKILL does not end it. Only the freezer of \
             cgroup v1 does that; it is not mounted, and mounting it (which needs root) failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self { folder }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}
