//! What it costs that prompts are made in another process: a conversation of 4 KB rendered by the
//! pure library here and by a reader, in turns; and the most memory that a reader takes for a
//! tokenizer.json of 33 MB, which is as large as those of models that are in use.

use std::fmt::Write;
use std::fs;
use std::time::Instant;

use rkllmd::models::{Catalog, InstalledModel};
use rkllmd::prompt::{ChatMessage, ChatRole, ChatTemplate, RenderRequest, TemplateFamily};
use rkllmd::reader::{Encoding, Readers};
use rkllmd::settings::Settings;
use rkllmd::telemetry::Metrics;

use crate::daemon_support::readers;
use crate::report::{Report, Target};
use crate::statistics::median;

const ROUNDS: usize = 400;
const PROMPT_BYTES: usize = 4096;
const TOKENIZER_BYTES: usize = 33_000_000;
/// A text of this many words is made into tokens.
const WORDS: usize = 1000;
/// Well below the address space that a reader may have by default (`reader.memory-limit-bytes`).
const MOST_MIB: f64 = 640.0;

pub fn measure(report: &mut Report) {
    report.section("readers", "prompts made by a reader, and a large tokenizer");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["plain", "large"] {
        let own = folder.path().join(name);
        fs::create_dir(&own).expect("a folder");
        fs::write(own.join("model.rkllm"), "a model").expect("a model");
        fs::write(own.join("model.toml"), "template = \"chatml\"\n").expect("a manifest");
    }
    let tokenizer = tokenizer();
    fs::write(folder.path().join("large/tokenizer.json"), &tokenizer).expect("a tokenizer");
    let mut settings = Settings::default();
    settings.models.dir = folder.path().to_owned();
    let program = || env!("CARGO_BIN_EXE_rkllmd").into();
    let catalog = Catalog::scan_apart(&settings, Some(program())).expect("the models");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let readers = Readers::start_with_readers_of(program(), &settings, Metrics::new());
        let readers = readers.expect("readers");
        rendering(report, &readers, catalog.find("plain").expect("a model")).await;
        peak(report, &readers, catalog.find("large").expect("a model")).await;
        report.figure(
            "tokenizer_bytes",
            "size of the tokenizer.json",
            tokenizer.len() as f64 / 1e6,
            "MB",
        );
    });
}

async fn rendering(report: &mut Report, readers: &Readers, model: &InstalledModel) {
    let words = "The quick brown fox jumps over the lazy dog. ".repeat(PROMPT_BYTES / 45);
    let messages = vec![
        ChatMessage::new(ChatRole::System, "Answer in one sentence."),
        ChatMessage::new(ChatRole::User, words),
    ];
    let request = RenderRequest::new(messages, jiff::civil::DateTime::ZERO);
    let here = ChatTemplate::of_family(TemplateFamily::Chatml).expect("built in");
    let (mut alone, mut by_reader) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let began = Instant::now();
        let rendered = here.render(&request).expect("a prompt");
        let alone_ms = began.elapsed().as_secs_f64() * 1e3;
        let began = Instant::now();
        let prompt = readers.render(model, &request).await.expect("a prompt");
        let by_reader_ms = began.elapsed().as_secs_f64() * 1e3;
        assert_eq!(prompt.text, rendered.prompt);
        // The first one starts the reader.
        if round > 0 {
            alone.push(alone_ms);
            by_reader.push(by_reader_ms);
        }
    }
    let label = "rendering alone, 4 KB, median";
    report.figure("rendering_ms", label, median(alone), "ms");
    report.promise(
        "rendering_by_reader_ms",
        "rendering by a reader with the way there and back, 4 KB, median",
        (median(by_reader), "ms"),
        Target::AtMost(0.3),
    );
}

async fn peak(report: &mut Report, pool: &Readers, model: &InstalledModel) {
    let before = readers(std::process::id());
    let text = "word ".repeat(WORDS);
    let began = Instant::now();
    let encoded = pool.encode(model, text.clone(), Encoding::default()).await;
    let first_ms = began.elapsed().as_secs_f64() * 1e3;
    assert!(encoded.expect("tokens").tokens.len() >= WORDS);
    let began = Instant::now();
    pool.encode(model, text, Encoding::default())
        .await
        .expect("tokens");
    let next_ms = began.elapsed().as_secs_f64() * 1e3;
    let after = readers(std::process::id());
    let new = after.iter().find(|pid| !before.contains(pid));
    let pid = new.expect("a reader of the large tokenizer");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let mib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<f64>().ok())
            .expect("a figure")
            / 1024.0
    };
    report.promise(
        "large_tokenizer_peak_mib",
        "most resident memory of a reader with a large tokenizer",
        (mib("VmHWM:"), "MiB"),
        Target::AtMost(MOST_MIB),
    );
    report.figure(
        "large_tokenizer_address_space_mib",
        "its most address space",
        mib("VmPeak:"),
        "MiB",
    );
    report.figure(
        "large_tokenizer_resident_mib",
        "resident afterwards",
        mib("VmRSS:"),
        "MiB",
    );
    let label = "first text of 1,000 words";
    report.figure("large_tokenizer_first_ms", label, first_ms, "ms");
    let label = "next text of 1,000 words";
    report.figure("large_tokenizer_next_ms", label, next_ms, "ms");
}

/// A byte-pair tokenizer with so many words that its file has the size of a large one. Each word is
/// reached by a merge.
fn tokenizer() -> String {
    let (mut vocabulary, mut merges) = (String::new(), String::new());
    for (id, letter) in ('a'..='z').chain(' '..=' ').enumerate() {
        let _ = write!(vocabulary, "\"{letter}\": {id},\n      ");
    }
    let mut id = 27;
    let mut known = vec![String::new()];
    'all: for length in 0.. {
        let start: Vec<String> = known
            .iter()
            .filter(|w| w.len() == length)
            .cloned()
            .collect();
        for word in &start {
            for letter in 'a'..='z' {
                let longer = format!("{word}{letter}");
                if length > 0 {
                    let _ = write!(vocabulary, "\"{longer}\": {id},\n      ");
                    let _ = write!(
                        merges,
                        "[\n        \"{word}\",\n        \"{letter}\"\n      ],\n      "
                    );
                    id += 1;
                }
                known.push(longer);
                if vocabulary.len() + merges.len() > TOKENIZER_BYTES {
                    break 'all;
                }
            }
        }
    }
    let (vocabulary, merges) = (
        vocabulary.trim_end().trim_end_matches(','),
        merges.trim_end().trim_end_matches(','),
    );
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
  "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
  "model": {{"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
    "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
    "vocab": {{
      {vocabulary}}},
    "merges": [
      {merges}]}}}}"#
    )
}
