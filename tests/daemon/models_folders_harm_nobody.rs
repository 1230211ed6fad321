//! Whatever stands in the models folder, the daemon starts, reloads, serves its other models and ends
//! when it is told to; `rkllmd models` ends; and each entry that is at fault is told in words.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::cgroup_support::Freezer;
use crate::daemon_support::{Daemon, Setup, chat, completion, eventually, readers};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::Signal;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// Each overflows the stack, exhausts memory or never ends.
const HOSTILE: [(&str, &str); 9] = [
    ("deep", "{{ DEEP1 }}"),
    ("sums", "{{ SUMS1 }}"),
    ("attributes", "{{ aATTRIBUTES }}"),
    (
        "doubling",
        "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    ),
    ("format", "{{ '{:>2000000000}'.format(1) }}"),
    ("indent", "{{ 'a'|indent(2000000000, true) }}"),
    (
        "replace",
        "{% set n = namespace(a='a') %}{% for i in range(12) %}{% set n.a = n.a|replace('a', 'aaaaaaaaaa') %}{% endfor %}",
    ),
    (
        "nesting",
        "{% set n = namespace(a=[]) %}{% for i in range(100000) %}{% set n.a = [n.a] %}{% endfor %}{{ n.a }}",
    ),
    (
        "sorting",
        "{% for i in range(99999) %}{% set x = range(99999)|list|sort|list|length %}{% endfor %}",
    ),
];

fn template(source: &str) -> String {
    source
        .replace("DEEP", &"-".repeat(400_000))
        .replace("SUMS", &"1+".repeat(400_000))
        .replace("ATTRIBUTES", &".a".repeat(400_000))
}

/// A daemon with a model `good`. What never ends takes readers this long, in which `good` is read also
/// where the machine is busy.
fn setup() -> Setup {
    Setup::new()
        .scenario("good", "tokens = [\"fine\"]\n")
        .settings("models.minimum-residency = \"0s\"")
        .settings("deadlines.reader-open = \"5s\"")
        .settings("deadlines.reader-call = \"5s\"")
}

fn models(folder: &Path) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(["models", "--models"])
        .arg(folder)
        .env("RKLLMD_DEADLINES__READER_OPEN", "15s")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rkllmd");
    struct Killed<'a>(&'a mut std::process::Child);
    impl Drop for Killed<'_> {
        fn drop(&mut self) {
            let _ = self.0.kill();
        }
    }
    let running = Killed(&mut child);
    eventually("the end of `rkllmd models`", || {
        running.0.try_wait().expect("waitpid")
    });
    drop(running);
    child.wait_with_output().expect("its output")
}

fn listed(folder: &Path) -> String {
    String::from_utf8(models(folder).stdout).expect("UTF-8")
}

fn serves(daemon: &Daemon, model: &str) {
    let answer = daemon.post(CHAT, &chat(model, "x", json!({})));
    assert_eq!(answer.status, 200, "{model}: {}", answer.body);
}

fn reload(daemon: &Daemon) {
    let before = daemon.log.lines().len();
    daemon.signal(Signal::HUP);
    eventually("the end of the reload", || {
        let lines = daemon.log.after(before);
        let done = lines.iter().any(|line| line.contains("reloaded:"));
        done.then_some(())
    });
}

