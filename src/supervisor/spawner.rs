//! Starts worker processes, always from the same thread.
//!
//! A worker asks the kernel to be killed when its parent dies, and the kernel means the parent
//! *thread*: so the thread that starts workers lives as long as the daemon. The child gets its end
//! of the IPC socket as standard input and nothing else; it moves it away before any library is
//! loaded.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Also after its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Inherited where set; everything else a worker needs is in its `Load` command.
const ENVIRONMENT_ALLOW_LIST: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "RKLLM_DUMP_LEVEL",
    "RKLLM_CPU_SEED",
    "RKLLM_CPU_THREADS",
    "RKNN_LOG_LEVEL",
    "RKNN_MIN_TIMEOUT_MS",
];

/// Never inherited, whatever the settings pass on: with these a worker could speak to the service
/// manager as the daemon, and take its sockets for its own.
const SERVICE_MANAGERS: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "JOURNAL_STREAM",
];

/// The environment of workers, fixed at start.
#[derive(Clone, Debug)]
pub struct WorkerEnvironment {
    variables: Vec<(String, String)>,
    core_dumps: bool,
    /// The program whose `worker` command a worker is.
    program: PathBuf,
}

impl WorkerEnvironment {
    /// Takes the allowed variables of this process, those in `pass`, and the runtime's log level.
    pub fn new(pass: &[String], runtime_log_level: u8, core_dumps: bool) -> Self {
        let names = ENVIRONMENT_ALLOW_LIST
            .iter()
            .copied()
            .chain(pass.iter().map(String::as_str))
            .filter(|name| !SERVICE_MANAGERS.contains(name));
        let mut variables: Vec<_> = names
            .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
            .collect();
        variables.push(("RKLLM_LOG_LEVEL".to_owned(), runtime_log_level.to_string()));
        Self {
            variables,
            core_dumps,
            program: PathBuf::from(OWN_PROGRAM),
        }
    }

    /// Workers of another program than this one.
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }
}

/// A process that was just started.
#[derive(Debug)]
pub struct Spawned {
    pub child: Child,
    pub socket: UnixStream,
    /// Read end of the pipe that is the child's standard output and standard error.
    pub printed: OwnedFd,
}

/// Handle to the spawning thread; the thread ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Spawner {
    requests: mpsc::Sender<oneshot::Sender<io::Result<Spawned>>>,
}

impl Spawner {
    /// Starts the thread. Must be called inside the runtime that will watch the children.
    pub fn start(environment: WorkerEnvironment) -> io::Result<Self> {
        let (requests, queue) = mpsc::channel::<oneshot::Sender<io::Result<Spawned>>>();
        let runtime = Handle::current();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                let _inside_runtime = runtime.enter();
                for reply in queue {
                    // A requester that has gone away drops the child, which kills it.
                    let _ = reply.send(spawn(&environment));
                }
            })?;
        Ok(Self { requests })
    }

    pub async fn spawn(&self) -> io::Result<Spawned> {
        let gone = || io::Error::other("the spawning thread has ended");
        let (reply, spawned) = oneshot::channel();
        self.requests.send(reply).map_err(|_| gone())?;
        spawned.await.map_err(|_| gone())?
    }
}

fn spawn(environment: &WorkerEnvironment) -> io::Result<Spawned> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (printed, write_end) = io::pipe()?;
    let mut command = Command::new(&environment.program);
    command
        .arg0("rkllmd-worker")
        .arg("worker")
        .arg("--parent-pid")
        .arg(std::process::id().to_string())
        .env_clear()
        .envs(environment.variables.iter().cloned())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(write_end.try_clone()?))
        .stderr(Stdio::from(write_end))
        .process_group(0)
        .kill_on_drop(true);
    if environment.core_dumps {
        command.arg("--core-dumps");
    }
    let child = command.spawn()?;
    Ok(Spawned {
        child,
        socket: ours,
        printed: printed.into(),
    })
}
