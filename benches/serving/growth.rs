//! How time per token and memory grow with contexts, slots and queues. A model on the CPU with 1 to 16 slots
//! makes answers in all of them at the same time, behind prompts that fill three quarters of what each slot
//! may hold of the pool; on the fake runtime so many requests wait for one slot. What does not fit into the
//! part's time is left out, and said.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon_support::{Daemon, EventStream, Setup, completion, resident_bytes, send};
use crate::report::{Report, rounded};

const MODEL: &str = "m";
const CONTEXTS: [u32; 3] = [512, 2048, 8192];
const SLOTS: [u32; 4] = [1, 4, 8, 16];
const QUEUES: [usize; 4] = [1, 10, 100, 1000];
const TOKENS: u32 = 32;
/// Contexts that all slots have room for together (`models.pool-contexts`), unless each would have less than
/// this many tokens.
const POOL_CONTEXTS: u32 = 2;
const LEAST_TOKENS_A_SLOT: u32 = 256;
/// No row begins later.
const SPAN: Duration = Duration::from_secs(240);
const MIB: f64 = (1 << 20) as f64;

pub fn measure(report: &mut Report) {
    let began = Instant::now();
    report.section(
        "contexts_and_slots",
        "the demo model: contexts, slots, time of a step's token, memory of the worker",
    );
    report.note(
        "context  slots  prompt tokens each  first token  ms a token and stream  tokens/s  MiB",
    );
    for context in CONTEXTS {
        for slots in SLOTS {
            if began.elapsed() > SPAN {
                report.note(format!(
                    "{context} x {slots}: left out, the part's time is over"
                ));
                continue;
            }
            let row = Row::measure(context, slots);
            report.note(format!(
                "{context:>7}  {slots:>5}  {:>18}  {:>9.0}ms  {:>21.1}  {:>8.0}  {:>3.0}",
                row.prompt_tokens,
                row.first_token_ms,
                row.token_ms,
                row.tokens_per_second,
                row.worker_mib
            ));
            report.detail(&format!("context_{context}_slots_{slots}"), row.json());
        }
    }
    report.section(
        "queues",
        "the fake runtime: requests that wait for one slot, time of each, memory of the daemon",
    );
    report.note("queued  us a request  KiB of the daemon a request");
    let queues = QUEUES.map(|queued| (queued, queue(queued)));
    for (queued, (us, kib)) in queues {
        report.note(format!("{queued:>6}  {us:>12.0}  {kib:>27.1}"));
        let figures = json!({"us_a_request": rounded(us), "daemon_kib_a_request": rounded(kib)});
        report.detail(&format!("queue_{queued}"), figures);
    }
}

struct Row {
    prompt_tokens: u32,
    first_token_ms: f64,
    token_ms: f64,
    tokens_per_second: f64,
    worker_mib: f64,
}

impl Row {
    fn measure(context: u32, slots: u32) -> Self {
        let manifest = format!("context-length = {context}\nparallel = {slots}\n");
        let contexts = (slots * LEAST_TOKENS_A_SLOT)
            .div_ceil(context)
            .max(POOL_CONTEXTS);
        let daemon = Setup::new()
            .settings(&format!(
                "models.pool-contexts = {contexts}\nprefixes.limit-bytes = 0\n"
            ))
            .demo_model(MODEL)
            .all_threads()
            .model_file(MODEL, "model.toml", &manifest)
            .start();
        let answer = daemon.post(
            "/v1/completions",
            &completion(MODEL, "load", json!({"max_tokens": 1})),
        );
        assert_eq!(answer.status, 200, "{}", answer.body);
        let share = (context * contexts / slots).min(context);
        let words = share / 4 * 3 - TOKENS;
        let began = Instant::now();
        let streams: Vec<Streamed> = thread::scope(|scope| {
            let readers = (0..slots).map(|slot| {
                let daemon = &daemon;
                scope.spawn(move || Streamed::read(daemon, slot, words))
            });
            let readers: Vec<_> = readers.collect();
            let streams = readers.into_iter().map(|it| it.join().expect("a stream"));
            streams.collect()
        });
        let mean =
            |of: fn(&Streamed) -> f64| streams.iter().map(of).sum::<f64>() / streams.len() as f64;
        let made: u32 = streams.iter().map(|it| it.tokens).sum();
        Self {
            prompt_tokens: streams[0].prompt_tokens,
            first_token_ms: mean(|it| it.first.as_secs_f64() * 1e3),
            token_ms: mean(|it| it.rest.as_secs_f64() * 1e3 / f64::from((it.tokens - 1).max(1))),
            tokens_per_second: f64::from(made) / began.elapsed().as_secs_f64(),
            worker_mib: resident_bytes(daemon.worker_pid()) as f64 / MIB,
        }
    }

    fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "first_token_ms": rounded(self.first_token_ms),
            "token_ms": rounded(self.token_ms),
            "tokens_per_second": rounded(self.tokens_per_second),
            "worker_mib": rounded(self.worker_mib),
        })
    }
}

struct Streamed {
    first: Duration,
    /// From the first token to the last.
    rest: Duration,
    tokens: u32,
    prompt_tokens: u32,
}

impl Streamed {
    /// Of a prompt that begins like no other, a token a word.
    fn read(daemon: &Daemon, slot: u32, words: u32) -> Self {
        let prompt = format!("{slot}{}", " the".repeat(words as usize));
        let values = json!({
            "stream": true, "max_tokens": TOKENS, "temperature": 0,
            "stream_options": {"include_usage": true},
        });
        let asked = Instant::now();
        let body = completion(MODEL, &prompt, values);
        let mut stream = EventStream::open(daemon.address, "/v1/completions", &body);
        assert_eq!(stream.status, 200);
        let (mut first, mut last, mut usage) = (None, asked, Value::Null);
        while let Some(data) = stream.next_data().filter(|data| data != "[DONE]") {
            let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
            if chunk["choices"][0]["text"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
            {
                last = Instant::now();
                first.get_or_insert(last);
            }
            if !chunk["usage"].is_null() {
                usage = chunk["usage"].clone();
            }
        }
        let count = |name: &str| usage[name].as_u64().expect("usage") as u32;
        let first = first.expect("an answer has text");
        Self {
            first: first - asked,
            rest: last - first,
            tokens: count("completion_tokens"),
            prompt_tokens: count("prompt_tokens"),
        }
    }
}

/// Microseconds of each of so many requests that wait for one slot, and KiB that the daemon has more for each
/// while they do.
fn queue(queued: usize) -> (f64, f64) {
    let hold = "[[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"hold\"\nkind = \"wait\"\ntext = \"go\"\n";
    let daemon = Setup::new()
        .settings("queue.capacity = 1100\nhttp.max-connections = 1200\nhttp.max-connections-per-address = 1200\n")
        .scenario(MODEL, &format!("tokens = [\"tok\"]\n{hold}"))
        .start();
    let ask = |prompt: &str| {
        let mut stream =
            TcpStream::connect(daemon.address).expect("the daemon accepts connections");
        let body = completion(MODEL, prompt, json!({"max_tokens": 1}));
        send(&mut stream, "POST", "/v1/completions", Some(&body)).expect("the request is taken");
        stream
    };
    let waiting = |wanted: usize| {
        let until = Instant::now() + Duration::from_secs(60);
        let line = format!("rkllmd_queue_length{{model=\"{MODEL}\"}} {wanted}");
        while !daemon.get("/metrics").body.contains(&line) {
            assert!(Instant::now() < until, "{wanted} requests do not wait");
            thread::sleep(Duration::from_millis(2));
        }
    };
    let answer = daemon.post(
        "/v1/completions",
        &completion(MODEL, "load", json!({"max_tokens": 1})),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut streams = vec![ask("hold")];
    waiting(0);
    let before = resident_bytes(daemon.pid());
    streams.extend((0..queued).map(|_| ask("next")));
    waiting(queued);
    let more = resident_bytes(daemon.pid()).saturating_sub(before);
    let began = Instant::now();
    std::fs::write(daemon.folder().join("models/m/go"), "").expect("a file");
    for mut stream in streams {
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let us = began.elapsed().as_secs_f64() * 1e6 / queued as f64;
    (us, more as f64 / 1024.0 / queued as f64)
}
