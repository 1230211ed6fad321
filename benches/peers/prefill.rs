//! What seven streams notice of a long prompt that comes while they run: the times between their tokens,
//! before it and while it is read.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::crowd::{Answer, ask, prompt};
use crate::pairs::{Better, Figure, compare, in_turns};
use crate::report::{Report, Target};
use crate::served::Served;
use crate::statistics::{median, quantile};

const STREAMS: usize = 7;
const STREAM_TOKENS: u32 = 320;
/// The streams have read their prompts and settled by then.
const SETTLING: Duration = Duration::from_secs(4);
/// Some three thousand tokens.
const SENTENCES: usize = 300;

/// Times between two tokens of a stream, 99 of 100 of which are shorter.
struct Gaps {
    calm_ms: f64,
    disturbed_ms: f64,
}

pub fn measure(report: &mut Report) {
    report.section(
        "prefill",
        "7 streams of 320 tokens, into which a prompt of 3,000 comes, in turns",
    );
    let (ours, theirs) = (Served::ours(STREAMS + 1), Served::theirs(STREAMS + 1));
    let gaps = in_turns(|number, is_ours| {
        let served = if is_ours { &ours } else { &theirs };
        disturb(served.address(), number)
    });
    let figure = Figure {
        key: "gap_p99_ms",
        ours: "rkllmd, between two tokens, p99",
        theirs: "llama-server, likewise",
        ratio: "lower end of the interval",
        unit: "ms",
        better: Better::Less,
        target: 1.0,
    };
    let disturbed: Vec<(f64, f64)> = (gaps.iter())
        .map(|(ours, theirs)| (ours.disturbed_ms, theirs.disturbed_ms))
        .collect();
    compare(report, figure, &disturbed);
    let calm = median(gaps.iter().map(|(ours, _)| ours.calm_ms));
    report.figure("calm_ms", "rkllmd, before the prompt, p99", calm, "ms");
    let more = median(
        gaps.iter()
            .map(|(ours, _)| ours.disturbed_ms / ours.calm_ms),
    );
    let label = "rkllmd, with the prompt / before it";
    report.promise("ratio", label, (more, ""), Target::AtMost(3.0));
}

fn disturb(address: SocketAddr, number: usize) -> Gaps {
    thread::scope(|scope| {
        let streams: Vec<_> = (0..STREAMS)
            .map(|client| scope.spawn(move || ask(address, &prompt(number, client), STREAM_TOKENS)))
            .collect();
        thread::sleep(SETTLING);
        let begin = Instant::now();
        let long = ask(address, &long_prompt(number), 1);
        let end = *long.pieces.first().expect("a token");
        let answers: Vec<Answer> = (streams.into_iter())
            .map(|stream| stream.join().expect("an answer"))
            .collect();
        let last = answers.iter().filter_map(|answer| answer.pieces.last());
        assert!(
            last.max().is_some_and(|last| *last > begin),
            "the streams ended before the prompt came"
        );
        Gaps {
            // Not those in which the prompts of the streams were read.
            calm_ms: p99(&answers, begin - SETTLING / 4, begin),
            disturbed_ms: p99(&answers, begin, end),
        }
    })
}

/// Of the gaps that end between `from` and `to`.
pub fn p99(answers: &[Answer], from: Instant, to: Instant) -> f64 {
    let gaps = answers.iter().flat_map(|answer| {
        let pairs = answer.pieces.windows(2);
        let within = pairs.filter(move |pair| (from..to).contains(&pair[1]));
        within.map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3)
    });
    quantile(gaps, 0.99)
}

fn long_prompt(number: usize) -> String {
    let sentence = "The quick brown fox jumps over the lazy dog. ";
    format!("Book {number}. {}", sentence.repeat(SENTENCES))
}
