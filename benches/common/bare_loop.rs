//! The C program that only calls the library, compiled and kept running beside the daemon. It waits
//! for its next prompt on a pipe, so it costs nothing while the daemon is measured.

#![allow(dead_code, reason = "each program uses a part of this")]

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::daemon_support::{built_library, demo_model};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// One generation as its reader saw it; times count from the request.
pub struct Generation {
    pub tokens: f64,
    pub text: String,
    pub first_token_ms: f64,
    pub last_token_ms: f64,
    /// As the library reports it.
    pub prefill_tokens: f64,
    pub prefill_ms: f64,
}

pub struct BareLoop {
    child: Child,
    prompts: ChildStdin,
    results: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl BareLoop {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = folder.path().join("bare_loop");
        compile(&program);
        let mut child = Command::new(&program)
            .arg(built_library("rkllm_cpu"))
            .arg(demo_model())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the bare loop starts");
        Self {
            prompts: child.stdin.take().expect("piped"),
            results: BufReader::new(child.stdout.take().expect("piped")).lines(),
            child,
            _folder: folder,
        }
    }

    pub fn run(&mut self, prompt: &str, max_new_tokens: u32) -> Generation {
        let prompt = prompt.replace('\\', "\\\\").replace('\n', "\\n");
        writeln!(self.prompts, "{max_new_tokens} {prompt}").expect("the bare loop reads prompts");
        let line = self
            .results
            .next()
            .expect("the bare loop lives")
            .expect("a line");
        let result: Value = serde_json::from_str(&line).expect("a line of JSON");
        let number = |key: &str| result[key].as_f64().unwrap_or_else(|| panic!("{line}"));
        Generation {
            tokens: number("tokens"),
            text: result["text"]
                .as_str()
                .unwrap_or_else(|| panic!("{line}"))
                .to_owned(),
            first_token_ms: number("first_token_ms"),
            last_token_ms: number("last_token_ms"),
            prefill_tokens: number("prefill_tokens"),
            prefill_ms: number("prefill_ms"),
        }
    }
}

impl Drop for BareLoop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn compile(program: &Path) {
    let status = Command::new("cc")
        .arg("-O2")
        .arg(format!("-I{ROOT}/rkllm-cpu/include"))
        .arg("-o")
        .arg(program)
        .arg(format!("{ROOT}/benches/bare_loop.c"))
        .arg("-ldl")
        .status()
        .expect("a C compiler");
    assert!(status.success(), "bare_loop.c does not compile");
}
