//! The NPU's device: whether it is there, whether the service may open it, and who else has it open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::board::NO_NPU;
use super::{Check, Patient};
use crate::board::Sysroot;

/// The user of the unit.
const SERVICE_USER: &str = "rkllmd";

/// The devices that the runtime opens (docs/vendor-library.md §5), as the board names them.
fn nodes(sysroot: &Sysroot) -> Vec<String> {
    let by_path = "/dev/dri/by-path";
    let cards = sysroot.names(by_path);
    let mut nodes: Vec<_> = cards
        .into_iter()
        .filter(|name| name.contains(".npu-"))
        .map(|name| format!("{by_path}/{name}"))
        .collect();
    if nodes.is_empty() && sysroot.has("/dev/rknpu") {
        nodes.push("/dev/rknpu".to_owned());
        let heaps = sysroot.names("/dev/dma_heap");
        nodes.extend(
            heaps
                .into_iter()
                .map(|name| format!("/dev/dma_heap/{name}")),
        );
    }
    nodes
}

pub(super) fn node_present(patient: &Patient) -> Check {
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    let nodes = nodes(&patient.sysroot);
    if nodes.is_empty() {
        return Check::fail("none")
            .expected("/dev/dri/by-path/platform-*.npu-card or /dev/rknpu")
            .remedy("dmesg | grep -i rknpu; in a container, pass the host's /dev/dri");
    }
    Check::ok(nodes.join(", "))
}

pub(super) fn node_access(patient: &Patient) -> Check {
    let sysroot = &patient.sysroot;
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    let nodes = nodes(sysroot);
    if nodes.is_empty() {
        return Check::skip("there is no device");
    }
    let Some(user) = service_user(sysroot) else {
        return Check::skip("there is no user rkllmd, as which the installed service runs");
    };
    let closed: Vec<_> = nodes
        .iter()
        .filter(|node| !user.may_read_and_write(&sysroot.path(node)))
        .cloned()
        .collect();
    if closed.is_empty() {
        return Check::ok(format!("the user {SERVICE_USER} may open it"));
    }
    Check::fail(format!(
        "the user {SERVICE_USER} may not open {}",
        closed.join(", ")
    ))
    .expected("a group of the device's that the user is in, with reading and writing")
    .remedy("usermod -aG video,render rkllmd && systemctl restart rkllmd")
}

/// The user of the unit, where there is one.
pub(super) fn service_user(sysroot: &Sysroot) -> Option<User> {
    User::named(sysroot, SERVICE_USER)
}

/// The devices, and whether the user of the unit may open each.
pub(super) fn told_nodes(sysroot: &Sysroot) -> Vec<(String, bool)> {
    let user = service_user(sysroot);
    let is_open = |node: &String| {
        let user = user.as_ref();
        user.is_some_and(|user| user.may_read_and_write(&sysroot.path(node)))
    };
    let nodes = nodes(sysroot).into_iter();
    nodes.map(|node| (node.clone(), is_open(&node))).collect()
}

/// A user as the board's own files describe it.
pub(super) struct User {
    id: u32,
    /// The first is its own.
    groups: Vec<u32>,
}

impl User {
    /// As a line of /etc/passwd.
    pub fn passwd_line(&self) -> String {
        let group = self.groups.first().copied().unwrap_or(self.id);
        format!(
            "{SERVICE_USER}:x:{}:{group}::/:/usr/sbin/nologin\n",
            self.id
        )
    }

    /// Its further groups as lines of /etc/group, which are named by their numbers.
    pub fn group_lines(&self) -> String {
        let further = self.groups.iter().skip(1);
        further
            .map(|group| format!("group{group}:x:{group}:{SERVICE_USER}\n"))
            .collect()
    }

    fn named(sysroot: &Sysroot, name: &str) -> Option<Self> {
        let users = sysroot.text("/etc/passwd")?;
        let mut fields = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))?
            .into_iter()
            .skip(2);
        let (id, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let mut groups = vec![group];
        for line in sysroot.text("/etc/group").unwrap_or_default().lines() {
            let fields: Vec<_> = line.split(':').collect();
            let [_, _, group, members] = fields[..] else {
                continue;
            };
            if members.split(',').any(|member| member == name) {
                groups.extend(group.parse::<u32>().ok());
            }
        }
        Some(Self { id, groups })
    }

    fn may_read_and_write(&self, path: &Path) -> bool {
        let Ok(metadata) = fs::metadata(path) else {
            return false;
        };
        let bits = if metadata.uid() == self.id {
            metadata.mode() >> 6
        } else if self.groups.contains(&metadata.gid()) {
            metadata.mode() >> 3
        } else {
            metadata.mode()
        };
        bits & 0o6 == 0o6
    }
}

pub(super) fn npu_users(patient: &Patient) -> Check {
    let sysroot = &patient.sysroot;
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    if !sysroot.is_own() {
        return Check::skip("a copy has no processes");
    }
    if !rustix::process::geteuid().is_root() {
        return Check::skip("only root sees what other users' processes have open");
    }
    let devices: Vec<_> = nodes(sysroot)
        .iter()
        .filter_map(|node| fs::canonicalize(node).ok())
        .collect();
    let mut users = Vec::new();
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
        let program = sysroot
            .text(&format!("/proc/{pid}/comm"))
            .unwrap_or_default();
        if program != "rkllmd" && links.any(|link| devices.contains(&link)) {
            users.push(format!("{program} ({pid})"));
        }
    }
    if users.is_empty() {
        return Check::ok("no other process has it open");
    }
    Check::warn(users.join(", "))
        .expected("rkllmd alone: the NPU and its memory are shared with what else runs")
        .remedy("systemctl stop what else uses the NPU, or kill the process ids above")
}
