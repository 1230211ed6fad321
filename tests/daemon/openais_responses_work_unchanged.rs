//! The `openai` package from PyPI, unchanged, asks the daemon for responses as it would ask OpenAI: whole and streamed, kept
//! and gone on from, with thoughts, calls and schemas, and what is refused.

use crate::client_sessions::{WHOLE, host, setup_with};
use crate::daemon_support::{eventually, keys, python_session};
use crate::function_calls::HARD;

/// Pinned, so that a new release changes nothing by itself.
const PACKAGE: &str = "openai==3.54.0";

/// The model dies whenever it is told to, and nothing goes on. The first token has time to reach the client.
pub const DIES: &str = "[[answer]]\nwhen-prompt-contains = \"die\"\ntokens = [\"a \", \"b \", \"c \"]\n\
     [[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"die\"\nafter-tokens = 1\nkind = \"delay\"\nms = 500\n\
     [[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"die\"\nafter-tokens = 2\nkind = \"segv\"\n";

#[test]
fn a_session_about_responses() {
    let daemon = setup_with(DIES)
        .demo_model("real")
        .settings("models.max-loaded = 2\nrecovery.resume = false\n")
        .start();
    let key = keys(daemon.folder(), "add one");
    let other = keys(daemon.folder(), "add other");
    eventually("keys being asked for", || {
        (daemon.get("/v1/models").status == 401).then_some(())
    });
    let url = format!("{}/v1", host(&daemon));
    python_session(
        "openai_responses_client.py",
        PACKAGE,
        &[&url, &key, &other, "m", HARD, "real"],
        WHOLE,
    );
}
