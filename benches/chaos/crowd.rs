//! Many clients at once, each deciding by itself: what it asks for, how it reads, and whether it
//! leaves. They share the daemon with bursts beyond its queue, with readers that stop reading, and with the handles
//! of a client of JSON-RPC.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Ask, Endpoint, Extent, Leaving, Wanted, broken};
use crate::daemon_support::{begin, completion};
use crate::handles::Handle;
use crate::outcome::{Ended, Fault, Served, Tally};
use crate::plan::Plan;
use crate::scenario::{Answer, FLOOD, MODELS};
use crate::source_address::{ReceiveBuffer, connect_from};

const CLIENTS: usize = 24;
/// The clients' addresses: 127.0.0.11 and so on.
const FIRST_HOST: u8 = 11;
const HOSTS: usize = 6;
const BURST_HOST: u8 = 100;
const SLOW_HOST: u8 = 101;
const HANDLES_HOST: u8 = 103;
/// As many as a client may have.
const HANDLES: usize = 4;
/// More than the queue of a model holds.
pub const BURST: usize = 24;
const BURST_EVERY: Duration = Duration::from_secs(5);
const SLOW_READER_EVERY: Duration = Duration::from_secs(7);
/// Events that a slow reader reads before it stops.
const READ_BEFORE_STOPPING: usize = 20;
const POLL: Duration = Duration::from_millis(50);

pub struct Crowd<'a> {
    pub address: SocketAddr,
    pub plan: Plan,
    /// Tells the decisions of one crowd from those of another.
    pub name: &'a str,
    /// By model, in the order of [`MODELS`].
    pub answers: &'a [Vec<Answer>],
    /// How long the daemon lets a client not read.
    pub slow_reader_timeout: Duration,
    /// Connections that clients have open now.
    pub open: &'a AtomicUsize,
    /// The crowd goes home when this is false.
    pub going: &'a AtomicBool,
    /// Whether prompts that end workers are among the others.
    pub poison: bool,
}

