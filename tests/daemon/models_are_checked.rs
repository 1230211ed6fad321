//! `rkllmd check` says whether a model will work: by what its files say, and by one load and one sentence in a
//! process of its own, under the deadlines of the settings. A daemon that runs goes on, and is told of.

use std::fs;
use std::process::{Command, Output};

use crate::daemon_support::{Setup, chat, eventually};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const FINE: &str = "tokens = [\"Hello\", \", \", \"world\", \"!\"]\n";

fn check(setup: &Setup, arguments: &[&str]) -> Output {
    // Writes the settings.
    drop(setup.command());
    Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .arg("check")
        .args(arguments)
        .arg("--config")
        .arg(setup.folder().join("rkllmd.toml"))
        .arg("--models")
        .arg(setup.models())
        .env("RKLLMD_LIBRARY__STATE_DIR", setup.folder().join("state"))
        // Where no daemon listens, whatever runs on this machine.
        .env("RUNTIME_DIRECTORY", setup.folder())
        .output()
        .expect("the command runs")
}

/// What it says as JSON, and its exit code.
fn checked(setup: &Setup, arguments: &[&str]) -> (Value, i32) {
    let output = check(setup, &[arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{output:?}"));
    (report, output.status.code().expect("it ended by itself"))
}

fn of<'a>(report: &'a Value, id: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {report}"))
}

fn status(report: &Value, id: &str) -> String {
    of(report, id)["status"]
        .as_str()
        .expect("a text")
        .to_owned()
}

/// A file that begins and ends as the vendor's do, and which no library here loads.
fn vendors(toolkit: &str) -> Vec<u8> {
    let mut file = vec![0xDA, 0xEE, 0xB3, 0x36];
    file.extend(3u32.to_le_bytes());
    file.extend(300u64.to_le_bytes());
    file.extend([0; 5000]);
    file.extend(format!("rkllm-toolkit version: {toolkit}").bytes());
    file
}

#[test]
fn a_model_that_answers_works() {
    let setup = Setup::new().scenario("good", FINE);
    let (report, code) = checked(&setup, &["good"]);
    assert_eq!(
        (report["verdict"].as_str(), code),
        (Some("works"), 0),
        "{report}"
    );
    assert_eq!(report["sentence"], "good works here.");
    let ids: Vec<&str> = report["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .map(|check| check["id"].as_str().expect("an id"))
        .collect();
    assert_eq!(ids, rkllmd::doctor::model_ids().collect::<Vec<_>>());
    assert_eq!(status(&report, "model.load"), "ok");
    let answer = of(&report, "model.answer")["observed"].as_str();
    assert!(
        answer.is_some_and(|it| it.contains("Hello, world!")),
        "{report}"
    );
    // Of the state folder nothing was made.
    assert!(!setup.folder().join("state").exists());
    // The same in words, by the path of its file.
    let path = setup.models().join("good/model.rkllm");
    let output = check(&setup, &[path.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("Hello") && said.contains("good works here."),
        "{output:?}"
    );
}

#[test]
fn what_a_daemon_has_loaded_is_told() {
    let runtime = tempfile::tempdir().expect("a folder");
    let path = runtime.path().to_str().expect("UTF-8");
    let setup = Setup::new()
        .scenario("good", FINE)
        .scenario("other", FINE)
        .environment("RUNTIME_DIRECTORY", path);
    let daemon = setup.start();
    eventually("the control socket", || {
        runtime.path().join("control.sock").exists().then_some(())
    });
    let beside = || {
        let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
            .args(["check", "good", "--json", "--config"])
            .arg(daemon.folder().join("rkllmd.toml"))
            .arg("--models")
            .arg(daemon.folder().join("models"))
            .env("RUNTIME_DIRECTORY", runtime.path())
            .output()
            .expect("the command runs");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        // It is a hint only.
        assert_eq!(report["verdict"], "works", "{report}");
        let observed = of(&report, "model.beside")["observed"].as_str();
        (
            status(&report, "model.beside"),
            observed.expect("a text").to_owned(),
        )
    };
    let nothing = "the daemon has no model loaded".to_owned();
    assert_eq!(beside(), ("ok".to_owned(), nothing));
    let answer = daemon.post("/v1/chat/completions", &chat("other", "x", json!({})));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let (status, observed) = beside();
    assert_eq!(status, "warn");
    assert!(observed.contains("has other loaded"), "{observed}");
    // It goes on.
    daemon.wait_for_phase("other", "ready");
}

#[test]
fn a_model_that_does_not_load_says_why() {
    let setup = Setup::new().scenario("bad", "no-such-key = 1\n");
    let (report, code) = checked(&setup, &["bad"]);
    assert_eq!(
        (report["verdict"].as_str(), code),
        (Some("does-not-work"), 2),
        "{report}"
    );
    assert_eq!(status(&report, "model.load"), "fail");
    assert_eq!(status(&report, "model.answer"), "skip");
    let sentence = report["sentence"].as_str().expect("a sentence");
    assert!(
        sentence.starts_with("bad will not work here. model.load: "),
        "{sentence}"
    );
}

/// A name with an adapter is checked with it, and not as the model without.
#[test]
fn an_adapter_that_cannot_be_used_is_told() {
    let manifest = "template = \"chatml\"\n\
        [[adapters]]\nname = \"tone\"\nfile = \"tone.rkllm\"\n\
        [[adapters]]\nname = \"gone\"\nfile = \"gone.rkllm\"\n";
    let setup = Setup::new()
        .model_file("m", "model.rkllm", FINE)
        .model_file("m", "model.toml", manifest)
        .model_file("m/adapters", "tone.rkllm", "tone");
    let (report, code) = checked(&setup, &["m:gone"]);
    assert_eq!(
        (report["verdict"].as_str(), code),
        (Some("does-not-work"), 2),
        "{report}"
    );
    assert_eq!(report["model"], "m:gone");
    assert_eq!(status(&report, "model.load"), "ok");
    let answer = of(&report, "model.answer")["observed"].as_str();
    assert!(
        answer.is_some_and(|it| it.contains("its adapter cannot be used")),
        "{report}"
    );
    for model in ["m:tone", "m"] {
        let (report, _) = checked(&setup, &[model]);
        assert_eq!(report["model"], model);
        assert_eq!(status(&report, "model.answer"), "ok", "{report}");
    }
}

#[test]
fn a_model_that_hangs_passes_its_deadline() {
    let hangs = format!("{FINE}[[fault]]\ncall = \"run\"\nkind = \"hang\"\n");
    let setup = Setup::new()
        .scenario("hangs", &hangs)
        .settings("deadlines.prefill-base = \"1s\"");
    let (report, code) = checked(&setup, &["hangs"]);
    assert_eq!(
        (report["verdict"].as_str(), code),
        (Some("does-not-work"), 2),
        "{report}"
    );
    assert_eq!(status(&report, "model.load"), "ok");
    assert_eq!(status(&report, "model.answer"), "fail");
}

#[test]
fn what_a_file_says_is_told_without_a_load() {
    let setup = Setup::new();
    let write = |model: &str, bytes: &[u8]| {
        let folder = setup.models().join(model);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("model.rkllm"), bytes).expect("a model");
        fs::write(folder.join("model.toml"), "template = \"chatml\"\n").expect("a file");
    };
    write("fits", &vendors("1.2.1"));
    write("newer", &vendors("9.9.9"));
    write("old", &vendors("1.1.4"));
    write("cut", &vendors("1.2.1")[..10]);
    write("other", b"this is no model");
    for (model, verdict, code, id) in [
        ("fits", "may-work", 0, ""),
        ("newer", "does-not-work", 2, "model.toolkit"),
        ("old", "doubtful", 1, "model.toolkit"),
        ("cut", "does-not-work", 2, "model.format"),
        ("other", "doubtful", 1, "model.format"),
    ] {
        let (report, exit) = checked(&setup, &[model, "--quick"]);
        assert_eq!(report["verdict"], verdict, "{report}");
        assert_eq!(exit, code, "{model}");
        let sentence = report["sentence"].as_str().expect("a sentence");
        assert!(
            sentence.contains(model) && sentence.contains(id),
            "{sentence}"
        );
    }
    let nothing = check(&setup, &["nothing", "--quick"]);
    assert_eq!(nothing.status.code(), Some(2));
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(said.contains("no model `nothing` is installed"), "{said}");
}

#[test]
fn a_pulled_file_that_has_changed_is_found() {
    let setup = Setup::new().scenario("pulled", FINE);
    let digest = Sha256::digest(FINE.as_bytes());
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let manifest = format!(
        "template = \"chatml\"\n[source]\nrepository = \"owner/name\"\nsha256 = \"{digits}\"\n"
    );
    fs::write(setup.models().join("pulled/model.toml"), manifest).expect("a file");
    let (report, code) = checked(&setup, &["pulled"]);
    assert_eq!(
        (status(&report, "model.whole"), code),
        ("ok".to_owned(), 0),
        "{report}"
    );
    fs::write(
        setup.models().join("pulled/model.rkllm"),
        FINE.replace("world", "there"),
    )
    .expect("a model");
    let (report, code) = checked(&setup, &["pulled"]);
    assert_eq!(
        (status(&report, "model.whole"), code),
        ("fail".to_owned(), 2),
        "{report}"
    );
}
