//! The libraries that run models.

use rkllm_sys::{Architecture, Family, OpenError, library_version};

use super::board::{NO_NPU, numbers};
use super::{Check, Patient, Status, reading};
use crate::supervisor;

/// Where a Debian, a Fedora or a vendor's image keeps shared libraries.
pub(super) const LIBRARY_FOLDERS: [&str; 7] = [
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];
/// What the vendor's library needs (docs/vendor-library.md §1), with its Debian packages.
pub(super) const NEEDED: [(&str, &str); 2] = [
    ("libgomp.so.1", "libgomp1"),
    ("libstdc++.so.6", "libstdc++6"),
];

const GET_LIBRARY: &str = "copy librkllmrt.so of RKLLM's SDK, 1.2.1 to 1.3.1 for aarch64, there (docs/install-on-a-board.md)";

pub(super) fn version_text(patient: &Patient) -> Result<String, OpenError> {
    let path = patient.sysroot.path(&patient.settings.runtime.npu_library);
    // A copy may be of another machine than this one.
    let architecture = match patient.npu() {
        Some(_) if !patient.sysroot.is_own() => Architecture::Aarch64,
        _ => Architecture::OWN,
    };
    library_version(&path, architecture)
}

pub(super) fn found(patient: &Patient) -> Check {
    match patient.npu() {
        Some(_) => reading::library(patient).unwrap_or_else(|| npu_library_found(patient)),
        None => Check::skip(NO_NPU),
    }
}

/// Whether the vendor's library is there, on whatever machine.
fn npu_library_found(patient: &Patient) -> Check {
    let path = patient.settings.runtime.npu_library.display().to_string();
    match version_text(patient) {
        Ok(_) | Err(OpenError::NoVersion { .. }) => Check::ok(path),
        Err(OpenError::Read { source, .. }) => Check::fail(format!("{path}: {source}"))
            .expected("the vendor's library")
            .remedy(GET_LIBRARY),
        Err(error) => {
            // Of a copy the path on the board is told.
            let here = patient.sysroot.path(&path).display().to_string();
            Check::fail(error.to_string().replace(&here, &path))
                .expected("the vendor's library, whole, for this machine")
                .remedy(GET_LIBRARY)
        }
    }
}

pub(super) fn version(patient: &Patient) -> Check {
    match patient.npu() {
        Some(_) => npu_library_version(patient),
        None => Check::skip(NO_NPU),
    }
}

/// The vendor's library as a model needs it, on whatever machine.
pub(super) fn npu_library(patient: &Patient) -> Check {
    let found = npu_library_found(patient);
    match found.status {
        Status::Ok => npu_library_version(patient),
        _ => found,
    }
}

fn npu_library_version(patient: &Patient) -> Check {
    let version = match version_text(patient) {
        Ok(version) => version,
        Err(OpenError::NoVersion { .. }) => {
            return Check::fail("the library tells no version")
                .expected("a version of 1.2.1 to 1.3.1")
                .remedy(GET_LIBRARY);
        }
        Err(_) => return Check::skip("there is no library that can be read"),
    };
    let Some(family) = Family::of_version(&version).filter(|family| family.is_run()) else {
        return Check::fail(version)
            .expected("1.2.1 to 1.3.1, whose structures are known")
            .remedy(GET_LIBRARY);
    };
    // Known faults of versions (docs/vendor-library.md §8).
    let (fault, better) = match numbers(&version) {
        Some((1, 2, 3)) => (
            "some models, DeepSeek-R1 distills among them, write garbage with 1.2.3",
            "1.3.1",
        ),
        Some((1, 3, 0)) => (
            "1.3.0 misses the end of some models' answers, leaks with Qwen3.5, and crashes where a \
             second model finds no memory",
            "1.3.1",
        ),
        _ => return Check::ok(format!("{version}, structures of {}", family.name())),
    };
    Check::warn(version)
        .expected(format!("{better}: {fault}"))
        .remedy(GET_LIBRARY)
}

pub(super) fn dependencies(patient: &Patient) -> Check {
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    let is_there = |library: &str| {
        let mut folders = LIBRARY_FOLDERS.iter();
        folders.any(|folder| patient.sysroot.has(&format!("{folder}/{library}")))
    };
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(library, _)| !is_there(library))
        .collect();
    if missing.is_empty() {
        return Check::ok(NEEDED.map(|(library, _)| library).join(", "));
    }
    let names = |pick: fn(&(&'static str, &'static str)) -> &'static str| {
        let names: Vec<_> = missing.iter().map(|&both| pick(both)).collect();
        names
    };
    Check::fail(format!("{} missing", names(|both| both.0).join(", ")))
        .expected("what the vendor's library needs")
        .remedy(format!("apt install {}", names(|both| both.1).join(" ")))
}

pub(super) fn cpu(patient: &Patient) -> Check {
    if !patient.sysroot.is_own() {
        return Check::skip("a copy does not tell");
    }
    let wanted = "the CPU runtime, which .gguf models need";
    let set = patient.settings.runtime.cpu_library.clone();
    let Some(path) = set.or_else(supervisor::installed_cpu_runtime) else {
        return Check::warn("none is installed")
            .expected(wanted)
            .remedy("apt install rkllmd-cpu");
    };
    match library_version(&path, Architecture::OWN) {
        Ok(version) => Check::ok(format!("{}, speaks the ABI of {version}", path.display())),
        Err(error) => Check::fail(error.to_string())
            .expected(wanted)
            .remedy("apt install --reinstall rkllmd-cpu"),
    }
}
