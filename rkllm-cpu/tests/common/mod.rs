//! C programs compiled against this crate's header and linked with the built library, and where the
//! demo model is.

// Each test program uses a part of it.
#![allow(dead_code, unused_imports, unused_macros)]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A test for each promise that a C program holds.
macro_rules! promises {
    ($source:literal: $($promise:ident),* $(,)?) => {
        $(#[test]
        fn $promise() {
            $crate::common::hold($source, stringify!($promise));
        })*
    };
}
pub(crate) use promises;

/// Asked of cargo when the test runs: a program that was built for another checkout may be run here.
fn package_folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
}

/// A compiled C program.
pub struct Program(PathBuf);

impl Program {
    /// Compiled once for all tests, each of which is a process of its own: a program's name says what it was
    /// made from.
    pub fn compile(source: &str) -> Program {
        let library = library_under_its_name();
        let here = package_folder();
        let source = here.join("tests").join(source);
        let name = source.file_stem().unwrap_or_default().display();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("programs");
        let program = folder.join(format!("{name}-{:016x}", made_from(&source)));
        if program.exists() {
            return Program(program);
        }
        std::fs::create_dir_all(&folder).expect("the target folder is writable");
        let thread = std::thread::current().id();
        let unfinished = folder.join(format!("{name}.{}.{thread:?}.new", std::process::id()));
        let output = Command::new("cc")
            .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(here.join("include"))
            .arg("-o")
            .arg(&unfinished)
            .arg(&source)
            .arg("-L")
            .arg(&library)
            .arg("-lrkllmrt")
            .arg(format!("-Wl,-rpath,{}", library.display()))
            .args(["-lpthread", "-lm"])
            .output()
            .expect("`cc` runs; install a C compiler (apt-get install gcc)");
        assert!(
            output.status.success(),
            "{} does not compile:\n{}",
            source.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        // Another test may have been as fast: theirs is the same.
        std::fs::rename(&unfinished, &program).expect("the target folder is writable");
        Program(program)
    }

    pub fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        Command::new(&self.0)
            .args(arguments)
            .envs(environment.iter().copied())
            .output()
            .expect("the compiled program starts")
    }
}

/// A number for all that a program is made from: its source, every header, and the library it is linked with.
fn made_from(source: &Path) -> u64 {
    let here = package_folder();
    let mut files: Vec<PathBuf> = ["include", "tests/c"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(here.join(folder)).expect("the package's folder"))
        .map(|entry| entry.expect("a folder's entry").path())
        .filter(|path| path.extension().is_some_and(|name| name == "h"))
        .collect();
    files.sort();
    files.push(source.to_owned());
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        let text = std::fs::read(&file);
        text.expect("a source is readable").hash(&mut hasher);
    }
    let built = std::fs::metadata(library()).and_then(|file| file.modified());
    built.expect("the library has a time").hash(&mut hasher);
    hasher.finish()
}

pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test
        .parent()
        .and_then(Path::parent)
        .expect("deps/ is in the target folder");
    let library = folder.join("librkllm_cpu.so");
    assert!(
        library.exists(),
        "{} is missing: run `make build`",
        library.display()
    );
    library
}

/// The folder where it has the name that programs ask for, as an install has it.
fn library_under_its_name() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("lib");
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    // Made by every test, as each is a process of its own: one that is there is replaced whole.
    let unfinished = folder.join(format!("{}.new", std::process::id()));
    std::os::unix::fs::symlink(library(), &unfinished)
        .and_then(|()| std::fs::rename(&unfinished, folder.join("librkllmrt.so")))
        .expect("the target folder is writable");
    folder
}

pub fn model() -> String {
    let path = match std::env::var_os("TEST_MODEL_GGUF") {
        Some(path) => PathBuf::from(path),
        None => {
            let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
                || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
                PathBuf::from,
            );
            cache.join("rkllmd/models/SmolLM2-135M-Instruct.Q4_1.gguf")
        }
    };
    assert!(
        path.exists(),
        "{} is missing: run `scripts/fetch-demo-model`",
        path.display()
    );
    path.to_string_lossy().into_owned()
}

/// The folder of the test adapters, which are made the first time.
pub fn test_adapters() -> String {
    let script = package_folder().join("../scripts/make-test-adapters");
    let output = Command::new(script)
        .output()
        .expect("scripts/make-test-adapters runs; install python3");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// One compute thread: tests run side by side, and ggml's threads wait for each other by spinning,
/// which on a full machine costs more than a second thread gives.
pub const ONE_THREAD: (&str, &str) = ("RKLLM_CPU_THREADS", "1");

pub fn hold(source: &str, promise: &str) -> String {
    hold_with(source, promise, &model(), &[])
}

pub fn hold_with(source: &str, promise: &str, model: &str, environment: &[(&str, &str)]) -> String {
    let environment: Vec<_> = environment.iter().copied().chain([ONE_THREAD]).collect();
    let output = Program::compile(source).run(&[promise, model], &environment);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && stdout.contains(&format!("held: {promise}")),
        "{promise} is not held ({})\n{}\n{stdout}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

/// A file for one test, removed when the test ends.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        Scratch(
            PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("{}-{name}", std::process::id())),
        )
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("the target folder's name is UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
