//! Drains what a child prints, always and without ever pushing back on the library.
//!
//! The lines go to the log, never to a client: they can hold users' text. The last lines of the
//! current call are kept so that its failure can be explained. A flood is dropped and counted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

/// Lines kept for one call.
const KEPT_LINES: usize = 200;
/// Bytes kept of one line.
const LINE_LIMIT_BYTES: usize = 2048;
/// Lines logged in a burst, and per second after it.
const LOGGED_BURST: u32 = 500;
const LOGGED_PER_SECOND: u32 = 100;
/// Dropped lines are reported when the flood has been over for this long.
const QUIET: Duration = Duration::from_millis(500);
/// Bytes read in one go when a call's lines are collected, so that a flood cannot hold it up.
const COLLECT_LIMIT_BYTES: usize = 1024 * 1024;

/// Access to the lines a child printed.
#[derive(Clone, Debug)]
pub struct PrintedLines {
    requests: mpsc::Sender<Request>,
}

/// What is asked of the task that drains the pipe.
#[derive(Debug)]
struct Request {
    reply: oneshot::Sender<Vec<String>>,
    keep: Keep,
}

/// Whether lines stay for the next caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    All,
    None,
}

impl PrintedLines {
    /// Starts draining `pipe` until its last writer is gone.
    pub fn drain(pipe: OwnedFd, model: Arc<str>, pid: u32) -> io::Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        let (requests, queue) = mpsc::channel(1);
        tokio::spawn(drain(pipe, queue, LineLog::new(model, pid)));
        Ok(Self { requests })
    }

    /// The lines printed since the last call of this, up to now: the worker flushes before it
    /// reports a result, so after a result nothing of its call is missing.
    pub async fn take(&self) -> Vec<String> {
        self.ask(Keep::None).await
    }

    /// The same lines, which stay for `take`.
    pub async fn peek(&self) -> Vec<String> {
        self.ask(Keep::All).await
    }

    async fn ask(&self, keep: Keep) -> Vec<String> {
        let (reply, lines) = oneshot::channel();
        if self.requests.send(Request { reply, keep }).await.is_err() {
            return Vec::new();
        }
        lines.await.unwrap_or_default()
    }
}

async fn drain(pipe: pipe::Receiver, mut requests: mpsc::Receiver<Request>, mut log: LineLog) {
    let mut buffer = vec![0; 16 * 1024];
    let mut open = true;
    loop {
        tokio::select! {
            ready = pipe.readable(), if open => {
                open = ready.is_ok() && log.read_until(&mut buffer, |buffer| pipe.try_read(buffer));
            }
            // Begun anew with each turn of the loop, so this is the time since the last output.
            () = tokio::time::sleep(QUIET), if log.dropped > 0 => log.report_dropped(),
            request = requests.recv() => match request {
                Some(Request { reply, keep }) => {
                    open = open && log.read_until(&mut buffer, |buffer| read_now(&pipe, buffer));
                    let _ = reply.send(match keep {
                        Keep::All => log.kept.iter().cloned().collect(),
                        Keep::None => log.take(),
                    });
                }
                // No caller will ask any more, but the library may still print.
                None if open => {
                    while pipe.readable().await.is_ok()
                        && log.read_until(&mut buffer, |buffer| pipe.try_read(buffer))
                    {}
                    return log.finish();
                }
                None => return log.finish(),
            },
        }
    }
}

/// Asks the kernel itself: `try_read` trusts a readiness that may not have been delivered yet.
fn read_now(pipe: &pipe::Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(pipe, buffer)?)
}

/// Cuts bytes into lines, logs them at a bounded rate and keeps the last ones.
struct LineLog {
    model: Arc<str>,
    pid: u32,
    partial: Vec<u8>,
    kept: VecDeque<String>,
    budget: u32,
    refilled: Instant,
    dropped: u64,
}

impl LineLog {
    fn new(model: Arc<str>, pid: u32) -> Self {
        Self {
            model,
            pid,
            partial: Vec::new(),
            kept: VecDeque::new(),
            budget: LOGGED_BURST,
            refilled: Instant::now(),
            dropped: 0,
        }
    }