fn ends_at_once(daemon: Daemon) {
    let began = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.wait();
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn no_template_harms_more_than_its_model() {
    for (name, source) in HOSTILE {
        let text = template(source);
        let folder = || {
            setup()
                .scenario("evil", "tokens = [\"still\"]\n")
                .model_file("evil", "model.toml", "")
                .model_file("evil", "chat_template.jinja", &text)
        };
        // At start.
        let daemon = folder().start();
        serves(&daemon, "good");
        let refused = daemon.post(CHAT, &chat("evil", "x", json!({})));
        assert_eq!(
            (refused.status, &*refused.error_code()),
            (500, "chat_template_broken"),
            "{name}: {}",
            refused.body
        );
        let says_what_happened = !refused.body.contains("RUST_BACKTRACE");
        assert!(says_what_happened, "{name}: {}", refused.body);
        // What needs no template is served.
        let answer = daemon.post(TEXT, &completion("evil", "x", json!({})));
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        ends_at_once(daemon);
        // At a reload.
        let setup = setup();
        let models_folder = setup.models();
        let daemon = setup.start();
        let evil = models_folder.join("evil");
        fs::create_dir(&evil).unwrap();
        fs::write(evil.join("model.rkllm"), "tokens = [\"still\"]\n").unwrap();
        fs::write(evil.join("chat_template.jinja"), &text).unwrap();
        reload(&daemon);
        serves(&daemon, "good");
        let listed = listed(&models_folder);
        assert!(
            listed.contains("chat_template.jinja, broken") && listed.contains("cannot be used"),
            "{name}: {listed}"
        );
        ends_at_once(daemon);
    }
}

#[test]
fn what_a_template_does_in_a_request_costs_that_request() {
    for (name, source) in HOSTILE.into_iter().filter(|(name, _)| {
        // The others are refused as soon as they are compiled.
        !["deep", "sums", "attributes"].contains(name)
    }) {
        let late = format!("{{% if messages[0].content == 'boom' %}}{source}{{% endif %}}ok");
        let daemon = setup()
            .scenario("evil", "tokens = [\"still\"]\n")
            .model_file("evil", "model.toml", "")
            .model_file("evil", "chat_template.jinja", &late)
            .start();
        serves(&daemon, "evil");
        let failed = daemon.post(CHAT, &chat("evil", "boom", json!({})));
        let code = failed.error_code();
        assert!(
            [
                "chat_template_failed",
                "chat_template_broken",
                "deadline_exceeded"
            ]
            .contains(&&*code),
            "{name}: {}",
            failed.body
        );
        assert!(failed.status >= 500, "{name}: not the client's fault");
        serves(&daemon, "evil");
        serves(&daemon, "good");
        ends_at_once(daemon);
    }
}

/// The names that are looked at.
const NAMES: [&str; 6] = [
    "model.toml",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "x.gguf",
    "x.rkllm",
];

/// Puts something at `path` that is no regular file. What is returned keeps it there.
fn place(kind: &str, path: &Path) -> Option<UnixListener> {
    match kind {
        "FIFO" => {
            rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        "folder" => fs::create_dir(path).unwrap(),
        "socket" => return Some(UnixListener::bind(path).unwrap()),
        "device" => symlink("/dev/zero", path).unwrap(),
        other => unreachable!("{other}"),
    }
    None
}

#[test]
fn what_is_no_file_hangs_nothing() {
    for kind in ["FIFO", "folder", "socket", "device"] {
        let setup = setup();
        let folder = setup.models();
        let mut kept = Vec::new();
        for name in NAMES {
            let own = folder.join(format!("own-{}", name.replace('.', "-")));
            fs::create_dir(&own).unwrap();
            if !name.starts_with("x.") {
                fs::write(own.join("m.rkllm"), "tokens = [\"x\"]\n").unwrap();
            }
            kept.push(place(kind, &own.join(name)));
        }
        kept.push(place(kind, &folder.join("flat.gguf")));
        kept.push(place(kind, &folder.join("flat2.rkllm")));
        let text = listed(&folder);
        for name in [
            "own-tokenizer-json",
            "own-tokenizer_config-json",
            "own-chat_template-jinja",
        ] {
            assert!(text.contains(name), "{kind}: {text}");
        }
        if kind != "folder" {
            for file in [
                "flat.gguf",
                "flat2.rkllm",
                "own-x-gguf/x.gguf",
                "own-x-rkllm/x.rkllm",
            ] {
                assert!(
                    text.lines().any(|line| line.starts_with("problem: ")
                        && line.contains(file)
                        && line.contains("not a regular file")),
                    "{kind} {file}: {text}"
                );
            }
        }
        let began = Instant::now();
        let daemon = setup.start();
        serves(&daemon, "good");
        reload(&daemon);
        serves(&daemon, "good");
        assert!(began.elapsed() < Duration::from_secs(30), "{kind}");
        ends_at_once(daemon);
        drop(kept);
    }
}

/// A folder that hangs when it is read cannot be made here without a file system of one's own; a reader
/// that is stopped is as silent.
#[test]
fn a_reader_that_hangs_is_ended_and_its_request_told() {
    let daemon = setup().start();
    serves(&daemon, "good");
    let [reader] = readers(daemon.pid())[..] else {
        panic!("{:?}", readers(daemon.pid()))
    };
    crate::daemon_support::signal(reader, Signal::STOP);
    let late = daemon.post(CHAT, &chat("good", "x", json!({})));
    assert_eq!(
        (late.status, &*late.error_code()),
        (503, "deadline_exceeded"),
        "{}",
        late.body
    );
    serves(&daemon, "good");
    let metrics = daemon.get("/metrics").body;
    for line in [
        "rkllmd_deadlines_passed_total{deadline=\"reader-call\"} 1",
        "rkllmd_readers_abandoned 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let held = metrics
        .lines()
        .find_map(|line| line.strip_prefix("rkllmd_reader_memory_bytes{model=\"good\"} "))
        .expect("the reader's memory");
    assert!(held.parse::<u64>().unwrap() > 100_000, "{held}");
}

#[test]
fn two_hostile_models_leave_a_place_to_the_others() {
    let (_, hang) = HOSTILE[8];
    let late = format!("{{% if messages[0].content == 'boom' %}}{hang}{{% endif %}}ok");
    let mut setup = Setup::new()
        .scenario("good", "tokens = [\"fine\"]\n")
        .settings("deadlines.reader-call = \"4s\"");
    for name in ["evil1", "evil2"] {
        setup = setup
            .scenario(name, "tokens = [\"x\"]\n")
            .model_file(name, "model.toml", "")
            .model_file(name, "chat_template.jinja", &late);
    }
    let daemon = setup.start();
    let prompt = |model: &str, text: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": text}]});
        daemon.post("/apply-template", &body)
    };
    assert_eq!(prompt("good", "x").status, 200);
    std::thread::scope(|scope| {
        for name in ["evil1", "evil2", "evil1", "evil2"] {
            scope.spawn(move || assert!(prompt(name, "boom").status >= 500, "{name}"));
        }
        eventually("a hostile template at work", || {
            (readers(daemon.pid()).len() == 2).then_some(())
        });
        for _ in 0..10 {
            let began = Instant::now();
            let answer = prompt("good", "x");
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert!(began.elapsed() < Duration::from_secs(2));
        }
    });
}

#[test]
fn a_tokenizer_that_cannot_be_read_costs_the_counts_alone() {
    let daemon = setup()
        .scenario("m", "tokens = [\"x\"]\n")
        .model_file("m", "tokenizer.json", "{\"model\": 7}")
        .start();
    serves(&daemon, "m");
    let answer = daemon.post(TEXT, &completion("m", "x", json!({})));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let refused = daemon.post("/tokenize", &json!({"model": "m", "content": "a"}));
    assert_eq!(refused.error_code(), "tokenizer_failed", "{}", refused.body);
    daemon.log.wait_for("prompts are not counted");
}

#[test]
fn a_folder_of_many_names_is_told_in_few_words() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..300 {
        let name = format!("{n:03}{}", "x".repeat(60));
        fs::create_dir_all(folder.path().join("a/b").join(&name)).unwrap();
        fs::create_dir_all(folder.path().join("m").join(&name)).unwrap();
        fs::create_dir_all(folder.path().join("publisher").join(&name)).unwrap();
    }
    fs::write(folder.path().join("m/m.rkllm"), "x").unwrap();
    symlink("/", folder.path().join("a/b/root")).unwrap();
    let text = listed(folder.path());
    for line in text.lines() {
        assert!(line.len() < 2000, "{line}");
    }
    assert!(text.contains("and 292 more"), "{text}");
    assert!(
        text.contains("only 256 of its folders were looked at"),
        "{text}"
    );
}

#[test]
fn a_manifest_takes_no_other_models_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("a/m.rkllm", "thief");
    write("a/model.toml", "id = \"good\"\n");
    write("good/m.rkllm", "the model of this name");
    let text = listed(folder.path());
    assert!(
        text.lines().any(|line| line.starts_with("problem: ")
            && line.contains("/a/m.rkllm: its id `good` is taken by")),
        "{text}"
    );
    assert!(
        text.lines()
            .any(|line| line.starts_with("good ") && line.contains("22 B")),
        "{text}"
    );
}

