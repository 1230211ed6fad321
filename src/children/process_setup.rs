//! Makes a fresh child safe to run what is not trusted: it dies with its daemon, owns no
//! descriptor but its own, dumps no core, and crashes the default way.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use anyhow::Context;
use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::oom_score;

const FIRST_DESCRIPTOR_AFTER_STDIO: RawFd = 3;

/// What the daemon tells a child on its command line.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ChildArguments {
    /// The process that must be our parent.
    #[arg(long)]
    parent_pid: u32,
    /// Allow core dumps.
    #[arg(long)]
    core_dumps: bool,
}

/// Must be called before any thread is started. Returns the IPC socket, which arrives as standard
/// input and is moved away, so that a library reading standard input finds nothing.
pub fn prepare(arguments: ChildArguments, name: &CStr) -> anyhow::Result<UnixStream> {
    let ChildArguments {
        parent_pid,
        core_dumps,
    } = arguments;
    // It was started by a thread that others wait for.
    crate::short_slice::end();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("asking to be killed with the daemon")?;
    // The daemon may have died before the line above.
    let parent = rustix::process::getppid().map(Pid::as_raw_nonzero);
    anyhow::ensure!(
        parent.is_some_and(|pid| i64::from(pid.get()) == i64::from(parent_pid)),
        "this program is started by rkllmd only, and its daemon (pid {parent_pid}) is gone"
    );
    close_inherited_descriptors().context("closing inherited descriptors")?;
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), FIRST_DESCRIPTOR_AFTER_STDIO)
        .context("taking the IPC socket")?;
    rustix::stdio::dup2_stdin(File::open("/dev/null").context("opening /dev/null")?)
        .context("replacing standard input")?;
    if !core_dumps {
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        rustix::process::setrlimit(Resource::Core, none).context("switching core dumps off")?;
    }
    oom_score::raise();
    crate::descriptor_limit::raise();
    restore_default_crash_handlers();
    // Tools show this instead of `exe`, the last part of the path the child was started by.
    rustix::thread::set_name(name).context("naming the process")?;
    Ok(UnixStream::from(socket))
}

fn close_inherited_descriptors() -> io::Result<()> {
    let listing = std::fs::read_dir("/proc/self/fd")?;
    let descriptors: Vec<RawFd> = listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&descriptor| descriptor >= FIRST_DESCRIPTOR_AFTER_STDIO)
        .collect();
    // The listing's own descriptor was in the list too and is closed by now.
    for descriptor in descriptors {
        // SAFETY: fcntl only looks; a number that is not open is an error.
        let open = unsafe { libc::fcntl(descriptor, libc::F_GETFD) } >= 0;
        if open {
            // SAFETY: the process has just been started and has one thread, so whatever is open
            // above standard error was inherited and nothing in this program refers to it.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    debug_assert!(io::stdin().as_raw_fd() == 0, "standard input stays");
    Ok(())
}

/// Rust's start-up code catches these two to report stack overflows. A crash inside the library
/// should look like one to waitpid.
fn restore_default_crash_handlers() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: SIG_DFL is a valid disposition for both, and no other thread exists yet.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Ends the process at once: no destructors and no exit handlers, which could hang in the library.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any code, touches no memory of this process and does not return.
    unsafe { libc::_exit(code) }
}
