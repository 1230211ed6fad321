//! What the kernel tells about a process.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Workers of the process `pid`, zombies included.
pub fn children(pid: u32) -> Vec<u32> {
    let all = all_children(pid).into_iter();
    all.filter(|&child| !is_about_to_be_another(child, pid) && !is_reader(child))
        .collect()
}

/// The processes of `pid` that read models' files.
pub fn readers(pid: u32) -> Vec<u32> {
    let all = all_children(pid).into_iter();
    all.filter(|&child| is_reader(child)).collect()
}

/// By its command line, and by its name once it is a zombie without one.
fn is_reader(pid: u32) -> bool {
    let command = command_line(pid);
    command.split(|&byte| byte == 0).nth(1) == Some(b"reader")
        || read(pid, "comm").starts_with(b"rkllmd-reader")
}

/// What it will be shows once it executes another program: until then it has its parent's command line,
/// and none for a moment in between.
fn is_about_to_be_another(child: u32, parent: u32) -> bool {
    let command = command_line(child);
    let is_zombie = || {
        let stat = String::from_utf8_lossy(&read(child, "stat")).into_owned();
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('Z'))
    };
    (command.is_empty() && !is_zombie()) || command == command_line(parent)
}

fn command_line(pid: u32) -> Vec<u8> {
    read(pid, "cmdline")
}

fn read(pid: u32, file: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// Processes whose parent is `pid`, zombies included.
pub fn all_children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let mut children: Vec<u32> = lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    children.sort_unstable();
    children
}

/// CPU time that it has used, in hundredths of a second; 0 once it is gone.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: utime and stime are the 12th and 13th.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let times = fields.split_whitespace().skip(11).take(2);
    times.filter_map(|time| time.parse::<u64>().ok()).sum()
}

/// Open descriptors and what they are, as in /proc/PID/fd.
pub fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let mut descriptors: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                target.display().to_string(),
            ))
        })
        .collect();
    descriptors.sort_unstable();
    descriptors
}

pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Resident memory, file mappings included.
pub fn resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// What the process has written, resident or swapped out; of its files the kernel maps what it likes.
pub fn anonymous_bytes(pid: u32) -> u64 {
    status_bytes(pid, "RssAnon:") + status_bytes(pid, "VmSwap:")
}

fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("{name} in {status}"));
    let kib = line.trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("kilobytes") * 1024
}

/// Whether a process has ended, reaped or not.
pub fn is_gone(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

pub fn signal(pid: u32, signal: Signal) {
    rustix::process::kill_process(process_id(pid), signal).expect("the signal is sent");
}

fn process_id(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("not zero")
}

/// A process that a test has stopped, killed when this goes: one that was stopped before it asked the kernel
/// to die with its parent would stay behind.
#[must_use = "without it the process runs again, or stays for ever"]
pub struct Stopped(OwnedFd);

/// Stops a process of the test.
pub fn stop(pid: u32) -> Stopped {
    // Not by its number in the end, which may be another's by then.
    let process = pidfd_open(process_id(pid), PidfdFlags::empty()).expect("a living process");
    signal(pid, Signal::STOP);
    Stopped(process)
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been ended by its parent.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// Ends a process of the test at once.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}
