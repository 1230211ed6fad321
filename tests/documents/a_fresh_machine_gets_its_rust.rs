//! `make run` and `make test` get a Rust toolchain by themselves where the distribution has one, and
//! never touch one that is there.

use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn chosen(found: &str, rustup: &str, web: &str) -> String {
    let output = Command::new(format!("{ROOT}/scripts/choose-rust"))
        .args(["1.95", found, rustup, web])
        .output()
        .expect("scripts/choose-rust can be run");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_choice_follows_what_the_machine_has() {
    let web = "1.96.0+dfsg1-1~deb12u2";
    for (machine, found, rustup, web, expected) in [
        ("Debian 12, bare", "none", "none", web, "web"),
        (
            "Debian 12 without updates",
            "none",
            "none",
            "1.85.0+dfsg3-1~deb12u3",
            "advise",
        ),
        (
            "Debian 13, bare",
            "none",
            "1.27.1-4+b1",
            "1.85.0+dfsg3-1~deb13u1",
            "rustup",
        ),
        (
            "Ubuntu 24.04, bare",
            "none",
            "1.26.0-5build1",
            "none",
            "rustup",
        ),
        ("Ubuntu 22.04, bare", "none", "none", "none", "advise"),
        ("no apt", "none", "none", "none", "advise"),
        (
            "rustup without a toolchain",
            "none",
            "here",
            "none",
            "rustup",
        ),
        ("rustup's stable", "1.95.0", "here", web, "keep"),
        ("rustup's nightly", "1.99.0-nightly", "here", "none", "keep"),
        ("rustup's old stable", "1.80.1", "here", web, "old"),
        ("Debian 12's own rustc", "1.63.0", "none", web, "old"),
        (
            "rustc-web was installed before",
            "1.96.0",
            "none",
            web,
            "keep",
        ),
        (
            "a version with more digits",
            "1.100.0",
            "none",
            "none",
            "keep",
        ),
        (
            "the version itself, as a package",
            "none",
            "none",
            "1.95.0-1",
            "web",
        ),
    ] {
        assert_eq!(chosen(found, rustup, web), expected, "{machine}");
    }
}
