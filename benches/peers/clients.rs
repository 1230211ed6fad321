//! How many tokens a crowd gets, and how long each waits for its first, by how many there are.

use crate::crowd::{Round, round};
use crate::pairs::{Better, Figure, compare, in_turns};
use crate::report::Report;
use crate::served::Served;

const TOKENS: u32 = 96;

/// Clients, what the section is called, and what part of their speed is promised.
const CROWDS: [(usize, &str, &str, f64); 5] = [
    (1, "clients_1", "1 client, 96 tokens, in turns", 0.97),
    (2, "clients_2", "2 clients, 96 tokens each, in turns", 1.0),
    (4, "clients_4", "4 clients, 96 tokens each, in turns", 1.0),
    (8, "clients_8", "8 clients, 96 tokens each, in turns", 1.0),
    (
        16,
        "clients_16",
        "16 clients, 96 tokens each, in turns",
        1.0,
    ),
];

pub fn measure(report: &mut Report) {
    for (clients, key, title, speed) in CROWDS {
        report.section(key, title);
        let (ours, theirs) = (Served::ours(clients), Served::theirs(clients));
        let rounds = in_turns(|number, is_ours| {
            let served = if is_ours { &ours } else { &theirs };
            round(served.address(), clients, number, TOKENS)
        });
        report_rounds(report, &rounds, speed);
    }
}

pub fn report_rounds(report: &mut Report, rounds: &[(Round, Round)], speed: f64) {
    let pairs = |of: fn(&Round) -> f64| -> Vec<(f64, f64)> {
        let both = rounds.iter().map(|(ours, theirs)| (of(ours), of(theirs)));
        both.collect()
    };
    let figure = Figure {
        key: "tokens_per_second",
        ours: "rkllmd, all clients together",
        theirs: "llama-server, likewise",
        ratio: "upper end of the interval",
        unit: "tokens/s",
        better: Better::More,
        target: speed,
    };
    compare(report, figure, &pairs(|round| round.tokens_per_second));
    let waiting = |key, ours, theirs| Figure {
        key,
        ours,
        theirs,
        ratio: "lower end of the interval",
        unit: "ms",
        better: Better::Less,
        target: 2.0 - speed,
    };
    let median = waiting(
        "first_token_p50_ms",
        "rkllmd, time to first token, p50",
        "llama-server, likewise",
    );
    compare(report, median, &pairs(|round| round.first_token_p50_ms));
    let last = waiting(
        "first_token_p99_ms",
        "rkllmd, time to first token, p99",
        "llama-server, likewise",
    );
    compare(report, last, &pairs(|round| round.first_token_p99_ms));
}
