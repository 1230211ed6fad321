//! The `openai` package from PyPI talks to the daemon as it would to OpenAI.

use crate::daemon_support::{Daemon, Setup, python_session};

/// Pinned, so that a new release changes nothing by itself.
const PACKAGE: &str = "openai==3.54.0";

/// Has the client hold its session with the daemon.
fn hold(script: &str, daemon: &Daemon, model: &str) {
    let url = format!("http://{}/v1", daemon.address);
    python_session(script, PACKAGE, &[&url, model], "whole session ok");
}

#[test]
fn a_whole_session() {
    let scenario = "tokens = [\"one \", \"two \", \"three \", \"four \", \"five \"]\n\
        token-delay-us = 2000\neos-token-id = 2\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    hold("openai_client.py", &daemon, "m");
}

#[test]
fn a_session_about_log_probabilities() {
    let daemon = Setup::new().demo_model("smollm2").start();
    hold("openai_logprobs_client.py", &daemon, "smollm2");
}
