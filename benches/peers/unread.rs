//! What seven streams notice of an eighth whose client stops reading: the times between their tokens, and those
//! when all are read.

use std::net::{SocketAddr, TcpStream};
use std::thread;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::json;

use crate::crowd::{Answer, ask, prompt};
use crate::daemon_support::{completion, send};
use crate::pairs::in_turns;
use crate::prefill::p99;
use crate::report::{Report, Target};
use crate::served::{MODEL, Served};
use crate::statistics::median;

const STREAMS: usize = 8;
const TOKENS: u32 = 160;
const SMALL_BUFFER_BYTES: usize = 4096;

/// Times between two tokens of the streams that are read, 99 of 100 of which are shorter.
struct Gaps {
    calm_ms: f64,
    disturbed_ms: f64,
}

pub fn measure(report: &mut Report) {
    report.section(
        "unread",
        "7 streams of 160 tokens beside an eighth that is read or not, in turns",
    );
    let (ours, theirs) = (Served::ours(STREAMS), Served::theirs(STREAMS));
    let gaps = in_turns(|number, is_ours| {
        let served = if is_ours { &ours } else { &theirs };
        // No two rounds have the same prompts.
        let (one, other) = (2 * number, 2 * number + 1);
        let calm = |number| gap(served.address(), number, true);
        let disturbed = |number| gap(served.address(), number, false);
        match number % 2 {
            0 => Gaps {
                calm_ms: calm(one),
                disturbed_ms: disturbed(other),
            },
            _ => Gaps {
                disturbed_ms: disturbed(one),
                calm_ms: calm(other),
            },
        }
    });
    let calm = median(gaps.iter().map(|(ours, _)| ours.calm_ms));
    report.figure("calm_ms", "rkllmd, between two tokens, p99", calm, "ms");
    let ratio = |gaps: &Gaps| gaps.disturbed_ms / gaps.calm_ms;
    let theirs = median(gaps.iter().map(|(_, theirs)| ratio(theirs)));
    let label = "llama-server, beside one that is not read / calm";
    report.figure("theirs_ratio", label, theirs, "");
    let ours = median(gaps.iter().map(|(ours, _)| ratio(ours)));
    let label = "rkllmd, beside one that is not read / calm";
    report.promise("ratio", label, (ours, ""), Target::AtMost(1.2));
}

/// Of the seven, while all of them run.
fn gap(address: SocketAddr, number: usize, is_read: bool) -> f64 {
    thread::scope(|scope| {
        let last = STREAMS - 1;
        let unread = (!is_read).then(|| begin_unread(address, &prompt(number, last)));
        let readers = if is_read { STREAMS } else { last };
        let streams: Vec<_> = (0..readers)
            .map(|client| scope.spawn(move || ask(address, &prompt(number, client), TOKENS)))
            .collect();
        let answers = streams.into_iter().map(|stream| stream.join());
        let mut answers: Vec<Answer> = answers.map(|answer| answer.expect("an answer")).collect();
        drop(unread);
        answers.truncate(last);
        let first = answers.iter().filter_map(|answer| answer.pieces.first());
        let end = answers.iter().filter_map(|answer| answer.pieces.last());
        let (from, to) = (first.max().expect("text"), end.min().expect("text"));
        assert!(from < to, "they did not run at the same time");
        p99(&answers, *from, *to)
    })
}

/// A stream like the others, of which nothing is read, with little room in its socket.
fn begin_unread(address: SocketAddr, prompt: &str) -> TcpStream {
    let values = json!({
        "stream": true, "temperature": 0, "repeat_penalty": 1.0, "max_tokens": TOKENS,
        "stream_options": {"include_usage": true},
    });
    let mut stream = TcpStream::connect(address).expect("the server accepts connections");
    set_socket_recv_buffer_size(&stream, SMALL_BUFFER_BYTES).expect("a small buffer");
    let body = completion(MODEL, prompt, values);
    send(&mut stream, "POST", "/v1/completions", Some(&body)).expect("a request");
    stream
}
