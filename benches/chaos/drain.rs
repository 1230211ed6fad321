//! The end: SIGTERM while answers are being made and asked for.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Ask, Endpoint, Extent, Leaving, Wanted};
use crate::daemon_support::{Daemon, chat, children, is_gone};
use crate::outcome::{Ended, Served};
use crate::scenario::{Answer, MODELS};
use serde_json::json;

/// The model that takes longest.
const MODEL: usize = 2;
const HOST: u8 = 102;
/// One is served and the others wait.
const STREAMS: usize = 3;

pub struct Drained {
    pub exit_code: Option<i32>,
    pub took: Duration,
    pub children_left: usize,
    /// Streams that ended neither complete nor with a typed error.
    pub cut: Vec<String>,
}

/// Ends `daemon` while it serves.
pub fn measure(daemon: Daemon, answers: &[Vec<Answer>]) -> Drained {
    let longest = answers[MODEL]
        .iter()
        .max_by_key(|answer| answer.tokens())
        .expect("answers");
    let address = daemon.address;
    // It says when the streams can be running.
    let mut first = daemon.stream(
        "/v1/chat/completions",
        &chat(
            MODELS[MODEL].id,
            &longest.prompt,
            json!({"stream": true, "max_tokens": 2000}),
        ),
    );
    first.next_content().expect("text");
    let ask = Ask {
        address,
        host: HOST,
        model: MODELS[MODEL].id,
        wanted: Wanted::Answer(longest, Extent::Whole),
        endpoint: Endpoint::Chat,
        streamed: true,
        leaving: Leaving::Never,
        pause: Duration::ZERO,
    };
    let pid = daemon.pid();
    thread::scope(|scope| {
        let streams: Vec<_> = (0..STREAMS).map(|_| scope.spawn(|| ask.run())).collect();
        let rest = scope.spawn(move || first.collect());
        wait_for_queue(&daemon);
        let workers = children(pid);
        let told = Instant::now();
        daemon.signal(Signal::TERM);
        let exit_code = daemon.wait().code();
        let took = told.elapsed();
        let children_left = workers.iter().filter(|pid| !is_gone(**pid)).count();
        let mut cut: Vec<String> = streams
            .into_iter()
            .filter_map(|stream| cut_off(&stream.join().expect("a client does not panic")))
            .collect();
        let ended = rest.join().expect("a client does not panic");
        let last = ended.last().map_or("", |(_, data)| data.as_str());
        if last != "[DONE]" && !last.contains("shutting_down") {
            cut.push(format!("the running stream ended with {last:?}"));
        }
        Drained {
            exit_code,
            took,
            children_left,
            cut,
        }
    })
}

/// Until the daemon has taken all that was asked.
fn wait_for_queue(daemon: &Daemon) {
    crate::daemon_support::eventually("waiting requests", || {
        let ready = daemon.get("/v1/ready").json();
        let model = crate::daemon_support::find_model(&ready, MODELS[MODEL].id).clone();
        let waiting = model["queue"]["waiting"].as_u64();
        (waiting? >= 1 || model["phase"] != "running").then_some(())
    });
}

fn cut_off(served: &Served) -> Option<String> {
    match &served.ended {
        Ended::Complete => None,
        Ended::Failed(code) if code == "shutting_down" => None,
        other => Some(format!("{other:?}")),
    }
}
