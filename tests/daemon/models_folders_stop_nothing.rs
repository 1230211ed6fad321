//! Whatever stands in the models folder, the daemon starts, reloads, serves its other models and ends
//! when it is told to; `rkllmd models` ends; and each entry that is at fault is told in words.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::daemon_support::{chat, completion};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};

use super::models_folder_support::{
    CHAT, TEXT, ends_at_once, listed, models, reload, serves, setup,
};

/// The names that are looked at in a model's folder, and others that checkpoints have.
const NAMES: [&str; 13] = [
    "model.toml",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "mine.jinja",
    "generation_config.json",
    "config.json",
    "adapter_config.json",
    "adapter.lora",
    "x.gguf",
    "x.rkllm",
    "x-00002-of-00002.gguf",
];

/// Those beside `flat.rkllm`, whose model is in the models folder itself.
const FLAT_NAMES: [&str; 5] = [
    "flat.toml",
    "flat.jinja",
    "chat_template.jinja",
    "flat.gguf",
    "flat2.rkllm",
];

/// Puts something at `path` that is no regular file. What is returned keeps it there.
fn put(kind: &str, path: &Path) -> Option<UnixListener> {
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
            match name {
                "x.gguf" | "x.rkllm" => {}
                "x-00002-of-00002.gguf" => {
                    fs::write(own.join("x-00001-of-00002.gguf"), "GGUF").unwrap();
                }
                _ => fs::write(own.join("m.rkllm"), "tokens = [\"x\"]\n").unwrap(),
            }
            if name == "mine.jinja" {
                let manifest = "template-file = \"mine.jinja\"\n";
                fs::write(own.join("model.toml"), manifest).unwrap();
            }
            kept.push(put(kind, &own.join(name)));
        }
        fs::write(folder.join("flat.rkllm"), "tokens = [\"x\"]\n").unwrap();
        for name in FLAT_NAMES {
            kept.push(put(kind, &folder.join(name)));
        }
        let state = setup.folder().join("state");
        fs::create_dir_all(&state).unwrap();
        for name in ["adapters", "prompt-caches"] {
            kept.push(put(kind, &state.join(name)));
        }
        let text = listed(&folder);
        for name in [
            "own-tokenizer-json",
            "own-tokenizer_config-json",
            "own-special_tokens_map-json",
            "own-chat_template-jinja",
            "own-mine-jinja",
        ] {
            assert!(text.contains(name), "{kind}: {text}");
        }
        if kind != "folder" {
            for file in [
                "flat.gguf",
                "flat2.rkllm",
                "own-x-gguf/x.gguf",
                "own-x-rkllm/x.rkllm",
                "own-x-00002-of-00002-gguf/x-00002-of-00002.gguf",
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
