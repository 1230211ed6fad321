//! A model that stops before the place where workers died has not come past it, so no request is
//! blamed for what may happen there to all of them.

use crate::daemon_support::{Setup, chat};
use serde_json::json;

#[test]
fn a_model_that_stops_early_at_the_probe_does_not_put_the_blame_on_a_request() {
    let scenario = "tokens = [\"a \", \"b \", \"c \", \"d \", \"e \", \"f \", \"g \", \"h \"]\n\
        token-delay-us = 30000\n\
        [[answer]]\nwhen-prompt-contains = \"Hello\"\ntokens = [\"x\", \"y\"]\n\
        [[fault]]\ncall = \"run\"\nafter-tokens = 6\nkind = \"segv\"\n";
    let daemon = Setup::with_family("1_3_1")
        .settings("recovery.backoff-first = \"10ms\"")
        .scenario("m", scenario)
        .start();
    let body = chat("m", "a prompt", json!({}));
    let blamed = daemon.post("/v1/chat/completions", &body);
    let (status, code) = (blamed.status, blamed.error_code());
    assert_eq!((status, &*code), (503, "worker_died"), "{}", blamed.body);
    let proof = daemon.log.wait_for("probed a model");
    assert!(proof.contains("Unknown"), "{proof}");
}
