//! Each kind of hang alone on an otherwise idle daemon, measured against its own deadline: from the
//! hanging call's note in the fault's record, or from SIGSTOP, to the daemon's log line.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::daemon_support::{Daemon, Setup, chat, children, kill, signal};
use crate::faults::{Armed, FAULTS, named};
use crate::log_watch::LogWatch;
use crate::plan::Moment;

const MODEL: &str = "m";
const OTHER: &str = "other";
const TOKENS: u32 = 60;
const POLL: Duration = Duration::from_millis(5);
/// Every deadline here is much shorter.
const NOTICED: Duration = Duration::from_secs(15);
/// More than are on their way when a client leaves.
const CHUNKS_BEFORE_LEAVING: usize = 5;
const SETTINGS: &str = r#"
models.max-loaded = 1
models.minimum-residency = "0s"
deadlines.load-base = "1s"
deadlines.load-per-gib = "1s"
deadlines.load-stall = "1s"
deadlines.load-longest = "2s"
deadlines.prefill-base = "1s"
deadlines.prefill-per-token = "1ms"
deadlines.inter-token = "1s"
deadlines.control-call = "500ms"
deadlines.abort-to-finish = "1s"
deadlines.unload = "1s"
deadlines.heartbeat = "5s"
recovery.backoff-first = "20ms"
recovery.backoff-longest = "200ms"
"#;

/// What brings the call about that hangs.
#[derive(Clone, Copy)]
enum Occasion {
    /// A request.
    Ask,
    /// A request that finds no worker.
    Load,
    /// A client that leaves in the middle of its answer.
    Leave,
    /// Another model that needs the place.
    Evict,
    /// SIGSTOP in the middle of an answer.
    Stop,
}

struct Kind {
    key: &'static str,
    label: &'static str,
    /// Of [`FAULTS`]; none for SIGSTOP.
    fault: Option<&'static str>,
    deadline_ms: f64,
    occasion: Occasion,
}

const fn kind(
    key: &'static str,
    label: &'static str,
    fault: Option<&'static str>,
    deadline_ms: f64,
    occasion: Occasion,
) -> Kind {
    Kind {
        key,
        label,
        fault,
        deadline_ms,
        occasion,
    }
}

const KINDS: [Kind; 9] = [
    kind(
        "init_ms",
        "rkllm_init (load 1 s)",
        Some("hang-init"),
        1000.0,
        Occasion::Load,
    ),
    kind(
        "set_chat_template_ms",
        "rkllm_set_chat_template (load 1 s)",
        Some("hang-template"),
        1000.0,
        Occasion::Load,
    ),
    kind(
        "run_ms",
        "rkllm_run at once (prefill 1 s)",
        Some("hang-first"),
        1000.0,
        Occasion::Ask,
    ),
    kind(
        "prefill_ms",
        "rkllm_run in prefill (prefill 1 s)",
        Some("hang-prefill"),
        1000.0,
        Occasion::Ask,
    ),
    kind(
        "token_ms",
        "rkllm_run between tokens (inter-token 1 s)",
        Some("hang-late"),
        1000.0,
        Occasion::Ask,
    ),
    kind(
        "abort_ms",
        "rkllm_abort (control-call 500 ms)",
        Some("hang-abort"),
        500.0,
        Occasion::Leave,
    ),
    kind(
        "kv_cache_size_ms",
        "rkllm_get_kv_cache_size (control-call 500 ms)",
        Some("hang-kv-size"),
        500.0,
        Occasion::Ask,
    ),
    kind(
        "destroy_ms",
        "rkllm_destroy (unload 1 s)",
        Some("hang-destroy"),
        1000.0,
        Occasion::Evict,
    ),
    kind(
        "sigstop_ms",
        "SIGSTOP in an answer (heartbeat 5 s)",
        None,
        5000.0,
        Occasion::Stop,
    ),
];

/// A kind of hang in all families.
pub struct Detection {
    pub key: &'static str,
    pub label: &'static str,
    /// From the hang to the log line, less the deadline; in each family.
    pub over_ms: Vec<f64>,
}

/// Answers during calm hangs that were not what they should have been.
#[derive(Default)]
pub struct Disturbed(pub Vec<String>);

