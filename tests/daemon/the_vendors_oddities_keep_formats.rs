//! Answers that are kept to a format on each family of the vendor's library, whatever that does on the way:
//! right or a typed error, never a byte that the format does not allow, never a hang.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, FAMILIES_RUN, Setup, chat, eventually, kill};
use crate::formats_without_a_hook::metric as value_of;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const WORDS: [&str; 9] = ["[UNK]", "yes", "no", "Sure", "{", "}", "1", ",", "[end]"];
const END: usize = 8;

fn tokenizer() -> String {
    tokenizer_of(&WORDS)
}

pub fn tokenizer_of(words: &[&str]) -> String {
    let ids = words.iter().zip(0_u32..);
    let vocabulary: serde_json::Map<String, Value> = ids
        .map(|(word, id)| ((*word).to_owned(), id.into()))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocabulary},
    })
    .to_string()
}

/// A model of a few words, which follow from what stands before them.
pub fn setup(family: &str, more: &str) -> Setup {
    let scenario = format!("words = {WORDS:?}\neos-token-id = {END}\nrow-seed = 5\n{more}\n");
    let settings =
        format!("template = \"chatml\"\neos-ids = [{END}]\n[sampling]\ntemperature = 0.0\n");
    Setup::with_family(family)
        .model_file("m", "model.rkllm", &scenario)
        .model_file("m", "model.toml", &settings)
        .model_file("m", "tokenizer.json", &tokenizer())
        .settings("constraints.max-redraws-without-reuse = 256")
}

/// Words with a comma between, which is forced; of the words a third may come.
fn pattern(least: usize) -> String {
    let most = least + 20;
    format!("[{{](yes|no|1)(,(yes|no|1)){{{least},{most}}}[}}]")
}

pub fn is_kept(text: &str, least: usize) -> bool {
    let inside = text.strip_prefix('{');
    let inside = inside.and_then(|text| text.strip_suffix('}'));
    inside.is_some_and(|inside| {
        let words: Vec<&str> = inside.split(',').collect();
        let may = |word: &&str| ["yes", "no", "1"].contains(word);
        words.iter().all(may) && (least + 1..=least + 21).contains(&words.len())
    })
}

pub fn asked(least: usize) -> Value {
    chat(
        "m",
        "Say it",
        json!({"max_tokens": 200, "guided_regex": pattern(least)}),
    )
}

pub fn metric(daemon: &Daemon, line: &str) -> bool {
    daemon.get("/metrics").body.contains(line)
}

pub const ODDITIES: [&str; 14] = [
    "",
    "abort-late-tokens = 3",
    "eos-silent = true",
    "eos-ignored = true",
    "eos-ignored = true\nabort-late-tokens = 2\nlogits-come = \"with-ids\"",
    "logits-come = \"with-ids\"",
    "logits-come = \"alone\"",
    "logits-come = \"alone\"\nabort-late-tokens = 2",
    "rows-of = \"input\"",
    "prefix-reuse = true",
    "prefix-reuse = true\nrows-of = \"input\"\nabort-late-tokens = 1",
    "callback-thread = \"other\"",
    "[[fault]]\ncall = \"run\"\nkind = \"finish-twice\"",
    "[[fault]]\ncall = \"run\"\nkind = \"text-after-finish\"",
];

/// One family beside the other, because they mostly wait.
fn each_family(check: impl Fn(&str) + Sync) {
    thread::scope(|scope| {
        for family in FAMILIES_RUN {
            let check = &check;
            scope.spawn(move || check(family));
        }
    });
}

/// Each family in each of its odd behaviours.
pub fn each_odd_library(check: impl Fn(&str, &str) + Sync) {
    each_family(|family| ODDITIES.iter().for_each(|more| check(family, more)));
}

#[test]
fn an_answer_is_the_same_in_each_family_whatever_the_library_does() {
    let first = OnceLock::new();
    each_odd_library(|family, more| {
        let daemon = setup(family, more).start();
        let answer = daemon.post(CHAT, &asked(4));
        assert_eq!(answer.status, 200, "{family} {more}: {}", answer.body);
        assert_eq!(answer.json()["choices"][0]["finish_reason"], "stop");
        // Before 1.3.0 a run takes no penalties.
        let mode = (family == "1_2_1").then_some("loaded-penalties");
        assert_eq!(answer.header("x-rkllmd-run-mode"), mode, "{family}");
        let text = answer.content();
        assert!(is_kept(&text, 4), "{family} {more}: {text}");
        assert_eq!(*first.get_or_init(|| text.clone()), text, "{family} {more}");
        assert!(metric(&daemon, "rkllmd_redraws_total{model=\"m\"}"));
    });
}