/// A frozen process outlives SIGKILL, as one does that waits for a disk that is gone.
#[test]
fn readers_that_cannot_be_ended_are_abandoned_and_bounded() {
    let daemon = setup().settings("deadlines.kill = \"200ms\"").start();
    let abandoned = || {
        let metrics = daemon.get("/metrics").body;
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("rkllmd_readers_abandoned "));
        count
            .expect("the count")
            .parse::<usize>()
            .expect("a number")
    };
    // Dropped before the daemon, whose end waits for its children.
    let freezer = Freezer::new();
    let mut frozen: Vec<u32> = Vec::new();
    for count in 1..=4 {
        serves(&daemon, "good");
        let running = readers(daemon.pid());
        let new = running.iter().find(|pid| !frozen.contains(pid));
        let new = *new.expect("a reader that runs");
        freezer.freeze(new);
        frozen.push(new);
        let late = daemon.post(CHAT, &chat("good", "x", json!({})));
        assert_eq!(late.error_code(), "deadline_exceeded", "{}", late.body);
        eventually("an abandoned reader", || {
            (abandoned() == count).then_some(())
        });
    }
    let refused = daemon.post(CHAT, &chat("good", "x", json!({})));
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (503, "reader_unavailable"),
        "{}",
        refused.body
    );
    drop(freezer);
    eventually("the end of all of them", || {
        (abandoned() == 0).then_some(())
    });
    serves(&daemon, "good");
}

