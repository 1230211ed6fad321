//! What is installed is listed with where it comes from, and goes again: by `rkllmd rm`, which has a running daemon
//! unload it first, and by Ollama's delete, which takes what a pull has brought. What is in use stays.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::daemon_support::{Answer, Daemon, Setup, chat, eventually, is_gone, request};
use crate::hub_support::{Hub, Repo, listed_gguf};
use serde_json::{Value, json};

const FINE: &str = "tokens = [\"fine\"]\n";
const SLOW: &str = "token-delay-us = 10000\nrepeat = { token = \"w \", times = 2000 }\n";
const SOURCE: &str = "template = \"chatml\"\n[source]\nendpoint = \"https://hub.lan\"\nrepository = \"owner/name\"\n\
    commit = \"0123456789abcdef0123456789abcdef01234567\"\nfile = \"model.rkllm\"\nlicence = \"apache-2.0\"\n";

/// How a manifest begins that a pull has written.
const PULLED: &str = "# Written by `rkllmd pull`.\n";

/// A daemon whose control socket is the test's own.
struct Running {
    daemon: Daemon,
    runtime: tempfile::TempDir,
}

impl Running {
    fn start(setup: Setup) -> Self {
        let runtime = tempfile::tempdir().expect("a folder");
        let path = runtime.path().to_str().expect("UTF-8");
        let daemon = setup.environment("RUNTIME_DIRECTORY", path).start();
        eventually("the control socket", || {
            runtime.path().join("control.sock").exists().then_some(())
        });
        Self { daemon, runtime }
    }

    fn models(&self) -> PathBuf {
        self.daemon.folder().join("models")
    }

    fn remove(&self, arguments: &[&str]) -> Output {
        let config = self.daemon.folder().join("rkllmd.toml");
        rkllmd(
            "rm",
            arguments,
            &config,
            &self.models(),
            self.runtime.path(),
        )
    }

    fn ask(&self, model: &str) -> Answer {
        let body = chat(model, "x", json!({}));
        self.daemon.post("/v1/chat/completions", &body)
    }
}

fn rkllmd(
    command: &str,
    arguments: &[&str],
    config: &Path,
    models: &Path,
    runtime: &Path,
) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .arg(command)
        .args(arguments)
        .arg("--config")
        .arg(config)
        .arg("--models")
        .arg(models)
        .env("RUNTIME_DIRECTORY", runtime)
        .stdin(Stdio::null())
        .output()
        .expect("the command runs")
}

/// Without a daemon.
fn alone(command: &str, arguments: &[&str], setup: &Setup) -> Output {
    // Writes the settings.
    drop(setup.command());
    let config = setup.folder().join("rkllmd.toml");
    rkllmd(command, arguments, &config, &setup.models(), setup.folder())
}

