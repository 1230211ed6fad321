use super::*;
use crate::board::{Soc, Sysroot};
use crate::reader::{ModelFacts, ModelSource, RkllmFile};
use crate::settings::Settings;

fn patient(soc: Option<Soc>, mem: &str) -> (Patient, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("proc")).unwrap();
    std::fs::write(root.path().join("proc/meminfo"), mem).unwrap();
    let patient = Patient {
        sysroot: Sysroot::new(root.path()),
        settings: Settings::default(),
        whose: crate::doctor::Whose::Service,
        soc: soc.into(),
    };
    (patient, root)
}

fn rkllm(name: &str, file: RkllmFile) -> InstalledModel {
    InstalledModel {
        id: "m".into(),
        path: format!("/models/{name}").into(),
        facts: ModelFacts {
            kind: ModelKind::Rkllm,
            size_bytes: 2 << 30,
            rkllm: Some(file),
            ..ModelFacts::default()
        },
        ..InstalledModel::default()
    }
}

fn good() -> RkllmFile {
    RkllmFile {
        starts_right: true,
        version: Some(3),
        tensors: Some(300),
        toolkit: Some("1.2.1".to_owned()),
    }
}

#[test]
fn a_format_is_right_doubtful_or_broken() {
    let of = |file: RkllmFile| format(&rkllm("m.rkllm", file)).status;
    assert_eq!(of(good()), Status::Ok);
    for (file, status) in [
        (RkllmFile::default(), Status::Warn),
        (
            RkllmFile {
                version: None,
                ..good()
            },
            Status::Fail,
        ),
        (
            RkllmFile {
                version: Some(4),
                ..good()
            },
            Status::Warn,
        ),
        (
            RkllmFile {
                tensors: Some(0),
                ..good()
            },
            Status::Fail,
        ),
        (
            RkllmFile {
                tensors: Some(u64::MAX),
                ..good()
            },
            Status::Fail,
        ),
    ] {
        assert_eq!(of(file.clone()), status, "{file:?}");
    }
}

#[test]
fn a_name_is_held_to_the_chip() {
    for (soc, name, status) in [
        (Some(Soc::Rk3588), "Qwen3-4B-rk3588-w8a8.rkllm", Status::Ok),
        (Some(Soc::Rk3582), "Qwen3-4B-rk3588-w8a8.rkllm", Status::Ok),
        (Some(Soc::Rk3588), "m.rkllm", Status::Ok),
        (
            Some(Soc::Rk3576),
            "Qwen3-4B-rk3588-w8a8.rkllm",
            Status::Warn,
        ),
        (Some(Soc::Rk3588), "m-w4a16.rkllm", Status::Warn),
        (Some(Soc::Rk356x), "m.rkllm", Status::Fail),
        (Some(Soc::Unknown), "m.rkllm", Status::Fail),
        (None, "m.rkllm", Status::Skip),
    ] {
        let (patient, _root) = patient(soc, "");
        let check = platform(&patient, &rkllm(name, good()));
        assert_eq!(check.status, status, "{soc:?} {name}");
    }
    let (patient, _root) = patient(Some(Soc::Rk3588), "");
    let mut pulled = rkllm("model.rkllm", good());
    pulled.facts.source = Some(ModelSource {
        repository: Some("a/Qwen3-RK3576-1.1.4".to_owned()),
        ..ModelSource::default()
    });
    assert_eq!(platform(&patient, &pulled).status, Status::Warn);
}

#[test]
fn memory_is_enough_scarce_or_too_little() {
    for (total, available, status) in [
        (8 << 20, 6 << 20, Status::Ok),
        (8 << 20, 1 << 20, Status::Warn),
        (2_400_000, 2_300_000, Status::Warn),
        (1 << 20, 1 << 19, Status::Fail),
    ] {
        let mem = format!("MemTotal: {total} kB\nMemAvailable: {available} kB\n");
        let (patient, _root) = patient(None, &mem);
        let check = memory(&patient, &rkllm("m.rkllm", good()));
        assert_eq!(
            check.status, status,
            "{total} {available}: {}",
            check.observed
        );
    }
    let (patient, _root) = patient(None, "");
    assert_eq!(
        memory(&patient, &rkllm("m.rkllm", good())).status,
        Status::Skip
    );
}

#[test]
fn bytes_are_those_that_were_pulled() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = rkllm("m.rkllm", good());
    assert_eq!(whole(&model).status, Status::Skip);
    model.path = folder.path().join("m.rkllm");
    model.facts.source = Some(ModelSource {
        // Of `abc`, as FIPS 180-2 has it.
        sha256: Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned()),
        ..ModelSource::default()
    });
    assert_eq!(whole(&model).status, Status::Warn);
    std::fs::write(&model.path, "abc").unwrap();
    assert_eq!(whole(&model).status, Status::Ok);
    std::fs::write(&model.path, "abd").unwrap();
    assert_eq!(whole(&model).status, Status::Fail);
}
