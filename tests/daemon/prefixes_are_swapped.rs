//! Where conversations outnumber the slots of a model, what a slot loses is written to disk and read
//! again: a turn evaluates what is new in it. With whatever goes wrong of that the turn is answered.

use std::fs;
use std::thread;

use crate::daemon_support::{FAMILIES_RUN, Setup, completion, eventually};
use crate::prefixes_support::{
    COMPLETIONS, NEW_WORDS, SCENARIO, WORDS, ask, beginning, folder, metric, names, setup, told,
    turn,
};
use serde_json::json;

#[test]
fn two_conversations_that_take_turns_over_one_slot_evaluate_what_is_new() {
    for family in FAMILIES_RUN {
        let daemon = Setup::with_family(family).scenario("m", SCENARIO).start();
        let mut conversations = ["a", "b"].map(beginning);
        for round in 0..4 {
            for conversation in &mut conversations {
                let evaluated = turn(&daemon, conversation);
                match round {
                    0 => assert!(evaluated >= WORDS as u64, "{family}: {evaluated}"),
                    _ => assert!(
                        evaluated <= NEW_WORDS,
                        "{family}: {evaluated} in round {round}"
                    ),
                }
            }
        }
        assert_eq!(metric(&daemon, "rkllmd_prefix_hits_total"), 6);
        assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 0);
    }
}

#[test]
fn twenty_over_four_slots_evaluate_what_is_new() {
    let daemon = setup(4, "").start();
    let mut conversations: Vec<String> = ('a'..='t')
        .map(|name| beginning(&name.to_string()))
        .collect();
    for round in 0..3 {
        for nth in 0..20 {
            // In another order each time.
            let nth = (nth * 7 + round) % 20;
            let evaluated = turn(&daemon, &mut conversations[nth]);
            match round {
                0 => assert!(evaluated >= WORDS as u64, "{evaluated}"),
                _ => assert!(
                    evaluated <= NEW_WORDS,
                    "{evaluated} of {nth} in round {round}"
                ),
            }
        }
    }
}

#[test]
fn the_folder_stays_in_its_bound() {
    const LIMIT: u64 = 30_000;
    let daemon = setup(1, "")
        .settings(&format!("prefixes.limit-bytes = {LIMIT}"))
        .start();
    let mut conversations: Vec<String> = (0..8).map(|n| beginning(&format!("c{n}x"))).collect();
    for _ in 0..3 {
        for conversation in &mut conversations {
            turn(&daemon, conversation);
            let files = names(&folder(&daemon), ".cache");
            let length =
                |name: &String| fs::metadata(folder(&daemon).join(name)).map_or(0, |it| it.len());
            let bytes: u64 = files.iter().map(length).sum();
            assert!(bytes <= LIMIT, "{bytes} in {files:?}");
        }
    }
    let kept = metric(&daemon, "rkllmd_prefix_bytes");
    assert!((1..=LIMIT).contains(&kept), "{kept}");
    assert!(metric(&daemon, "rkllmd_prefix_files") >= 2);
}

#[test]
fn a_day_has_its_bound() {
    let daemon = setup(1, "")
        .settings("prefixes.written-per-day-bytes = 15000")
        .start();
    for name in ["a", "b", "c", "d", "e", "g", "h", "i"] {
        turn(&daemon, &mut beginning(name));
    }
    let written = metric(&daemon, "rkllmd_prefix_written_bytes_total");
    assert!((1..=15_000).contains(&written), "{written}");
}

#[test]
fn an_answer_is_whole_before_anything_is_written_behind_it() {
    // The first run is a's, the second saves it, the third is b's, and the fourth saves that.
    let daemon = setup(
        1,
        "[[fault]]\ncall = \"run\"\noccasion = 4\nkind = \"wait\"\ntext = \"go\"\n",
    )
    .start();
    let (mut a, mut b) = (beginning("a"), beginning("b"));
    turn(&daemon, &mut a);
    turn(&daemon, &mut b);
    thread::scope(|scope| {
        let next = scope.spawn(|| turn(&daemon, &mut a));
        eventually("a turn that waits for the slot", || {
            (metric(&daemon, "rkllmd_queue_length") == 1).then_some(())
        });
        fs::write(daemon.folder().join("models/m/go"), "").expect("a file");
        assert!(next.join().expect("an answer") <= NEW_WORDS);
    });
}

#[test]
fn a_worker_that_dies_in_it_is_no_requests_loss() {
    for (call, condition) in [("run", "occasion = 2\n"), ("load_prompt_cache", "")] {
        let fault =
            format!("[[fault]]\ncall = \"{call}\"\n{condition}kind = \"segv\"\nonce = \"died\"\n");
        let daemon = setup(1, &fault).start();
        let mut conversations = ["a", "b"].map(beginning);
        for _ in 0..5 {
            for conversation in &mut conversations {
                turn(&daemon, conversation);
            }
        }
        assert!(daemon.folder().join("models/m/died").exists(), "{call}");
        assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 1, "{call}");
        assert_eq!(metric(&daemon, "rkllmd_runs_repeated_total"), 0, "{call}");
        assert_eq!(metric(&daemon, "rkllmd_worker_exits_total"), 1, "{call}");
        let evaluated = conversations.map(|mut it| turn(&daemon, &mut it));
        assert!(
            evaluated.iter().all(|it| *it <= NEW_WORDS),
            "{call}: {evaluated:?}"
        );
    }
}

