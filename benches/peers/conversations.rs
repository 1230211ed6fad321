//! Conversations of three thousand tokens that take turns over fewer slots: how many tokens of a turn are
//! evaluated, and how long it takes to its first token, beside a first turn, which evaluates all.

use crate::crowd::{Answer, ask};
use crate::report::{Report, Target};
use crate::served::Served;
use crate::statistics::median;

const ANSWER_TOKENS: u32 = 24;
/// What a turn adds behind the last answer.
const NEXT: &str = " After that they";
/// Some three thousand tokens, with room for the turns behind them.
const SENTENCES: usize = 280;
const LEAST_TOKENS: f64 = 2_500.0;
/// A turn's new tokens are those of the last answer and of `NEXT`; a file may lack those of one turn more, where
/// a text goes on it is cut otherwise, and the last piece of a prompt is evaluated again.
const MOST_EVALUATED: f64 = 2.0 * (ANSWER_TOKENS as f64 + 8.0) + 64.0 + 12.0;
/// As many as the largest case needs, and more.
const ROOM: &str =
    "prefixes.limit-bytes = 4294967296\nprefixes.written-per-day-bytes = 17179869184";

struct Case {
    conversations: usize,
    slots: usize,
    /// Turns of each after its first.
    turns: usize,
    key: &'static str,
    title: &'static str,
}

const CASES: [Case; 2] = [
    Case {
        conversations: 2,
        slots: 1,
        turns: 4,
        key: "conversations_2_over_1",
        title: "2 conversations of 3,000 tokens over one slot, turn by turn",
    },
    Case {
        conversations: 20,
        slots: 4,
        turns: 1,
        key: "conversations_20_over_4",
        title: "20 conversations of 3,000 tokens over 4 slots, turn by turn",
    },
];

pub fn measure(report: &mut Report) {
    for case in &CASES {
        report.section(case.key, case.title);
        let ours = turns(&Served::ours_with(case.slots, ROOM), case);
        let theirs = turns(&Served::theirs(case.slots), case);
        report_turns(report, &ours, &theirs);
    }
}

/// What the first turns of all conversations took, and the later ones.
struct Turns {
    first: Vec<Answer>,
    later: Vec<Answer>,
}

fn turns(served: &Served, case: &Case) -> Turns {
    let mut texts: Vec<String> = (0..case.conversations).map(beginning).collect();
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for turn in 0..=case.turns {
        for text in &mut texts {
            let answer = ask(served.address(), text, ANSWER_TOKENS);
            text.push_str(&answer.text);
            text.push_str(NEXT);
            match turn {
                0 => first.push(answer),
                _ => later.push(answer),
            }
        }
    }
    Turns { first, later }
}

/// No two share their beginning.
fn beginning(number: usize) -> String {
    let sentence = "The quick brown fox jumps over the lazy dog. ";
    format!(
        "{number} is the book's number. {}",
        sentence.repeat(SENTENCES)
    )
}

fn report_turns(report: &mut Report, ours: &Turns, theirs: &Turns) {
    let of_each = |answers: &[Answer]| -> Vec<f64> {
        let told = answers.iter().map(|answer| answer.evaluated);
        told.map(|count| count.expect("both servers tell"))
            .collect()
    };
    let evaluated = |answers: &[Answer]| median(of_each(answers));
    let first_token = |answers: &[Answer]| median(answers.iter().map(Answer::first_token_ms));
    let whole = evaluated(&ours.first);
    assert!(whole >= LEAST_TOKENS, "{whole} tokens are no long history");
    report.figure(
        "history_tokens",
        "a conversation's history",
        whole,
        "tokens",
    );
    let most = of_each(&ours.later).into_iter();
    report.promise(
        "evaluated",
        "rkllmd, evaluated of a turn, at most",
        (most.fold(0.0, f64::max), "tokens"),
        Target::AtMost(MOST_EVALUATED),
    );
    let theirs_evaluated = evaluated(&theirs.later);
    let label = "llama-server, evaluated of a turn, median";
    report.figure("theirs_evaluated", label, theirs_evaluated, "tokens");
    for (key, label, answers) in [
        (
            "evaluating_first_token_ms",
            "rkllmd, first token of a first turn, p50",
            &ours.first,
        ),
        (
            "first_token_ms",
            "rkllmd, first token of a turn, p50",
            &ours.later,
        ),
        (
            "theirs_first_token_ms",
            "llama-server, first token of a turn, p50",
            &theirs.later,
        ),
    ] {
        report.figure(key, label, first_token(answers), "ms");
    }
    report.promise(
        "ratio",
        "rkllmd, a turn / evaluating all again",
        (first_token(&ours.later) / first_token(&ours.first), ""),
        Target::Below(1.0),
    );
}