impl Crowd<'_> {
    /// Runs until `going` is false and each client has got an end.
    pub fn run(&self) -> Tally {
        let all = Mutex::new(Tally::default());
        thread::scope(|scope| {
            let mut tasks: Vec<Box<dyn FnOnce() -> Tally + Send + '_>> = Vec::new();
            for number in 0..CLIENTS {
                tasks.push(Box::new(move || self.client(number)));
            }
            for number in 0..HANDLES {
                tasks.push(Box::new(move || self.handle(number)));
            }
            tasks.push(Box::new(|| self.bursts()));
            tasks.push(Box::new(|| self.slow_readers()));
            for task in tasks {
                let all = &all;
                scope.spawn(move || {
                    let tally = task();
                    all.lock().expect("no client panics").merge(tally);
                });
            }
        });
        all.into_inner().expect("no client panics")
    }

    fn client(&self, number: usize) -> Tally {
        let mut decisions = self.plan.decisions((self.name, "client", number));
        let mut tally = Tally::default();
        while self.going.load(Ordering::Relaxed) {
            // The client's own pace, not a wait for something.
            thread::sleep(Duration::from_millis(decisions.u64(..60)));
            let ask = self.decide(&mut decisions, number);
            self.ask(&ask, &mut tally);
        }
        tally
    }

    fn ask(&self, ask: &Ask<'_>, tally: &mut Tally) {
        tally.started += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        let served = ask.run();
        self.open.fetch_sub(1, Ordering::Relaxed);
        tally.served.push(served);
    }

    fn decide<'a>(&'a self, decisions: &mut fastrand::Rng, number: usize) -> Ask<'a> {
        // Each client has a model it prefers, so that each model has a crowd of its own.
        let model = if decisions.u8(..4) > 0 {
            number % MODELS.len()
        } else {
            decisions.usize(..MODELS.len())
        };
        let answer = &self.answers[model][decisions.usize(..self.answers[model].len())];
        let extent = match decisions.u8(..10) {
            0 if answer.cut(1).is_some() => Extent::Budget(1 + decisions.usize(..answer.tokens())),
            1..=3 if answer.stop_at.is_some() => Extent::Stop,
            _ => Extent::Whole,
        };
        let streamed = decisions.u8(..3) > 0;
        let leaving = match decisions.u8(..100) {
            0..8 if streamed => Leaving::AfterChunks(1 + decisions.usize(..answer.tokens())),
            8..11 => Leaving::AfterTime(Duration::from_millis(decisions.u64(..400))),
            _ => Leaving::Never,
        };
        let poison = decisions.u16(..100) == 0 && self.poison;
        Ask {
            address: self.address,
            host: FIRST_HOST + (number % HOSTS) as u8,
            model: MODELS[model].id,
            wanted: if poison {
                Wanted::Poison
            } else {
                Wanted::Answer(answer, extent)
            },
            endpoint: if decisions.u8(..4) == 0 {
                Endpoint::Completion
            } else {
                Endpoint::Chat
            },
            streamed,
            leaving: if poison { Leaving::Never } else { leaving },
            pause: Duration::from_micros(match decisions.u8(..20) {
                0 => 10_000,
                _ => 0,
            }),
        }
    }

    fn handle(&self, number: usize) -> Tally {
        let mut decisions = self.plan.decisions((self.name, "handle", number));
        let mut tally = Tally::default();
        let model = number % MODELS.len();
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut handle = Handle::connect(self.address, HANDLES_HOST, MODELS[model].id);
        while self.going.load(Ordering::Relaxed) {
            // The client's own pace, not a wait for something.
            thread::sleep(Duration::from_millis(decisions.u64(..400)));
            let answer = &self.answers[model][decisions.usize(..self.answers[model].len())];
            let streamed = decisions.bool();
            tally.started += 1;
            let served = match &mut handle {
                Ok(handle) => handle.run(answer, streamed),
                Err(error) => Served::unseen(streamed, broken(error)),
            };
            let is_over = matches!(served.ended, Ended::Finding(Fault::Broken | Fault::Hung, _));
            tally.served.push(served);
            if is_over {
                break;
            }
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        tally
    }

    fn bursts(&self) -> Tally {
        let mut decisions = self.plan.decisions((self.name, "bursts"));
        let all = Mutex::new(Tally::default());
        while self.wait(BURST_EVERY) {
            let model = decisions.usize(..MODELS.len());
            thread::scope(|scope| {
                for number in 0..BURST {
                    let all = &all;
                    scope.spawn(move || {
                        let ask = Ask {
                            address: self.address,
                            host: BURST_HOST,
                            model: MODELS[model].id,
                            // Short ones.
                            wanted: Wanted::Answer(
                                &self.answers[model][3 * (number % 8)],
                                Extent::Whole,
                            ),
                            endpoint: Endpoint::Chat,
                            streamed: number % 2 == 0,
                            leaving: Leaving::Never,
                            pause: Duration::ZERO,
                        };
                        let mut tally = Tally::default();
                        self.ask(&ask, &mut tally);
                        all.lock().expect("no client panics").merge(tally);
                    });
                }
            });
        }
        all.into_inner().expect("no client panics")
    }

    fn slow_readers(&self) -> Tally {
        let mut tally = Tally::default();
        while self.wait(SLOW_READER_EVERY) {
            tally.started += 1;
            self.open.fetch_add(1, Ordering::Relaxed);
            let served = self.stop_reading();
            self.open.fetch_sub(1, Ordering::Relaxed);
            tally.served.push(served);
        }
        tally
    }

    /// Waits; `false` when the crowd goes home first.
    fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while self.going.load(Ordering::Relaxed) {
            if Instant::now() >= until {
                return true;
            }
            thread::sleep(POLL);
        }
        false
    }

    fn stop_reading(&self) -> Served {
        let mut id = None;
        let ended = self
            .read_then_stop(&mut id)
            .unwrap_or_else(|error| Ended::Finding(Fault::Broken, error.to_string()));
        Served {
            id,
            ..Served::unseen(true, ended)
        }
    }

    /// Asks for more than every buffer holds, reads a little, and looks again when the daemon must
    /// have given it up.
    fn read_then_stop(&self, id: &mut Option<String>) -> io::Result<Ended> {
        let stream = connect_from(SLOW_HOST, self.address, ReceiveBuffer::Small)?;
        let body = completion(
            FLOOD,
            "flood me",
            json!({"stream": true, "max_tokens": 1_000_000}),
        );
        let begun = begin(stream, "POST", "/v1/completions", Some(&body))?;
        if begun.status != 200 {
            let answer = begun.into_answer()?;
            return Ok(of_error(&answer.body));
        }
        let mut events = begun.into_events();
        let mut count = 0;
        while let Some(data) = events.try_next_data()? {
            let Ok(chunk) = serde_json::from_str::<Value>(&data) else {
                return Ok(Ended::Finding(Fault::Broken, data));
            };
            if chunk["error"].is_object() {
                return Ok(of_error(&data));
            }
            if id.is_none() {
                *id = chunk["id"].as_str().map(str::to_owned);
            }
            let text = chunk["choices"][0]["text"].as_str().unwrap_or_default();
            if !text.is_empty() && text != "flood " {
                return Ok(Ended::Finding(Fault::Wrong, data));
            }
            count += 1;
            if count == READ_BEFORE_STOPPING {
                // Long enough for the daemon to notice, whatever fills first.
                thread::sleep(2 * self.slow_reader_timeout);
            }
        }
        Ok(Ended::Finding(
            Fault::Broken,
            format!("no end after {count} events"),
        ))
    }
}

fn of_error(body: &str) -> Ended {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    match value["error"]["code"].as_str().unwrap_or_default() {
        "slow_reader" => Ended::SlowReader,
        "queue_full" => Ended::OverCapacity,
        code => Ended::of_error(code, body),
    }
}
