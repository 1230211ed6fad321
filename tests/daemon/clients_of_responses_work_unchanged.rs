//! Clients that ask for OpenAI's responses, unchanged: npm's `openai` and `@ai-sdk/openai`, and litellm, which makes responses
//! of chats as well; and on WebSockets the `openai` of PyPI and of npm.

use crate::client_sessions::{WHOLE, host, setup_with};
use crate::daemon_support::{
    Daemon, Setup, eventually, is_whole, keys, node, npm_packages, python_session, word_tokenizer,
};
use crate::function_calls::HARD;
use crate::openais_responses_work_unchanged::DIES;

// Pinned, so that a new release changes nothing by itself.
const LITELLM: &str = "litellm==1.110.2";
const NPM: [&str; 4] = [
    "openai@7.59.0",
    "zod@4.6.7",
    "@ai-sdk/openai@4.0.118",
    "ai@7.0.173",
];

/// What their WebSockets need is beside them.
const OPENAI_ON_SOCKETS: &str = "openai[realtime]==3.54.0";
const NPM_ON_SOCKETS: [&str; 2] = ["openai@7.59.0", "ws@8.23.0"];

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/responses_clients");

/// A daemon that asks for keys, two of these, and its address.
fn start() -> (Daemon, [String; 2], String) {
    start_of(setup_with(DIES))
}

/// The same with more models.
fn start_of(setup: Setup) -> (Daemon, [String; 2], String) {
    let daemon = setup
        .demo_model("real")
        .settings("models.max-loaded = 2\nrecovery.resume = false\n")
        .start();
    let made = ["add one", "add other"].map(|add| keys(daemon.folder(), add));
    eventually("keys being asked for", || {
        (daemon.get("/v1/models").status == 401).then_some(())
    });
    let url = format!("{}/v1", host(&daemon));
    (daemon, made, url)
}

#[test]
fn npms_packages() {
    let (_daemon, [key, other], url) = start();
    let mut session = node();
    session
        .current_dir(FOLDER)
        .arg("session.mjs")
        .arg(npm_packages(&NPM))
        .args([&url, &key, &other, "m", HARD, "real"]);
    is_whole(session, WHOLE);
}

#[test]
fn litellm() {
    let (_daemon, [key, _], url) = start();
    python_session(
        "responses_clients/litellm_bridge.py",
        LITELLM,
        &[&url, &key, "m", HARD],
        WHOLE,
    );
}

#[test]
fn pypis_openai_on_a_web_socket() {
    let short = "template = \"chatml\"\ncontext-length = 64\n";
    let setup = setup_with(DIES)
        .scenario("short", "echo-prompt = true\n")
        .model_file("short", "tokenizer.json", &word_tokenizer(&[]))
        .model_file("short", "model.toml", short);
    let (_daemon, [key, other], url) = start_of(setup);
    python_session(
        "responses_clients/socket_session.py",
        OPENAI_ON_SOCKETS,
        &[&url, &key, &other, "m", "real", "short"],
        WHOLE,
    );
}

#[test]
fn npms_openai_on_a_web_socket() {
    let (_daemon, [key, _], url) = start();
    let mut session = node();
    session
        .current_dir(FOLDER)
        .arg("socket_session.mjs")
        .arg(npm_packages(&NPM_ON_SOCKETS))
        .args([&url, &key, "m"]);
    is_whole(session, WHOLE);
}
