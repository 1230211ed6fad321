//! Clients of Ollama, unchanged, talk to the daemon as they would to Ollama: a whole session of each, with
//! chats, streams, thoughts, two calls at once, answers of a form, embeddings, and what is refused.

use std::path::Path;

use crate::client_sessions::{WHOLE, host, setup};
use crate::daemon_support::{
    Setup, eventually, is_whole, keys, node, npm_packages, python_session,
};
use crate::function_calls::HARD;

// Pinned, so that a new release changes nothing by itself.
const OLLAMA: &str = "ollama==0.6.3";
/// That of Home Assistant 2026.11.0.
const HOME_ASSISTANTS: &str = "ollama==0.6.2";
const LANGCHAIN: &str = "langchain-ollama==1.1.0";
const LITELLM: &str = "litellm==1.110.2";
const NPM: [&str; 3] = ["ollama@0.6.4", "ai-sdk-ollama@4.3.0", "ai@7.0.173"];

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ollama_clients");

/// The same with one whose answers are kept to a format.
fn with_real_model() -> Setup {
    setup().demo_model("real").settings("models.max-loaded = 2")
}

fn hold(script: &str, package: &str, arguments: &[&str]) {
    let script = format!("ollama_clients/{script}");
    python_session(&script, package, arguments, WHOLE);
}

#[test]
fn the_official_package() {
    let daemon = setup().start();
    hold("ollama_client.py", OLLAMA, &[&host(&daemon), "m", HARD]);
}

#[test]
fn home_assistant() {
    let daemon = with_real_model().start();
    let key = keys(daemon.folder(), "add home");
    eventually("keys being asked for", || {
        (daemon.get("/api/tags").status == 401).then_some(())
    });
    hold(
        "home_assistant.py",
        HOME_ASSISTANTS,
        &[&host(&daemon), &key, "m", HARD, "real"],
    );
}

#[test]
fn langchain() {
    let daemon = with_real_model().start();
    hold(
        "langchain.py",
        LANGCHAIN,
        &[&host(&daemon), "m", HARD, "real"],
    );
}

#[test]
fn litellm() {
    let daemon = with_real_model().start();
    hold(
        "litellm_provider.py",
        LITELLM,
        &[&host(&daemon), "m", HARD, "real"],
    );
}

#[test]
fn npms_packages() {
    let daemon = with_real_model().start();
    let packages = npm_packages(&NPM);
    let mut session = node();
    session
        .current_dir(FOLDER)
        .arg(Path::new("session.mjs"))
        .arg(packages)
        .args([&host(&daemon), "m", HARD, "real"]);
    is_whole(session, WHOLE);
}
