//! The NPU's device: whether it is there, whether the service may open it, and who else has it open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::board::NO_NPU;
use super::holders::holders;
use super::{Check, Patient};
use crate::board::Sysroot;

/// The user of the unit.
pub(super) const SERVICE_USER: &str = "rkllmd";

pub(super) const NO_USER: &str = "there is no user rkllmd, as which the installed service runs";

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
        return Check::skip(NO_USER);
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
    pub fn is(&self, id: u32) -> bool {
        self.id == id
    }

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
        self.may(path, 0o6)
    }

    /// Whether it may do all of `wanted`, which is as a digit of a mode, with what lies there.
    pub fn may(&self, path: &Path, wanted: u32) -> bool {
        let Ok(metadata) = fs::metadata(path) else {
            return false;
        };
        let mut list = [0_u8; MOST_OF_LIST];
        let list = match rustix::fs::getxattr(path, "system.posix_acl_access", &mut list) {
            Ok(length) => list.get(..length),
            Err(_) => None,
        };
        let bits = if metadata.uid() == self.id {
            metadata.mode() >> 6
        } else if let Some(entries) = list.and_then(entries) {
            return self.is_let(&entries, metadata.gid(), wanted);
        } else if self.groups.contains(&metadata.gid()) {
            metadata.mode() >> 3
        } else {
            metadata.mode()
        };
        bits & wanted == wanted
    }

    /// By an access control list, as acl(5) has it; of another owner's file.
    fn is_let(&self, entries: &[Entry], group: u32, wanted: u32) -> bool {
        let mask = entries.iter().find(|entry| entry.tag == MASK);
        let mask = mask.map_or(0o7, |mask| mask.bits);
        let lets = |entry: &Entry| entry.bits & mask & wanted == wanted;
        let is_own = |entry: &&Entry| entry.tag == USER && entry.id == self.id;
        if let Some(own) = entries.iter().find(is_own) {
            return lets(own);
        }
        let of_groups = entries.iter().filter(|entry| match entry.tag {
            OWNING_GROUP => self.groups.contains(&group),
            GROUP => self.groups.contains(&entry.id),
            _ => false,
        });
        let of_groups: Vec<_> = of_groups.collect();
        if !of_groups.is_empty() {
            return of_groups.into_iter().any(lets);
        }
        let others = entries.iter().find(|entry| entry.tag == OTHERS);
        others.is_some_and(|others| others.bits & wanted == wanted)
    }
}

/// An entry of an access control list.
struct Entry {
    tag: u16,
    bits: u32,
    /// Of a user or a group that is named.
    id: u32,
}

// The kernel's include/uapi/linux/posix_acl.h.
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// A version in front of them.
const LIST_VERSION: u32 = 2;
const LIST_HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// Of a longer list the mode alone is looked at.
const MOST_OF_LIST: usize = 4096;

/// `None`: it is no list that is understood.
fn entries(list: &[u8]) -> Option<Vec<Entry>> {
    let (version, entries) = list.split_first_chunk::<LIST_HEADER_BYTES>()?;
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    let is_understood = u32::from_le_bytes(*version) == LIST_VERSION && rest.is_empty();
    let entry = |&[t0, t1, b0, b1, i0, i1, i2, i3]: &[u8; ENTRY_BYTES]| Entry {
        tag: u16::from_le_bytes([t0, t1]),
        bits: u16::from_le_bytes([b0, b1]).into(),
        id: u32::from_le_bytes([i0, i1, i2, i3]),
    };
    is_understood.then(|| entries.iter().map(entry).collect())
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
    let holders = holders(sysroot, |link| devices.iter().any(|device| device == link));
    let others = holders.iter().filter(|holder| holder.program != "rkllmd");
    let users: Vec<_> = others.map(ToString::to_string).collect();
    if users.is_empty() {
        return Check::ok("no other process has it open");
    }
    Check::warn(users.join(", "))
        .expected("rkllmd alone: the NPU and its memory are shared with what else runs")
        .remedy("systemctl stop what else uses the NPU, or kill the process ids above")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_control_list_lets_in_whom_it_names() {
        let user = User {
            id: 7,
            groups: vec![70, 71],
        };
        let list = |told: &[(u16, u32, u32)]| {
            told.iter()
                .map(|&(tag, bits, id)| Entry { tag, bits, id })
                .collect::<Vec<_>>()
        };
        const ANY: u32 = u32::MAX;
        for (told, group, is_let) in [
            // The user is named, and the mask takes nothing of it.
            (
                list(&[(USER, 4, 7), (MASK, 4, ANY), (OTHERS, 0, ANY)]),
                1,
                true,
            ),
            (
                list(&[(USER, 4, 7), (MASK, 1, ANY), (OTHERS, 4, ANY)]),
                1,
                false,
            ),
            (
                list(&[(USER, 4, 8), (MASK, 7, ANY), (OTHERS, 0, ANY)]),
                1,
                false,
            ),
            // One of its groups is enough, and then the others' part is not looked at.
            (
                list(&[(OWNING_GROUP, 0, ANY), (GROUP, 5, 71), (MASK, 7, ANY)]),
                70,
                true,
            ),
            (list(&[(OWNING_GROUP, 0, ANY), (OTHERS, 7, ANY)]), 70, false),
            (list(&[(OWNING_GROUP, 0, ANY), (OTHERS, 4, ANY)]), 1, true),
        ] {
            assert_eq!(user.is_let(&told, group, 0o4), is_let);
        }
        let told = [2, 0, 0, 0, 0x02, 0, 5, 0, 7, 0, 0, 0];
        let found = entries(&told).expect("a list");
        assert_eq!((found[0].tag, found[0].bits, found[0].id), (USER, 5, 7));
        assert!(entries(&told[..11]).is_none());
        assert!(entries(&[1, 0, 0, 0]).is_none());
    }
}
