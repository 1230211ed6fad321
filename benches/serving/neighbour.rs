//! What decoding keeps of its speed while another process burns one core. The library's threads wait
//! for each other by spinning, so without care they are all as slow as the one that shares its core.
//! The bare loop is measured, in turns with and without the neighbour: what the daemon adds does not
//! depend on it.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::bare_loop::{BareLoop, Generation};
use crate::burned_core::beside_a_neighbour;
use crate::report::{Report, Target, rounded};
use crate::statistics::median;

const WARM_UP: &str = "Before the invention of printing, books were copied by hand, and";
const PROMPTS: [&str; 4] = [
    "Once upon a time there was a small village by the sea, where an old man",
    "The history of the Roman Empire begins with the founding of the city, when",
    "My grandmother taught me how to bake bread. The first thing she told me was",
    "Good software is written for the people who have to change it, which means",
];
const ANSWER_TOKENS: u32 = 160;
/// The library looks again within this time whether a core that it left is free.
const SETTLING: Duration = Duration::from_millis(1500);

pub fn measure(report: &mut Report) {
    report.section(
        "neighbour",
        "decoding beside a process that burns a core, in turns with calm",
    );
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores < 2 {
        report.note("one CPU: each process that shares it gets its part of it");
        return;
    }
    let mut bare = BareLoop::start();
    bare.run(WARM_UP, ANSWER_TOKENS);
    let mut calm = Vec::new();
    let mut busy = Vec::new();
    for prompt in PROMPTS {
        thread::sleep(SETTLING);
        calm.push(decode_per_second(&bare.run(prompt, ANSWER_TOKENS)));
        thread::sleep(SETTLING);
        busy.push(decode_per_second(&beside_a_neighbour(|| {
            bare.run(prompt, ANSWER_TOKENS)
        })));
    }
    let ratios: Vec<f64> = busy.iter().zip(&calm).map(|(b, c)| b / c).collect();
    report.figure("calm", "calm", median(calm.iter().copied()), "tokens/s");
    report.figure(
        "busy",
        "beside the neighbour",
        median(busy.iter().copied()),
        "tokens/s",
    );
    report.promise(
        "ratio",
        "part of the calm speed",
        (median(ratios.iter().copied()), ""),
        Target::AtLeast(0.5),
    );
    let rounded: Vec<f64> = ratios.into_iter().map(rounded).collect();
    report.detail("ratios", json!(rounded));
}

fn decode_per_second(generation: &Generation) -> f64 {
    (generation.tokens - 1.0) * 1e3 / (generation.last_token_ms - generation.first_token_ms)
}
