//! A real daemon over real sockets: started on a free port with its own folders, watched through
//! its log, and gone, with all its children, when the test ends, however it ends.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of this"
)]

mod built;
mod client;
mod log;
mod packages;
mod process;

use std::fs;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use built::program;
pub use built::{built_library, cache_folder, demo_model, fake_runtime};
pub use client::{Answer, EventStream, begin, chat, completion, request, send};
pub use log::Log;
pub use packages::{
    is_whole, node, npm_packages, python_package, python_session, write_tiny_models,
};
pub use process::{
    Stopped, all_children, anonymous_bytes, children, cpu_ticks, descriptors, is_gone, kill,
    readers, resident_bytes, signal, stop, threads,
};
use serde_json::{Value, json};

/// Far longer than anything here takes; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The families that are run, by the name of their fake library.
pub const FAMILIES_RUN: [&str; 3] = ["1_2_1", "1_3_0", "1_3_1"];

const COMPUTE_THREADS: &str = "RKLLM_CPU_THREADS";

/// Waits until `condition` gives something; fails the test after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < until,
            "{what} did not happen within {PATIENCE:?}"
        );
        // Between two looks at another process there is no event to wait for.
        thread::sleep(Duration::from_millis(5));
    }
}

/// What a daemon is started with.
pub struct Setup {
    folder: Arc<tempfile::TempDir>,
    settings: String,
    listen: Vec<String>,
    environment: Vec<(String, String)>,
    launcher: Vec<String>,
    /// Whether workers of the fake runtime may write beside its models.
    fakes_write: bool,
}

/// A `tokenizer.json` with one token a word; those of `added` are special ones, from the id 1 on.
pub fn word_tokenizer(added: &[&str]) -> String {
    let added = added.iter().zip(1..).map(|(content, id)| {
        json!({"id": id, "content": content, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Vec<Value>>(),
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0}},
    })
    .to_string()
}

impl Setup {
    /// An empty models folder and the fake runtime of the newest family.
    pub fn new() -> Self {
        Self::with_family("1_3_1")
    }

    pub fn with_family(family: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("models")).expect("the models folder");
        let library = fake_runtime(family);
        Self {
            settings: format!(
                "runtime.npu-library = {:?}\n",
                library.display().to_string()
            ),
            listen: vec!["127.0.0.1:0".to_owned()],
            // Not those of a daemon that is installed on this machine.
            environment: [
                ("RKLLMD_HTTP__KEYS_FILE", "keys.toml"),
                ("RKLLMD_LIBRARY__STATE_DIR", "state"),
            ]
            .map(|(name, file)| {
                let path = folder.path().join(file);
                (name.to_owned(), path.display().to_string())
            })
            .into_iter()
            // Tests ask for their models at once, also where the machine is busy.
            .chain([(
                "RKLLMD_DEADLINES__READER_AT_START".to_owned(),
                "10m".to_owned(),
            )])
            .collect(),
            launcher: Vec::new(),
            fakes_write: true,
            folder: Arc::new(folder),
        }
    }

    /// Installs a scenario of the fake runtime as a chat model.
    pub fn scenario(self, id: &str, toml: &str) -> Self {
        self.model_file(id, "model.rkllm", toml).model_file(
            id,
            "model.toml",
            "template = \"chatml\"\n",
        )
    }

    /// Writes a file into the folder of a model.
    pub fn model_file(self, id: &str, name: &str, content: &str) -> Self {
        let folder = self.models().join(id);
        fs::create_dir_all(&folder).expect("the model's folder");
        fs::write(folder.join(name), content).expect("the model's file");
        self
    }

    /// Installs the demo model and the CPU runtime.
    pub fn demo_model(self, id: &str) -> Self {
        self.demo_model_again(id)
            .cpu_runtime()
            .environment("RKLLM_CPU_SEED", "7")
    }

    /// Installs the CPU runtime, with one compute thread: tests run side by side, and threads that wait for each
    /// other by spinning cost more there than they give.
    pub fn cpu_runtime(self) -> Self {
        let library = built_library("rkllm_cpu").display().to_string();
        self.settings(&format!("runtime.cpu-library = {library:?}"))
            .environment(COMPUTE_THREADS, "1")
    }

    /// The library chooses its compute threads, for who judges speed and has the machine to itself.
    pub fn all_threads(mut self) -> Self {
        self.environment.retain(|(name, _)| name != COMPUTE_THREADS);
        self
    }

    /// Installs the demo model under another name, for a setup that has it already.
    pub fn demo_model_again(self, id: &str) -> Self {
        let folder = self.models().join(id);
        fs::create_dir_all(&folder).expect("the model's folder");
        std::os::unix::fs::symlink(demo_model(), folder.join("model.gguf")).expect("a link");
        self
    }

    /// Adds lines to the configuration, as `table.key = value`.
    pub fn settings(mut self, lines: &str) -> Self {
        self.settings.push_str(lines);
        self.settings.push('\n');
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on these addresses instead of one of loopback.
    pub fn listen(mut self, addresses: &[&str]) -> Self {
        self.listen = addresses
            .iter()
            .map(|&address| address.to_owned())
            .collect();
        self
    }

    /// Workers reach no more than those of a board do: the fake runtime can have no `once`, `when-file` and `record`.
    pub fn confined(self) -> Self {
        Self {
            fakes_write: false,
            ..self
        }
    }

    /// The folder of everything the daemon is given; its keys are in `keys.toml`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the daemon through a program that becomes it (`exec "$@"`).
    pub fn launcher(mut self, program: &[&str]) -> Self {
        self.launcher = program.iter().map(|&part| part.to_owned()).collect();
        self
    }

    pub fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    /// The daemon's command line; its settings are written.
    pub fn command(&self) -> Command {
        let config = self.folder.path().join("rkllmd.toml");
        fs::write(&config, &self.settings).expect("the configuration");
        let daemon = &program();
        let mut command = match self.launcher.split_first() {
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(daemon);
                command
            }
            None => Command::new(daemon),
        };
        // Tests ask for one model after the other, and wait for none: who tries that time sets it.
        if !self.settings.contains("models.minimum-residency") {
            command.env("RKLLMD_MODELS__MINIMUM_RESIDENCY", "0s");
        }
        command
            .arg("serve")
            .args(self.listen.iter().flat_map(|address| ["--listen", address]))
            .arg("--config")
            .arg(&config)
            .arg("--models")
            .arg(self.models())
            .envs(self.fakes_write.then(|| {
                let models = self.models().display().to_string();
                ("RKLLMD_CONFINEMENT__WORKER_WRITES", models)
            }))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Starts the daemon and waits until it listens.
    pub fn start(self) -> Daemon {
        self.start_again()
    }

    /// Likewise; after one that has ended, with what that has left.
    pub fn start_again(&self) -> Daemon {
        let mut child = self.command().spawn().expect("the daemon starts");
        let log = Log::collect(BufReader::new(child.stderr.take().expect("piped")));
        let line = log.wait_for("listening address=");
        let address = line
            .rsplit("address=")
            .next()
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("no address in {line:?}"));
        Daemon {
            child,
            address,
            log,
            folder: Arc::clone(&self.folder),
        }
    }
}