#[test]
fn no_more_readers_run_than_may() {
    let mut setup = setup();
    for n in 0..6 {
        setup = setup.scenario(&format!("m{n}"), "tokens = [\"x\"]\n");
    }
    let daemon = setup.start();
    for round in 0..3 {
        for n in 0..6 {
            let body =
                json!({"model": format!("m{n}"), "messages": [{"role": "user", "content": "x"}]});
            let prompt = daemon.post("/apply-template", &body);
            assert_eq!(prompt.status, 200, "{round}: {}", prompt.body);
            let found = readers(daemon.pid());
            assert!(found.len() <= 2, "{found:?}");
        }
    }
}

#[test]
fn only_files_of_the_models_folder_are_templates() {
    let secret = tempfile::tempdir().unwrap();
    let outside = secret.path().join("secret");
    fs::write(&outside, "SECRET").unwrap();
    let outside = outside.display().to_string();
    let named = [
        outside.clone(),
        format!("../../../../../../../..{outside}"),
        "/etc/passwd".to_owned(),
        "/proc/self/environ".to_owned(),
        "link".to_owned(),
        "folder/up".to_owned(),
    ];
    for name in &named {
        let setup = setup().scenario("evil", "tokens = [\"x\"]\n").model_file(
            "evil",
            "model.toml",
            &format!("template-file = {name:?}\n"),
        );
        let folder = setup.models().join("evil");
        symlink(&outside, folder.join("link")).unwrap();
        symlink(secret.path(), folder.join("folder")).unwrap();
        fs::write(secret.path().join("up"), "SECRET").unwrap();
        let daemon = setup.start();
        let body = json!({"model": "evil", "messages": [{"role": "user", "content": "x"}]});
        let shown = daemon.post("/apply-template", &body);
        assert_eq!(
            (shown.status, &*shown.error_code()),
            (500, "chat_template_broken"),
            "{name}: {}",
            shown.body
        );
        assert!(
            !shown.body.contains("SECRET") && !shown.body.contains("root:"),
            "{name}"
        );
    }
    // A link of a name that is looked for is no way out either; a file beneath the folder is fine.
    for (name, file) in [
        ("chat_template.jinja", "chat_template.jinja"),
        ("tokenizer_config.json", "tokenizer_config.json"),
        ("model.toml", "model.toml"),
    ] {
        let setup = setup().scenario("evil", "tokens = [\"x\"]\n");
        let folder = setup.models().join("evil");
        fs::remove_file(folder.join("model.toml")).unwrap();
        symlink(&outside, folder.join(file)).unwrap();
        let text = listed(&setup.models());
        assert!(
            text.contains("leads out of the model's folder") && !text.contains("SECRET"),
            "{name}: {text}"
        );
    }
    let setup = setup().scenario("own", "tokens = [\"x\"]\n").model_file(
        "own",
        "model.toml",
        "template-file = \"inner/mine.jinja\"\n",
    );
    let inner = setup.models().join("own/inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("mine.jinja"), "mine: {{ messages[0].content }}").unwrap();
    let daemon = setup.start();
    let body = json!({"model": "own", "messages": [{"role": "user", "content": "x"}]});
    let shown = daemon.post("/apply-template", &body).json();
    assert_eq!(shown["prompt"], "mine: x");
}

/// A GGUF header whose pairs are these bytes.
fn gguf(pairs: u64, rest: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(0u64.to_le_bytes());
    file.extend(pairs.to_le_bytes());
    file.extend(rest);
    file
}

#[test]
fn files_that_lie_are_problems() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let array = |key: &str, kind: u32, count: u64| {
        let head = [9u32.to_le_bytes(), kind.to_le_bytes()].concat();
        [text(key), head, count.to_le_bytes().to_vec()].concat()
    };
    write("many-pairs.gguf", &gguf(u64::MAX, b""));
    write("long-key.gguf", &gguf(1, &u64::MAX.to_le_bytes()));
    write(
        "many-tokens.gguf",
        &gguf(1, &array("tokenizer.ggml.tokens", 8, u64::MAX)),
    );
    write("many-bytes.gguf", &gguf(1, &array("x", 0, u64::MAX)));
    let nested = [text("x"), [9u32.to_le_bytes(); 3000].concat()].concat();
    write("nested.gguf", &gguf(1, &nested));
    write("a/m.rkllm", b"x");
    write("a/tokenizer_config.json", "[".repeat(1_000_000).as_bytes());
    write("b/m.rkllm", b"x");
    write(
        "b/tokenizer.json",
        format!("{{\"a\":{}", "{\"a\":".repeat(1_000_000)).as_bytes(),
    );
    write("c/m.rkllm", b"x");
    write(
        "c/model.toml",
        format!("a = {}", "[".repeat(100_000)).as_bytes(),
    );
    let text = listed(folder.path());
    for name in [
        "many-pairs",
        "long-key",
        "many-tokens",
        "many-bytes",
        "nested",
    ] {
        let is_told = text.lines().any(|line| {
            line.starts_with("problem: ")
                && line.contains(&format!("/{name}.gguf: its GGUF header"))
        });
        assert!(is_told, "{name}: {text}");
    }
    for file in ["a/tokenizer_config.json", "b/tokenizer.json", "c/m.rkllm"] {
        let is_told = text
            .lines()
            .any(|line| line.starts_with("problem: ") && line.contains(file));
        assert!(is_told, "{file}: {text}");
    }
}

