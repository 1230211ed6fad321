//! The machine's memory.

use super::{Check, Patient};

/// Below it the smallest model hardly loads.
const SCARCE_BYTES: u64 = 512 << 20;
/// A driver that must take much from CMA at once fails below.
const SCARCE_CMA_BYTES: u64 = 16 << 20;

pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

pub(super) fn available(patient: &Patient) -> Check {
    let of = |name| patient.sysroot.memory_bytes(name);
    let (Some(total), Some(available)) = (of("MemTotal"), of("MemAvailable")) else {
        return Check::skip("the kernel does not tell");
    };
    let observed = format!("{} of {} available", mib(available), mib(total));
    if available < SCARCE_BYTES {
        return Check::warn(observed)
            .expected(format!("at least {}", mib(SCARCE_BYTES)))
            .remedy("ps -eo rss,comm --sort=-rss | head");
    }
    Check::ok(observed)
}

pub(super) fn swap(patient: &Patient) -> Check {
    let Some(swaps) = patient.sysroot.text("/proc/swaps") else {
        return Check::skip("the kernel does not tell");
    };
    let devices: Vec<_> = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    if let Some(card) = devices.iter().find(|name| name.contains("/mmcblk")) {
        return Check::warn(format!("on {card}"))
            .expected("none on a memory card: it is slow, and wears out")
            .remedy(format!("swapoff {card}; apt install zram-tools"));
    }
    Check::ok(if devices.is_empty() {
        "none".to_owned()
    } else {
        devices.join(", ")
    })
}

pub(super) fn cma(patient: &Patient) -> Check {
    if patient.npu().is_none() {
        return Check::skip(super::board::NO_NPU);
    }
    let of = |name| patient.sysroot.memory_bytes(name);
    let (Some(total @ 1..), Some(free)) = (of("CmaTotal"), of("CmaFree")) else {
        return Check::skip("the kernel has none");
    };
    let observed = format!("{} of {} free", mib(free), mib(total));
    if free < SCARCE_CMA_BYTES && free < total / 4 {
        return Check::warn(observed)
            .expected(format!("at least {}", mib(SCARCE_CMA_BYTES)))
            .remedy(
                "close what uses the camera, the video decoder or the GPU, or boot with cma=256M",
            );
    }
    Check::ok(observed)
}

pub(super) fn cgroup(patient: &Patient) -> Check {
    if patient.sysroot.has("/sys/fs/cgroup/cgroup.controllers") {
        return Check::ok("version 2");
    }
    if !patient.sysroot.has("/sys/fs/cgroup") {
        return Check::skip("no control groups are mounted");
    }
    Check::warn("version 1")
        .expected("version 2, by which the service's memory is bounded and told")
        .remedy("boot with systemd.unified_cgroup_hierarchy=1")
}
