//! Clients of Anthropic's API, unchanged, talk to the daemon as they would to Anthropic's servers: a whole
//! session of each, with messages, streams, thoughts, two calls at once, and what is refused.

use crate::client_sessions::{WHOLE, host, setup_with};
use crate::daemon_support::{
    Daemon, eventually, is_whole, keys, node, npm_packages, python_session,
};
use crate::function_calls::HARD;

// Pinned, so that a new release changes nothing by itself.
const ANTHROPIC: &str = "anthropic==2.14.0";
const LITELLM: &str = "litellm==1.110.2";
const NPM: [&str; 3] = [
    "@anthropic-ai/sdk@1.14.0",
    "@ai-sdk/anthropic@4.0.105",
    "ai@7.0.173",
];

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/anthropic_clients");

fn hold(script: &str, package: &str, arguments: &[&str]) {
    let script = format!("anthropic_clients/{script}");
    python_session(&script, package, arguments, WHOLE);
}

/// A daemon that asks for keys, and one; its model dies whenever it is told to, and nothing goes on.
fn start() -> (Daemon, String) {
    // The first token has time to reach the client.
    let dies = "[[answer]]\nwhen-prompt-contains = \"die\"\ntokens = [\"a \", \"b \", \"c \"]\n\
         [[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"die\"\nafter-tokens = 1\nkind = \"delay\"\nms = 500\n\
         [[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"die\"\nafter-tokens = 2\nkind = \"segv\"\n";
    let daemon = setup_with(dies)
        .demo_model("real")
        .settings(
            "models.max-loaded = 2\nrecovery.resume = false\n\
             models.aliases = [\"claude-* = m\"]",
        )
        .start();
    let key = keys(daemon.folder(), "add claude");
    eventually("keys being asked for", || {
        (daemon.get("/v1/models").status == 401).then_some(())
    });
    (daemon, key)
}

#[test]
fn the_official_package() {
    let (daemon, key) = start();
    hold(
        "anthropic_client.py",
        ANTHROPIC,
        &[&host(&daemon), &key, "m", HARD, "real"],
    );
}

#[test]
fn litellm() {
    let (daemon, key) = start();
    hold(
        "litellm_provider.py",
        LITELLM,
        &[&host(&daemon), &key, "m", HARD],
    );
}

#[test]
fn npms_packages() {
    let (daemon, key) = start();
    let mut session = node();
    session
        .current_dir(FOLDER)
        .arg("session.mjs")
        .arg(npm_packages(&NPM))
        .args([&host(&daemon), &key, "m", HARD]);
    is_whole(session, WHOLE);
}
