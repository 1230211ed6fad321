//! Conversations whose turns say how much of them was evaluated.

use std::fs;
use std::path::{Path, PathBuf};

use crate::daemon_support::{Daemon, Setup, completion};
use serde_json::{Value, json};

pub const COMPLETIONS: &str = "/v1/completions";
pub const WORDS: usize = 600;
/// Words of a turn that are new: what was answered, what is said now, and the first one evaluated again.
pub const NEW_WORDS: u64 = 8;
/// An answer, and a prefill of a tenth of a second for a token, as far as the daemon is told.
pub const SCENARIO: &str = "prefix-reuse = true\ntokens = [\"one \", \"two \", \"three \"]\n[perf]\nprefill-time-ms = 60000.0\n";

pub fn setup(parallel: u8, faults: &str) -> Setup {
    let manifest = format!("template = \"chatml\"\nparallel = {parallel}\n");
    Setup::new()
        .scenario("m", &format!("{SCENARIO}{faults}"))
        .model_file("m", "model.toml", &manifest)
}

/// A long beginning that no other one shares.
pub fn beginning(name: &str) -> String {
    (0..WORDS).map(|n| format!("{name}{n} ")).collect()
}

pub fn ask(prompt: &str) -> Value {
    completion("m", prompt, json!({"max_tokens": 3}))
}

/// The text of an answer, and how many tokens of its prompt were evaluated.
pub fn told(answer: &Value) -> (String, u64) {
    let text = answer["choices"][0]["text"].as_str();
    let evaluated = answer["timings"]["prompt_n"].as_u64();
    let text = text.unwrap_or_else(|| panic!("no text: {answer}"));
    (text.to_owned(), evaluated.expect("the runtime told it"))
}

/// Takes a turn. Returns the tokens that were evaluated.
pub fn turn(daemon: &Daemon, conversation: &mut String) -> u64 {
    let (text, evaluated) = told(&daemon.post(COMPLETIONS, &ask(conversation)).json());
    assert_eq!(text, "one two three ");
    *conversation += &text;
    *conversation += "and then ";
    evaluated
}

/// What a metric of the model says; 0 where it is not there.
pub fn metric(daemon: &Daemon, name: &str) -> u64 {
    let page = daemon.get("/metrics").body;
    let values = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let is_it = series.split('{').next() == Some(name);
        is_it.then(|| value.parse::<f64>().expect("a number") as u64)
    });
    values.sum()
}

pub fn folder(daemon: &Daemon) -> PathBuf {
    daemon.folder().join("state/prefixes")
}

/// Where runs write now, in the folders that workers have among the prefixes.
pub fn saving(folder: &Path) -> Vec<String> {
    let workers = names(folder, "");
    let workers = workers.iter().filter(|name| name.starts_with(".worker-"));
    // What a worker does not need any more may go meanwhile.
    let saved = workers.filter_map(|name| fs::read_dir(folder.join(name).join("saved")).ok());
    let names = saved.flatten().flatten().map(|entry| entry.file_name());
    names
        .map(|name| name.into_string().expect("UTF-8"))
        .filter(|name| name.starts_with(".saving"))
        .collect()
}

/// The names in it that end so, in order.
pub fn names(folder: &Path, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.into_string().expect("UTF-8"))
        .filter(|name| name.ends_with(ending))
        .collect();
    names.sort();
    names
}
