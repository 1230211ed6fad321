//! The time that a prompt takes to render grows with its length and no faster, whatever is in it.

use std::hint::black_box;
use std::time::Instant;

use rkllmd::prompt::{ChatMessage, ChatRole, ChatTemplate, RenderRequest, TemplateFamily};

use crate::report::{Report, Target};
use crate::statistics::median;

const SIZES_MB: [usize; 4] = [1, 2, 4, 8];
const RUNS: usize = 5;

struct Kind {
    key: &'static str,
    title: &'static str,
    /// Repeated to the length.
    text: &'static str,
}

const KINDS: [Kind; 5] = [
    Kind {
        key: "prose",
        title: "prose, at 1, 2, 4 and 8 MB",
        text: "The quick brown fox jumps over the lazy dog. ",
    },
    Kind {
        key: "tokens",
        title: "nothing but control tokens, the same",
        text: "<|im_start|>",
    },
    Kind {
        key: "openings",
        title: "nothing but beginnings of tokens, the same",
        text: "<|im_start<|",
    },
    Kind {
        key: "private",
        title: "private-use characters, the same",
        text: "\u{F5A0}1\u{F5A1}\u{100000}\u{F0000}",
    },
    Kind {
        key: "thoughts",
        title: "marks of reasoning, the same",
        text: "<think></think>\n",
    },
];

pub fn measure(report: &mut Report) {
    report.section(
        "rendering",
        "a prompt is rendered, its control tokens broken; user text and an answer to continue",
    );
    let template = ChatTemplate::of_family(TemplateFamily::Chatml).expect("it is built in");
    for kind in &KINDS {
        let per_mb = SIZES_MB.map(|mb| median(milliseconds(&template, kind.text, mb)) / mb as f64);
        for (mb, figure) in SIZES_MB.into_iter().zip(per_mb) {
            let key = format!("{}_{mb}_mb_ms_per_mb", kind.key);
            report.figure(&key, kind.title, figure, "ms/MB");
        }
        let key = format!("{}_growth", kind.key);
        let growth = per_mb[3] / per_mb[0];
        report.promise(
            &key,
            "a MB of 8 against a MB of 1",
            (growth, "times"),
            Target::AtMost(2.0),
        );
    }
}

fn milliseconds(template: &ChatTemplate, text: &str, mb: usize) -> Vec<f64> {
    let half = text.repeat(mb * 500_000 / text.len());
    let messages = vec![
        ChatMessage::new(ChatRole::User, half.as_str()),
        ChatMessage::new(ChatRole::Assistant, half),
    ];
    let request = RenderRequest::new(messages, jiff::civil::DateTime::ZERO);
    (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let rendered = template.render(&request).expect("it is rendered");
            let spent = start.elapsed();
            black_box(rendered);
            spent.as_secs_f64() * 1e3
        })
        .collect()
}
