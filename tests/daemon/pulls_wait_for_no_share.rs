//! What a pull looks up on its machine may lie on a share that does not answer: then the pull ends and says so, the
//! daemon serves, and nothing of the pull stays.

use std::fs;
use std::time::{Duration, Instant};

use crate::daemon_support::{Setup, eventually};
use crate::fuse_support::{HungMount, can_be_mounted};
use crate::hub_support::{Hub, Repo};
use crate::models_are_pulled::transfers;
use serde_json::json;

/// Of the setting's five seconds; the rest is a busy machine's.
const PROMISED: Duration = Duration::from_secs(30);

#[test]
fn a_token_on_a_share_that_hangs_ends_a_pull() {
    if !can_be_mounted() {
        return;
    }
    let hub = Hub::of(Repo::new(&[("model-Q4_0.gguf", b"a model")]));
    let setup = Setup::new();
    let share = setup.folder().join("share");
    fs::create_dir(&share).expect("a folder");
    fs::write(share.join("token"), "hf_token").expect("a file");
    let token = share.join("token").display().to_string();
    let daemon = setup
        .settings(&format!("hub.token-file = {token:?}"))
        .settings(&format!("hub.endpoint = {:?}", hub.endpoint()))
        .settings("deadlines.models-read = \"5s\"")
        .start();
    let hung = HungMount::over(&share);
    let begun = Instant::now();
    let answer = daemon.post(
        "/api/pull",
        &json!({"model": "owner/name", "stream": false}),
    );
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(
        answer.body.contains("deadlines.models-read"),
        "{}",
        answer.body
    );
    assert!(begun.elapsed() < PROMISED, "{:?}", begun.elapsed());
    assert!(hung.held() > 0, "it was looked up");
    assert!(hub.seen().is_empty());
    assert_eq!(daemon.get("/health").status, 200);
    eventually("the end of the transfer", || {
        transfers(&daemon).is_empty().then_some(())
    });
    drop(hung);
    // Once it answers pulls go on as ever.
    let answer = daemon.post("/api/pull", &json!({"model": "owner/absent"}));
    assert_eq!(answer.status, 404, "{}", answer.body);
}
