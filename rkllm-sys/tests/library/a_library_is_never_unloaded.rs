//! What was opened stays loaded for the life of the process, whether it is used or refused: a
//! destructor of the library never runs because of us. Each library here is a small C file whose
//! destructor leaves a note.

use rkllm_sys::{Library, OpenError, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every function that a library must have.
const CORE: &[&str] = &[
    "rkllm_createDefaultParam",
    "rkllm_init",
    "rkllm_run",
    "rkllm_destroy",
    "rkllm_abort",
    "rkllm_is_running",
];
const CAME_WITH_1_2_0: &[&str] = &["rkllm_clear_kv_cache", "rkllm_set_chat_template"];
const CAME_WITH_1_2_1: &[&str] = &[
    "rkllm_get_kv_cache_size",
    "rkllm_set_function_tools",
    "rkllm_set_cross_attn_params",
];

/// What the library writes as its default parameters.
#[derive(Clone, Copy)]
enum Defaults {
    /// Nothing but zeros, as long as the family's struct.
    Zeros,
    /// More than any family's struct.
    TooMany,
    /// A value that no release could have meant.
    Impossible,
}

struct Noting {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Noting {
    /// Compiles a library of version 1.3.1 that has these functions.
    fn with(functions: impl IntoIterator<Item = &'static str>, defaults: Defaults) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (source, library) = (
            folder.path().join("noting.c"),
            folder.path().join("librkllmrt.so"),
        );
        std::fs::write(&source, code(folder.path(), functions, defaults)).expect("written");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .output()
            .expect("`cc`, which links Rust programs too");
        assert!(compiled.status.success(), "{compiled:?}");
        Self { folder, library }
    }

    fn open(&self) -> Result<Library, OpenError> {
        Library::open(&self.library, &OpenOptions::default())
    }

    fn was_initialised(&self) -> bool {
        self.folder.path().join("initialised").exists()
    }

    fn was_unloaded(&self) -> bool {
        self.folder.path().join("destroyed").exists()
    }

    fn is_refused_and_stays(&self, is_expected: impl Fn(&OpenError) -> bool) {
        let error = self.open().expect_err("a library that is refused");
        assert!(is_expected(&error), "{error:?}");
        assert!(self.was_initialised(), "it was opened before: {error:?}");
        assert!(!self.was_unloaded(), "its destructor ran: {error:?}");
    }
}

fn code(
    folder: &Path,
    functions: impl IntoIterator<Item = &'static str>,
    defaults: Defaults,
) -> String {
    let folder = folder.display();
    // 1.3.1's struct has 184 bytes; a struct of this size is returned through a pointer.
    let (bytes, fill) = match defaults {
        Defaults::Zeros => (184, 0),
        Defaults::TooMany => (256, 0),
        Defaults::Impossible => (184, 0x7f),
    };
    let functions: String = functions
        .into_iter()
        .map(|name| match name {
            "rkllm_createDefaultParam" => format!(
                "struct param {{ char bytes[{bytes}]; }};\n\
                 struct param {name}(void) {{ struct param p; memset(&p, {fill}, sizeof p); \
                 return p; }}\n"
            ),
            name => format!("int {name}(void) {{ return -1; }}\n"),
        })
        .collect();
    format!(
        "#include <fcntl.h>\n#include <string.h>\n#include <unistd.h>\n\
         const char sdk[] = \"RKLLM SDK (version: 1.3.1 | target: Linux | build: noting)\";\n\
         static void note(const char *path) {{ close(open(path, O_CREAT | O_WRONLY, 0600)); }}\n\
         __attribute__((constructor)) static void up(void) {{ note(\"{folder}/initialised\"); }}\n\
         __attribute__((destructor)) static void down(void) {{ note(\"{folder}/destroyed\"); }}\n\
         {functions}"
    )
}

fn all() -> impl Iterator<Item = &'static str> {
    [CORE, CAME_WITH_1_2_0, CAME_WITH_1_2_1]
        .into_iter()
        .flatten()
        .copied()
}

#[test]
fn without_a_function_that_every_library_has() {
    for missing in CORE {
        let library = Noting::with(all().filter(|name| name != missing), Defaults::Zeros);
        library.is_refused_and_stays(
            |error| matches!(error, OpenError::MissingSymbol { symbol, .. } if symbol == missing),
        );
    }
}

#[test]
fn without_the_functions_of_its_own_version() {
    for gone in [CAME_WITH_1_2_0, CAME_WITH_1_2_1] {
        let library = Noting::with(all().filter(|name| !gone.contains(name)), Defaults::Zeros);
        library.is_refused_and_stays(|error| {
            matches!(error, OpenError::SymbolsContradictFamily { .. })
        });
    }
}

#[test]
fn with_larger_parameters_than_its_version_has() {
    Noting::with(all(), Defaults::TooMany)
        .is_refused_and_stays(|error| matches!(error, OpenError::ProbeOverrun { .. }));
}

#[test]
fn with_parameters_in_other_places() {
    Noting::with(all(), Defaults::Impossible)
        .is_refused_and_stays(|error| matches!(error, OpenError::ProbeField { .. }));
}

#[test]
fn when_nothing_uses_it_any_more() {
    let library = Noting::with(all(), Defaults::Zeros);
    drop(library.open().expect("a library that opens"));
    assert!(library.was_initialised() && !library.was_unloaded());
}
