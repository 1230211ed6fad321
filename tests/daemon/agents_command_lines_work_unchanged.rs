//! Agents of npm's, unchanged: `codex exec`, which asks for OpenAI's responses, and `claude -p`, which asks for Anthropic's
//! messages. Neither reports to anyone.

use std::path::Path;
use std::process::Command;

use crate::client_sessions::{host, setup};
use crate::daemon_support::{Daemon, is_whole, node, npm_packages};

// Pinned, so that a new release changes nothing by itself.
const CODEX: &str = "@openai/codex@0.171.0";
const CLAUDE: &str = "@anthropic-ai/claude-code@2.1.197";

const SAID: &str = "one two three four five";

/// A daemon, and a folder for an agent.
fn start() -> (Daemon, tempfile::TempDir) {
    let home = tempfile::tempdir().expect("a folder");
    (setup().start(), home)
}

/// Finds nothing of its user's, and works where there is nothing.
fn at_home(session: &mut Command, home: &Path) {
    session.current_dir(home).env("HOME", home);
}

#[test]
#[ignore = "420 MB from npm: `cargo nextest run --release --workspace --run-ignored only agents`"]
fn codex() {
    let (daemon, home) = start();
    let config = format!(
        "model = \"m\"\nmodel_provider = \"board\"\ncheck_for_update_on_startup = false\n\
         [analytics]\nenabled = false\n\
         [model_providers.board]\nname = \"board\"\nbase_url = \"{}/v1\"\nwire_api = \"responses\"\n",
        host(&daemon)
    );
    std::fs::write(home.path().join("config.toml"), config).expect("a file");
    let packages = npm_packages(&[CODEX]);
    let mut session = node();
    session
        .arg(packages.join("node_modules/@openai/codex/bin/codex.js"))
        .args(["exec", "--skip-git-repo-check", "slow"])
        .env("CODEX_HOME", home.path());
    at_home(&mut session, home.path());
    is_whole(session, SAID);
}

#[test]
#[ignore = "240 MB from npm: `cargo nextest run --release --workspace --run-ignored only agents`"]
fn claude() {
    let (daemon, home) = start();
    let packages = npm_packages(&[CLAUDE]);
    let mut session = Command::new(packages.join("node_modules/.bin/claude"));
    session
        .args(["--bare", "--tools", "Bash,Read", "--model", "m"])
        .args(["-p", "slow"])
        .env("ANTHROPIC_BASE_URL", host(&daemon))
        .env("ANTHROPIC_API_KEY", "none")
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    at_home(&mut session, home.path());
    is_whole(session, SAID);
}
