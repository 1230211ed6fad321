//! The `openai` package from PyPI talks to the daemon as it would to OpenAI.

mod daemon_support;

use std::path::PathBuf;
use std::process::Command;

use daemon_support::Setup;

/// Pinned, so that a new release changes nothing by itself.
const PACKAGE: &str = "openai==3.54.0";

/// Where the package is, installed once into the cache folder.
fn package_folder() -> PathBuf {
    let folder = daemon_support::cache_folder().join(PACKAGE);
    if !folder.is_dir() {
        let parent = folder.parent().expect("a parent");
        std::fs::create_dir_all(parent).expect("the cache folder");
        let unfinished = tempfile::tempdir_in(parent).expect("a folder beside it");
        let installed = Command::new("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--target",
            ])
            .arg(unfinished.path())
            .arg(PACKAGE)
            .status()
            .expect("python3 with pip");
        assert!(installed.success(), "pip cannot install {PACKAGE}");
        std::fs::rename(unfinished.keep(), &folder).expect("the finished folder takes its name");
    }
    folder
}

#[test]
fn a_whole_session() {
    let scenario = "tokens = [\"one \", \"two \", \"three \", \"four \", \"five \"]\n\
        token-delay-us = 2000\neos-token-id = 2\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let session = Command::new("python3")
        .arg("tests/openai_client.py")
        .args([format!("http://{}/v1", daemon.address), "m".to_owned()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PYTHONPATH", package_folder())
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&session.stderr);
    assert!(session.status.success(), "{said}");
    assert_eq!(
        String::from_utf8_lossy(&session.stdout).trim(),
        "whole session ok",
        "{said}"
    );
}