fn tokenizer(pattern: &str) -> String {
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2,
            "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[unknown]"},
        "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": false},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[unknown]": 0, "a": 1}, "unk_token": "[unknown]"}
    })
    .to_string()
}

/// The texts of its control tokens cannot be kept out of prompts, so it is not used; nothing ends for it.
#[test]
fn a_model_of_too_many_control_tokens_is_told_so() {
    let tokens: Vec<_> = (0..100)
        .map(|id| {
            json!({"id": id, "content": format!("<|{id:0>26}|>"), "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let text = json!({"added_tokens": tokens}).to_string();
    let daemon = setup()
        .settings("reader.control-tokens-limit-bytes = 2048")
        .scenario("evil", "tokens = [\"x\"]\n")
        .model_file("evil", "tokenizer.json", &text)
        .start();
    serves(&daemon, "good");
    let skipped = daemon.log.wait_for("model skipped");
    assert!(
        skipped.contains("control-tokens-limit-bytes") && skipped.contains("evil"),
        "{skipped}"
    );
    let refused = daemon.post(CHAT, &chat("evil", "x", json!({})));
    assert_eq!(refused.error_code(), "model_not_found", "{}", refused.body);
    // As they are read from what stands there now.
    fs::write(daemon.folder().join("models/good/tokenizer.json"), &text).unwrap();
    rewritten(&daemon);
    let refused = daemon.post(CHAT, &chat("good", "x", json!({})));
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (500, "model_files_unusable"),
        "{}",
        refused.body
    );
}

/// Ends the idle readers, so that the next request reads the files as they are now.
fn rewritten(daemon: &Daemon) {
    for reader in readers(daemon.pid()) {
        crate::daemon_support::signal(reader, Signal::KILL);
    }
    eventually("the end of the readers", || {
        readers(daemon.pid()).is_empty().then_some(())
    });
}

#[test]
fn a_tokenizer_cuts_nothing_short_and_harms_nobody() {
    let daemon = setup()
        .scenario("words", "tokens = [\"x\"]\n")
        .model_file("words", "tokenizer.json", &tokenizer("a"))
        .scenario("evil", "tokens = [\"x\"]\n")
        .model_file(
            "evil",
            "tokenizer.json",
            &tokenizer("(a|a)*(a|a)*(a|a)*b(?=c)"),
        )
        .start();
    let tokens = daemon.post(
        "/tokenize",
        &json!({"model": "words", "content": "aaaaaaaa"}),
    );
    assert_eq!(tokens.json()["tokens"], json!([1, 1, 1, 1, 1, 1, 1, 1]));
    let long = "a".repeat(5000);
    let answer = daemon.post("/tokenize", &json!({"model": "evil", "content": long}));
    assert!(
        ["tokenizer_failed", "deadline_exceeded"].contains(&&*answer.error_code())
            || answer.status == 200,
        "{}",
        answer.body
    );
    serves(&daemon, "good");
    serves(&daemon, "words");
}

#[test]
fn names_steer_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let name = "a\u{1b}[2J\u{202e}b";
    fs::write(folder.path().join(format!("{name}.gguf")), "no model").unwrap();
    let own = folder.path().join("\u{202e}own\u{9b}2J");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("m.rkllm"), "x").unwrap();
    let steers = |text: &str| text.contains(['\u{1b}', '\u{202e}', '\u{9b}']);
    let output = models(folder.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("problem: ") && !steers(&text), "{text:?}");
    let json = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(["models", "--json", "--models"])
        .arg(folder.path())
        .output()
        .unwrap();
    let json = String::from_utf8(json.stdout).unwrap();
    assert!(!steers(&json), "{json:?}");
    serde_json::from_str::<Value>(&json).unwrap();
    let setup = setup();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), setup.models().join(entry.file_name())).unwrap();
    }
    let daemon = setup.start();
    serves(&daemon, "good");
    reload(&daemon);
    let lines = daemon.log.lines();
    assert!(lines.iter().any(|line| line.contains("model skipped")));
    assert!(!lines.iter().any(|line| steers(line)), "{lines:?}");
}

