//! A reply is read in time that grows as its text does, whatever is in it and however it is cut.

use std::time::Duration;

use crate::reply_support::examples::{Example, examples, types};
use crate::reply_support::{TokensOfMarkers, parser, splits, token, with_tokens};
use rkllmd::reply::{OpenedIn, ReplyFamily, ReplyFormat, ReplyToken};
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

/// How long an answer takes that has the tokens so many times over. A token is copied when its turn comes, so that
/// none is in memory before.
fn time(format: &ReplyFormat, tokens: &[ReplyToken], times: usize) -> Duration {
    let mut parser = parser(format, OpenedIn::Content, types());
    let mut out = Vec::new();
    let begun = processor_time();
    for token in (0..times).flat_map(|_| tokens) {
        parser.push(token.clone(), &mut out);
        out.clear();
    }
    parser.finish(true, &mut out);
    processor_time() - begun
}

/// The count above does not know of copies and searches that a reader makes beside.
#[test]
fn ten_times_the_text_takes_at_most_twelve_times_the_time() {
    /// Of the shorter answer.
    const TOKENS: usize = 20_000;
    /// What a processor does beside makes a measurement longer and never shorter.
    const TRIES: usize = 8;
    for family in ReplyFamily::ALL {
        let outputs = examples().into_iter().filter(|it| it.family == family);
        let output: String = outputs.map(|it| it.output).collect();
        assert!(!output.is_empty(), "{family}");
        // In single characters, markers as texts and as tokens that are not printed.
        let texts = output.replace('¦', "");
        let texts = texts.chars().map(|c| token(c.encode_utf8(&mut [0; 4])));
        let texts: Vec<ReplyToken> = texts.collect();
        let mut by_token = with_tokens(family);
        let tokens = TokensOfMarkers::new(false).cut(&mut by_token, &output, &[]);
        let has_marker = tokens.iter().any(|token| token.text.is_empty());
        assert!(has_marker, "{family}: no marker is a token");
        for (format, tokens) in [(family.format(), texts), (by_token, tokens)] {
            let times = TOKENS.div_ceil(tokens.len());
            // As much is read for the one as for the other, so that a busy machine disturbs both alike.
            let (mut ten_short, mut one_long) = (Duration::MAX, Duration::MAX);
            let is_linear = (0..TRIES).any(|_| {
                let short: Duration = (0..10).map(|_| time(&format, &tokens, times)).sum();
                ten_short = ten_short.min(short);
                one_long = one_long.min(time(&format, &tokens, 10 * times));
                one_long * 10 <= ten_short * 12
            });
            assert!(is_linear, "{family}: {one_long:?} and {ten_short:?}");
        }
    }
}
