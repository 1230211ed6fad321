//! Where the kernel has Landlock a worker reaches its model, its library and its own folders, and nothing of the
//! daemon's, of other models' or of other tenants'. Where it has none, that is told, and this test says so.

use std::fs;
use std::path::Path;

use crate::daemon_support::{Daemon, Setup, chat, eventually, keys};
use crate::doors::{Door, bearer};
use crate::prefixes_support::{self, COMPLETIONS, ask, beginning, folder, names};
use rkllmd::confinement::Landlock;
use serde_json::{Value, json};

const LOOK: &str = "look";
/// What a worker tries is named in that file, beside its model.
const FAULT: &str = "[[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"look around\"\nkind = \"reach\"\ntext = \"look\"\n";

/// Has the worker of the model `m` try these; gives what it said of each.
fn tried(daemon: &Daemon, paths: &[&Path], ask: impl FnOnce()) -> Vec<String> {
    let shown: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    fs::write(
        daemon.folder().join("models/m").join(LOOK),
        shown.join("\n"),
    )
    .expect("written");
    ask();
    let told = |path: &String| {
        let begin = format!("reach {path} read: ");
        eventually(&begin, || {
            let lines = daemon.log.lines();
            let line = lines.iter().rev().find(|line| line.contains(&begin))?;
            let (_, told) = line.split_once(&begin)?;
            let words: Vec<_> = told.split_whitespace().take(3).collect();
            Some(format!("read: {}", words.join(" ")))
        })
    };
    shown.iter().map(told).collect()
}

const REFUSED: &str = "read: PermissionDenied written: PermissionDenied";
const READ: &str = "read: yes written: PermissionDenied";
const WRITTEN: &str = "read: yes written: yes";

/// What is to be seen of what a confined worker must not reach.
fn hidden() -> &'static str {
    match Landlock::of_this_machine() {
        Landlock::There(_) => REFUSED,
        Landlock::Missing(reason) => {
            eprintln!(
                "NOT CONFINED: this machine has no Landlock ({reason}): only what is told is tested"
            );
            WRITTEN
        }
    }
}

fn own() -> &'static str {
    match Landlock::of_this_machine() {
        Landlock::There(_) => READ,
        Landlock::Missing(_) => WRITTEN,
    }
}

