//! `rkllmd doctor`, as a user starts it who sets nothing in its environment, and what it tells.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;

pub fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .arg("doctor")
        .args(arguments)
        .env_clear()
        .output()
        .expect("the program starts")
}

/// What a report says of each check, by its id.
pub fn statuses(report: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = report["checks"].as_array().unwrap().iter();
    checks
        .map(|check| (text(&check["id"]), text(&check["status"])))
        .collect()
}
