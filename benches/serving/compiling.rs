//! What compiling formats costs others: a stream of the demo model while costly schemas, each another one, are
//! compiled for another model, whose tokens cost next to nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Map, Value, json};

use crate::beside_a_stream::{MODEL, Pairs, gaps};
use crate::daemon_support::{Daemon, Setup, chat, write_tiny_models};
use crate::report::Report;

const TINY: &str = "tiny";
/// How schemas that cost too much are refused.
const REFUSALS: [&str; 3] = [
    "schema_too_complex",
    "format_not_kept",
    "unsupported_schema",
];

pub fn measure(report: &mut Report) {
    report.section(
        "compiling",
        "a stream of the demo model beside costly schemas of another model, in turns",
    );
    let setup = Setup::new()
        .demo_model(MODEL)
        .all_threads()
        // The one must not have to go for the other.
        .settings("models.max-loaded = 2")
        .settings("constraints.show-format = false")
        .settings("constraints.schema-limit-bytes = 4000000")
        .model_file(TINY, "model.toml", "template = \"chatml\"\n");
    write_tiny_models(&[(setup.models().join(TINY).join("model.gguf"), Vec::new())]);
    let daemon = setup.start();
    // Loads both models; its schema does not come again.
    let asked = AtomicUsize::new(0);
    ask(&daemon, &asked);
    gaps(&daemon);
    let before = asked.load(Ordering::Relaxed);
    let pairs = Pairs::measure(&daemon, |_| gaps_beside_schemas(&daemon, &asked));
    report.figure(
        "schemas",
        "schemas that were asked for beside five streams",
        (asked.into_inner() - before) as f64,
        "",
    );
    pairs.promise(
        report,
        [
            "median beside schemas / without, median of 5 pairs",
            "p99 beside schemas / without, median of 5 pairs",
        ],
    );
}

/// Another one each time, so that none is kept from before.
fn costly(number: usize) -> Value {
    match number % 3 {
        0 => {
            let properties: Map<String, Value> = (0..10_000)
                .map(|n| (format!("p{number}_{n}"), json!({"type": "integer"})))
                .collect();
            json!({"type": "object", "properties": properties})
        }
        1 => {
            let words = (0..50_000).map(|n| format!("word {number} {n}"));
            json!({"enum": words.collect::<Vec<_>>()})
        }
        _ => {
            let pattern = format!("^(({number}a{{1,500}}){{1,500}}){{1,500}}$");
            json!({"type": "string", "pattern": pattern})
        }
    }
}

fn ask(daemon: &Daemon, asked: &AtomicUsize) {
    let schema = costly(asked.fetch_add(1, Ordering::Relaxed));
    let format = json!({"type": "json_schema",
        "json_schema": {"name": "answer", "strict": true, "schema": schema}});
    let more = json!({"max_tokens": 1, "response_format": format});
    let answer = daemon.post("/v1/chat/completions", &chat(TINY, "Go.", more));
    let code = answer.json()["error"]["code"].clone();
    let is_refused = REFUSALS.iter().any(|refusal| code == *refusal);
    assert!(answer.status == 200 || is_refused, "{}", answer.body);
}

/// Ends who asks, however the stream ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn gaps_beside_schemas(daemon: &Daemon, asked: &AtomicUsize) -> Vec<f64> {
    let is_over = AtomicBool::new(false);
    let before = asked.load(Ordering::Relaxed);
    let gaps = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                ask(daemon, asked);
            }
        });
        let _over = Over(&is_over);
        gaps(daemon)
    });
    assert!(asked.load(Ordering::Relaxed) > before, "none was asked for");
    gaps
}