fn ids(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let models = json["data"].as_array().expect("models").iter();
    models
        .map(|model| model["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn a_loaded_model_is_unloaded_and_goes() {
    let setup = Setup::new().scenario("gone", FINE).scenario("kept", FINE);
    let running = Running::start(setup);
    assert_eq!(running.ask("gone").content(), "fine");
    let worker = running.daemon.worker_pid();
    let output = running.remove(&["gone", "--yes"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "gone is removed\n");
    assert!(is_gone(worker), "its worker has ended");
    assert!(!running.models().join("gone").exists());
    assert!(!running.models().join(".pulls").exists(), "nothing is left");
    assert_eq!(ids(&running.daemon.get("/v1/models")), ["kept"]);
    assert_eq!(running.ask("gone").status, 404);
    assert_eq!(running.ask("kept").content(), "fine");
    let again = running.remove(&["gone", "--yes"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
}

#[test]
fn a_model_in_use_stays() {
    let running = Running::start(Setup::new().scenario("busy", SLOW));
    let body = chat("busy", "x", json!({"stream": true}));
    let mut stream = running.daemon.stream("/v1/chat/completions", &body);
    assert!(stream.next_content().is_some(), "it answers");
    let output = running.remove(&["busy", "--yes"]);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(running.models().join("busy/model.rkllm").exists());
    assert!(stream.next_content().is_some(), "the answer goes on");
}

#[test]
fn nothing_goes_that_was_not_confirmed() {
    let setup = Setup::new().scenario("one", FINE);
    let output = alone("rm", &["one"], &setup);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let folder = setup.models().join("one").display().to_string();
    assert!(said.contains(&folder) && said.contains("--yes"), "{said}");
    assert!(setup.models().join("one/model.rkllm").exists());
    // No daemon is needed.
    let output = alone("rm", &["one", "--yes"], &setup);
    assert!(output.status.success(), "{output:?}");
    assert!(!setup.models().join("one").exists());
}

#[test]
fn what_is_installed_says_where_it_comes_from() {
    let setup = Setup::new()
        .model_file("owner/name", "model.rkllm", FINE)
        .model_file("owner/name", "model.toml", SOURCE)
        .scenario("copied", FINE);
    for command in ["list", "models"] {
        let output = alone(command, &["--json"], &setup);
        let listing: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(listing["models"][0]["id"], "copied");
        assert_eq!(listing["models"][0].get("source"), None);
        let source = &listing["models"][1]["source"];
        assert_eq!(source["repository"], "owner/name");
        assert_eq!(source["licence"], "apache-2.0");
    }
    let output = alone("list", &[], &setup);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = "source: owner/name: owner/name at 0123456789ab, model.rkllm, licence apache-2.0";
    assert!(said.lines().any(|it| it == line), "{said}");
    let output = alone("show", &["owner/name"], &setup);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for (heading, text) in [
        ("ID", "owner/name"),
        ("REPOSITORY", "owner/name"),
        ("LICENCE", "apache-2.0"),
        ("HUB", "https://hub.lan"),
    ] {
        let is_there = said.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(heading) && words.next() == Some(text)
        });
        assert!(is_there, "{heading} in {said}");
    }
    assert!(!said.contains("copied"), "{said}");
    let output = alone("show", &["absent"], &setup);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn what_pulls_have_left_is_pruned() {
    let setup = Setup::new()
        .scenario("kept", FINE)
        .model_file(".pulls/owner/name", "part", "12345")
        .model_file("owner/gone", "model.toml", PULLED)
        // Its model is still to be copied.
        .model_file("hand", "model.toml", SOURCE);
    let output = alone("prune", &["--dry-run", "--json"], &setup);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let kinds: Vec<_> = found.as_array().expect("a list").iter().collect();
    assert_eq!(kinds.len(), 2, "{found}");
    assert_eq!(
        (&kinds[0]["kind"], &kinds[0]["bytes"]),
        (&json!("pull"), &json!(5))
    );
    assert_eq!(kinds[1]["kind"], "beside");
    assert!(setup.models().join(".pulls/owner/name/part").exists());
    let output = alone("prune", &[], &setup);
    assert!(output.status.success(), "{output:?}");
    assert!(!setup.models().join(".pulls").exists());
    assert!(!setup.models().join("owner").exists());
    assert!(setup.models().join("hand/model.toml").exists());
    assert!(setup.models().join("kept/model.rkllm").exists());
}

#[test]
fn what_a_pull_has_brought_is_deleted_by_request() {
    const MODEL: &str = "model-Q4_1.gguf";
    let hub = Hub::of(Repo::new(&[(MODEL, &listed_gguf(10_000))]));
    // No library loads it, but it is served; as is one that an administrator has put there.
    let setup = Setup::new()
        .scenario("copied", FINE)
        .settings(&format!("hub.endpoint = {:?}", hub.endpoint()))
        .settings("hub.retry-wait = \"0s\"\nhub.keep-free-bytes = 0");
    let daemon = setup.start();
    let pull = json!({"model": "owner/name", "stream": false});
    let pulled = daemon.post("/api/pull", &pull);
    assert_eq!(pulled.status, 200, "{}", pulled.body);
    let models = daemon.folder().join("models");
    assert!(models.join("owner/name").join(MODEL).exists());
    let delete = |model: &str| {
        let body = json!({"model": model});
        request(daemon.address, "DELETE", "/api/delete", Some(&body))
    };
    assert_eq!(delete("copied").status, 400);
    assert!(models.join("copied/model.rkllm").exists());
    assert_eq!(ids(&daemon.get("/v1/models")), ["copied", "owner/name"]);
    // Something lies beside it that no pull has brought.
    let notes = models.join("owner/name/notes");
    std::fs::write(&notes, "mine").expect("a file");
    assert_eq!(delete("owner/name").status, 400);
    assert!(models.join("owner/name").join(MODEL).exists() && notes.exists());
    std::fs::remove_file(&notes).expect("it goes");
    let deleted = delete("owner/name");
    assert_eq!(deleted.status, 200, "{}", deleted.body);
    assert!(!models.join("owner").exists() && !models.join(".pulls").exists());
    assert_eq!(ids(&daemon.get("/v1/models")), ["copied"]);
    assert_eq!(delete("owner/name").status, 404);
    let again = daemon.post("/api/pull", &pull);
    assert_eq!(again.status, 200, "it can be pulled anew: {}", again.body);
}
