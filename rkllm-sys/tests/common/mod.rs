//! Where the fake libraries are, and model files for them.

#![allow(dead_code, reason = "each test file uses its part")]

use rkllm_sys::{
    CallState, Flow, Handle, History, InitParams, Library, OpenOptions, PerfStat, ResultSink,
    ResultView, RunId, RunInput, RunMode, RunOptions,
};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Far more than anything here takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The libraries whose families are run, by their fakes' names.
pub const RUN_FAMILIES: [&str; 3] = ["1_2_1", "1_3_0", "1_3_1"];

/// Generates from the prompt alone, with the values of `init`.
pub const DEFAULT: RunOptions = RunOptions {
    history: History::Forget,
    mode: RunMode::Generate,
    per_run: None,
};

pub fn on_each_family(test: impl Fn(&str)) {
    for name in RUN_FAMILIES {
        test(name);
    }
}

/// The fake library of that name, built beside this test.
pub fn fake(name: &str) -> PathBuf {
    let executable = std::env::current_exe().expect("the test's own path");
    let profile = executable
        .parent()
        .and_then(Path::parent)
        .expect("target/<profile>/deps/<test>");
    let path = profile.join(format!("librkllmrt_fake_{name}.so"));
    assert!(
        path.exists(),
        "{} is missing: run `make build` (cargo build --release --workspace)",
        path.display()
    );
    path
}

pub fn open(name: &str) -> Arc<Library> {
    let library = Library::open(fake(name), &OpenOptions::default());
    Arc::new(library.expect("a library that opens"))
}

/// A model file; its folder goes with it.
pub struct Model {
    folder: tempfile::TempDir,
}

impl Model {
    pub fn new(scenario: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("model.rkllm"), scenario).expect("written");
        Model { folder }
    }

    pub fn params(&self) -> InitParams {
        InitParams::new(self.folder.path().join("model.rkllm"))
    }

    pub fn load(&self, library: &Arc<Library>) -> Handle {
        library.init(&self.params()).expect("a model that loads")
    }

    /// A file beside the model.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// One run that succeeds, and all it gave.
pub fn run(handle: &Handle, input: &RunInput<'_>, id: u64) -> Collected {
    let (sink, collected) = collect();
    handle
        .run(input, &RunOptions::default(), run_id(id), sink)
        .expect("a run");
    collected
}

pub fn run_id(id: u64) -> RunId {
    RunId::new(id).expect("not zero")
}

/// What a sink was given, copied.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub run: RunId,
    pub state: CallState,
    pub text: Option<Vec<u8>>,
    pub token_id: Option<i32>,
    pub hidden: Option<(Vec<f32>, usize)>,
    pub logits: Option<(Vec<f32>, usize)>,
    pub perf: Option<PerfStat>,
}

/// Keeps all results, and tells of each as it comes.
pub struct Collect {
    seen: Arc<Mutex<Vec<Seen>>>,
    each: Sender<Seen>,
}

pub struct Collected {
    seen: Arc<Mutex<Vec<Seen>>>,
    pub each: Receiver<Seen>,
}

pub fn collect() -> (Box<Collect>, Collected) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (each, receiver) = channel();
    let sink = Collect {
        seen: Arc::clone(&seen),
        each,
    };
    let collected = Collected {
        seen,
        each: receiver,
    };
    (Box::new(sink), collected)
}

impl ResultSink for Collect {
    fn on_result(&mut self, result: ResultView<'_>) -> Flow {
        let seen = Seen {
            run: result.run,
            state: result.state,
            text: result.text.map(<[u8]>::to_vec),
            token_id: result.token_id,
            hidden: result.hidden_states.map(|m| (m.values.to_vec(), m.columns)),
            logits: result.logits.map(|m| (m.values.to_vec(), m.columns)),
            perf: result.perf,
        };
        self.seen.lock().expect("not poisoned").push(seen.clone());
        // There may be no listener, which is fine.
        let _ = self.each.send(seen);
        Flow::Continue
    }
}

impl Collected {
    pub fn all(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let texts = self.all().into_iter().filter_map(|seen| seen.text);
        texts.flatten().collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes()).expect("UTF-8")
    }

    /// Of tokens and of their pieces.
    pub fn ids(&self) -> Vec<i32> {
        let ids = self.all().into_iter().map(|seen| seen.token_id);
        ids.flatten().collect()
    }

    pub fn states(&self) -> Vec<CallState> {
        self.all().into_iter().map(|seen| seen.state).collect()
    }

    pub fn wait_for_one(&self) -> Seen {
        self.each.recv_timeout(PATIENCE).expect("a result in time")
    }
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}