pub fn measure(families: &[&'static str]) -> (Vec<Detection>, Disturbed) {
    let mut detections: Vec<Detection> = KINDS
        .iter()
        .map(|kind| Detection {
            key: kind.key,
            label: kind.label,
            over_ms: Vec::new(),
        })
        .collect();
    let mut disturbed = Disturbed::default();
    for family in families {
        let daemon = start(family);
        let log = LogWatch::new(daemon.log.clone());
        for (kind, detection) in KINDS.iter().zip(&mut detections) {
            let took = Trial {
                daemon: &daemon,
                log: &log,
                kind,
            }
            .run(&mut disturbed);
            detection.over_ms.push(took - kind.deadline_ms);
        }
    }
    (detections, disturbed)
}

fn start(family: &str) -> Daemon {
    let words: Vec<String> = (0..TOKENS).map(|n| format!("word{n} ")).collect();
    let mut scenario = format!(
        "continue-answers = true\ntoken-delay-us = 5000\nprefill-delay-ms = 20\ntokens = {words:?}\n"
    );
    for fault in &FAULTS {
        scenario += &fault.toml();
    }
    Setup::with_family(family)
        .settings(SETTINGS)
        .scenario(MODEL, &scenario)
        .scenario(OTHER, "tokens = [\"other\"]\n")
        .start()
}

/// What `look` finds, if it finds it in time.
fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + limit;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= until {
            return found;
        }
        thread::sleep(POLL);
    }
}

struct Trial<'a> {
    daemon: &'a Daemon,
    log: &'a LogWatch,
    kind: &'a Kind,
}

impl Trial<'_> {
    /// Milliseconds from the hang to the log line that tells it; infinite when there is none.
    fn run(&self, disturbed: &mut Disturbed) -> f64 {
        // Whatever the last one left is replaced by a worker that has answered.
        self.expect_answer(MODEL, disturbed);
        let folder = self.daemon.folder().join("models").join(MODEL);
        let armed = self.kind.fault.map(|name| Armed::arm(&folder, named(name)));
        if matches!(self.kind.occasion, Occasion::Load) {
            let (pid, at) = (self.daemon.worker_pid(), Moment::now());
            kill(pid);
            within(NOTICED, || self.log.exit_of(pid, at));
        }
        thread::scope(|scope| {
            let occasion = scope.spawn(|| {
                let mut disturbed = Disturbed::default();
                self.bring_about(&mut disturbed);
                disturbed
            });
            let hung = match &armed {
                Some(armed) => {
                    within(NOTICED, || armed.happened()).map(|happened| (happened.pid, happened.at))
                }
                None => self.stop_worker(),
            };
            let told = hung.and_then(|(pid, at)| {
                let told = within(NOTICED, || self.log.expiry_of(pid, at));
                // The next one starts when this worker is gone.
                within(NOTICED, || self.log.exit_of(pid, at));
                told.map(|told| told.ms_since(at))
            });
            let others = occasion.join().expect("an occasion does not panic");
            disturbed.0.extend(others.0);
            if let Some(armed) = armed {
                armed.disarm();
            }
            told.unwrap_or(f64::INFINITY)
        })
    }

    fn bring_about(&self, disturbed: &mut Disturbed) {
        match self.kind.occasion {
            Occasion::Ask | Occasion::Load | Occasion::Stop => self.expect_answer(MODEL, disturbed),
            Occasion::Evict => self.expect_answer(OTHER, disturbed),
            Occasion::Leave => {
                let body = chat(MODEL, "go on", json!({"stream": true}));
                let mut stream = self.daemon.stream("/v1/chat/completions", &body);
                for _ in 0..CHUNKS_BEFORE_LEAVING {
                    stream.next_content();
                }
            }
        }
    }

    /// Stops the worker once it is in the middle of its answer.
    fn stop_worker(&self) -> Option<(u32, Moment)> {
        within(NOTICED, || {
            (self.daemon.phase(MODEL) == "running").then_some(())
        })?;
        // A third of the answer: neither its prefill nor its end.
        thread::sleep(Duration::from_millis(100));
        let pid = *children(self.daemon.pid()).first()?;
        let at = Moment::now();
        signal(pid, Signal::STOP);
        Some((pid, at))
    }

    /// The answer must be whole, whatever its worker does.
    fn expect_answer(&self, model: &str, disturbed: &mut Disturbed) {
        let answer = self
            .daemon
            .post("/v1/chat/completions", &chat(model, "go on", json!({})));
        let whole: String = match model {
            OTHER => "other".to_owned(),
            _ => (0..TOKENS).map(|n| format!("word{n} ")).collect(),
        };
        if answer.status != 200 || answer.content() != whole {
            let what = format!("{}: {} {}", self.kind.label, answer.status, answer.body);
            disturbed.0.push(what);
        }
    }
}
