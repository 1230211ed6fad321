//! Entries reach the journal with their fields, and a journal that takes none delays nothing: what
//! does not fit is dropped and counted. A datagram socket of the test is the journal.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rkllmd::telemetry::LogWriter;
use rkllmd::telemetry::journal::{self, JournalLayer};
use tracing_subscriber::layer::SubscriberExt;

struct Journal {
    socket: UnixDatagram,
    writer: LogWriter,
    folder: tempfile::TempDir,
}

impl Journal {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let patience = Some(Duration::from_secs(20));
        socket.set_read_timeout(patience).expect("a timeout");
        Self {
            writer: journal::start(&path).expect("a writer"),
            socket,
            folder,
        }
    }

    fn log(&self, events: impl FnOnce()) {
        let layer = JournalLayer::new(self.writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
    }

    fn next(&self) -> String {
        let mut entry = vec![0; 256 * 1024];
        let length = self.socket.recv(&mut entry).expect("an entry in time");
        entry.truncate(length);
        String::from_utf8(entry).expect("an entry without line breaks in its values")
    }
}

fn field<'a>(entry: &'a str, name: &str) -> &'a str {
    let prefix = format!("{name}=");
    let values: Vec<_> = entry
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .collect();
    assert_eq!(values.len(), 1, "one {name} in {entry}");
    values[0]
}

#[test]
fn an_event_arrives_once_with_its_fields() {
    let journal = Journal::new();
    journal.log(|| {
        tracing::error!(model = "qwen", pid = 42, request = %"req-7", reason = None::<&str>, "worker ended");
        tracing::info!("next");
    });
    let entry = journal.next();
    assert_eq!(field(&entry, "PRIORITY"), "3");
    assert_eq!(field(&entry, "SYSLOG_IDENTIFIER"), "rkllmd");
    assert_eq!(field(&entry, "RKLLMD_MODEL"), "qwen");
    assert_eq!(field(&entry, "RKLLMD_WORKER_PID"), "42");
    assert_eq!(field(&entry, "RKLLMD_REQUEST"), "req-7");
    assert!(!entry.contains("REASON"), "{entry}");
    let message = field(&entry, "MESSAGE");
    assert_eq!(message, "worker ended model=\"qwen\" pid=42 request=req-7");
    let next = journal.next();
    assert_eq!(field(&next, "MESSAGE"), "next");
    assert_eq!(field(&next, "PRIORITY"), "6");
}

#[test]
fn a_journal_that_reads_nothing_delays_no_event_and_learns_what_it_missed() {
    const EVENTS: u64 = 20_000;
    let journal = Journal::new();
    let mut slowest = Duration::ZERO;
    journal.log(|| {
        for number in 0..EVENTS {
            let before = Instant::now();
            tracing::info!(number, "an event");
            slowest = slowest.max(before.elapsed());
        }
    });
    // Waiting for a journal takes for ever; this machine may be busy with other things meanwhile.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // At the end of the process, too.
    let before = Instant::now();
    journal.writer.flush(Duration::from_millis(300));
    assert!(before.elapsed() < Duration::from_secs(5));

    let (mut written, mut dropped) = (0, 0);
    while written + dropped < EVENTS {
        let entry = journal.next();
        match field(&entry, "MESSAGE") {
            message if message.starts_with("an event") => written += 1,
            _ => {
                dropped += field(&entry, "RKLLMD_DROPPED")
                    .parse::<u64>()
                    .expect("a number")
            }
        }
    }
    assert_eq!(written + dropped, EVENTS, "each is written or counted");
    assert!(
        dropped > 0 && written > 1000,
        "{written} written, {dropped} dropped"
    );
}

/// While it restarts no process listens at its path, and afterwards it is another socket.
#[test]
fn what_is_logged_while_the_journal_is_away_is_counted() {
    let mut journal = Journal::new();
    let path = journal.folder.path().join("socket");
    journal.log(|| tracing::info!("before"));
    assert_eq!(field(&journal.next(), "MESSAGE"), "before");
    std::fs::remove_file(&path).expect("removed");
    journal.log(|| (0..100).for_each(|number| tracing::info!(number, "meanwhile")));
    journal.writer.flush(Duration::from_secs(20));
    let patience = Some(Duration::from_secs(20));
    journal.socket = UnixDatagram::bind(&path).expect("a socket");
    journal
        .socket
        .set_read_timeout(patience)
        .expect("a timeout");
    journal.log(|| tracing::info!("after"));
    assert_eq!(field(&journal.next(), "MESSAGE"), "after");
    assert_eq!(field(&journal.next(), "RKLLMD_DROPPED"), "100");
}

#[test]
fn what_was_logged_is_written_before_the_end() {
    let journal = Journal::new();
    journal.log(|| tracing::info!("last words"));
    journal.writer.flush(Duration::from_secs(20));
    journal.socket.set_nonblocking(true).expect("a socket");
    assert_eq!(field(&journal.next(), "MESSAGE"), "last words");
}

#[test]
fn without_a_journal_there_is_no_writer() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(journal::start(&folder.path().join("none")).is_err());
}
