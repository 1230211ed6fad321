//! Starts child processes of one kind, always from the same thread.
//!
//! A child asks the kernel to be killed when its parent dies, and the kernel means the parent
//! *thread*: so the thread that starts children lives as long as the daemon. The child gets its end
//! of the IPC socket as standard input and nothing else; it moves it away before it does anything
//! else.

use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::process::{self, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{ChildKind, ChildProcess, Connection, PrintedLines, ProcessEvent};

/// Also after its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Inherited where set; everything else a child needs comes over its link.
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

/// Never inherited, whatever the settings pass on: with these a child could speak to the service
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

/// The environment of children, fixed at start.
#[derive(Clone, Debug)]
pub struct ChildEnvironment {
    variables: Vec<(String, String)>,
    core_dumps: bool,
    /// The program whose hidden command a child is.
    program: PathBuf,
}

impl ChildEnvironment {
    /// Nothing but what every program needs: for a child that loads no library.
    pub fn bare(core_dumps: bool) -> Self {
        let names = ["LANG", "LC_ALL"];
        Self {
            variables: inherited(names.into_iter()),
            core_dumps,
            program: PathBuf::from(OWN_PROGRAM),
        }
    }

    /// Takes the allowed variables of this process, those in `pass`, and the runtime's log level.
    pub fn new(pass: &[String], runtime_log_level: u8, core_dumps: bool) -> Self {
        let names = ENVIRONMENT_ALLOW_LIST
            .iter()
            .copied()
            .chain(pass.iter().map(String::as_str))
            .filter(|name| !SERVICE_MANAGERS.contains(name));
        let mut variables = inherited(names);
        variables.push(("RKLLM_LOG_LEVEL".to_owned(), runtime_log_level.to_string()));
        Self {
            variables,
            core_dumps,
            program: PathBuf::from(OWN_PROGRAM),
        }
    }

    /// Children of another program than this one.
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }
}

fn inherited<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    names
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect()
}

/// The environment of a child beside what all have, and where it goes.
type SpawnRequest = (
    Vec<(&'static str, String)>,
    oneshot::Sender<io::Result<Spawned>>,
);

/// A process that was just started.
#[derive(Debug)]
struct Spawned {
    child: process::Child,
    socket: UnixStream,
    /// Read end of the pipe that is the child's standard output and standard error.
    printed: OwnedFd,
}

/// A child that runs and has not been spoken with yet. Dropping its parts ends it.
#[derive(Debug)]
pub struct Child<K: ChildKind> {
    pub process: ChildProcess,
    pub connection: Connection<K>,
    pub lines: PrintedLines,
}

/// Whom the log names a child after, what it is started with, and how it is watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The model it is for.
    pub model: Arc<str>,
    /// Its environment, beside what all children have.
    pub variables: Vec<(&'static str, String)>,
    /// A process that is still there so long after SIGKILL is called unkillable.
    pub kill_wait: Duration,
}

/// The host of the children of one kind. Its spawning thread ends when the last handle is dropped.
#[derive(Debug)]
pub struct Host<K> {
    requests: mpsc::Sender<SpawnRequest>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Host<K> {
    fn clone(&self) -> Self {
        Self {
            requests: self.requests.clone(),
            kind: PhantomData,
        }
    }
}

impl<K: ChildKind> Host<K> {
    /// Starts the thread. Must be called inside the runtime that will watch the children.
    pub fn start(environment: ChildEnvironment) -> io::Result<Self> {
        let (requests, queue) = mpsc::channel::<SpawnRequest>();
        let runtime = Handle::current();
        let command = K::COMMAND;
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                let _inside_runtime = runtime.enter();
                for (variables, reply) in queue {
                    // A requester that has gone away drops the child, which kills it.
                    let _ = reply.send(spawn(command, &environment, variables));
                }
            })?;
        Ok(Self {
            requests,
            kind: PhantomData,
        })
    }

    /// Starts a child and watches it; `on_event` hears of its end.
    pub async fn child(
        &self,
        watched: Watched,
        on_event: impl Fn(u32, ProcessEvent) + Send + Sync + 'static,
    ) -> io::Result<Child<K>> {
        let spawned = self.spawn(watched.variables).await?;
        let pid = spawned.child.id().unwrap_or_default();
        // The child dies with what an error drops.
        let connection = Connection::new(spawned.socket)?;
        let lines = PrintedLines::drain(spawned.printed, watched.model, pid)?;
        let process = ChildProcess::watch(
            (K::NAME, spawned.child),
            watched.kill_wait,
            lines.clone(),
            on_event,
        );
        Ok(Child {
            process,
            connection,
            lines,
        })
    }

    async fn spawn(&self, variables: Vec<(&'static str, String)>) -> io::Result<Spawned> {
        let gone = || io::Error::other("the spawning thread has ended");
        let (reply, spawned) = oneshot::channel();
        self.requests.send((variables, reply)).map_err(|_| gone())?;
        spawned.await.map_err(|_| gone())?
    }
}

fn spawn(
    hidden: &str,
    environment: &ChildEnvironment,
    variables: Vec<(&'static str, String)>,
) -> io::Result<Spawned> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (printed, write_end) = io::pipe()?;
    let mut command = Command::new(&environment.program);
    command
        .arg0(format!("rkllmd-{hidden}"))
        .arg(hidden)
        .arg("--parent-pid")
        .arg(std::process::id().to_string())
        .env_clear()
        .envs(environment.variables.iter().cloned())
        .envs(variables)
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