/// What a stream says, whose worker is killed so long behind a piece of it.
fn said_although_killed(
    daemon: &Daemon,
    asked: &Value,
    (dies_at, after): (usize, Duration),
) -> String {
    let mut stream = daemon.stream(CHAT, asked);
    let (mut text, mut pieces) = (String::new(), 0);
    while let Some(piece) = stream.next_content() {
        text.push_str(&piece);
        pieces += 1;
        if pieces == dies_at {
            let worker = daemon.worker_pid();
            // At any moment of a way back, of which this test can see nothing.
            thread::sleep(after);
            kill(worker);
        }
    }
    text
}

#[test]
fn a_worker_that_dies_anywhere_changes_no_answer_whatever_the_library_does() {
    each_odd_library(|family, more| {
        let more = format!("token-delay-us = 2000\nprefill-delay-ms = 2\n{more}");
        let daemon = setup(family, &more).start();
        let whole = daemon.post(CHAT, &asked(30)).content();
        assert!(is_kept(&whole, 30), "{family} {more}: {whole}");
        let mut streamed = asked(30);
        streamed["stream"] = json!(true);
        // In runs of tokens and in runs of rows, of which more than twice as much comes.
        for tells in [false, true] {
            streamed["logprobs"] = json!(tells);
            let after = Duration::from_micros(fastrand::u64(..8000));
            let dies = (fastrand::usize(1..24), after);
            let text = said_although_killed(&daemon, &streamed, dies);
            assert_eq!(text, whole, "{family} {more}: {tells}, died at {dies:?}");
        }
        let resumed = value_of(&daemon, "rkllmd_runs_resumed_total");
        assert!(resumed > 0.0, "{family} {more}: none died in its middle");
    });
}

#[test]
fn a_result_that_comes_late_is_no_part_of_the_next_run() {
    each_family(|family| {
        let more = "token-delay-us = 20000\n[[fault]]\ncall = \"run\"\nkind = \"late-callback\"";
        let daemon = setup(family, more).start();
        let answer = daemon.post(CHAT, &asked(4));
        assert_eq!(answer.status, 200, "{family}: {}", answer.body);
        assert!(is_kept(&answer.content(), 4), "{family}: {}", answer.body);
    });
}

#[test]
fn a_library_that_fails_on_its_way_back_is_told() {
    each_family(|family| {
        for kind in ["fail", "error-state", "never-finish"] {
            for occasion in [2, 3] {
                let more =
                    format!("[[fault]]\ncall = \"run\"\noccasion = {occasion}\nkind = {kind:?}");
                let daemon = setup(family, &more).start();
                let answer = daemon.post(CHAT, &asked(4));
                let told = (family, kind, occasion, &answer.body);
                match answer.status {
                    200 => assert!(is_kept(&answer.content(), 4), "{told:?}"),
                    status => {
                        assert!((400..600).contains(&status), "{told:?}");
                        let code = answer.error_code();
                        // It has taken the prompt before.
                        assert!(!["", "run_refused"].contains(&&*code), "{told:?}");
                    }
                }
                // The next one is served.
                let answer = daemon.post(CHAT, &chat("m", "Go", json!({"max_tokens": 2})));
                assert_eq!(answer.status, 200, "{family} {kind}: {}", answer.body);
            }
        }
    });
}

#[test]
fn a_library_that_hangs_on_its_way_back_passes_a_deadline() {
    each_family(|family| {
        for (occasion, after) in [(2, ""), (3, "after-tokens = 1\n")] {
            let more = format!(
                "[[fault]]\ncall = \"run\"\noccasion = {occasion}\n{after}kind = \"hang\"\nonce = \"hung\""
            );
            let daemon = setup(family, &more)
                .settings("deadlines.prefill-base = \"1s\"")
                .settings("deadlines.inter-token = \"1s\"")
                .settings("deadlines.abort-to-finish = \"1s\"")
                .start();
            let answer = daemon.post(CHAT, &asked(4));
            assert_eq!(answer.status, 200, "{family}: {}", answer.body);
            let text = answer.content();
            assert!(is_kept(&text, 4), "{family}: {text}");
            let passed = "rkllmd_deadlines_passed_total{deadline=";
            assert!(metric(&daemon, passed), "{family}");
        }
    });
}

#[test]
fn an_abort_that_the_library_ignores_passes_a_deadline() {
    each_family(|family| {
        let more = "eos-ignored = true\ntoken-delay-us = 20000\n[[fault]]\ncall = \"abort\"\nkind = \"ignore\"";
        let daemon = setup(family, more)
            .settings("deadlines.abort-to-finish = \"1s\"")
            .start();
        let answer = daemon.post(CHAT, &asked(30));
        assert!(answer.status >= 400, "{family}: {}", answer.body);
        assert!(!answer.error_code().is_empty(), "{family}: {}", answer.body);
        let passed = "rkllmd_deadlines_passed_total{deadline=\"abort-to-finish\"}";
        assert!(metric(&daemon, passed), "{family}");
    });
}

