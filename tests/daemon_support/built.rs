//! What a daemon is tried with: the program and libraries that were built, and the model that was fetched.

use std::path::PathBuf;

/// A library that `make build` put beside the test programs.
pub fn built_library(name: &str) -> PathBuf {
    beside_the_tests(&format!("lib{name}.so"))
}

fn beside_the_tests(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test program has a path");
    let folder = test.ancestors().nth(2).expect("target/<profile>/deps/test");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `make build`",
        path.display()
    );
    path
}

pub fn fake_runtime(family: &str) -> PathBuf {
    built_library(&format!("rkllmrt_fake_{family}"))
}

/// The daemon's program: cargo's own word for tests of its package, else that beside the test programs.
pub fn program() -> PathBuf {
    option_env!("CARGO_BIN_EXE_rkllmd").map_or_else(|| beside_the_tests("rkllmd"), PathBuf::from)
}

/// Where downloads are kept between runs.
pub fn cache_folder() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache"),
        PathBuf::from,
    );
    cache.join("rkllmd")
}

/// The demo model, fetched by `make test` and `make run`.
pub fn demo_model() -> PathBuf {
    let path = match std::env::var_os("TEST_MODEL_GGUF") {
        Some(path) => PathBuf::from(path),
        None => cache_folder().join("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
    };
    assert!(
        path.is_file(),
        "{} is missing: run scripts/fetch-demo-model",
        path.display()
    );
    path
}
