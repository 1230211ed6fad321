//! A tensor of 100 MB on its way: from process to process as the worker hands it to the daemon, and
//! from the library to a client on the Unix socket, in base64. The same bytes copied inside one
//! process and written through a socketpair are the measure of both, in turns in the same run. All
//! of these end with the whole tensor in memory that was allocated for it.

use std::io::Read;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cpu_time::Watch;
use crate::daemon_support::Setup;
use crate::report::Report;
use crate::rpc_support::Client;
use crate::rpc_support::served::{Served, run_params};
use crate::statistics::median;
use crate::tensor_worker::{TensorWorker, tensor};

const MODEL: &str = "m";
const ROWS: usize = 500;
const COLUMNS: usize = 50_000;
const BYTES: usize = ROWS * COLUMNS * size_of::<f32>();
const ROUNDS: usize = 7;
const READ_BYTES: usize = 1024 * 1024;

/// Seconds that each way took, round by round, and what `served` used of the CPUs.
#[derive(Default)]
struct Seconds {
    copy: Vec<f64>,
    socket: Vec<f64>,
    memory_file: Vec<f64>,
    /// From the library to the client, all rows.
    served: Vec<f64>,
    /// The same run, of which one row is handed over.
    served_one_row: Vec<f64>,
    daemon_cpu: Vec<f64>,
    worker_cpu: Vec<f64>,
}

pub fn measure(report: &mut Report) {
    report.section(
        "tensor",
        "hidden states of 100 MB, from worker to daemon and on to a client, in turns",
    );
    let source = tensor([ROWS, COLUMNS]);
    let mut worker = TensorWorker::start([ROWS, COLUMNS]);
    let mut reader = Reader::start();
    let mut seconds = Seconds::default();
    // The first round is the one that warms up.
    for round in 0..=ROUNDS {
        if round == 1 {
            seconds = Seconds::default();
        }
        seconds.between_processes(&source, &mut worker);
        seconds.reach_a_client(&source, &mut reader);
    }
    summarise(report, &seconds);
}

impl Seconds {
    fn between_processes(&mut self, source: &[f32], worker: &mut TensorWorker) {
        assert!(timed(&mut self.copy, || source.to_vec()) == source);
        assert!(timed(&mut self.socket, || worker.by_socket()) == source);
        assert!(timed(&mut self.memory_file, || worker.by_memory_file()) == source);
    }

    fn reach_a_client(&mut self, source: &[f32], reader: &mut Reader) {
        let watch = Watch::start(&reader.served.daemon);
        let all = timed(&mut self.served, || reader.answer("all"));
        let usage = watch.stop();
        self.daemon_cpu.push(usage.daemon_s);
        self.worker_cpu.push(usage.workers_s);
        assert!(values(&all) == source);
        drop(all);
        let one_row = timed(&mut self.served_one_row, || reader.answer("last"));
        assert!(values(&one_row) == source[source.len() - COLUMNS..]);
    }
}

/// Adds what the work took to `seconds`.
fn timed<T>(seconds: &mut Vec<f64>, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    seconds.push(begun.elapsed().as_secs_f64());
    done
}

/// A client on the Unix socket that takes the bytes of an answer and looks at them later.
struct Reader {
    client: Client,
    handle: String,
    prompt: String,
    served: Served,
}

impl Reader {
    fn start() -> Self {
        let scenario = format!("tokens = [\"a\"]\nembedding-size = {COLUMNS}\n");
        let served = Served::start(Setup::new().scenario(MODEL, &scenario));
        let mut client = served.unix();
        let handle = client.init(MODEL, json!({}));
        let template = json!([handle, "", "", ""]);
        let set = client.call("rkllm.set_chat_template", template);
        set.unwrap_or_else(|failure| panic!("set_chat_template: {failure:?}"));
        Self {
            client,
            handle,
            // As many tokens, and so rows, as words.
            prompt: "word ".repeat(ROWS),
            served,
        }
    }

    /// The line that answers a run for hidden states.
    fn answer(&mut self, rows: &str) -> Vec<u8> {
        let extra = json!({
            "rkllm_infer_params": {"mode": "RKLLM_INFER_GET_LAST_HIDDEN_LAYER"},
            "rows": rows,
            "stream": false,
        });
        let params = run_params(&self.handle, &self.prompt, extra);
        self.client.send("rkllm.run", params);
        let socket = self.client.unix();
        let mut line = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        while line.last() != Some(&b'\n') {
            let count = socket.read(&mut buffer).expect("the answer");
            assert_ne!(count, 0, "the answer is cut off");
            line.extend_from_slice(&buffer[..count]);
        }
        line
    }
}

/// What an answer's tensor holds.
fn values(answer: &[u8]) -> Vec<f32> {
    let answer: Value = serde_json::from_slice(answer).expect("a line of JSON");
    let data = &answer["result"]["results"][0]["last_hidden_layer"]["data"];
    let bytes = STANDARD.decode(data.as_str().expect("a tensor"));
    let (floats, rest) = bytes.as_ref().expect("base64").as_chunks();
    assert!(rest.is_empty());
    floats
        .iter()
        .map(|four| f32::from_le_bytes(*four))
        .collect()
}

fn summarise(report: &mut Report, seconds: &Seconds) {
    let rate = |times: &[f64]| BYTES as f64 / 1e6 / median(times.iter().copied());
    let mut figure = |key, label, times: &[f64]| report.figure(key, label, rate(times), "MB/s");
    figure("copy_mb_per_s", "copied inside one process", &seconds.copy);
    figure(
        "socket_mb_per_s",
        "written through a socketpair",
        &seconds.socket,
    );
    figure(
        "ipc_mb_per_s",
        "worker to daemon (memory file)",
        &seconds.memory_file,
    );
    figure(
        "client_mb_per_s",
        "library to client, whole run",
        &seconds.served,
    );
    let without_library: Vec<f64> = (seconds.served.iter().zip(&seconds.served_one_row))
        .map(|(all, one)| all - one)
        .collect();
    figure(
        "client_without_run_mb_per_s",
        "the same less a run that hands over one row",
        &without_library,
    );
    summarise_ratios(report, seconds);
    summarise_cpu(report, seconds);
}

fn summarise_ratios(report: &mut Report, seconds: &Seconds) {
    let ratio = |times: &[f64], of: &[f64]| median(times.iter().zip(of).map(|(t, of)| of / t));
    report.figure(
        "ipc_of_copy",
        "memory file / copy, median of the rounds",
        ratio(&seconds.memory_file, &seconds.copy),
        "",
    );
    report.figure(
        "ipc_of_socket",
        "memory file / socketpair, median of the rounds",
        ratio(&seconds.memory_file, &seconds.socket),
        "",
    );
    report.figure(
        "client_of_socket",
        "library to client / socketpair, likewise",
        ratio(&seconds.served, &seconds.socket),
        "",
    );
    report.detail("bytes", json!(BYTES));
}

fn summarise_cpu(report: &mut Report, seconds: &Seconds) {
    let mean_ms = |cpu: &[f64]| cpu.iter().sum::<f64>() * 1e3 / cpu.len() as f64;
    report.figure(
        "client_daemon_cpu_ms",
        "CPU of the daemon for a tensor to a client",
        mean_ms(&seconds.daemon_cpu),
        "ms",
    );
    report.figure(
        "client_worker_cpu_ms",
        "CPU of the worker, the fake library included",
        mean_ms(&seconds.worker_cpu),
        "ms",
    );
}
