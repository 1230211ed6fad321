//! The real model on the CPU runtime: its worker is killed in the middle of a greedy answer, and the
//! answer must be the text that the killed worker had made plus exactly what the C program, a new
//! process each time, makes of the rendered prompt and that text.

use serde_json::{Value, json};

use crate::bare_loop::BareLoop;
use crate::daemon_support::{Daemon, Setup, chat, completion, eventually, kill};
use crate::log_watch::{LogWatch, Resumption};
use crate::plan::Plan;
use crate::report::{Report, Target};

const MODEL: &str = "demo";
const TOKENS: u32 = 96;
const QUESTIONS: [&str; 2] = ["Why is the sky blue?", "How is bread baked?"];
const BEGINNINGS: [&str; 2] = [
    "Once upon a time there was a small village by the sea, where an old man",
    "The history of the Roman Empire begins with the founding of the city, when",
];

/// An answer that was begun by a worker that was killed.
struct Broken {
    rendered: String,
    text: String,
    id: String,
    resumptions: u64,
    /// Bytes at the reader when the worker was killed.
    received: usize,
}

pub fn measure(report: &mut Report, plan: Plan) {
    report.section(
        "real_model",
        "5. the real model: its worker is killed in the middle of a greedy answer",
    );
    let daemon = Setup::new()
        .demo_model(MODEL)
        .all_threads()
        .model_file(MODEL, "model.toml", "template = \"chatml\"\n")
        .settings("log.filter = \"info,rkllmd=debug\"")
        .start();
    let log = LogWatch::new(daemon.log.clone());
    let mut decisions = plan.decisions("real model");
    let mut answers = Vec::new();
    for question in QUESTIONS {
        let body = chat(MODEL, question, greedy());
        let rendered = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
        answers.push((rendered, "/v1/chat/completions", body));
    }
    for beginning in BEGINNINGS {
        let body = completion(MODEL, beginning, greedy());
        answers.push((beginning.to_owned(), "/v1/completions", body));
    }
    let count = answers.len();
    let mut same = 0;
    for (rendered, path, body) in answers {
        let chunks = decisions.usize(4..60);
        let broken = kill_in_answer(&daemon, rendered, (path, &body), chunks);
        match continued(&log, &broken) {
            Ok(()) => same += 1,
            Err(why) => report.note(why),
        }
    }
    report.figure("answers", "answers with a killed worker", count as f64, "");
    report.promise(
        "differing",
        "that are not what the C program makes of it",
        ((count - same) as f64, ""),
        Target::AtMost(0.0),
    );
}

fn greedy() -> Value {
    json!({"stream": true, "temperature": 0, "repeat_penalty": 1.0, "max_tokens": TOKENS})
}

fn kill_in_answer(
    daemon: &Daemon,
    rendered: String,
    (path, body): (&str, &Value),
    chunks: usize,
) -> Broken {
    let mut broken = Broken {
        rendered,
        text: String::new(),
        id: String::new(),
        resumptions: 0,
        received: 0,
    };
    let mut events = daemon.stream(path, body);
    assert_eq!(events.status, 200);
    let mut seen = 0;
    while let Some(data) = events.next_data().filter(|data| data != "[DONE]") {
        let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
        assert!(chunk["error"].is_null(), "{chunk}");
        let choice = &chunk["choices"][0];
        let text = choice["delta"]["content"].as_str();
        broken.text += text.or(choice["text"].as_str()).unwrap_or_default();
        broken.id = chunk["id"].as_str().unwrap_or_default().to_owned();
        let resumptions = chunk["timings"]["resumptions"].as_u64();
        broken.resumptions = resumptions.unwrap_or(broken.resumptions);
        seen += 1;
        if seen == chunks {
            broken.received = broken.text.len();
            kill(daemon.worker_pid());
        }
    }
    broken
}

fn continued(log: &LogWatch, broken: &Broken) -> Result<(), String> {
    let Broken { text, received, .. } = broken;
    if broken.resumptions != 1 {
        return Err(format!("{} resumptions of {text:?}", broken.resumptions));
    }
    let Resumption {
        tokens, text_bytes, ..
    } = eventually("the line of the resumption", || {
        let lines = log.resumptions();
        lines.into_iter().find(|line| line.request == broken.id)
    });
    if text_bytes < *received || !text.is_char_boundary(text_bytes.min(text.len())) {
        return Err(format!(
            "resumed after {text_bytes} bytes although {received} had been sent"
        ));
    }
    let (before, after) = text.split_at(text_bytes);
    let prompt = format!("{}{before}", broken.rendered);
    let bare = BareLoop::start().run(&prompt, TOKENS - tokens);
    if bare.text != after {
        return Err(format!(
            "after {before:?} the daemon went on with {after:?}, the C program with {:?}",
            bare.text
        ));
    }
    Ok(())
}
