//! The time that a prompt takes to render grows with its length and no faster, whatever is in it; and what a
//! template costs before it renders any.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use rkllmd::prompt::{
    ChatMessage, ChatRole, ChatTemplate, ControlTokens, RenderRequest, SpecialTokens,
    TemplateFamily,
};
use rkllmd::reader::{ToldReplies, find_format};

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

/// Templates as models ship them.
const SHIPPED: [(&str, &str); 3] = [
    (
        "qwen3",
        include_str!("../../tests/golden/templates/qwen3-like.jinja"),
    ),
    (
        "llama3",
        include_str!("../../tests/golden/templates/llama3-dated.jinja"),
    ),
    (
        "mistral",
        include_str!("../../tests/golden/templates/mistral-like.jinja"),
    ),
];

/// What a model's template costs once, when the model is read.
fn measure_compiling(report: &mut Report) {
    for (name, source) in SHIPPED {
        let times: Vec<f64> = (0..RUNS * 4)
            .map(|_| {
                let start = Instant::now();
                let read = read(source);
                let spent = start.elapsed();
                black_box(read);
                spent.as_secs_f64() * 1e3
            })
            .collect();
        report.figure(
            &format!("{name}_read_ms"),
            "a chat template like that of the family is compiled, and what it tells of replies is found",
            median(times),
            "ms",
        );
    }
}

/// As a reader does it.
fn read(source: &str) -> ChatTemplate {
    let tokens: ControlTokens = rkllmd::prompt::well_known_control_tokens().collect();
    let special = SpecialTokens {
        bos: "<s>".to_owned(),
        eos: "</s>".to_owned(),
    };
    let mut template =
        ChatTemplate::draft(source, special, Arc::new(tokens)).expect("it is a template");
    let (ids, told) = (HashMap::new(), ToldReplies::default());
    find_format(source, &mut template, &ids, &told).expect("it is analysed");
    template
}

pub fn measure(report: &mut Report) {
    report.section(
        "rendering",
        "a prompt is rendered, its control tokens broken; user text and an answer to continue",
    );
    let template = ChatTemplate::of_family(TemplateFamily::Chatml).expect("it is built in");
    measure_compiling(report);
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
