//! A client of Ollama's API beside the crowd, by whose requests models come and go: questions with every
//! kind of `keep_alive`, and unloads of models that others use. Its answers are known to the byte, too.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon_support::{Answer as HttpAnswer, begin};
use crate::outcome::Ended;
use crate::scenario::{Answer, MODELS};
use crate::source_address::{ReceiveBuffer, connect_from};

/// Not one of the crowd's.
const HOST: u8 = 250;
/// Longer is no unload waited for: its wish stays.
const PATIENCE: Duration = Duration::from_secs(2);
/// As long as the slow model takes for its longest answer, and a restart.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

pub struct Comings<'a> {
    pub address: SocketAddr,
    pub answers: &'a [Vec<Answer>],
    pub going: &'a AtomicBool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Came {
    pub answered: usize,
    pub refused: usize,
    pub unloaded: usize,
    /// Unloads that were left to the daemon.
    pub left: usize,
    pub findings: Vec<String>,
}

impl Came {
    pub fn merge(&mut self, other: &Self) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.unloaded += other.unloaded;
        self.left += other.left;
        self.findings.extend_from_slice(&other.findings);
    }
}

impl Comings<'_> {
    pub fn run(&self, mut decisions: fastrand::Rng) -> Came {
        let mut came = Came::default();
        while self.going.load(Ordering::Relaxed) {
            let model = decisions.usize(..MODELS.len());
            match decisions.u8(..4) {
                0 => self.unload(model, &mut came),
                1 => self.look(&mut came),
                _ => {
                    let keep_alive = [json!(0), json!("10ms"), json!("1s"), json!(-1), json!(null)];
                    let keep_alive = &keep_alive[decisions.usize(..keep_alive.len())];
                    let answer = decisions.usize(..self.answers[model].len());
                    self.question((model, answer), keep_alive, &mut came);
                }
            }
        }
        came
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>, limit: Duration) -> Asked {
        let exchange = || {
            let stream = connect_from(HOST, self.address, ReceiveBuffer::Ordinary)?;
            let watched = stream.try_clone()?;
            let begun = begin(stream, method, path, body);
            watched.set_read_timeout(Some(limit))?;
            begun?.into_answer()
        };
        match exchange() {
            Ok(answer) => Asked::Answer(answer),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Asked::Nothing
            }
            Err(error) => Asked::Broken(error.to_string()),
        }
    }

    fn question(&self, (model, answer): (usize, usize), keep_alive: &Value, came: &mut Came) {
        let (id, expected) = (MODELS[model].id, &self.answers[model][answer]);
        let body = json!({"model": id, "prompt": expected.prompt, "stream": false,
            "keep_alive": keep_alive, "options": {"num_predict": 2000}});
        match self.ask("POST", "/api/generate", Some(&body), ANSWER_LIMIT) {
            Asked::Answer(answer) if answer.status == 200 => {
                came.answered += 1;
                let said = answer.json()["response"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                if said != expected.text {
                    came.findings
                        .push(format!("{id} said {said:?} with keep_alive {keep_alive}"));
                }
            }
            other => came.refused(other),
        }
    }

    fn unload(&self, model: usize, came: &mut Came) {
        let id = MODELS[model].id;
        let body = json!({"model": id, "keep_alive": 0});
        match self.ask("POST", "/api/generate", Some(&body), PATIENCE) {
            Asked::Answer(answer) if answer.status == 200 => {
                match answer.json()["done_reason"].as_str() {
                    Some("unload") => came.unloaded += 1,
                    other => came
                        .findings
                        .push(format!("{id} was not unloaded: {other:?}")),
                }
            }
            Asked::Nothing => came.left += 1,
            other => came.refused(other),
        }
    }

    fn look(&self, came: &mut Came) {
        match self.ask("GET", "/api/ps", None, ANSWER_LIMIT) {
            Asked::Answer(answer) if answer.status == 200 => {
                let running = answer.json();
                let all = running["models"].as_array().cloned().unwrap_or_default();
                let is_time = |model: &Value| {
                    let expires = model["expires_at"].as_str().unwrap_or_default();
                    expires.parse::<jiff::Timestamp>().is_ok()
                };
                if !all.iter().all(is_time) {
                    came.findings.push(format!("what is loaded: {running}"));
                }
            }
            other => came.refused(other),
        }
    }
}

enum Asked {
    Answer(HttpAnswer),
    /// Nothing came in time.
    Nothing,
    Broken(String),
}

impl Came {
    /// Injuries are told in the dialect's own errors.
    fn refused(&mut self, asked: Asked) {
        self.refused += 1;
        let finding = match asked {
            Asked::Answer(answer) => {
                let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                let code = body["code"].as_str().unwrap_or_default();
                match Ended::of_error(code, &answer.body) {
                    _ if code == "queue_full" => return,
                    Ended::Finding(..) => format!("untyped: {}", answer.body),
                    _ => return,
                }
            }
            Asked::Nothing => "no answer came in time".to_owned(),
            Asked::Broken(error) => format!("the connection broke: {error}"),
        };
        self.findings.push(finding);
    }
}
