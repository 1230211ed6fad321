//! A reply is read in time that grows as its text does, whatever is in it and however it is cut.

use std::time::Duration;

use crate::reply_support::examples::{Example, examples, types};
use crate::reply_support::{parser, splits, token, with_tokens};
use rkllmd::reply::{OpenedIn, ReplyFamily, ReplyFormat};
use rustix::time::{ClockId, clock_gettime};

/// Bytes that were looked at to read an answer.
fn work(example: &Example, times: usize) -> u64 {
    let output = example.output.replace('¦', "").repeat(times);
    let mut most = 0;
    for tokens in splits(&output, &[]) {
        let mut parser = parser(&example.family.format(), example.opened_in, types());
        let mut out = Vec::new();
        for token in tokens {
            parser.push(token, &mut out);
        }
        parser.finish(true, &mut out);
        most = most.max(parser.bytes_visited());
    }
    most
}

#[test]
fn ten_times_the_text_is_at_most_twelve_times_the_work() {
    for example in examples() {
        let (once, tenfold) = (work(&example, 20), work(&example, 200));
        assert!(
            tenfold <= once * 12,
            "{}: {once} and {tenfold}: {}",
            example.family,
            example.output
        );
    }
    // Beginnings of markers, openers without an end, and nothing but brackets.
    for family in ReplyFamily::ALL {
        for piece in [
            "<",
            "[",
            "{",
            "<tool_call",
            "</",
            "\n",
            "```",
            "{\"",
            "<|",
            "[TOOL_CALLS]",
            "<tool_call>",
        ] {
            let example = |count: usize| Example {
                family,
                opened_in: OpenedIn::Content,
                output: Box::leak(piece.repeat(count).into_boxed_str()),
                said: Vec::new(),
            };
            let (once, tenfold) = (work(&example(300), 1), work(&example(3_000), 1));
            assert!(
                tenfold <= once * 12,
                "{family}: {once} and {tenfold}: {piece:?}"
            );
        }
    }
}

/// Processor time of this thread: what others compute meanwhile is not counted.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long an answer takes that comes in single characters. Its tokens are made on the way, so that none of them is
/// in memory before its time.
fn time(format: &ReplyFormat, output: &str, times: usize) -> Duration {
    let mut parser = parser(format, OpenedIn::Content, types());
    let mut out = Vec::new();
    let begun = processor_time();
    for _ in 0..times {
        for c in output.chars() {
            parser.push(token(c.encode_utf8(&mut [0; 4])), &mut out);
            out.clear();
        }
    }
    parser.finish(true, &mut out);
    processor_time() - begun
}

/// The count above does not know of copies and searches that a reader makes beside.
#[test]
fn ten_times_the_text_takes_at_most_twelve_times_the_time() {
    /// Of the shorter answer.
    const CHARS: usize = 40_000;
    /// What a processor does beside makes a measurement longer and never shorter.
    const TRIES: usize = 8;
    for family in ReplyFamily::ALL {
        let outputs = examples().into_iter().filter(|it| it.family == family);
        let output: String = outputs.map(|it| it.output.replace('¦', "")).collect();
        assert!(!output.is_empty(), "{family}");
        let times = CHARS.div_ceil(output.chars().count());
        for format in [family.format(), with_tokens(family)] {
            let mut best = (Duration::MAX, Duration::MAX);
            let is_linear = (0..TRIES).any(|_| {
                best.0 = best.0.min(time(&format, &output, times));
                best.1 = best.1.min(time(&format, &output, 10 * times));
                best.1 <= best.0 * 12
            });
            assert!(is_linear, "{family}: {best:?}");
        }
    }
}
