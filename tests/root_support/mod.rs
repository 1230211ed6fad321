//! What only root can try. Elsewhere such a test is not made and says so; under CI (`CI` is set)
//! that is a failure, because there the words of a test that passes are not read.

/// Whether the test can be made; `why` says what it needs root for.
pub fn is_root_for(why: &str) -> bool {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let is_root = rustix::process::geteuid().is_root();
    can_be_made(is_root, is_ci, why)
}

fn can_be_made(is_root: bool, is_ci: bool, why: &str) -> bool {
    assert!(is_root || !is_ci, "under CI every test is made: {why}");
    if !is_root {
        eprintln!("not root, so this was not tried: {why}");
    }
    is_root
}

#[test]
fn under_ci_nothing_passes_untried() {
    assert!(can_be_made(true, true, "x") && can_be_made(true, false, "x"));
    assert!(!can_be_made(false, false, "x"));
    assert!(std::panic::catch_unwind(|| can_be_made(false, true, "x")).is_err());
}
