use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::governors::{Decision, Known, decide};
use super::*;

const CPU: &str = "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor";
const NPU: &str = "/sys/class/devfreq/fdab0000.npu/governor";
const GPU: &str = "/sys/class/devfreq/fb000000.gpu/governor";
const DDR: &str = "/sys/class/devfreq/dmc/governor";

struct Copy(tempfile::TempDir);

impl Copy {
    fn of(files: &[(&str, &str)]) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            copy.write(path, text);
        }
        copy
    }

    fn usual() -> Self {
        Self::of(&[
            (CPU, "schedutil\n"),
            (NPU, "rknpu_ondemand\n"),
            (GPU, "simple_ondemand\n"),
            (DDR, "dmc_ondemand\n"),
        ])
    }

    fn sysroot(&self) -> Sysroot {
        Sysroot::new(self.0.path())
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.sysroot().path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        self.sysroot().text(path).unwrap()
    }

    fn all(&self) -> [String; 4] {
        [CPU, NPU, GPU, DDR].map(|path| self.text(path))
    }

    fn tuning(&self) -> Tuning {
        Tuning::new(&self.sysroot(), Change::Make)
    }

    fn told(&self) -> Tuning {
        Tuning::new(&self.sysroot(), Change::Tell)
    }

    fn remembers(&self) -> bool {
        self.sysroot().path(FOLDER).join(STATE).exists()
    }
}

const BEFORE: [&str; 4] = [
    "schedutil",
    "rknpu_ondemand",
    "simple_ondemand",
    "dmc_ondemand",
];
const AFTER: [&str; 4] = [
    "performance",
    "performance",
    "simple_ondemand",
    "performance",
];

#[test]
fn governors_are_set_and_put_back() {
    let copy = Copy::usual();
    let tuned = copy.tuning().tune().unwrap();
    assert!(!tuned.is_failed, "{tuned:?}");
    assert_eq!(copy.all(), AFTER);
    assert!(
        tuned
            .lines
            .contains(&"policy0: performance, was schedutil".to_owned())
    );
    let folder = copy.sysroot().path(FOLDER);
    assert_eq!(
        fs::metadata(folder).unwrap().permissions().mode() & 0o777,
        0o700
    );
    // Twice is as once: what was there first is put back.
    copy.write(CPU, "ondemand\n");
    assert!(!copy.tuning().tune().unwrap().is_failed);
    assert_eq!(copy.all(), AFTER);
    let restored = copy.tuning().restore().unwrap();
    assert!(!restored.is_failed, "{restored:?}");
    assert_eq!(copy.all(), BEFORE);
    assert!(!copy.remembers());
    assert_eq!(copy.tuning().restore().unwrap(), Tuned::default());
}

#[test]
fn nothing_is_changed_when_it_is_only_told() {
    let copy = Copy::usual();
    let told = copy.told().tune().unwrap();
    assert_eq!(told.lines.len(), 3, "{told:?}");
    assert_eq!(copy.all(), BEFORE);
    assert!(!copy.sysroot().has(FOLDER));
    copy.tuning().tune().unwrap();
    let told = copy.told().restore().unwrap();
    assert!(
        told.lines
            .contains(&"dmc: would become dmc_ondemand".to_owned())
    );
    assert_eq!(copy.all(), AFTER);
    assert!(copy.remembers());
}

/// The last of them cannot be written, so the others are put back.
#[test]
fn a_failure_is_told_and_undoes_what_was_done() {
    let copy = Copy::usual();
    // The kernel lets no user write it.
    let npu = copy.sysroot().path(NPU);
    fs::remove_file(&npu).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel/osrelease", &npu).unwrap();
    let tuned = copy.tuning().tune().unwrap();
    assert!(tuned.is_failed);
    let failed = tuned
        .lines
        .iter()
        .find(|line| line.starts_with("fdab0000.npu: "));
    assert!(
        failed.is_some_and(|line| line.contains("stays")),
        "{tuned:?}"
    );
    assert_eq!(copy.text(CPU), "schedutil");
    assert_eq!(copy.text(DDR), "dmc_ondemand");
    assert!(!copy.remembers());
}

#[test]
fn what_another_hand_set_is_left() {
    let copy = Copy::usual();
    copy.write(DDR, "userspace\n");
    copy.tuning().tune().unwrap();
    assert_eq!(copy.text(DDR), "userspace");
    copy.write(CPU, "powersave\n");
    let restored = copy.tuning().restore().unwrap();
    assert!(!restored.is_failed);
    assert_eq!(copy.text(CPU), "powersave");
    assert_eq!(copy.text(NPU), "rknpu_ondemand");
    assert!(!copy.remembers());
}

#[test]
fn a_governor_that_the_kernel_does_not_have_is_not_set() {
    let copy = Copy::usual();
    copy.write(
        "/sys/class/devfreq/dmc/available_governors",
        "dmc_ondemand powersave\n",
    );
    let tuned = copy.tuning().tune().unwrap();
    assert!(!tuned.is_failed, "{tuned:?}");
    assert_eq!(copy.text(DDR), "dmc_ondemand");
    assert_eq!(copy.text(CPU), "performance");
}

#[test]
fn files_that_lead_elsewhere_are_not_believed() {
    let copy = Copy::usual();
    for name in ["../../../etc/passwd", "..", "a/b", ""] {
        let known = Known {
            device: crate::board::sensors::ClockOf::Ddr,
            name: name.to_owned(),
            governor: "x".to_owned(),
        };
        let json = serde_json::to_string(&[known]).unwrap();
        copy.write(&format!("{FOLDER}/{STATE}"), &json);
        assert!(copy.tuning().restore().is_err(), "{name}");
    }
    copy.write(&format!("{FOLDER}/{STATE}"), "no JSON");
    assert!(copy.tuning().restore().is_err());
    assert!(copy.tuning().tune().is_err());
    assert_eq!(copy.all(), BEFORE);
}

#[test]
fn a_machine_without_governors_has_none_to_set() {
    let copy = Copy::of(&[]);
    let tuned = copy.tuning().tune().unwrap();
    assert!(!tuned.is_failed);
    assert_eq!(tuned.lines, ["no governor can be set here"]);
}

#[test]
fn what_cannot_be_read_is_told_and_the_others_are_set() {
    let copy = Copy::usual();
    let npu = copy.sysroot().path(NPU);
    fs::remove_file(&npu).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, npu, kind, mode, 0).unwrap();
    let tuned = copy.tuning().tune().unwrap();
    assert!(!tuned.is_failed, "{tuned:?}");
    assert!(
        tuned.lines.iter().any(|line| line.starts_with(NPU)),
        "{tuned:?}"
    );
    assert_eq!(copy.text(CPU), "performance");
}

proptest! {
    #[test]
    fn only_governors_that_the_kernel_has_are_decided_for(
        now in "[a-z_]{1,12}",
        available in proptest::option::of("[a-z_ ]{0,40}"),
    ) {
        let decided = decide(&now, available.as_deref());
        if decided == Decision::Set {
            prop_assert!(now != "performance" && now != "userspace");
            let has_it = |all: &str| all.split_whitespace().any(|one| one == "performance");
            prop_assert!(available.as_deref().is_none_or(has_it));
        }
    }
}
