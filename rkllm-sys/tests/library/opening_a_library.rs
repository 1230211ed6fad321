//! A library is opened as what it is, or refused with an error that names the file, what was
//! found and what to do.

use crate::common::{Model, RUN_FAMILIES, fake, run};
use rkllm_sys::{CpuMask, Family, Library, OpenError, OpenOptions, RunInput};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn open(path: &Path) -> Result<Library, OpenError> {
    Library::open(path, &OpenOptions::default())
}

fn refused(path: &Path) -> (OpenError, String) {
    let error = open(path).expect_err("a library that is refused");
    let message = error.to_string();
    assert!(
        message.contains(path.to_str().expect("UTF-8")),
        "the message names the file: {message}"
    );
    (error, message)
}

/// A copy of a fake's bytes, changed.
struct Changed {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Changed {
    let mut bytes = std::fs::read(fake(name)).expect("read");
    change(&mut bytes);
    file(&bytes)
}

fn file(bytes: &[u8]) -> Changed {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("librkllmrt.so");
    std::fs::write(&path, bytes).expect("written");
    Changed {
        _folder: folder,
        path,
    }
}

#[test]
fn a_library_of_each_family_that_is_run_opens_as_that_family() {
    for (name, version, family) in [
        ("1_2_1", "1.2.3", Family::V1_2_1),
        ("1_3_0", "1.3.0", Family::V1_3_0),
        ("1_3_1", "1.3.1", Family::V1_3_1),
    ] {
        let library = open(&fake(name)).expect(name);
        assert_eq!(library.version(), version);
        assert_eq!(library.family(), family);
        assert_eq!(library.path(), fake(name));
    }
}

#[test]
fn its_defaults_are_read_at_its_own_offsets() {
    for name in RUN_FAMILIES {
        let defaults = open(&fake(name)).expect(name).default_params();
        assert_eq!(defaults.max_context_len, 512, "{name}");
        assert_eq!(defaults.max_new_tokens, -1, "{name}");
        assert_eq!(defaults.top_k, 40, "{name}");
        assert_eq!(defaults.n_keep, -1, "{name}");
        assert_eq!(defaults.top_p, 0.9, "{name}");
        assert_eq!(defaults.temperature, 0.8, "{name}");
        assert_eq!(defaults.repeat_penalty, 1.1, "{name}");
        assert_eq!(defaults.frequency_penalty, 0.0, "{name}");
        assert_eq!(defaults.presence_penalty, 0.0, "{name}");
        assert_eq!(defaults.mirostat, 0, "{name}");
        assert_eq!(defaults.mirostat_tau, 5.0, "{name}");
        assert_eq!(defaults.mirostat_eta, 0.1, "{name}");
        assert!(defaults.skip_special_token, "{name}");
        assert_eq!(defaults.base_domain_id, 0, "{name}");
        assert!(defaults.embed_flash, "{name}");
        assert_eq!(defaults.enabled_cpus_num, 4, "{name}");
        assert_eq!(defaults.enabled_cpus_mask, CpuMask(0xF0), "{name}");
    }
}

#[test]
fn an_older_family_is_recognised_and_told_what_to_upgrade_to() {
    for (name, version, family) in [
        ("1_1", "1.1.4", Family::V1_1),
        ("1_2_0", "1.2.0", Family::V1_2_0),
        ("1_2_1b1", "1.2.1b1", Family::V1_2_1b1),
    ] {
        let (error, message) = refused(&fake(name));
        assert!(
            matches!(&error, OpenError::TooOld { version: v, family: Some(f), .. }
                if v == version && *f == family),
            "{error:?}"
        );
        assert!(message.contains(version), "{message}");
        for newer in ["1.3.1", "1.2.3", "1.2.2", "1.2.1"] {
            assert!(message.contains(newer), "{message}");
        }
    }
}

#[test]
fn an_assumed_family_does_not_make_an_old_library_run() {
    let options = OpenOptions {
        assume_family: Some(Family::V1_3_1),
    };
    let error = Library::open(fake("1_1"), &options).expect_err("too old");
    assert!(matches!(error, OpenError::TooOld { .. }), "{error:?}");
}

#[test]
fn a_release_before_all_families_is_too_old_and_not_unknown() {
    let library = changed("1_1", |bytes| {
        replace(bytes, b"(version: 1.1.4", b"(version: 1.0.1")
    });
    let (error, message) = refused(&library.path);
    assert!(
        matches!(error, OpenError::TooOld { family: None, .. }),
        "{error:?}"
    );
    assert!(message.contains("1.0.1"), "{message}");
}

#[test]
fn an_unknown_version_is_refused() {
    let (error, message) = refused(&fake("unknown_version"));
    assert!(
        matches!(&error, OpenError::UnknownVersion { version, .. } if version == "9.9.9"),
        "{error:?}"
    );
    assert!(
        message.contains("9.9.9") && message.contains("assume"),
        "{message}"
    );
}

#[test]
fn an_unknown_version_runs_as_the_family_that_is_assumed() {
    let options = OpenOptions {
        assume_family: Some(Family::V1_3_1),
    };
    let library = Library::open(fake("unknown_version"), &options).expect("assumed");
    assert_eq!(library.version(), "9.9.9");
    assert_eq!(library.family(), Family::V1_3_1);
    let model = Model::new("tokens = ['yes']");
    let handle = model.load(&Arc::new(library));
    let collected = run(&handle, &RunInput::Prompt("?"), 1);
    assert_eq!(collected.text(), "yes");
}

#[test]
fn a_wrong_assumption_is_found_out_by_the_probe() {
    // 1.3.1 has no image strings in its parameters: what 1.2.1 takes for them is something else.
    let options = OpenOptions {
        assume_family: Some(Family::V1_2_1),
    };
    let error = Library::open(fake("unknown_version"), &options).expect_err("a wrong family");
    assert!(matches!(error, OpenError::ProbeField { .. }), "{error:?}");
}

#[test]
fn a_family_that_is_not_run_cannot_be_assumed() {
    let options = OpenOptions {
        assume_family: Some(Family::V1_2_0),
    };
    let error = Library::open(fake("unknown_version"), &options).expect_err("not run");
    assert!(
        matches!(
            error,
            OpenError::AssumedFamilyTooOld {
                family: Family::V1_2_0,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn an_assumption_does_not_change_a_known_version() {
    let options = OpenOptions {
        assume_family: Some(Family::V1_3_1),
    };
    let library = Library::open(fake("1_2_1"), &options).expect("known");
    assert_eq!(library.family(), Family::V1_2_1);
}

#[test]
fn a_text_file_is_not_a_library() {
    let text = file(b"version https://git-lfs.github.com/spec/v1\n");
    let (error, message) = refused(&text.path);
    assert!(matches!(error, OpenError::NotALibrary { .. }), "{error:?}");
    assert!(message.contains("text file"), "{message}");
}

#[test]
fn neither_are_an_empty_file_a_folder_and_a_program() {
    let empty = file(b"");
    assert!(matches!(
        refused(&empty.path).0,
        OpenError::NotALibrary { .. }
    ));
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert!(matches!(
        refused(folder.path()).0,
        OpenError::NotALibrary { .. }
    ));
    let object = changed("1_3_1", |bytes| bytes[16] = 1);
    assert!(matches!(
        refused(&object.path).0,
        OpenError::NotALibrary { .. }
    ));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (error, _) = refused(Path::new("/nonexistent/librkllmrt.so"));
    assert!(matches!(error, OpenError::Read { .. }), "{error:?}");
}

#[test]
fn a_library_cut_off_anywhere_is_truncated() {
    let whole = std::fs::read(fake("1_3_1")).expect("read").len();
    for length in [5, 63, 64, 500, whole / 2, whole - 1] {
        let cut = changed("1_3_1", |bytes| bytes.truncate(length));
        let (error, message) = refused(&cut.path);
        assert!(
            matches!(error, OpenError::Truncated { actual_bytes, .. }
                if actual_bytes == length as u64),
            "cut to {length} of {whole}: {error:?}"
        );
        assert!(message.contains("truncated"), "{message}");
    }
}

#[test]
fn a_library_of_another_architecture_says_which() {
    let other: (u16, &str) = if cfg!(target_arch = "x86_64") {
        (183, "aarch64")
    } else {
        (62, "x86_64")
    };
    let foreign = changed("1_3_1", |bytes| {
        bytes[18..20].copy_from_slice(&other.0.to_le_bytes());
    });
    let (error, message) = refused(&foreign.path);
    assert!(
        matches!(&error, OpenError::WrongArchitecture { found, expected, .. }
            if found == other.1 && *expected == std::env::consts::ARCH),
        "{error:?}"
    );
    assert!(message.contains(other.1), "{message}");
}

#[test]
fn a_32_bit_library_says_so() {
    let small = changed("1_3_1", |bytes| {
        bytes[4] = 1;
        bytes[18..20].copy_from_slice(&40u16.to_le_bytes());
    });
    let (error, message) = refused(&small.path);
    assert!(
        matches!(error, OpenError::WrongArchitecture { .. }),
        "{error:?}"
    );
    assert!(message.contains("32-bit"), "{message}");
}

#[test]
fn a_library_without_the_version_text_is_not_the_vendors() {
    let other = changed("1_3_1", |bytes| replace(bytes, b"RKLLM SDK", b"OTHER SDK"));
    let (error, _) = refused(&other.path);
    assert!(matches!(error, OpenError::NoVersion { .. }), "{error:?}");
}

#[test]
fn a_missing_core_symbol_is_named() {
    let (error, message) = refused(&fake("no_abort"));
    assert!(
        matches!(
            error,
            OpenError::MissingSymbol {
                symbol: "rkllm_abort",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        message.contains("rkllm_abort") && message.contains("1.3.1"),
        "{message}"
    );
}

#[test]
fn symbols_of_an_older_family_contradict_the_version() {
    let (error, message) = refused(&fake("old_symbols"));
    assert!(
        matches!(error, OpenError::SymbolsContradictFamily { .. }),
        "{error:?}"
    );
    assert!(message.contains("rkllm_get_kv_cache_size"), "{message}");
}

#[test]
fn parameters_larger_than_the_familys_are_refused() {
    let (error, message) = refused(&fake("overrun"));
    assert!(
        matches!(
            error,
            OpenError::ProbeOverrun {
                expected_bytes: 184,
                written_byte: 184,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(message.contains("184"), "{message}");
}

#[test]
fn fields_in_other_places_are_refused() {
    let (error, _) = refused(&fake("misplaced_fields"));
    // Where 1.2.3 has n_keep, 1.1 has the bits of top_p.
    assert!(
        matches!(
            error,
            OpenError::ProbeField {
                field: "n_keep",
                ..
            }
        ),
        "{error:?}"
    );
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|at| bytes[*at..].starts_with(from))
        .collect();
    assert!(!places.is_empty(), "the text to replace is there");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
}