    /// Reads what is there. Returns whether the pipe is still open; what a closed one has left is a
    /// line, ended or not: a library that dies of what it says may not end it.
    fn read_until(
        &mut self,
        buffer: &mut [u8],
        read_some: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> bool {
        let open = self.read_available(buffer, read_some);
        if !open {
            self.end_line();
        }
        open
    }

    fn read_available(
        &mut self,
        buffer: &mut [u8],
        mut read_some: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> bool {
        let mut read = 0;
        while read < COLLECT_LIMIT_BYTES {
            match read_some(buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    read += count;
                    self.push(&buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn push(&mut self, bytes: &[u8]) {
        let mut pieces = bytes.split(|&byte| byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = LINE_LIMIT_BYTES.saturating_sub(self.partial.len());
            self.partial
                .extend_from_slice(&piece[..piece.len().min(room)]);
            if pieces.peek().is_some() {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
        self.partial.clear();
        if line.is_empty() {
            return;
        }
        self.log(&line);
        if self.kept.len() == KEPT_LINES {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }

    fn log(&mut self, line: &str) {
        let whole_seconds = self.refilled.elapsed().as_secs();
        if whole_seconds > 0 {
            let refill =
                LOGGED_PER_SECOND.saturating_mul(u32::try_from(whole_seconds).unwrap_or(u32::MAX));
            self.budget = self.budget.saturating_add(refill).min(LOGGED_BURST);
            self.refilled += Duration::from_secs(whole_seconds);
        }
        if self.budget == 0 {
            self.dropped += 1;
            return;
        }
        self.budget -= 1;
        self.report_dropped();
        let (model, pid) = (&*self.model, self.pid);
        match line.as_bytes().first_chunk::<2>() {
            Some(b"E ") => tracing::error!(target: "rkllmd::runtime", model, pid, "{line}"),
            Some(b"W ") => tracing::warn!(target: "rkllmd::runtime", model, pid, "{line}"),
            _ => tracing::info!(target: "rkllmd::runtime", model, pid, "{line}"),
        }
    }

    fn report_dropped(&mut self) {
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            tracing::warn!(target: "rkllmd::runtime", model = &*self.model, pid = self.pid, dropped,
                "printed lines dropped: more than {LOGGED_PER_SECOND} a second");
        }
    }

    fn take(&mut self) -> Vec<String> {
        self.kept.drain(..).collect()
    }

    fn finish(mut self) {
        self.report_dropped();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is kept of `bytes`, said plainly.
    fn kept_of(bytes: &[u8]) -> Vec<String> {
        let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
        // What has no end yet is no line yet.
        lines.pop();
        let whole: Vec<String> = lines
            .into_iter()
            .map(|line| &line[..line.len().min(LINE_LIMIT_BYTES)])
            .map(|line| String::from_utf8_lossy(line).trim_end().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        whole[whole.len().saturating_sub(KEPT_LINES)..].to_vec()
    }

    /// Bytes as a broken library prints them: short pieces of anything, many line ends, long runs.
    fn printed() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..30),
            4 => "E rkllm: \\PC{0,20}".prop_map(String::into_bytes),
            4 => Just(vec![b'\n']),
            1 => Just(b"\r\n".to_vec()),
            1 => (LINE_LIMIT_BYTES - 2..LINE_LIMIT_BYTES + 3).prop_map(|length| vec![b'x'; length]),
            1 => (KEPT_LINES - 2..KEPT_LINES + 3).prop_map(|count| b"y\n".repeat(count)),
        ];
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn what_a_closed_pipe_has_left_is_a_line() {
        let mut log = LineLog::new("m".into(), 1);
        let mut left: &[u8] = b"I begin\nassert failed: x";
        let open = log.read_until(&mut [0; 8], |buffer| io::Read::read(&mut left, buffer));
        assert!(!open);
        assert_eq!(log.take(), ["I begin", "assert failed: x"]);
    }

    fn pushed(bytes: &[u8], piece: usize) -> Vec<String> {
        let mut log = LineLog::new("m".into(), 1);
        for piece in bytes.chunks(piece) {
            log.push(piece);
            assert!(log.partial.len() <= LINE_LIMIT_BYTES && log.kept.len() <= KEPT_LINES);
        }
        log.take()
    }

    proptest! {
        #[test]
        fn whole_lines_are_kept_however_they_arrive(bytes in printed(), piece in 1usize..5000) {
            prop_assert_eq!(pushed(&bytes, piece), kept_of(&bytes));
        }
    }

    #[test]
    fn known_hard_output() {
        let limit = vec![b'x'; LINE_LIMIT_BYTES];
        let character_cut_by_the_limit =
            [&vec![b'x'; LINE_LIMIT_BYTES - 1][..], "€\n".as_bytes()].concat();
        let cases: [&[u8]; 8] = [
            b"",
            b"\n\n\n",
            b"\r\n \t\n",
            b"no end",
            b"\0\n\xff\xfe\n\xe2\x82\n",
            &[&limit[..], b"\n"].concat(),
            &[&limit[..], b"y\nz\n"].concat(),
            &character_cut_by_the_limit,
        ];
        for case in cases {
            for piece in [1, 2, 3, LINE_LIMIT_BYTES, 1 << 20] {
                assert_eq!(pushed(case, piece), kept_of(case), "{case:?} by {piece}");
            }
        }
    }

    #[test]
    fn lines_are_cut_kept_and_bounded() {
        let mut log = LineLog::new("m".into(), 1);
        log.push(b"I rkllm: a\nE rk");
        log.push(b"llm: b\n\npartial");
        assert_eq!(log.take(), ["I rkllm: a", "E rkllm: b"]);
        for n in 0..KEPT_LINES * 3 {
            log.push(format!("{n}\n").as_bytes());
        }
        log.push(&vec![b'x'; LINE_LIMIT_BYTES * 4]);
        log.push(b"\n");
        let lines = log.take();
        assert_eq!(lines.len(), KEPT_LINES);
        assert_eq!(lines.last().map(String::len), Some(LINE_LIMIT_BYTES));
        assert!(log.dropped > 0, "a flood must be counted");
    }
}
