//! Does a command's work in a process of its own, which is not waited for once it has told everything: a thread that
//! hangs in the kernel keeps its process from ending, whatever is sent to it, and who typed the command would get no
//! prompt back.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};

/// What has told everything is given for its end, which follows at once where nothing hangs.
const END: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// In no text that is printed; the code is behind it.
const END_OF_TEXT: u8 = 0;

/// What a command has found.
pub(super) struct Told {
    pub text: String,
    pub code: u8,
}

impl Told {
    pub fn new(text: impl Into<String>, code: u8) -> Self {
        Self {
            text: text.into(),
            code,
        }
    }
}

/// Runs this program again with `flag` behind its own arguments, and prints what that one [tells](tell). `None`:
/// it cannot be started, and the work is to be done in this process.
pub(super) fn run_with(flag: &str) -> Option<ExitCode> {
    let mut started = Command::new("/proc/self/exe")
        .args(env::args_os().skip(1))
        .arg(flag)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut told = Vec::new();
    // Until it has let go of its output, which is before its end.
    let read = match started.stdout.take() {
        Some(mut output) => output.read_to_end(&mut told),
        None => Ok(0),
    };
    // One that was killed over it has told no end.
    if let (Ok(_), Some((text, &[END_OF_TEXT, code]))) = (read, told.split_last_chunk::<2>()) {
        let text = String::from_utf8_lossy(text);
        let code = super::print(&text, ExitCode::from(code));
        reap(started);
        return Some(code);
    }
    // It ended before it had told all, and has said why.
    let code = started.wait().ok().and_then(|status| status.code());
    let code = code.and_then(|code| u8::try_from(code).ok());
    Some(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Leaves what has ended to no other process: not each first process of a container reaps what it did not start.
fn reap(mut started: Child) {
    let Ok(end) = rustix::process::pidfd_open(Pid::from_child(&started), PidfdFlags::empty())
    else {
        return;
    };
    let mut wanted = [PollFd::new(&end, PollFlags::IN)];
    if matches!(poll(&mut wanted, Some(&END)), Ok(1..)) {
        let _ = started.wait();
    }
}

/// In the process that was started: it ends with the one that waits for it, also before it has told anything.
pub(super) fn follow() {
    // Without these it ends when it has told what it found.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // Tools show this instead of `exe`, the last part of the path it was started by.
    let _ = rustix::thread::set_name(c"rkllmd");
}

/// Tells it the process that waits, the code behind the text, and lets go of what that reads.
pub(super) fn tell(told: &Told) -> ExitCode {
    let mut output = io::stdout().lock();
    let written = output
        .write_all(told.text.as_bytes())
        .and_then(|()| output.write_all(&[END_OF_TEXT, told.code]))
        .and_then(|()| output.flush());
    let nowhere = OpenOptions::new().write(true).open("/dev/null");
    if let (Ok(()), Ok(nowhere)) = (written, nowhere) {
        // Where it fails the end of the process does it.
        let _ = rustix::stdio::dup2_stdout(&nowhere);
        let _ = rustix::stdio::dup2_stderr(&nowhere);
    }
    ExitCode::from(told.code)
}
