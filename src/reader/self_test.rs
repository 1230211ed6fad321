//! `rkllmd reader-self-test`: enters the sandbox as a reader does and tries what must not work, for
//! checks on machines whose kernel and service manager differ.

use std::fs::File;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;

use super::sandbox;
use crate::ipc::ReaderLimits;
use crate::prompt::RenderLimits;

const LIMITS: ReaderLimits = ReaderLimits {
    memory_bytes: 1 << 30,
    cpu: Duration::from_secs(10),
    control_token_bytes: 0,
    render: RenderLimits {
        steps: 0,
        output_bytes: 0,
    },
    confined: true,
};

/// Prints a line for each try; success if the sandbox holds. Tries in a child, because nothing can be
/// written to a file from within.
pub fn run(inside: bool) -> ExitCode {
    match if inside { try_everything() } else { in_child() } {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn in_child() -> anyhow::Result<bool> {
    let output = Command::new("/proc/self/exe")
        .args(["reader-self-test", "--inside"])
        .stderr(Stdio::inherit())
        .output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", output.status);
    Ok(output.status.success())
}

fn try_everything() -> anyhow::Result<bool> {
    // Open before, so that it can be read from within.
    let mut status = File::open("/proc/self/status")?;
    let mut readable = File::open("/proc/self/exe")?;
    let target = std::env::temp_dir().join(format!("rkllmd-self-test-{}", std::process::id()));
    let (link, _peer) = UnixStream::pair()?;
    let parent = rustix::process::getppid().context("there is no parent")?;
    sandbox::enter(link.as_raw_fd(), LIMITS)?;
    let mut text = String::new();
    status.read_to_string(&mut text)?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let filtered = field("Seccomp:") == "2";
    println!("Seccomp: {}", field("Seccomp:"));
    println!("NoNewPrivs: {}", field("NoNewPrivs:"));
    let refused = [
        ("open", File::open("/etc/passwd").map(drop)),
        ("create", File::create(&target).map(drop)),
        ("socket", TcpListener::bind("127.0.0.1:0").map(drop)),
        ("socketpair", UnixStream::pair().map(drop)),
        ("exec", Command::new("/bin/true").status().map(drop)),
        ("thread", std::thread::Builder::new().spawn(|| ()).map(drop)),
        ("remove", std::fs::remove_file("/nonexistent/file")),
        ("stat", std::fs::metadata("/etc/passwd").map(drop)),
        (
            "kill",
            rustix::process::test_kill_process(parent).map_err(Into::into),
        ),
    ]
    .map(|(name, tried)| {
        let refused = matches!(&tried, Err(error) if error.raw_os_error() == Some(libc::EPERM)
            // Where no descriptor can be had, nothing is opened either.
            || error.raw_os_error() == Some(libc::EMFILE));
        println!("{name}: {}", said(&tried));
        refused
    });
    let mut byte = [0];
    let reads = readable.read_exact(&mut byte).is_ok();
    println!("read what is open: {reads}");
    Ok(filtered && reads && refused.into_iter().all(|refused| refused))
}

fn said(tried: &io::Result<()>) -> String {
    match tried {
        Ok(()) => "allowed".to_owned(),
        Err(error) => error.to_string(),
    }
}
