use super::*;
use crate::ipc::FlatFile;
use std::os::unix::fs::symlink;

fn own(folder: &Path) -> ModelLocation {
    ModelLocation {
        folder: folder.into(),
        file: None,
        template_file: None,
    }
}

fn flat(models: &Path, name: &str, file: &str) -> ModelLocation {
    ModelLocation {
        folder: models.into(),
        file: Some(FlatFile {
            name: name.to_owned(),
            files: vec![file.to_owned()],
        }),
        template_file: None,
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_goes_with_its_folder_and_nothing_else() {
    let models = tempfile::tempdir().unwrap();
    let models = models.path();
    for folder in ["a/b", "a/c", "d"] {
        fs::create_dir_all(models.join(folder)).unwrap();
        fs::write(models.join(folder).join("m.gguf"), "m").unwrap();
    }
    let removal = Removal::of(models, &own(&models.join("a/b"))).unwrap();
    assert_eq!(removal.paths(), [models.join("a/b")]);
    assert_eq!(removal.remove(), Ok(()));
    assert_eq!(
        (names(models), names(&models.join("a"))),
        (vec!["a".to_owned(), "d".to_owned()], vec!["c".to_owned()])
    );
    let gone = RemovalError::Gone {
        path: models.join("a/b").display().to_string(),
    };
    assert_eq!(removal.remove(), Err(gone));
    for folder in ["a/c", "d"] {
        let removal = Removal::of(models, &own(&models.join(folder))).unwrap();
        assert_eq!(removal.remove(), Ok(()));
    }
    assert_eq!(names(models), Vec::<String>::new());
}

#[test]
fn what_no_pull_has_brought_keeps_a_request_from_it() {
    let models = tempfile::tempdir().unwrap();
    let models = models.path();
    fs::create_dir(models.join("m")).unwrap();
    for name in ["m.gguf", "model.toml", "tokenizer.json", "notes"] {
        fs::write(models.join("m").join(name), name).unwrap();
    }
    let removal = Removal::of(models, &own(&models.join("m"))).unwrap();
    let more = RemovalError::HoldsMore {
        path: models.join("m/notes").display().to_string(),
    };
    assert_eq!(removal.remove_what_was_pulled(), Err(more));
    assert_eq!(names(&models.join("m")).len(), 4);
    fs::remove_file(models.join("m/notes")).unwrap();
    assert_eq!(removal.remove_what_was_pulled(), Ok(()));
    assert_eq!(names(models), Vec::<String>::new());
}

#[test]
fn what_another_removal_has_left_is_in_no_ones_way() {
    let models = tempfile::tempdir().unwrap();
    let models = models.path();
    // One of a process of the same id.
    let left: Vec<PathBuf> = (0..1000)
        .map(|number| models.join(format!("{FOLDER}/{ASIDE}{}-{number}", std::process::id())))
        .collect();
    for folder in &left {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("m.gguf"), "m").unwrap();
    }
    fs::create_dir(models.join("m")).unwrap();
    fs::write(models.join("x.gguf"), "x").unwrap();
    for removal in [own(&models.join("m")), flat(models, "x", "x.gguf")] {
        assert_eq!(Removal::of(models, &removal).unwrap().remove(), Ok(()));
    }
    assert_eq!(names(models), [FOLDER]);
    assert!(left.iter().all(|folder| folder.join("m.gguf").exists()));
}

#[test]
fn a_file_goes_with_what_stands_beside_it() {
    let models = tempfile::tempdir().unwrap();
    let models = models.path();
    for name in ["m.gguf", "m.toml", "n.gguf", "n.jinja"] {
        fs::write(models.join(name), name).unwrap();
    }
    let removal = Removal::of(models, &flat(models, "m", "m.gguf")).unwrap();
    assert_eq!(
        removal.paths(),
        [models.join("m.gguf"), models.join("m.toml")]
    );
    assert_eq!(removal.remove(), Ok(()));
    assert_eq!(names(models), ["n.gguf", "n.jinja"]);
    assert!(matches!(removal.remove(), Err(RemovalError::Gone { .. })));
    assert_eq!(
        names(models),
        ["n.gguf", "n.jinja"],
        "nothing is left aside"
    );
}

#[test]
fn what_links_lead_to_stays() {
    let (models, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (models, other) = (models.path(), other.path());
    fs::create_dir(other.join("b")).unwrap();
    fs::write(other.join("b/m.gguf"), "m").unwrap();
    symlink(other, models.join("a")).unwrap();
    symlink(other.join("b"), models.join("d")).unwrap();
    symlink(other.join("b/m.gguf"), models.join("x.gguf")).unwrap();
    for folder in ["a/b", "d"] {
        let removal = Removal::of(models, &own(&models.join(folder))).unwrap();
        let refused = removal.remove();
        assert!(
            matches!(refused, Err(RemovalError::Linked { .. })),
            "{refused:?}"
        );
    }
    // The link goes, and not the file.
    let removal = Removal::of(models, &flat(models, "x", "x.gguf")).unwrap();
    assert_eq!(removal.remove(), Ok(()));
    assert!(models.join("x.gguf").symlink_metadata().is_err());
    fs::create_dir(models.join("own")).unwrap();
    symlink(other.join("b"), models.join("own/link")).unwrap();
    let removal = Removal::of(models, &own(&models.join("own"))).unwrap();
    assert_eq!(removal.remove(), Ok(()));
    assert!(!models.join("own").exists());
    assert_eq!(fs::read(other.join("b/m.gguf")).unwrap(), b"m");
}

#[test]
fn what_is_elsewhere_or_holds_more_is_not_removed() {
    let models = tempfile::tempdir().unwrap();
    let models = models.path();
    for outside in ["/", "/etc", "relative"] {
        assert!(Removal::of(models, &own(Path::new(outside))).is_err());
    }
    let up = models.join("a/../../x");
    assert!(Removal::of(models, &own(&up)).is_err());
    assert!(Removal::of(models, &own(models)).is_err(), "not all of it");
    fs::create_dir_all(models.join("m/more")).unwrap();
    let removal = Removal::of(models, &own(&models.join("m"))).unwrap();
    let refused = removal.remove();
    assert!(
        matches!(refused, Err(RemovalError::HoldsFolders { .. })),
        "{refused:?}"
    );
    assert!(models.join("m/more").is_dir());
}

#[test]
fn a_models_adapters_go_with_it_but_not_by_request() {
    let models = tempfile::tempdir().unwrap();
    let models = models.path();
    let adapters = models.join("m").join(ADAPTERS);
    fs::create_dir_all(adapters.join("more")).unwrap();
    for file in ["m/m.gguf", "m/model.toml", "m/adapters/tone.gguf"] {
        fs::write(models.join(file), file).unwrap();
    }
    let removal = Removal::of(models, &own(&models.join("m"))).unwrap();
    assert!(matches!(
        removal.remove(),
        Err(RemovalError::HoldsFolders { .. })
    ));
    fs::remove_dir(adapters.join("more")).unwrap();
    let brought_otherwise = RemovalError::HoldsMore {
        path: adapters.display().to_string(),
    };
    assert_eq!(removal.remove_what_was_pulled(), Err(brought_otherwise));
    assert!(adapters.join("tone.gguf").exists());
    assert_eq!(removal.remove(), Ok(()));
    assert_eq!(names(models), Vec::<String>::new());
}
