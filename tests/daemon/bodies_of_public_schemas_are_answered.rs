//! Random bodies, made of the types that OpenAI's and Anthropic's packages have for them, are answered or refused by what is
//! wrong with them; none is the daemon's fault.
//!
//! `SCHEMA_BODIES` is how many, and `SCHEMA_SEED` makes the same ones again.

use std::process::Command;

use crate::client_sessions::thinking_template;
use crate::daemon_support::{Setup, python_package};

/// Of each dialect, unless `SCHEMA_BODIES` says otherwise.
const BODIES: usize = 5000;

const OPENAI: &str = "openai==3.54.0";
const ANTHROPIC: &str = "anthropic==2.14.0";

/// What there are of a dialect: paths, and the type of their bodies.
type Bodies = [(&'static str, &'static str); 2];

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

fn random_bodies(package: &str, module: &str, kind: &str, seed: u64, count: usize) -> Vec<String> {
    let made = Command::new("python3")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/public_schemas"))
        .arg("random_bodies.py")
        .args([module, kind, &seed.to_string(), &count.to_string()])
        .arg(r#"{"model": "m"}"#)
        .env("PYTHONPATH", python_package(package))
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    let bodies = String::from_utf8(made.stdout).expect("text");
    let bodies: Vec<String> = bodies.lines().map(str::to_owned).collect();
    assert_eq!(bodies.len(), count);
    bodies
}

fn no_body_is_the_daemons_fault(package: &str, module: &str, kinds: Bodies) {
    let seed = number("SCHEMA_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SCHEMA_SEED={seed}");
    let count = number("SCHEMA_BODIES").map_or(BODIES, |count| count as usize);
    let daemon = Setup::new()
        .model_file("m", "model.rkllm", "tokens = [\"x\"]\n")
        .model_file("m", "chat_template.jinja", &thinking_template())
        .start();
    // Most are of what is answered, the others of its counts.
    let counts = count / 10;
    for ((path, kind), count) in kinds.into_iter().zip([count - counts, counts]) {
        let (mut answered, mut refused) = (0, 0);
        for body in random_bodies(package, module, kind, seed, count) {
            let value = serde_json::from_str(&body).expect("JSON");
            let answer = daemon.post(path, &value);
            assert!(
                answer.status < 500,
                "SCHEMA_SEED={seed}: {path} {body}: {} {}",
                answer.status,
                answer.body
            );
            match answer.status {
                200 => answered += 1,
                _ => refused += 1,
            }
        }
        println!("{path}: {answered} answered, {refused} refused");
        // Else the bodies are of no use; without a tokenizer there is nothing to count with.
        let is_counted = path.ends_with("tokens");
        assert!(count < 100 || is_counted || answered > 0, "{path}");
    }
}

#[test]
fn of_openais_responses() {
    let kinds = [
        ("/v1/responses", "ResponseCreateParams"),
        ("/v1/responses/input_tokens", "InputTokenCountParams"),
    ];
    no_body_is_the_daemons_fault(OPENAI, "openai.types.responses", kinds);
}

#[test]
fn of_anthropics_messages() {
    let kinds = [
        ("/v1/messages", "MessageCreateParams"),
        ("/v1/messages/count_tokens", "MessageCountTokensParams"),
    ];
    no_body_is_the_daemons_fault(ANTHROPIC, "anthropic.types", kinds);
}
