//! A build without tests and a build with them ask every shared crate for the same features, so that
//! cargo compiles each once, and what is packaged is what was tested. Only tests themselves are optimised less.

use std::collections::BTreeSet;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Name, version and features of each crate that a build of all members compiles.
fn crates_of(edges: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--workspace",
            "--no-dedupe",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p} {f}", "--edges", edges])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn tests_ask_no_shared_crate_for_more() {
    let without = crates_of("normal,build");
    let with = crates_of("normal,build,dev");
    assert!(
        without.len() > 150 && with.len() > without.len(),
        "{} and {}",
        without.len(),
        with.len()
    );
    let twice: Vec<_> = without.difference(&with).collect();
    assert!(
        twice.is_empty(),
        "compiled once more for tests, name what they ask in tests/one-build/Cargo.toml: {twice:#?}"
    );
}

/// Cargo calls it with the compiler and its arguments; here `echo` stands for that.
fn compiled_as(arguments: &[&str]) -> String {
    let config = format!("{ROOT}/.cargo/config.toml");
    let config = std::fs::read_to_string(config).expect("cargo's settings");
    let config: toml::Table = config.parse().expect("TOML");
    let wrapper = config["build"]["rustc-workspace-wrapper"].as_str();
    let output = Command::new(format!("{ROOT}/{}", wrapper.expect("a path")))
        .arg("echo")
        .args(arguments)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn tests_alone_are_compiled_with_little_optimisation() {
    let of_all = ["--crate-name", "rkllmd", "-C", "opt-level=3"];
    let said = of_all.join(" ");
    assert_eq!(compiled_as(&of_all), format!("{said}\n"));
    // As `make check` has it.
    let of_check = ["-C", "opt-level=1", "--test"];
    assert_eq!(compiled_as(&of_check), "-C opt-level=1 --test\n");
    let of_test = [&of_all[..], &["--test"]].concat();
    let compiled = compiled_as(&of_test);
    let more = compiled.strip_prefix(&format!("{said} --test"));
    // The last word on it counts.
    assert!(
        more.is_some_and(|more| more.contains("opt-level=1")),
        "{compiled}"
    );
}