#[test]
fn more_redraws_than_there_may_be_end_an_answer_with_what_was_told() {
    let daemon = setup("1_3_1", "prefix-reuse = true")
        .settings("constraints.max-redraws = 3")
        .start();
    let answer = daemon.post(CHAT, &asked(30));
    let error = answer.json()["error"].clone();
    assert_eq!(
        (answer.status, error["code"].as_str()),
        (422, Some("format_not_kept"))
    );
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("constraints.max-redraws"), "{message}");
    let mut streamed = asked(30);
    streamed["stream"] = json!(true);
    let mut stream = daemon.stream(CHAT, &streamed);
    let (mut text, mut failed) = (String::new(), false);
    while let Some(data) = stream.next_data().filter(|data| data != "[DONE]") {
        let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
        failed |= chunk["error"]["code"] == "format_not_kept";
        let piece = chunk["choices"][0]["delta"]["content"].as_str();
        text.push_str(piece.unwrap_or_default());
    }
    assert!(failed && text.starts_with('{'), "{text}");
}

#[test]
fn a_way_back_evaluates_what_is_new_and_little_more() {
    const PROMPT_WORDS: usize = 200;
    let costs = |more: &str| {
        let daemon = setup("1_3_1", more).start();
        let mut asked = asked(30);
        asked["messages"][0]["content"] = "word ".repeat(PROMPT_WORDS).into();
        let answer = daemon.post(CHAT, &asked);
        assert_eq!(answer.status, 200, "{more}: {}", answer.body);
        assert!(is_kept(&answer.content(), 30), "{more}: {}", answer.body);
        [
            "rkllmd_redraws_total",
            "rkllmd_redraw_prompt_tokens_total",
            "rkllmd_completion_tokens_total",
        ]
        .map(|name| value_of(&daemon, name))
    };
    // For its row the last token is evaluated again; what is drawn and what is forced behind it are new.
    let [redraws, evaluated, made] = costs("prefix-reuse = true");
    assert!(
        redraws > 0.0 && evaluated >= redraws,
        "{redraws} {evaluated}"
    );
    assert!(
        evaluated <= 3.0 * redraws + made,
        "{redraws} {evaluated} {made}"
    );
    // All of it is counted where nothing is found in the cache.
    let [redraws, evaluated, _] = costs("");
    assert!(
        evaluated >= redraws * PROMPT_WORDS as f64,
        "{redraws} {evaluated}"
    );
}

#[test]
fn a_clients_deadline_that_passes_on_the_way_back_is_told() {
    each_family(|family| {
        let more = "prefill-delay-ms = 200\nabort-interrupts-prefill = true";
        let daemon = setup(family, more).start();
        // Loads the model, which is no part of it.
        let go = chat("m", "Go", json!({"max_tokens": 1}));
        assert_eq!(daemon.post(CHAT, &go).status, 200, "{family}");
        // Its words take many times as long, because most of them are drawn again.
        let mut late = asked(30);
        late["total_deadline_ms"] = json!(900);
        let answer = daemon.post(CHAT, &late);
        let code = answer.error_code();
        assert_eq!(code, "deadline_exceeded", "{family}: {}", answer.body);
        assert_eq!(daemon.post(CHAT, &go).status, 200, "{family}");
    });
}

#[test]
fn a_client_that_leaves_on_the_way_back_frees_its_place() {
    thread::scope(|scope| {
        for interrupts in [true, false] {
            let more = format!("prefill-delay-ms = 300\nabort-interrupts-prefill = {interrupts}");
            scope.spawn(move || leaves_on_the_way_back(&setup("1_3_1", &more).start()));
        }
    });
}

fn leaves_on_the_way_back(daemon: &Daemon) {
    let mut streamed = asked(30);
    streamed["stream"] = json!(true);
    // Less than what is left of any of these answers takes: its words are drawn again, mostly.
    const AT_ONCE: Duration = Duration::from_secs(3);
    // With a run for each row, and with rows in hand.
    for (pieces, tells) in [(1, false), (2, false), (3, false), (1, true), (2, true)] {
        streamed["logprobs"] = json!(tells);
        let mut stream = daemon.stream(CHAT, &streamed);
        for _ in 0..pieces {
            assert!(stream.next_content().is_some());
        }
        let worker = daemon.worker_pid();
        let left_at = Instant::now();
        drop(stream);
        eventually("a free place", || {
            metric(daemon, "rkllmd_slots_in_use{model=\"m\"} 0").then_some(())
        });
        let took = left_at.elapsed();
        assert!(took < AT_ONCE, "{pieces} {tells}: {took:?}");
        assert_eq!(daemon.worker_pid(), worker, "the same worker goes on");
    }
}
