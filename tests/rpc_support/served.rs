//! A daemon with a Unix socket and a state folder, and clients of it.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Client, Failure, Transport};
use crate::daemon_support::{Daemon, Setup};

pub struct Served {
    pub daemon: Daemon,
    pub socket: PathBuf,
    /// `adapters/` and `prompt-caches/`.
    pub state: PathBuf,
    _folder: tempfile::TempDir,
}

impl Served {
    pub fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("rpc.sock");
        let state = folder.path().join("state");
        for name in ["adapters", "prompt-caches"] {
            fs::create_dir_all(state.join(name)).expect("the state folder");
        }
        let daemon = setup
            .settings(&format!(
                "rpc.unix-socket = {:?}",
                socket.display().to_string()
            ))
            .environment("RKLLMD_LIBRARY__STATE_DIR", &state.display().to_string())
            .start();
        Self {
            daemon,
            socket,
            state,
            _folder: folder,
        }
    }

    pub fn client(&self, transport: Transport) -> Client {
        Client::connect(transport, self.daemon.address, &self.socket)
    }

    /// A client on the Unix socket.
    pub fn unix(&self) -> Client {
        self.client(Transport::Unix)
    }
}

impl Client {
    /// Opens a handle.
    pub fn init(&mut self, model: &str, param: Value) -> String {
        let result = self.call("rkllm.init", json!({"model_path": model, "param": param}));
        let result = result.unwrap_or_else(|failure| panic!("init: {failure:?}"));
        result["handle"].as_str().expect("a handle").to_owned()
    }

    /// Runs a prompt and waits for its result.
    pub fn run(&mut self, handle: &str, prompt: &str, extra: Value) -> Result<Value, Failure> {
        self.call("rkllm.run", run_params(handle, prompt, extra))
    }

    /// Starts a run and gives its number.
    pub fn run_async(&mut self, handle: &str, prompt: &str, extra: Value) -> Value {
        let started = self.call("rkllm.run_async", run_params(handle, prompt, extra));
        started.unwrap_or_else(|failure| panic!("run_async: {failure:?}"))["run"].clone()
    }

    /// The next notification of that name.
    pub fn notification(&mut self, method: &str) -> Value {
        self.wait_for(|message| message["method"] == method)["params"].clone()
    }
}

pub fn run_params(handle: &str, prompt: &str, extra: Value) -> Value {
    let mut params = json!({"handle": handle, "rkllm_input": {"prompt_input": prompt}});
    if let (Value::Object(params), Value::Object(extra)) = (&mut params, extra) {
        params.extend(extra);
    }
    params
}