#[test]
fn folders_of_publishers_are_found() {
    let setup = setup();
    let at = |path: &str, content: &str| {
        let path = setup.models().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    at("acme/tiny/model.rkllm", "tokens = [\"x\"]\n");
    at("acme/tiny/model.toml", "template = \"chatml\"\n");
    at("acme/deep/one/two/model.rkllm", "tokens = [\"x\"]\n");
    at("acme/notes/readme.txt", "nothing");
    let text = listed(&setup.models());
    assert!(text.contains("acme/tiny"), "{text}");
    assert!(
        text.lines()
            .any(|line| line.contains("/acme/deep: ") && line.contains("one")),
        "{text}"
    );
    assert!(!text.contains("acme/notes"), "{text}");
    let daemon = setup.start();
    serves(&daemon, "acme/tiny");
    let described = daemon.get("/v1/models/acme/tiny");
    assert_eq!(described.json()["id"], "acme/tiny", "{}", described.body);
}

#[test]
fn advice_for_a_model_without_a_template_helps() {
    for advised in ["bare.jinja", "chat_template.jinja", "bare.toml"] {
        let setup = setup();
        let folder = setup.models();
        fs::write(folder.join("bare.rkllm"), "tokens = [\"x\"]\n").unwrap();
        let daemon = setup.start();
        let refused = daemon.post(CHAT, &chat("bare", "x", json!({})));
        assert_eq!(refused.error_code(), "no_chat_template", "{}", refused.body);
        let error: Value = refused.json();
        let message = error["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("`bare.jinja`") && message.contains("`bare.toml`"),
            "{message}"
        );
        let content = match advised {
            "bare.toml" => "template = \"chatml\"\n",
            _ => "{{ messages[0].content }}",
        };
        fs::write(folder.join(advised), content).unwrap();
        reload(&daemon);
        serves(&daemon, "bare");
    }
}

#[test]
fn a_template_that_does_not_compile_is_called_that() {
    let daemon = setup()
        .scenario("bad", "tokens = [\"x\"]\n")
        .model_file("bad", "model.toml", "")
        .model_file("bad", "chat_template.jinja", "{{ .Prompt }}{{ end }}")
        .start();
    let answer = daemon.post(TEXT, &completion("bad", "x", json!({})));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let refused = daemon.post(CHAT, &chat("bad", "x", json!({})));
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (500, "chat_template_broken"),
        "{}",
        refused.body
    );
    let lines = daemon.log.lines();
    assert!(
        !lines.iter().any(|line| line.contains("skipped")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("cannot be used")),
        "{lines:?}"
    );
}

#[test]
fn the_sandbox_holds_here() {
    let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .arg("reader-self-test")
        .output()
        .expect("rkllmd");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("Seccomp: 2") && text.contains("exec: Operation not permitted"),
        "{text}"
    );
}
