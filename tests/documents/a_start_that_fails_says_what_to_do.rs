//! A daemon that cannot start, and a command that cannot look, say on what they failed and what helps, and end
//! at once.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Far longer than it takes to look at anything.
const AT_ONCE: Duration = Duration::from_secs(30);

/// With a state folder and keys of its own.
fn rkllmd(folder: &Path, arguments: &[&str]) -> Output {
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(arguments)
        .env_clear()
        .env("RKLLMD_HTTP__KEYS_FILE", folder.join("keys.toml"))
        .env("RKLLMD_LIBRARY__STATE_DIR", folder.join("state"))
        .output()
        .expect("the program starts");
    assert!(began.elapsed() < AT_ONCE, "{arguments:?}: {output:?}");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_address_that_another_program_has_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = folder.path().join("models");
    fs::create_dir(&models).expect("a models folder");
    let other = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = other.local_addr().expect("it has one").to_string();
    let models = models.to_str().expect("a text");
    let arguments = [
        "serve",
        "--config",
        "/dev/null",
        "--models",
        models,
        "--listen",
    ];
    let arguments: Vec<&str> = arguments.into_iter().chain([address.as_str()]).collect();
    let output = rkllmd(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let said = said(&output);
    for part in [&*address, "`ss -ltnp`", "`http.listen`"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_models_folder_that_is_none_is_named_by_the_daemon_and_the_commands() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.rkllm");
    fs::write(&file, "").expect("a file");
    for (path, advice) in [
        (folder.path().join("absent"), "make it"),
        (file, "not a model"),
    ] {
        let path = path.to_str().expect("a text");
        let serve: &[&str] = &["serve", "--listen", "127.0.0.1:0"];
        for command in [serve, &["list"], &["show", "m"], &["check", "m"]] {
            let more = ["--config", "/dev/null", "--models", path];
            let arguments: Vec<&str> = command.iter().copied().chain(more).collect();
            let output = rkllmd(folder.path(), &arguments);
            let said = said(&output);
            assert_ne!(output.status.code(), Some(0), "{command:?}: {said}");
            for part in ["reading the models folder", path, advice, "`models.dir`"] {
                assert!(said.contains(part), "{command:?} {part}: {said}");
            }
        }
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_named_with_what_the_system_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = folder.path().join("bytes.toml");
    fs::write(&bytes, [0xff, 0xfe, 0]).expect("a file");
    for path in [
        folder.path().join("absent.toml"),
        folder.path().to_owned(),
        bytes,
    ] {
        let path = path.to_str().expect("a text");
        for command in ["serve", "check-config", "list", "doctor"] {
            let output = rkllmd(folder.path(), &[command, "--config", path]);
            let said = said(&output);
            assert_eq!(output.status.code(), Some(78), "{command}: {said}");
            let begins = format!("error: {path}: cannot be read: ");
            assert!(said.starts_with(&begins), "{command}: {said}");
        }
    }
}

#[test]
fn a_command_without_what_it_needs_shows_how_it_is_used() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["serve", "--port", "80"],
        &["serve", "model.gguf"],
        &["pull"],
        &["show"],
        &["check"],
        &["rm"],
        &["keys", "add"],
    ] {
        let output = rkllmd(folder.path(), arguments);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("Usage: rkllmd"), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_command_says_what_it_does_and_shows_examples() {
    let folder = tempfile::tempdir().expect("a folder");
    let help = rkllmd(folder.path(), &["--help"]);
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let listed = help.split("Commands:").nth(1).expect("a list");
    let listed = listed.split("\n\n").next().expect("it ends");
    let names: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.contains(&"serve") && names.len() > 8, "{names:?}");
    for name in names {
        for flag in ["--help", "-h"] {
            let output = rkllmd(folder.path(), &[name, flag]);
            assert_eq!(output.status.code(), Some(0), "{name} {flag}");
            let text = String::from_utf8(output.stdout).expect("UTF-8");
            assert!(text.contains("Usage: rkllmd"), "{name} {flag}: {text}");
            assert!(text.contains("Examples:"), "{name} {flag}: {text}");
        }
    }
}
