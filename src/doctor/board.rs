//! The chip, and the driver of its NPU.

use super::{Check, Patient};
use crate::board::Soc;
use crate::board::sensors::{self, Identity};

/// The driver that the vendor's documents ask for (docs/vendor-library.md §5).
const WANTED_DRIVER: (u32, u32, u32) = (0, 9, 8);
/// Before it loads fail, or runs (docs/vendor-library.md §5).
const OLDEST_DRIVER: (u32, u32, u32) = (0, 9, 0);

pub(super) const NO_NPU: &str = "no NPU that the vendor's library serves";

pub(super) fn soc(patient: &Patient) -> Check {
    let sysroot = &patient.sysroot;
    let Some(soc) = patient.soc() else {
        return Check::skip("no device tree: this is no board, and the CPU runtime serves");
    };
    let Identity { board, kernel, .. } = Identity::read(sysroot);
    let mut observed = soc.name().to_owned();
    if let Some(board) = board {
        observed = format!("{observed}, {board}");
    }
    if let Some(kernel) = kernel {
        observed = format!("{observed}, Linux {kernel}");
    }
    match soc {
        Soc::Unknown => Check::warn(observed)
            .expected("RK3588, RK3582, RK3576, RK3562 or RV1126B")
            .remedy("serve .gguf models, which the CPU runtime runs on any board"),
        Soc::Rk356x => Check::warn(observed)
            .expected("a chip that the vendor's library serves; it has none for RK3566 and RK3568")
            .remedy("serve .gguf models, which the CPU runtime runs on any board"),
        _ => Check::ok(observed),
    }
}

pub(super) fn driver_loaded(patient: &Patient) -> Check {
    let sysroot = &patient.sysroot;
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    let kernel = "install a kernel of the board's vendor, 5.10 or 6.1, or the rknpu module by DKMS";
    if sysroot.has("/sys/module/rknpu") {
        Check::ok("rknpu")
    } else if sysroot.has("/sys/module/rocket") {
        Check::fail("rocket, the mainline kernel's driver")
            .expected("rknpu: the vendor's library speaks to no other")
            .remedy(kernel)
    } else {
        Check::fail("none").expected("rknpu").remedy(kernel)
    }
}

pub(super) fn driver_version(patient: &Patient) -> Check {
    let sysroot = &patient.sysroot;
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    let Some(told) = sensors::driver_version(sysroot) else {
        return Check::skip("the driver does not tell its version");
    };
    let Some(version) = numbers(&told) else {
        return Check::skip(format!("{told} is no version that is understood"));
    };
    let found = if version < OLDEST_DRIVER {
        Check::fail(told)
    } else if version < WANTED_DRIVER {
        Check::warn(told)
    } else {
        return Check::ok(told);
    };
    found
        .expected("0.9.8 or newer; with older ones large models do not load")
        .remedy("upgrade the board's kernel: apt update && apt full-upgrade")
}

/// `0.9.8` as numbers that can be compared.
pub(super) fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.trim().splitn(3, '.');
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let patch = parts.next()?;
    let digits = patch.bytes().take_while(u8::is_ascii_digit).count();
    Some((major, minor, patch[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(numbers("0.9.8"), Some((0, 9, 8)));
        assert_eq!(numbers("0.9.10 20260101\n"), Some((0, 9, 10)));
        assert_eq!(numbers("1.2.1b1"), Some((1, 2, 1)));
        for text in ["", "9", "0.9", "a.b.c", "0.9.x"] {
            assert_eq!(numbers(text), None, "{text}");
        }
    }
}