#[test]
fn a_worker_reaches_its_model_and_no_keys_and_no_other_model() {
    let model = format!("tokens = [\"fine\"]\n{FAULT}");
    let setup = Setup::new()
        .confined()
        .settings("models.max-loaded = 2")
        .scenario("m", &model)
        .scenario("other", "tokens = [\"other\"]\n");
    let admin = keys(setup.folder(), "add admin --role admin");
    let daemon = setup.start();
    let at = |name: &str| daemon.folder().join(name);
    fs::create_dir_all(at("state/prompt-caches")).expect("a folder");
    let seen = [
        at("keys.toml"),
        at("state"),
        at("models"),
        at("models/other"),
        at("models/other/model.rkllm"),
        at("rkllmd.toml"),
        at("models/m/model.rkllm"),
    ];
    let door = Door::Tcp(daemon.address);
    let post = |prompt: &str| {
        let body = chat("m", prompt, json!({})).to_string();
        let answer = door.ask("POST", "/v1/chat/completions", &bearer(Some(&admin)), &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let paths: Vec<&Path> = seen.iter().map(|path| &**path).collect();
    let told = tried(&daemon, &paths, || post("look around"));
    let (last, others) = told.split_last().expect("some");
    assert!(others.iter().all(|told| told == hidden()), "{told:?}");
    assert_eq!(last, own(), "its own model");
    // It serves on, and another model is served too.
    post("anything");
    let body = chat("other", "x", json!({})).to_string();
    let answer = door.ask("POST", "/v1/chat/completions", &bearer(Some(&admin)), &body);
    assert_eq!(answer.status, 200, "{}", answer.body);

    let status = door.ask("GET", "/v1/status", &bearer(Some(&admin)), "");
    let status: Value = serde_json::from_str(&status.body).expect("JSON");
    let confinement = &status["confinement"];
    match Landlock::of_this_machine() {
        Landlock::There(version) => {
            assert_eq!(confinement["landlock"], version);
            assert_eq!(confinement["workers"], true);
            assert_eq!(confinement["reason"], Value::Null);
            daemon.log.wait_for("who is confined to its own files");
        }
        Landlock::Missing(reason) => {
            assert_eq!(confinement["landlock"], Value::Null);
            assert_eq!(confinement["workers"], false);
            assert_eq!(confinement["reason"], reason);
            daemon.log.wait_for("no Landlock");
        }
    }
}

/// Also not while it serves that other tenant: it has what it was given for a call, and no longer.
#[test]
fn a_worker_reaches_no_prefix_that_it_was_not_given() {
    let setup = prefixes_support::setup(1, FAULT).confined();
    let add = |arguments: &str| keys(setup.folder(), &format!("add {arguments}"));
    let [one, other] = ["one --tenant upstairs", "other --tenant downstairs"].map(add);
    let daemon = setup.start();
    let door = Door::Tcp(daemon.address);
    let post = |key: &str, prompt: &str| {
        let body = ask(prompt).to_string();
        let answer = door.ask("POST", COMPLETIONS, &bearer(Some(key)), &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        prefixes_support::told(&answer.json()).1
    };
    // Each takes the other's slot, so that both have their prefixes on disk.
    for key in [&one, &other, &one, &other] {
        post(key, &beginning("a"));
    }
    let prefixes = folder(&daemon);
    let files = eventually("files of both", || {
        let files = names(&prefixes, ".cache");
        (files.len() >= 2).then_some(files)
    });
    let mut seen: Vec<_> = files.iter().map(|name| prefixes.join(name)).collect();
    seen.push(prefixes.clone());
    let paths: Vec<&Path> = seen.iter().map(|path| &**path).collect();
    let told = tried(&daemon, &paths, || {
        post(&other, "look around");
    });
    assert!(told.iter().all(|told| told == hidden()), "{told:?}");
    // What lies on disk is still loaded for whose it is.
    assert!(post(&one, &beginning("a")) <= prefixes_support::NEW_WORDS);
    // And is taken back from where the worker reads.
    if Landlock::of_this_machine().version().is_some() {
        let entries = fs::read_dir(&prefixes).expect("the folder").flatten();
        let mut hatches =
            entries.filter(|it| it.file_name().to_string_lossy().starts_with(".worker-"));
        let given = hatches.next().expect("the worker's").path().join("given");
        eventually("what was given being taken back", || {
            (fs::read_dir(&given).expect("its folder").count() == 0).then_some(())
        });
        assert!(hatches.next().is_none(), "of the one worker there is");
    }
}

#[test]
fn a_setting_switches_it_off() {
    let model = format!("tokens = [\"fine\"]\n{FAULT}");
    let daemon = Setup::new()
        .confined()
        .scenario("m", &model)
        .settings("confinement.workers = false")
        .start();
    let state = daemon.folder().join("state");
    let told = tried(&daemon, &[&state], || {
        let body = chat("m", "look around", json!({}));
        let answer = daemon.post("/v1/chat/completions", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
    });
    assert_eq!(told, [WRITTEN]);
    assert_eq!(
        daemon.get("/v1/status").json()["confinement"]["workers"],
        false
    );
}

/// What one worker cannot be given stays for the next one.
#[test]
fn a_prefix_outlives_its_workers_folder() {
    if let Landlock::Missing(reason) = Landlock::of_this_machine() {
        return eprintln!("NOT TESTED: workers have no folders without Landlock ({reason})");
    }
    let daemon = prefixes_support::setup(1, "").confined().start();
    let [mut a, mut b] = ["a", "b"].map(beginning);
    prefixes_support::turn(&daemon, &mut a);
    prefixes_support::turn(&daemon, &mut b);
    let prefixes = folder(&daemon);
    let kept = prefixes.join(&names(&prefixes, ".cache")[0]);
    let mut entries = fs::read_dir(&prefixes).expect("the folder").flatten();
    let hatch = entries.find(|it| it.file_name().to_string_lossy().starts_with(".worker-"));
    let given = hatch.expect("the worker's").path().join("given");
    fs::remove_dir(given).expect("an empty folder");
    let evaluated = prefixes_support::turn(&daemon, &mut a);
    assert!(evaluated >= prefixes_support::WORDS as u64, "{evaluated}");
    daemon.log.wait_for("a worker's folder takes nothing");
    assert!(kept.exists());
    let failures = prefixes_support::metric(&daemon, "rkllmd_prefix_failures_total");
    assert_eq!(failures, 0);
}
