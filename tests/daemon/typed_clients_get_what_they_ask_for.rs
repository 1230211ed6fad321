//! Clients from PyPI and npm that ask for typed answers get them of the real model, as they would of OpenAI.

use std::process::Command;

use crate::daemon_support::{Setup, node, npm_packages, python_package};

const MODEL: &str = "smollm2";

/// Each with its package, pinned, so that a new release changes nothing by itself.
const CLIENTS: [(&str, &str); 4] = [
    ("openai", "pydantic-ai-slim[openai]==2.68.0"),
    ("pydantic-ai", "pydantic-ai-slim[openai]==2.68.0"),
    ("instructor", "instructor==1.17.0"),
    ("langchain", "langchain-openai==1.7.4"),
];

#[test]
fn every_client_gets_its_type() {
    let daemon = Setup::new().demo_model(MODEL).start();
    for (client, package) in CLIENTS {
        let session = Command::new("python3")
            .arg("tests/typed_clients.py")
            .args([client, &format!("http://{}/v1", daemon.address), MODEL])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PYTHONPATH", python_package(package))
            .env("LANGSMITH_TRACING", "false")
            .output()
            .expect("python3");
        let said = String::from_utf8_lossy(&session.stderr);
        assert!(session.status.success(), "{client}: {said}");
        assert_eq!(
            String::from_utf8_lossy(&session.stdout).trim(),
            "typed answers ok",
            "{client}: {said}"
        );
    }
}

const NPM: [&str; 4] = [
    "openai@7.59.0",
    "zod@4.6.7",
    "ai@7.0.173",
    "@ai-sdk/openai-compatible@3.0.92",
];

#[test]
fn clients_of_npms_get_objects_of_zods() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let session = node()
        .arg("tests/typed_clients.mjs")
        .arg(npm_packages(&NPM))
        .args([&format!("http://{}/v1", daemon.address), MODEL])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("node");
    let said = String::from_utf8_lossy(&session.stderr);
    assert!(session.status.success(), "{said}");
    let printed = String::from_utf8_lossy(&session.stdout);
    assert_eq!(printed.trim(), "typed answers ok", "{said}");
}