/// A file on a disk that stands still.
#[test]
fn a_request_that_has_no_time_left_waits_for_no_file() {
    let fault = "[[fault]]\ncall = \"load_prompt_cache\"\nkind = \"hang\"\nonce = \"hung\"\n";
    let daemon = setup(1, fault)
        .settings("deadlines.prefix-file-base = \"5s\"")
        .start();
    let mut conversations = ["a", "b"].map(beginning);
    let hung = || daemon.folder().join("models/m/hung").exists();
    let impatient = |prompt: &str| {
        let extra = json!({"max_tokens": 3, "total_deadline_ms": 1000});
        daemon.post(COMPLETIONS, &completion("m", prompt, extra))
    };
    let late = loop {
        let conversation = &mut conversations[0];
        let answer = impatient(conversation);
        if answer.status != 200 {
            break answer;
        }
        *conversation += &told(&answer.json()).0;
        conversations.swap(0, 1);
    };
    assert_eq!(late.error_code(), "deadline_exceeded");
    assert!(hung());
    // The slot is another's once the library has let go of it.
    assert_eq!(metric(&daemon, "rkllmd_worker_exits_total"), 0);
    turn(&daemon, &mut conversations[1]);
}

#[test]
fn a_library_that_does_not_do_it_is_let_be_and_that_is_said_once() {
    for fault in [
        "[[fault]]\ncall = \"load_prompt_cache\"\nkind = \"fail\"\n".to_owned(),
        "[[fault]]\ncall = \"load_prompt_cache\"\nkind = \"segv\"\n".to_owned(),
    ] {
        is_let_be(&fault, SCENARIO);
    }
    // What it says it has loaded spares nothing.
    is_let_be(
        "",
        &SCENARIO.replace("[perf]\n", "[perf]\nprefill-tokens = 600\n"),
    );
    is_let_be("", &format!("saves-no-cache = true\n{SCENARIO}"));
    is_let_be("", &format!("saved-cache = []\n{SCENARIO}"));
}

fn is_let_be(fault: &str, scenario: &str) {
    let daemon = Setup::new()
        .scenario("m", &format!("{scenario}{fault}"))
        .start();
    let mut conversations = ["a", "b"].map(beginning);
    for _ in 0..5 {
        for conversation in &mut conversations {
            let (text, _) = told(&daemon.post(COMPLETIONS, &ask(conversation)).json());
            assert_eq!(text, "one two three ", "{fault} {scenario}");
            *conversation += &text;
        }
    }
    let said = daemon.log.lines();
    let said = said
        .iter()
        .filter(|line| line.contains("not kept any more"));
    assert_eq!(said.count(), 1, "{fault} {scenario}");
    assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 2);
}

#[test]
fn a_conversation_that_fills_its_context_is_nobodys_failure() {
    let scenario = SCENARIO.replace(
        "tokens = [\"one \", \"two \", \"three \"]",
        "repeat = { token = \"w \", times = 900 }",
    );
    let manifest = "template = \"chatml\"\ncontext-length = 704\n";
    let daemon = Setup::new()
        .scenario("m", &scenario)
        .model_file("m", "model.toml", manifest)
        .start();
    for name in ["a", "b", "c", "d"] {
        let body = completion("m", &beginning(name), json!({}));
        let answer = daemon.post(COMPLETIONS, &body).json();
        assert_eq!(answer["choices"][0]["finish_reason"], "length", "{answer}");
    }
    assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 0);
    // Others are kept as ever.
    let short = |name: &str| completion("m", &beginning(name), json!({"max_tokens": 3}));
    for name in ["e", "g", "e"] {
        daemon.post(COMPLETIONS, &short(name));
    }
    assert_eq!(metric(&daemon, "rkllmd_prefix_hits_total"), 1);
}

#[test]
fn none_is_kept_where_none_is_wanted() {
    let daemon = setup(1, "").settings("prefixes.limit-bytes = 0").start();
    let (mut a, mut b) = (beginning("a"), beginning("b"));
    turn(&daemon, &mut a);
    turn(&daemon, &mut b);
    assert!(turn(&daemon, &mut a) >= WORDS as u64);
    assert!(!folder(&daemon).exists());
}

#[test]
fn a_folder_that_cannot_be_used_is_said_and_served_without() {
    let daemon = setup(1, "")
        .settings("prefixes.folder = \"/dev/null/prefixes\"")
        .start();
    daemon
        .log
        .wait_for("prefixes of conversations are not kept");
    turn(&daemon, &mut beginning("a"));
    assert_eq!(metric(&daemon, "rkllmd_prefix_files"), 0);
}
