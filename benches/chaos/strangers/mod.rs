//! Strangers, which mean harm or do not know better, beside the crowd: clients that send and do not
//! read, bodies that are slow, huge or grow when they are parsed, and models whose folders hold
//! templates and tokenizers that never end, or files that are none. Each visit is bounded in time and
//! bytes, and says what it met that no client may meet.

mod clients;
mod folders;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon_support::{Answer, begin};
use crate::source_address::{ReceiveBuffer, connect_from};

/// Their addresses: 127.0.0.150 and so on, so that what is bounded for each address is theirs alone.
const FIRST_HOST: u8 = 150;
const HOSTS: u8 = 8;
const ASKING_HOST: u8 = 190;
const PAUSE: Duration = Duration::from_millis(100);
const FOLDERS_PAUSE: Duration = Duration::from_secs(2);
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Where the strangers go.
#[derive(Clone, Copy)]
pub struct Strangers<'a> {
    pub address: SocketAddr,
    pub daemon: u32,
    pub models: &'a Path,
    /// A model with a template, which no visit harms.
    pub model: &'a str,
    /// Connections that clients have open now.
    pub open: &'a AtomicUsize,
    /// They go home when this is false.
    pub going: &'a AtomicBool,
}

/// What the strangers did and met.
#[derive(Clone, Default)]
pub struct Visits {
    pub made: BTreeMap<&'static str, usize>,
    /// What no client may meet.
    pub findings: Vec<String>,
    /// Of those who ask for `/health` meanwhile.
    pub slowest_health_ms: f64,
    pub health_asked: usize,
}

type Visit = Result<(), String>;
/// A kind of visit, by its name.
type Kind = (
    &'static str,
    fn(&Strangers<'_>, &mut fastrand::Rng) -> Visit,
);

impl Visits {
    pub fn count(&self) -> usize {
        self.made.values().sum()
    }

    pub fn merge(&mut self, other: Self) {
        for (name, count) in other.made {
            *self.made.entry(name).or_default() += count;
        }
        self.findings.extend(other.findings);
        self.slowest_health_ms = self.slowest_health_ms.max(other.slowest_health_ms);
        self.health_asked += other.health_asked;
    }

    fn note(&mut self, name: &'static str, visit: Visit) {
        *self.made.entry(name).or_default() += 1;
        if let Err(what) = visit {
            self.findings.push(format!("{name}: {what}"));
        }
    }
}

impl Strangers<'_> {
    /// Visits until `going` is false, decided by `clients` and `folders`.
    pub fn run(&self, mut clients: fastrand::Rng, mut folders: fastrand::Rng) -> Visits {
        let mut all = Visits::default();
        thread::scope(|scope| {
            let tasks = [
                scope.spawn(move || self.visit_by(PAUSE, &mut clients, clients::ALL)),
                scope.spawn(move || self.visit_by(FOLDERS_PAUSE, &mut folders, folders::ALL)),
                scope.spawn(|| self.ask_for_health()),
            ];
            for task in tasks {
                all.merge(task.join().expect("no stranger panics"));
            }
        });
        all
    }

    fn visit_by(&self, pause: Duration, decisions: &mut fastrand::Rng, kinds: &[Kind]) -> Visits {
        let mut visits = Visits::default();
        let mut order: Vec<usize> = Vec::new();
        while self.wait(pause) {
            // Each kind in each round: a short run meets all of them.
            let next = order.pop().unwrap_or_else(|| {
                order.extend(0..kinds.len());
                decisions.shuffle(&mut order);
                order.pop().expect("there are kinds")
            });
            let (name, visit) = kinds[next];
            visits.note(name, visit(self, decisions));
        }
        visits
    }

    fn ask_for_health(&self) -> Visits {
        let mut visits = Visits::default();
        while self.wait(ASK_EVERY) {
            let asked = Instant::now();
            let answer = self.request(ASKING_HOST, "GET", "/health", None);
            let took_ms = asked.elapsed().as_secs_f64() * 1e3;
            visits.health_asked += 1;
            visits.slowest_health_ms = visits.slowest_health_ms.max(took_ms);
            match answer {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => visits.findings.push(format!("health: {answer:?}")),
                Err(error) => visits.findings.push(format!("health: {error}")),
            }
        }
        visits
    }

    /// Whether they go on after a pause.
    fn wait(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while self.going.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            // Their own pace, not a wait for something.
            thread::sleep(left.min(Duration::from_millis(50)));
        }
        false
    }

    fn connect(&self, decisions: &mut fastrand::Rng) -> Result<Visitor<'_>, String> {
        let host = FIRST_HOST + decisions.u8(..HOSTS);
        Visitor::connect(self, host, ReceiveBuffer::Small)
    }

    /// One request with its whole answer.
    fn request(
        &self,
        host: u8,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer, String> {
        let visitor = Visitor::connect(self, host, ReceiveBuffer::Ordinary)?;
        let stream = visitor.stream.try_clone().map_err(|e| e.to_string())?;
        begin(stream, method, path, body)
            .and_then(|begun| begun.into_answer())
            .map_err(|error| format!("{method} {path}: {error}"))
    }
}

/// A connection that is counted while it is open.
struct Visitor<'a> {
    stream: TcpStream,
    open: &'a AtomicUsize,
}

impl<'a> Visitor<'a> {
    fn connect(to: &Strangers<'a>, host: u8, buffer: ReceiveBuffer) -> Result<Self, String> {
        to.open.fetch_add(1, Ordering::Relaxed);
        match connect_from(host, to.address, buffer) {
            Ok(stream) => Ok(Self {
                stream,
                open: to.open,
            }),
            Err(error) => {
                to.open.fetch_sub(1, Ordering::Relaxed);
                Err(format!("connecting: {error}"))
            }
        }
    }
}

impl Drop for Visitor<'_> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What every refusal must be: typed, in JSON, and not a failure of the daemon's own.
fn is_typed_refusal(answer: &Answer) -> Visit {
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let code = body["error"]["code"].as_str().unwrap_or_default();
    if answer.status >= 400 && !code.is_empty() && code != "internal_error" {
        return Ok(());
    }
    let start: String = answer.body.chars().take(200).collect();
    Err(format!("status {} with {start:?}", answer.status))
}