pub struct Daemon {
    child: Child,
    pub address: SocketAddr,
    pub log: Log,
    folder: Arc<tempfile::TempDir>,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn get(&self, path: &str) -> Answer {
        client::request(self.address, "GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        client::request(self.address, "POST", path, Some(body))
    }

    /// Sends a request whose answer is read event by event.
    pub fn stream(&self, path: &str, body: &Value) -> EventStream {
        EventStream::open(self.address, path, body)
    }

    /// `phase` of a model as `/v1/ready` tells it.
    pub fn phase(&self, model: &str) -> String {
        let ready = self.get("/v1/ready").json();
        find_model(&ready, model)["phase"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub fn wait_for_phase(&self, model: &str, phase: &str) {
        eventually(&format!("{model} being {phase}"), || {
            (self.phase(model) == phase).then_some(())
        });
    }

    /// The process of the only worker.
    pub fn worker_pid(&self) -> u32 {
        eventually("one worker", || match children(self.pid())[..] {
            [pid] => Some(pid),
            _ => None,
        })
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits for the daemon to end by itself.
    pub fn wait(mut self) -> ExitStatus {
        eventually("the end of the daemon", || {
            self.child.try_wait().expect("waitpid")
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let workers = all_children(self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of the daemon\n{}", self.log.lines().join("\n"));
            return;
        }
        // Workers ask the kernel to die with their daemon; a test that leaves one has found a bug.
        for worker in workers {
            eventually("the end of a worker after its daemon's", || {
                process::is_gone(worker).then_some(())
            });
        }
    }
}

/// Runs `rkllmd keys` on the file in `folder`.
pub fn keys(folder: &Path, arguments: &str) -> String {
    let output = Command::new(program())
        .arg("keys")
        .args(arguments.split_whitespace())
        .args(["--config", "/dev/null"])
        .env("RKLLMD_HTTP__KEYS_FILE", folder.join("keys.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The entry of a model in the body of `/v1/ready`.
pub fn find_model<'a>(ready: &'a Value, model: &str) -> &'a Value {
    let models = &ready["models"];
    match models {
        Value::Array(list) => list
            .iter()
            .find(|entry| entry["id"] == model)
            .unwrap_or_else(|| panic!("{model} is not in {ready}")),
        other => &other[model],
    }
}
