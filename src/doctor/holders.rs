//! Programs that have something open, as far as the doctor's user sees them.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::board::Sysroot;

pub(super) struct Holder {
    pub program: String,
    pid: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.program, self.pid)
    }
}

/// Those of this machine that have something open which `is_it` knows by the link of its descriptor.
pub(super) fn holders(sysroot: &Sysroot, is_it: impl Fn(&Path) -> bool) -> Vec<Holder> {
    let mut holders = Vec::new();
    for name in sysroot.names("/proc") {
        let Ok(pid) = name.parse::<u32>() else {
            continue;
        };
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let mut links = open
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok());
        if links.any(|link| is_it(&link))
            && let Some(program) = sysroot.text(&format!("/proc/{pid}/comm"))
        {
            holders.push(Holder { program, pid });
        }
    }
    holders
}
