//! `rkllmd bench board-facts` measures with every library that is run, and tells what it could not measure.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::daemon_support::{FAMILIES_RUN, built_library, demo_model, fake_runtime};

const SCENARIO: &str = "\
repeat = { token = \"word \", times = 100 }
token-delay-us = 2000
prefill-us-per-byte = 600
";

struct Bench {
    folder: tempfile::TempDir,
    library: (&'static str, PathBuf),
}

impl Bench {
    fn of_fake(family: &str, scenario: &str) -> Self {
        let bench = Self::with(("RKLLMD_RUNTIME__NPU_LIBRARY", fake_runtime(family)));
        fs::write(bench.models().join("m.rkllm"), scenario).unwrap();
        bench
    }

    fn with(library: (&'static str, PathBuf)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("models")).unwrap();
        Self { folder, library }
    }

    fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    fn run(&self, model: &str) -> Output {
        let (variable, library) = &self.library;
        Command::new(env!("CARGO_BIN_EXE_rkllmd"))
            .args(["bench", "board-facts", "--model", model, "--models"])
            .arg(self.models())
            .env_clear()
            .env(variable, library)
            .env("RKLLM_CPU_SEED", "7")
            // As other tests of a real model have it: two of its threads would spin for each other beside them.
            .env("RKLLM_CPU_THREADS", "1")
            .env(
                "RKLLMD_LIBRARY__STATE_DIR",
                self.folder.path().join("state"),
            )
            .env("RKLLMD_DEADLINES__READER_AT_START", "10m")
            .output()
            .expect("the program starts")
    }

    fn facts(&self) -> Value {
        let output = self.run("m");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        // It may be another user's than the daemon's.
        assert!(!self.folder.path().join("state").exists(), "{stderr}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Every fact of a report, with its name.
fn each(facts: &Value) -> Vec<(String, &Value)> {
    let mut all = Vec::new();
    for (name, value) in facts.as_object().unwrap() {
        match value {
            Value::Array(several) => all.extend(several.iter().map(|fact| (name.clone(), fact))),
            Value::Object(_) => all.push((name.clone(), value)),
            _ => {}
        }
    }
    all
}

fn is_told_or_explained(facts: &Value) {
    for (name, fact) in each(facts) {
        let has_value = !fact["value"].is_null();
        let has_reason = fact["reason"].as_str().is_some_and(|why| !why.is_empty());
        assert_ne!(has_value, has_reason, "{name}: {fact}");
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn every_family_is_measured() {
    for family in FAMILIES_RUN {
        let facts = Bench::of_fake(family, SCENARIO).facts();
        is_told_or_explained(&facts);
        let value = |name: &str| &facts[name]["value"];
        assert_eq!(facts["schema"], "rkllmd-board-facts-1");
        assert!(value("library")["version"].is_string(), "{family}: {facts}");
        assert_eq!(value("model_bytes"), SCENARIO.len(), "{family}");
        let decoding = value("decoding");
        assert_eq!(decoding["tokens"], 32, "{family}: {facts}");
        assert!(number(&decoding["tokens_per_second"]) > 0.0, "{family}");
        assert!(number(&decoding["first_token_ms"]) > 0.0, "{family}");
        let aborts = value("abort_latency")["decoding_ms"].as_array().unwrap();
        assert_eq!(aborts.len(), 5, "{family}");
        // As with the vendor's library, an abort waits for the prefill.
        let prefill = number(&value("prefill_abort")["prefill_ms"]);
        assert!(prefill > 100.0, "{family}: {prefill}");
        assert_eq!(value("several_handles")["handles"], 2, "{family}: {facts}");
        assert_eq!(value("several_handles")["tokens"], 64, "{family}");
        let memory = facts["memory_per_handle"].as_array().unwrap();
        assert_eq!(memory.len(), 2, "{family}");
        assert!(number(&memory[1]["value"]["available_open_bytes"]) > 0.0);
        assert_eq!(*value("callback_threads"), "caller", "{family}: {facts}");
    }
}

/// A library that dies in a run costs the fact that needs it.
#[test]
fn what_cannot_be_measured_has_its_reason() {
    let scenario = format!(
        "callback-thread = \"other\"\n{SCENARIO}[[fault]]\ncall = \"run\"\nkind = \"segv\"\nwhen-prompt-contains = \"froze. Tell\"\n"
    );
    let facts = Bench::of_fake("1_3_1", &scenario).facts();
    is_told_or_explained(&facts);
    // Only the long prompt says it all again and again. It is aborted on a worker or between two of them.
    let reason = facts["prefill_abort"]["reason"].as_str().unwrap();
    assert!(reason.contains("ended"), "{reason}");
    assert_eq!(facts["decoding"]["value"]["tokens"], 32);
    assert_eq!(facts["several_handles"]["value"]["handles"], 2, "{facts}");
    assert_eq!(facts["callback_threads"]["value"], "other", "{facts}");
}

#[test]
fn a_model_that_makes_nothing_is_exit_code_1() {
    let scenario = "[[fault]]\ncall = \"init\"\nkind = \"fail\"\n";
    let bench = Bench::of_fake("1_3_1", scenario);
    let output = bench.run("m");
    assert_eq!(output.status.code(), Some(1));
    let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
    is_told_or_explained(&facts);
    assert!(facts["decoding"]["value"].is_null());
    let unknown = bench.run("nothing");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no model `nothing`"));
    assert!(unknown.stdout.is_empty());
}

#[test]
fn the_cpu_runtime_is_measured_and_every_field_is_documented() {
    let bench = Bench::with(("RKLLMD_RUNTIME__CPU_LIBRARY", built_library("rkllm_cpu")));
    std::os::unix::fs::symlink(demo_model(), bench.models().join("m.gguf")).unwrap();
    let facts = bench.facts();
    is_told_or_explained(&facts);
    let prefills = facts["short_prefills"]["value"].as_array().unwrap();
    assert_eq!(prefills.len(), 7, "{facts}");
    assert_eq!(prefills[6]["given_tokens"], 64);
    assert!(number(&prefills[6]["first_token_ms"]) > 0.0, "{facts}");
    let reuse = &facts["prefix_reuse"]["value"];
    let evaluated = |run: &str| number(&reuse[run]["library_told"]["prefill_tokens"]);
    assert!(evaluated("first") >= evaluated("longer"), "{reuse}");
    assert!(
        number(&facts["logits_mode"]["value"]["callbacks_with_logits"]) > 0.0,
        "{facts}"
    );
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/board-facts.md");
    let document = fs::read_to_string(document).unwrap();
    let mut names = BTreeSet::new();
    collect_names(&facts, &mut names);
    assert!(names.contains("tokens_per_second"), "{names:?}");
    for name in names {
        assert!(
            document.contains(&format!("`{name}`")),
            "{name} is not documented"
        );
    }
}

/// Of board and clocks the API's document tells.
fn collect_names(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_elsewhere = name == "board" || name == "clocks";
                if name != "value" && name != "reason" {
                    names.insert(name.clone());
                }
                if !is_elsewhere {
                    collect_names(value, names);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_names(value, names)),
        _ => {}
    }
}
