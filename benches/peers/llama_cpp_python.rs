//! llama-cpp-python: the package out of its sdist, over libraries of the same sources, both of which
//! `scripts/build-llama-server` puts beside llama.cpp's server.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::daemon_support::python_package;
use crate::llama_server;

/// What the package imports.
const NEEDED: [&str; 4] = [
    "numpy==2.2.6",
    "diskcache==5.6.3",
    "jinja2==3.1.6",
    "typing_extensions==4.15.0",
];
const LIBRARY: &str = "libllama.so";
const PACKAGE: &str = "python/llama_cpp/__init__.py";

fn folder() -> PathBuf {
    let server = llama_server::program();
    let server = std::fs::canonicalize(&server).expect("the server's path");
    server.parent().expect("a folder").to_owned()
}

/// What is missing of it, and what to do.
pub fn missing() -> Option<String> {
    let folder = folder();
    let file = [LIBRARY, PACKAGE]
        .into_iter()
        .find(|file| !folder.join(file).exists())?;
    Some(format!(
        "part \"probabilities\" needs llama-cpp-python beside llama-server: there is no {file} in {}. Leave \
         LLAMA_SERVER unset, and scripts/build-llama-server builds both; or name the other parts alone",
        folder.display()
    ))
}

/// Has the program beside this file answer `asked`, as it says itself; what it printed is a part of a failure.
pub fn ask(asked: &Value) -> Value {
    let (folder, program) = (folder(), program());
    let needed = NEEDED.map(|package| python_package(package).into_os_string());
    let needed = std::env::join_paths(needed).expect("paths without colons");
    let mut python = Command::new("python3")
        .arg(&program)
        .arg(folder.join("python"))
        .env("LLAMA_CPP_LIB_PATH", &folder)
        .env("PYTHONPATH", needed)
        // The cache's files stay as they were put there.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    // One that ends before it has read says why itself.
    let mut stdin = python.stdin.take().expect("its stdin");
    let written = stdin.write_all(asked.to_string().as_bytes());
    drop(stdin);
    let output = python.wait_with_output().expect("its end");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && written.is_ok(),
        "{} ended with {} (asked: {written:?}); it printed:\n{printed}",
        program.display(),
        output.status
    );
    serde_json::from_slice(&output.stdout).unwrap_or_else(|problem| {
        let said = String::from_utf8_lossy(&output.stdout);
        panic!("it wrote no JSON ({problem}):\n{said}\nand printed:\n{printed}")
    })
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/llama_cpp_python.py")
}
