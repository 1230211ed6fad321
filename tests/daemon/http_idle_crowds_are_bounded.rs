//! More connections than are allowed, none of which ever says enough: the daemon serves as many as it
//! may, each costs a bounded memory and time, and a client with a request gets its answer.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, Setup, descriptors, eventually, resident_bytes};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MOST: usize = 1000;
/// Further ones, for which others are closed.
const WAITING: usize = 500;
/// What a connection may cost: its buffer, the header it has begun, its task.
const BYTES_EACH: u64 = 64 * 1024;
const HEADER_BYTES: usize = 16 * 1024;

fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, wanted).expect("the hard limit is allowed");
}

fn sockets(daemon: &Daemon) -> usize {
    let open = descriptors(daemon.pid());
    open.iter()
        .filter(|(_, target)| target.starts_with("socket:"))
        .count()
}

#[test]
fn idle_connections_up_to_the_limit_and_over_it() {
    allow_descriptors();
    let daemon = Setup::new()
        .settings(&format!("http.max-connections = {MOST}"))
        .settings(&format!("http.max-connections-per-address = {MOST}"))
        .settings("http.header-read-timeout = '10s'")
        .start();
    // Before any connection, the last of which may not be closed yet when its answer is read; and after
    // the start, which has sockets for a moment.
    daemon.log.wait_for("no model is installed");
    let sockets_before = sockets(&daemon);
    assert_eq!(daemon.get("/health").status, 200);
    let memory_before = resident_bytes(daemon.pid());
    let begun = Instant::now();
    let mut header = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: ".to_vec();
    header.resize(HEADER_BYTES, b'y');
    let crowd: Vec<TcpStream> = (0..MOST + WAITING)
        .map(|number| {
            let mut client = TcpStream::connect(daemon.address).expect("the backlog has room");
            // Half of them say nothing at all.
            if number % 2 == 0 {
                client.write_all(&header).expect("a buffer has room");
            }
            client
        })
        .collect();
    let connecting = begun.elapsed();
    assert!(connecting < Duration::from_secs(5), "{connecting:?}");
    eventually("all places being taken", || {
        (sockets(&daemon) >= sockets_before + MOST).then_some(())
    });
    // Those that gave up their places may not be closed yet, and one waits.
    assert!(sockets(&daemon) <= sockets_before + MOST + MOST / 8 + 1);
    let cost = resident_bytes(daemon.pid()).saturating_sub(memory_before);
    assert!(
        cost <= BYTES_EACH * MOST as u64,
        "{} KiB for {MOST} connections",
        cost / 1024
    );
    // An address that has its share waits for no place: while so many that gave up theirs are not closed yet,
    // it is refused.
    eventually("those that gave up their places being closed", || {
        (sockets(&daemon) <= sockets_before + MOST).then_some(())
    });
    // Behind all of them.
    assert_eq!(daemon.get("/health").status, 200);
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    drop(crowd);
    eventually("the sockets being closed", || {
        (sockets(&daemon) <= sockets_before).then_some(())
    });
    eprintln!("{} KiB of memory for {MOST} connections", cost / 1024);
}
