//! The daemon's log need not be read: a pipe that is full, or a terminal that was stopped, holds up neither
//! requests nor the end of the daemon.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr};
use std::thread;

use crate::daemon_support::{Answer, Setup, eventually, request, signal};
use rustix::process::Signal;

/// Their lines are several times what a pipe holds, and what waits behind it.
const REQUESTS: usize = 2500;

/// A daemon whose log was read up to its address, and then no further.
struct Unread {
    child: Child,
    stderr: Option<BufReader<ChildStderr>>,
    address: SocketAddr,
    _setup: Setup,
}

impl Unread {
    fn start() -> Self {
        let setup = Setup::new();
        let mut child = setup.command().spawn().expect("the daemon starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let address = loop {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).expect("a line"), 0, "it ended");
            if let Some((_, address)) = line.split_once("listening address=") {
                break address.trim().parse().expect("an address");
            }
        };
        Self {
            child,
            stderr: Some(stderr),
            address,
            _setup: setup,
        }
    }

    fn get(&self, path: &str) -> Answer {
        request(self.address, "GET", path, None)
    }

    fn fill_the_log(&self) {
        for _ in 0..REQUESTS {
            assert_eq!(self.get("/health").status, 200);
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn requests_are_answered_and_the_daemon_ends_when_it_is_told() {
    let mut daemon = Unread::start();
    daemon.fill_the_log();
    signal(daemon.child.id(), Signal::TERM);
    let status = eventually("the end of the daemon", || {
        daemon.child.try_wait().expect("waitpid")
    });
    assert!(status.success(), "{status}");
}

#[test]
fn what_was_dropped_is_counted_and_told_to_the_next_reader() {
    let mut daemon = Unread::start();
    daemon.fill_the_log();
    let page = daemon.get("/metrics").body;
    let dropped = page
        .lines()
        .find_map(|line| line.strip_prefix("rkllmd_log_entries_dropped_total "))
        .expect("the metric");
    assert!(dropped.parse::<u64>().expect("a number") > 0, "{dropped}");
    let mut stderr = daemon.stderr.take().expect("its log");
    let reader = thread::spawn(move || {
        let mut log = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = stderr.read(&mut piece).expect("its log");
            assert_ne!(
                read,
                0,
                "the daemon ended:\n{}",
                String::from_utf8_lossy(&log)
            );
            log.extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&log);
            if let Some(line) = text
                .lines()
                .find(|line| line.contains("log entries were dropped"))
            {
                return line.to_owned();
            }
        }
    });
    let told = reader.join().expect("the reader");
    assert!(told.contains("while they were not read"), "{told}");
}
