//! A file system that hangs, laid over a file or a folder: over a folder no entry is found in it, and over a file
//! what is read of it does not come, until this is dropped. A caller that is killed gets away, as from a network
//! share, or does not, as from a driver that is wedged. It speaks FUSE by hand, which is little where hardly
//! anything is answered, and needs `/dev/fuse`, `mount` and `umount` (util-linux), and root.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::root_support::is_root_for;

const DEVICE: &str = "/dev/fuse";
const WHY: &str = "a file system that hangs is mounted";

/// Whether a test with such a file system can be made; where not it says so, and under CI that is a failure.
pub fn can_be_mounted() -> bool {
    if !is_root_for(WHY) {
        return false;
    }
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let is_there = Path::new(DEVICE).exists();
    assert!(is_there || !is_ci, "under CI there must be {DEVICE}: {WHY}");
    if !is_there {
        eprintln!("no {DEVICE}, so this was not tried: {WHY}");
    }
    is_there
}

// The kernel's include/uapi/linux/fuse.h.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
const HEADER_BYTES: usize = 40;
/// Lookups in one folder are asked side by side.
const PARALLEL_DIROPS: u32 = 1 << 18;
/// A file is asked for what is read of it, whatever its length is said to be.
const DIRECT_IO: u32 = 1;
const EINTR: i32 = 4;
const ENOSYS: i32 = 38;

pub struct HungMount {
    over: PathBuf,
    is_over: Arc<AtomicBool>,
    held: Arc<AtomicUsize>,
    server: Option<JoinHandle<()>>,
}

impl HungMount {
    /// Who is killed gets away.
    pub fn over(path: &Path) -> Self {
        Self::mounted(path, true)
    }

    /// No process ends while it waits here.
    pub fn unkillable_over(path: &Path) -> Self {
        Self::mounted(path, false)
    }

    fn mounted(path: &Path, lets_go: bool) -> Self {
        let is_folder = path.is_dir();
        let mode = if is_folder { "40000" } else { "100000" };
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            // A call that is taken back before it is read is not waited for.
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(DEVICE)
            .expect(DEVICE);
        let options = format!("fd=0,rootmode={mode},user_id=0,group_id=0,allow_other");
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o", &options, "hangs"])
            .arg(path)
            .stdin(Stdio::from(
                device.try_clone().expect("one more descriptor"),
            ))
            .output()
            .expect("mount");
        assert!(mounted.status.success(), "{mounted:?}");
        let (is_over, held) = (Arc::default(), Arc::default());
        let server = Server {
            device,
            mode: if is_folder { 0o40_755 } else { 0o100_444 },
            lets_go,
            holds: BTreeSet::new(),
            held: Arc::clone(&held),
        };
        let ends = Arc::clone(&is_over);
        let mount = Self {
            over: path.to_owned(),
            is_over,
            held,
            server: Some(std::thread::spawn(move || server.serve(&ends))),
        };
        // The root's own facts are told, so from here on it serves.
        std::fs::metadata(path).expect("the root");
        mount
    }

    /// How many calls were left without an answer.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }
}

impl Drop for HungMount {
    fn drop(&mut self) {
        // Lazily, because callers that wait have it open.
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(&self.over)
            .output();
        self.is_over.store(true, Ordering::SeqCst);
        // With its descriptor the kernel gives up on it, and every caller gets an error.
        let served = self.server.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            let unmounted = unmounted.expect("umount");
            assert!(unmounted.status.success(), "{unmounted:?}");
            assert!(served.is_some_and(|served| served.is_ok()), "it served");
        }
    }
}

struct Server {
    device: File,
    mode: u32,
    /// Whether a caller that is killed gets away.
    lets_go: bool,
    /// Calls that wait.
    holds: BTreeSet<u64>,
    held: Arc<AtomicUsize>,
}

impl Server {
    fn serve(mut self, is_over: &AtomicBool) {
        let mut call = vec![0; 1 << 17];
        while !is_over.load(Ordering::SeqCst) {
            let mut wanted = [PollFd::new(&self.device, PollFlags::IN)];
            let a_while = Timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            if !matches!(poll(&mut wanted, Some(&a_while)), Ok(1..)) {
                continue;
            }
            match self.device.read(&mut call) {
                Ok(length) if length >= HEADER_BYTES => self.answer(&call[..length]),
                // It is mounted no more.
                Err(error) if error.raw_os_error() == Some(19) => return,
                // A call was taken back meanwhile.
                _ => {}
            }
        }
    }

    fn answer(&mut self, call: &[u8]) {
        let number = |at: usize| u32::from_ne_bytes(call[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_ne_bytes(call[at..at + 8].try_into().expect("8 bytes"));
        let unique = long(8);
        match number(4) {
            LOOKUP | READ | READDIR => {
                self.holds.insert(unique);
                self.held.fetch_add(1, Ordering::SeqCst);
            }
            // Its caller is killed.
            INTERRUPT => {
                let interrupted = long(HEADER_BYTES);
                if self.lets_go && self.holds.remove(&interrupted) {
                    self.send(interrupted, -EINTR, &[]);
                }
            }
            FORGET | BATCH_FORGET => {}
            INIT => {
                let minor = number(HEADER_BYTES + 4).min(31);
                let flags = number(HEADER_BYTES + 12) & PARALLEL_DIROPS;
                let numbers = [7, minor, 0, flags, 0, 4096, 1];
                let mut told: Vec<u8> = numbers.into_iter().flat_map(u32::to_ne_bytes).collect();
                told.resize(64, 0);
                self.send(unique, 0, &told);
            }
            GETATTR => {
                // It is not asked again for an hour.
                let mut told = Vec::from(3600u64.to_ne_bytes());
                told.resize(16, 0);
                told.extend(1u64.to_ne_bytes());
                told.extend(4096u64.to_ne_bytes());
                told.resize(16 + 60, 0);
                let (mode, links) = (self.mode, 1u32);
                told.extend([mode, links].into_iter().flat_map(u32::to_ne_bytes));
                told.resize(16 + 88, 0);
                self.send(unique, 0, &told);
            }
            OPEN => {
                let mut told = vec![0; 8];
                told.extend(DIRECT_IO.to_ne_bytes());
                told.resize(16, 0);
                self.send(unique, 0, &told);
            }
            OPENDIR => self.send(unique, 0, &[0; 16]),
            FLUSH | RELEASE | RELEASEDIR | DESTROY => self.send(unique, 0, &[]),
            _ => self.send(unique, -ENOSYS, &[]),
        }
    }

    /// In one piece, as the kernel wants it.
    fn send(&mut self, unique: u64, error: i32, told: &[u8]) {
        let length = u32::try_from(16 + told.len()).expect("short");
        let mut answer = Vec::from(length.to_ne_bytes());
        answer.extend(error.to_ne_bytes());
        answer.extend(unique.to_ne_bytes());
        answer.extend(told);
        // Its caller may be gone.
        drop(self.device.write(&answer));
    }
}
