//! Which CPU runtime a worker opens: the setting, else the best one beside the program or in the lib
//! folder of the install it belongs to. One built for instructions that this CPU lacks is never
//! chosen: it would end the worker with SIGILL, in the middle of an answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apart::{self, Subject};

const FILE_NAME: &str = "librkllmrt.so";
/// A disk that takes longer to tell what is on it hangs.
const DISK_LIMIT: Duration = Duration::from_secs(10);

/// A build of the CPU runtime for one instruction set.
#[derive(Clone, Copy, Debug)]
struct Variant {
    /// Its folder in `lib/rkllmd`.
    folder: &'static str,
    /// Whether this CPU has the instructions, from cpuid or the kernel's HWCAP.
    runs_here: fn() -> bool,
}

/// Best first; the last one runs on any CPU of the architecture.
#[cfg(target_arch = "x86_64")]
const VARIANTS: &[Variant] = &[
    Variant {
        folder: "avx2",
        // What ggml is compiled for when it is for AVX2; `avx2` alone would not promise the others.
        runs_here: || {
            is_x86_feature_detected!("sse4.2")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("bmi2")
        },
    },
    Variant {
        folder: "x86-64",
        runs_here: || true,
    },
];

#[cfg(target_arch = "aarch64")]
const VARIANTS: &[Variant] = &[
    Variant {
        folder: "armv8.2-a",
        // `-march=armv8.2-a` lets the compiler use what that revision made mandatory: the atomics
        // (lse), rdm and the CRC instructions besides the two asked for.
        runs_here: || {
            std::arch::is_aarch64_feature_detected!("dotprod")
                && std::arch::is_aarch64_feature_detected!("fp16")
                && std::arch::is_aarch64_feature_detected!("lse")
                && std::arch::is_aarch64_feature_detected!("rdm")
                && std::arch::is_aarch64_feature_detected!("crc")
        },
    },
    Variant {
        folder: "armv8-a",
        runs_here: || true,
    },
];

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const VARIANTS: &[Variant] = &[];

/// Why no library is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    #[error(
        "no CPU runtime is installed: GGUF models need librkllmrt.so of rkllmd-cpu (setting \
         runtime.cpu-library)"
    )]
    NotInstalled,
    #[error("the CPU runtime was not found: the disk that the program is on does not answer")]
    NoAnswer,
}

/// The first one that is there and runs on this CPU.
pub async fn find(configured: Option<&Path>) -> Result<PathBuf, NotFound> {
    if let Some(path) = configured {
        return Ok(path.to_owned());
    }
    match apart::ask(Subject::CpuRuntime, DISK_LIMIT, search).await {
        Some(found) => found.ok_or(NotFound::NotInstalled),
        None => Err(NotFound::NoAnswer),
    }
}

/// As [`find`] without a setting, for a thread that may wait for the disk.
pub fn search() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    candidates(folder, VARIANTS)
        .into_iter()
        .find(|path| path.is_file())
}

/// Where to look, best first: each folder's variants, then a library that is built for this machine
/// alone (`make build`).
fn candidates(program_folder: &Path, variants: &[Variant]) -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    for base in ["lib/rkllmd", "../lib/rkllmd"] {
        let base = program_folder.join(base);
        let usable = variants.iter().filter(|variant| (variant.runs_here)());
        candidates.extend(usable.map(|variant| base.join(variant.folder).join(FILE_NAME)));
        candidates.push(base.join(FILE_NAME));
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    const BETTER: Variant = Variant {
        folder: "better",
        runs_here: || true,
    };
    const FOREIGN: Variant = Variant {
        folder: "foreign",
        runs_here: || false,
    };
    const BASELINE: Variant = Variant {
        folder: "baseline",
        runs_here: || true,
    };

    #[test]
    fn a_variant_this_cpu_cannot_run_is_no_candidate() {
        let found = candidates(Path::new("/usr/bin"), &[FOREIGN, BASELINE]);
        assert_eq!(
            found[..2],
            [
                PathBuf::from("/usr/bin/lib/rkllmd/baseline/librkllmrt.so"),
                PathBuf::from("/usr/bin/lib/rkllmd/librkllmrt.so"),
            ]
        );
    }

    #[test]
    fn the_better_variant_comes_first() {
        let found = candidates(Path::new("/usr/bin"), &[BETTER, BASELINE]);
        assert!(found[0].ends_with("better/librkllmrt.so"), "{found:?}");
        assert!(found[1].ends_with("baseline/librkllmrt.so"), "{found:?}");
        assert_eq!(
            found[5],
            Path::new("/usr/bin/../lib/rkllmd/librkllmrt.so"),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn a_setting_is_taken_as_it_is() {
        let configured = PathBuf::from("/opt/librkllmrt.so");
        assert_eq!(find(Some(&configured)).await, Ok(configured));
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn the_last_variant_runs_anywhere() {
        let last = VARIANTS.last().expect("variants");
        assert!((last.runs_here)());
    }
}
