//! What the kernel says about this process. A figure that cannot be read is absent.

use std::fs;
use std::time::Duration;

use crate::apart::{self, Subject};
use rustix::process::{Resource, getrlimit};

/// A kernel that takes longer does not answer.
const LIMIT: Duration = Duration::from_millis(500);

/// Figures of this process as they are now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnProcess {
    pub threads: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    /// File mappings included.
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    /// User and system time.
    pub cpu_seconds: Option<f64>,
    /// Since the epoch.
    pub start_time_seconds: Option<f64>,
}

impl OwnProcess {
    /// Asks the kernel, apart from the threads that serve.
    pub async fn now() -> Self {
        let told = apart::ask(Subject::OwnProcess, LIMIT, Self::read).await;
        told.unwrap_or_default()
    }

    fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::Nofile).current,
            ..Self::of_stat(&stat, boot_time(&boot))
        }
    }

    /// From the text of `/proc/PID/stat` (proc_pid_stat(5)) and the machine's boot time.
    fn of_stat(stat: &str, boot_time_seconds: Option<u64>) -> Self {
        // The name in parentheses may hold anything, so fields are counted after its end. Field n
        // of the manual page is number n - 3 here.
        let Some((_, rest)) = stat.rsplit_once(") ") else {
            return Self::default();
        };
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second;
        Self {
            cpu_seconds: field(14)
                .zip(field(15))
                .map(|(user, system)| seconds(user + system)),
            threads: field(20),
            start_time_seconds: field(22)
                .zip(boot_time_seconds)
                .map(|(ticks, boot)| boot as f64 + seconds(ticks)),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * rustix::param::page_size() as u64),
            ..Self::default()
        }
    }
}

/// Without the one that reads the list.
fn open_fds() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(count).ok()?.checked_sub(1)
}

fn boot_time(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scripts/check` runs modules of this name apart from other tests.
    mod measures_its_process {
        use std::fs;

        use super::OwnProcess;

        #[test]
        fn this_process_is_read() {
            let before = OwnProcess::read();
            let held = fs::File::open("/proc/self/stat").unwrap();
            let after = OwnProcess::read();
            drop(held);
            // Other tests may run in this process, so there may be several files more.
            assert!(after.open_fds > before.open_fds, "{before:?} {after:?}");
            assert!(after.max_fds >= after.open_fds);
            assert!(after.threads.is_some_and(|threads| threads >= 1));
            let resident = after.resident_bytes.unwrap();
            assert!(
                resident > 1 << 20 && after.virtual_bytes.unwrap() >= resident,
                "{after:?}"
            );
            let age = std::time::SystemTime::UNIX_EPOCH
                .elapsed()
                .unwrap()
                .as_secs_f64()
                - after.start_time_seconds.unwrap();
            assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
        }
    }

    #[test]
    fn a_name_with_a_parenthesis_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0 500 8192 3 0";
        let process = OwnProcess::of_stat(stat, Some(1000));
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(process.threads, Some(4));
        assert_eq!(process.cpu_seconds, Some(200.0 / ticks));
        assert_eq!(process.start_time_seconds, Some(1000.0 + 500.0 / ticks));
        assert_eq!(process.virtual_bytes, Some(8192));
        assert_eq!(
            process.resident_bytes,
            Some(3 * rustix::param::page_size() as u64)
        );
    }

    #[test]
    fn what_is_not_there_is_absent() {
        for stat in ["", "garbage", "7 (x", "7 (x) S"] {
            assert_eq!(
                OwnProcess::of_stat(stat, None),
                OwnProcess::default(),
                "{stat}"
            );
        }
        assert_eq!(boot_time("cpu 1 2 3"), None);
    }
}
