//! How much memory a child holds, as the kernel reports it.
//!
//! Only memory that the kernel cannot take back counts: anonymous and shared pages, and buffers of
//! the NPU. A mapped model file does not, because its pages can be dropped and read again. What the
//! kernel does not tell is absent, never 0.
//!
//! NPU memory shows up in one of two ways, by the build of the rknpu driver (docs/vendor-library.md §5): as a
//! DRM client (`drm-…` keys in /proc/PID/fdinfo, Linux Documentation/gpu/drm-usage-stats.rst), or
//! as dma-buf descriptors from a DMA heap (Documentation/filesystems/proc.rst). A DRM buffer that
//! is passed around as a dma-buf would be in both, and nothing links the two, so the larger sum
//! counts: at least that much is held, and no worker is killed for a buffer that was counted twice.
//! A driver that reports neither leaves [`ProcessMemory::npu_bytes`] empty, and so does a buffer that
//! has no descriptor any more.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Private memory: heap, stacks, private copies of mapped pages (`RssAnon`).
    pub anonymous_bytes: u64,
    /// Shared memory: shm, tmpfs, shared anonymous mappings (`RssShmem`).
    pub shared_bytes: u64,
    /// Buffers of the NPU; `None` where the kernel does not report them.
    pub npu_bytes: Option<u64>,
}

impl ProcessMemory {
    /// Everything that is known.
    pub fn total_bytes(&self) -> u64 {
        self.anonymous_bytes
            .saturating_add(self.shared_bytes)
            .saturating_add(self.npu_bytes.unwrap_or(0))
    }

    /// What is known, under the names that the metrics use.
    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("anonymous", Some(self.anonymous_bytes)),
            ("shared", Some(self.shared_bytes)),
            ("npu", self.npu_bytes),
        ]
        .into_iter()
        .filter_map(|(kind, bytes)| Some((kind, bytes?)))
    }
}

/// What children of another kind hold, as its host last measured it: what is not left for the others.
#[derive(Clone, Debug, Default)]
pub struct HeldBytes(Arc<AtomicU64>);

impl HeldBytes {
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The memory of a process now; `None` if it has ended or may not be looked at.
pub fn measure(pid: u32) -> Option<ProcessMemory> {
    let process = format!("/proc/{pid}");
    let process = Path::new(&process);
    let status = fs::read_to_string(process.join("status")).ok()?;
    let (anonymous_bytes, shared_bytes) = resident(&status)?;
    Some(ProcessMemory {
        anonymous_bytes,
        shared_bytes,
        npu_bytes: npu_bytes(process),
    })
}

/// Anonymous and shared bytes from the text of /proc/PID/status, which has them since Linux 4.5 and
/// not for a process that has given its memory back.
fn resident(status: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        kib.checked_mul(1024)
    };
    Some((field("RssAnon:")?, field("RssShmem:")?))
}

/// Descriptors come and go while they are listed; one that is gone holds nothing.
fn npu_bytes(process: &Path) -> Option<u64> {
    let mut buffers = DeviceBuffers::default();
    for entry in fs::read_dir(process.join("fdinfo")).ok()?.flatten() {
        let Ok(fdinfo) = fs::read_to_string(entry.path()) else {
            continue;
        };
        match Descriptor::parse(&fdinfo) {
            Some(Descriptor::DmaBuf { inode: None, bytes }) => {
                // Linux before 5.14 does not tell the inode there.
                let target = fs::metadata(process.join("fd").join(entry.file_name()));
                if let Ok(target) = target {
                    buffers.add(Descriptor::DmaBuf {
                        inode: Some(target.ino()),
                        bytes,
                    });
                }
            }
            Some(descriptor) => buffers.add(descriptor),
            None => {}
        }
    }
    buffers.bytes()
}

/// What the text of /proc/PID/fdinfo/N tells of a device's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Descriptor {
    /// A DRM client. Duplicates of a descriptor are the same client; a client without an id counts
    /// as one with all others of its device.
    Drm { client: DrmClient, bytes: u64 },
    /// One buffer.
    DmaBuf { inode: Option<u64>, bytes: u64 },
}

/// A client id is unique within its device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DrmClient {
    driver: String,
    device: String,
    id: Option<u64>,
}

impl Descriptor {
    /// `None` for any other descriptor, and for a DRM client whose driver does not report memory.
    fn parse(fdinfo: &str) -> Option<Self> {
        let value = |wanted: &str| {
            let mut pairs = fdinfo.lines().filter_map(|line| line.split_once(':'));
            pairs.find_map(|(key, value)| (key == wanted).then(|| value.trim()))
        };
        if let Some(driver) = value("drm-driver") {
            return Some(Self::Drm {
                client: DrmClient {
                    driver: driver.to_owned(),
                    device: value("drm-pdev").unwrap_or_default().to_owned(),
                    id: value("drm-client-id").and_then(|id| id.parse().ok()),
                },
                bytes: drm_bytes(fdinfo)?,
            });
        }
        value("exp_name")?;
        Some(Self::DmaBuf {
            inode: value("ino").and_then(|inode| inode.parse().ok()),
            bytes: value("size")?.parse().ok()?,
        })
    }
}

/// The sum over a client's memory regions: what is resident where the driver tells it, else what
/// was allocated.
fn drm_bytes(fdinfo: &str) -> Option<u64> {
    /// By how well the key tells what is held: `memory` is an older name of `resident`.
    const KEYS: [&str; 3] = ["drm-resident-", "drm-memory-", "drm-total-"];

    let mut regions: HashMap<&str, (usize, u64)> = HashMap::new();
    for (key, value) in fdinfo.lines().filter_map(|line| line.split_once(':')) {
        // `drm-total-cycles-ENGINE` is a time.
        let region = KEYS.iter().enumerate().find_map(|(rank, prefix)| {
            let region = key.strip_prefix(prefix)?;
            (!region.starts_with("cycles-")).then_some((rank, region))
        });
        let (Some((rank, region)), Some(bytes)) = (region, size(value)) else {
            continue;
        };
        let best = regions.entry(region).or_insert((rank, bytes));
        if rank < best.0 {
            *best = (rank, bytes);
        }
    }
    let bytes = regions.values().map(|(_, bytes)| *bytes);
    bytes.reduce(u64::saturating_add)
}

/// `<uint> [KiB|MiB]`, bytes without a unit.
fn size(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let unit = match words.next() {
        None => 1,
        Some("KiB") => 1 << 10,
        Some("MiB") => 1 << 20,
        Some(_) => return None,
    };
    number.checked_mul(unit)
}

/// The buffers of all descriptors of a process, each once.
#[derive(Default)]
struct DeviceBuffers {
    drm: HashMap<DrmClient, u64>,
    dma_bufs: HashMap<u64, u64>,
}

impl DeviceBuffers {
    fn add(&mut self, descriptor: Descriptor) {
        match descriptor {
            Descriptor::Drm { client, bytes } => {
                let known = self.drm.entry(client).or_default();
                *known = bytes.max(*known);
            }
            Descriptor::DmaBuf { inode, bytes } => {
                // Two without an inode cannot be told apart.
                let known = self.dma_bufs.entry(inode.unwrap_or(0)).or_default();
                *known = bytes.max(*known);
            }
        }
    }

    fn bytes(&self) -> Option<u64> {
        let drm = self.drm.values().copied().reduce(u64::saturating_add);
        let dma_bufs = self.dma_bufs.values().copied().reduce(u64::saturating_add);
        drm.max(dma_bufs)
    }
}

#[cfg(test)]
mod tests;
