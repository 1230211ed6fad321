//! A pull that is killed right before any of its calls that make, name, remove, cut or sync something on the disk
//! leaves no model or the whole one, whatever it was in the middle of, and the next pull goes on with what it has left.
//! `tests/kill-at-call` does the killing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::daemon_support::{built_library, eventually};
use crate::hub_support::{Hub, Repo, digits_of, listed_gguf};
use crate::models_folder_support::listed;

const MODEL: &str = "model-Q4_1.gguf";
const SETTINGS: &str = "generation_config.json";
const SIZE: usize = 300_000;
const SIGKILL: i32 = 9;
/// Fewer would not be all that a pull of two files does.
const LEAST_CALLS: u64 = 15;

fn files() -> [(&'static str, Vec<u8>); 2] {
    [(MODEL, listed_gguf(SIZE)), (SETTINGS, b"{}".to_vec())]
}

fn hub() -> Hub {
    let files = files();
    let files = files
        .each_ref()
        .map(|(name, content)| (*name, &content[..]));
    Hub::of(Repo::new(&files))
}

/// `rkllmd pull`, killed before its call of this number.
fn pull(hub: &Hub, models: &Path, killed_at: Option<u64>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rkllmd"));
    command
        .args(["pull", "owner/name", "--config", "/dev/null", "--models"])
        .arg(models)
        .env("RKLLMD_HUB__ENDPOINT", hub.endpoint())
        .env("RKLLMD_HUB__RETRY_WAIT", "0s")
        .env("RKLLMD_HUB__KEEP_FREE_BYTES", "0")
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY");
    if let Some(nth) = killed_at {
        command
            .env("LD_PRELOAD", built_library("kill_at_call"))
            .env("KILL_AT_CALL", nth.to_string());
    }
    command.output().expect("it runs")
}

/// Which call it was killed before; `None`: it has done all of them.
fn killed_at(hub: &Hub, models: &Path, nth: u64) -> Option<String> {
    let output = pull(hub, models, Some(nth));
    if output.status.signal() != Some(SIGKILL) {
        assert_eq!(output.status.code(), Some(0), "call {nth}: {output:?}");
        return None;
    }
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    let call = said.rsplit_once(&format!("killed before call {nth}: "));
    let (_, call) = call.unwrap_or_else(|| panic!("call {nth}: {said}"));
    Some(call.trim().to_owned())
}

/// Whether the model is there; whole then, and listed as what it is.
fn is_there(models: &Path, when: &str) -> bool {
    let place = models.join("owner/name");
    let is_there = place.symlink_metadata().is_ok();
    if is_there {
        for (name, content) in files() {
            let found = fs::read(place.join(name));
            let found = found.unwrap_or_else(|error| panic!("{when}: {name}: {error}"));
            assert!(found == content, "{when}: {name} is another one");
        }
        let manifest = fs::read_to_string(place.join("model.toml"));
        let manifest = manifest.unwrap_or_else(|error| panic!("{when}: {error}"));
        let manifest: toml::Table = manifest.parse().expect("a table");
        let sha256 = manifest["source"]["sha256"].as_str();
        assert_eq!(sha256, Some(&*digits_of(&files()[0].1)), "{when}");
    }
    let listed = listed(models);
    assert_eq!(listed.contains("owner/name"), is_there, "{when}: {listed}");
    is_there
}

/// What comes once more after a pull was killed before this call: an answer that it had begun to take, of which
/// nothing was kept yet, or a settings file that was not.
fn lost_before(call: &str) -> u64 {
    let [model, settings] = files().map(|(_, content)| content.len() as u64);
    match call.starts_with("ftruncate") {
        true => model,
        false => settings,
    }
}

/// The hub counts a piece after it has given it away.
fn has_sent_all_once(hub: &Hub, lost: u64, when: &str) {
    let files = files();
    let bytes: u64 = files.iter().map(|(_, content)| content.len() as u64).sum();
    eventually(&format!("{when}: every byte"), || {
        (hub.sent() >= bytes).then_some(())
    });
    let sent = hub.sent();
    assert!(
        (bytes..=bytes + lost).contains(&sent),
        "{when}: {sent} of {bytes} bytes"
    );
}

#[test]
fn killed_before_any_of_its_calls_a_pull_leaves_no_model_or_the_whole_one() {
    let mut calls = BTreeSet::new();
    let mut was_there = false;
    for nth in 1.. {
        let (folder, hub) = (tempfile::tempdir().expect("a folder"), hub());
        let Some(call) = killed_at(&hub, folder.path(), nth) else {
            assert!(nth > LEAST_CALLS, "it is killed {nth} times");
            break;
        };
        let when = format!("killed before call {nth}, {call}");
        let now = is_there(folder.path(), &when);
        assert!(now || !was_there, "{when}: it is installed by one call");
        was_there = now;
        let lost = lost_before(&call);
        calls.insert(call);
        let output = pull(&hub, folder.path(), None);
        assert_eq!(output.status.code(), Some(0), "{when}: {output:?}");
        assert!(is_there(folder.path(), &when), "{when}");
        has_sent_all_once(&hub, lost, &when);
    }
    assert!(was_there, "some calls come behind the installation");
    for call in ["fsync", "mkdir", "rename", "rmdir"] {
        assert!(calls.contains(call), "{calls:?}");
    }
}

/// Each goes on with what the one before has left.
#[test]
fn pulls_that_are_killed_one_after_the_other_come_to_their_end() {
    let (folder, hub) = (tempfile::tempdir().expect("a folder"), hub());
    let (mut kills, mut lost) = (0, 0);
    for nth in 1.. {
        let Some(call) = killed_at(&hub, folder.path(), nth) else {
            break;
        };
        kills += 1;
        lost += lost_before(&call);
        is_there(folder.path(), &format!("killed before call {nth}, {call}"));
    }
    assert!(kills > 1, "{kills}");
    assert!(is_there(folder.path(), "in the end"));
    has_sent_all_once(&hub, lost, "in the end");
}
