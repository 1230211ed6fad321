//! The `openai` package from PyPI talks to the daemon as it would to OpenAI.

use std::process::Command;

use crate::daemon_support::{Setup, python_package};

/// Pinned, so that a new release changes nothing by itself.
const PACKAGE: &str = "openai==3.54.0";

#[test]
fn a_whole_session() {
    let scenario = "tokens = [\"one \", \"two \", \"three \", \"four \", \"five \"]\n\
        token-delay-us = 2000\neos-token-id = 2\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let session = Command::new("python3")
        .arg("tests/openai_client.py")
        .args([format!("http://{}/v1", daemon.address), "m".to_owned()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PYTHONPATH", python_package(PACKAGE))
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
