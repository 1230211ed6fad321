//! A build without tests and a build with them ask every shared crate for the same features, so that
//! cargo compiles each once, and what is packaged is what was tested.

use std::collections::BTreeSet;
use std::process::Command;

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
        .current_dir(env!("CARGO_MANIFEST_DIR"))
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
