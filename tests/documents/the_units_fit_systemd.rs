//! The files systemd gets are right: its own tools say so about the units, the user and the folders.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::root_support::is_root_for;

const UNITS: [&str; 3] = ["rkllmd.service", "rkllmd.socket", "rkllmd-tune.service"];
/// In tenths, as `systemd-analyze security --threshold` takes it: 2.0.
const MOST_EXPOSURE: u32 = 20;

/// A tree with the units where a package puts them, and what they need to be looked at.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    let units = root.path().join("usr/lib/systemd/system");
    let programs = root.path().join("usr/bin");
    fs::create_dir_all(&units).expect("the units' folder");
    fs::create_dir_all(&programs).expect("the programs' folder");
    for unit in UNITS {
        fs::copy(repository(&format!("systemd/{unit}")), units.join(unit)).expect(unit);
    }
    for entry in fs::read_dir("/usr/lib/systemd/system").expect("systemd is installed") {
        let entry = entry.expect("an entry");
        let kind = entry.path();
        // Only what every unit depends on: the units of this machine are not the test's concern.
        if kind
            .extension()
            .is_some_and(|kind| kind == "target" || kind == "slice")
            && kind.is_file()
        {
            fs::copy(&kind, units.join(entry.file_name())).expect("a unit of systemd");
        }
    }
    fs::copy("/bin/true", programs.join("rkllmd")).expect("a program");
    root
}

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn run(program: &str, root: &Path, arguments: &[&str]) -> Output {
    Command::new(program)
        .arg(arguments[0])
        .arg(format!("--root={}", root.display()))
        .args(&arguments[1..])
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run scripts/install-test-tools"))
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn systemd_has_no_word_to_say_about_the_units() {
    let root = tree();
    for unit in UNITS {
        let verified = run("systemd-analyze", root.path(), &["verify", unit]);
        assert_eq!(said(&verified), "", "{unit}");
        assert!(verified.status.success(), "{unit}");
    }
    // The check is able to fail.
    let service = root.path().join("usr/lib/systemd/system/rkllmd.service");
    let text = fs::read_to_string(&service).expect("the unit");
    fs::write(&service, text.replace("KillMode=mixed", "KillMode=mixt")).expect("a broken unit");
    let verified = run("systemd-analyze", root.path(), &["verify", UNITS[0]]);
    assert!(said(&verified).contains("mixt"), "{}", said(&verified));
}

#[test]
fn the_services_are_exposed_little() {
    let root = tree();
    let threshold = format!("--threshold={MOST_EXPOSURE}");
    for unit in ["rkllmd.service", "rkllmd-tune.service"] {
        let arguments = ["security", "--offline=true", &threshold, unit];
        let security = run("systemd-analyze", root.path(), &arguments);
        assert!(security.status.success(), "{unit}: {}", said(&security));
        assert!(said(&security).contains("exposure level"), "{unit}");
    }
}

/// The daemon may not set governors, and who may does nothing else.
#[test]
fn only_the_unit_that_tunes_may_write_the_kernels_files() {
    let unit = |name: &str| fs::read_to_string(repository(&format!("systemd/{name}"))).expect(name);
    let has = |text: &str, wanted: &str| text.lines().any(|line| line == wanted);
    assert!(has(&unit("rkllmd.service"), "ProtectKernelTunables=yes"));
    let tune = unit("rkllmd-tune.service");
    assert!(has(&tune, "ProtectKernelTunables=no"));
    assert!(has(&tune, "CapabilityBoundingSet="));
    let commands: Vec<_> = tune
        .lines()
        .filter(|line| line.starts_with("Exec"))
        .collect();
    let expected = [
        "ExecStart=/usr/bin/rkllmd tune",
        "ExecStopPost=/usr/bin/rkllmd tune --restore",
    ];
    assert_eq!(commands, expected);
}

/// The calls that systemd's own sets leave out or include from some release on.
#[test]
fn the_service_may_lock_up_who_reads_models() {
    let unit = fs::read_to_string(repository("systemd/rkllmd.service")).expect("the unit");
    let listed: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
        .filter(|calls| !calls.starts_with('~'))
        .flat_map(str::split_whitespace)
        .collect();
    for call in [
        "openat2",
        "prctl",
        "seccomp",
        "landlock_create_ruleset",
        "landlock_add_rule",
        "landlock_restrict_self",
    ] {
        assert!(listed.contains(&call), "{call} is not in {listed:?}");
    }
}

/// Workers and readers raise theirs (`src/children/oom_score.rs`).
#[test]
fn the_kernel_is_told_to_spare_the_daemon_and_may_kill_it() {
    let unit = fs::read_to_string(repository("systemd/rkllmd.service")).expect("the unit");
    let mut lines = unit.lines();
    let score = lines.find_map(|line| line.strip_prefix("OOMScoreAdjust="));
    let score = score.map(|score| score.parse::<i32>().expect("a number"));
    assert!(
        score.is_some_and(|score| (-999..0).contains(&score)),
        "{score:?}"
    );
}

/// systemd ignores what it does not know, so a setting that is too new would be none.
#[test]
fn the_units_need_nothing_newer_than_systemd_249() {
    const NEWER: [&str; 14] = [
        "DelegateSubgroup=",
        "ExitType=",
        "ExtensionDirectories=",
        "FileDescriptorStorePreserve=",
        "LogFilterPatterns=",
        "MemoryPressureWatch=",
        "MemoryZSwapMax=",
        "OpenFile=",
        "PollLimitBurst=",
        "RestartMaxDelaySec=",
        "RestartMode=",
        "RestartSteps=",
        "RestrictFileSystems=",
        "notify-reload",
    ];
    for unit in UNITS {
        let text = fs::read_to_string(repository(&format!("systemd/{unit}"))).expect(unit);
        let found = NEWER.iter().find(|newer| text.contains(*newer));
        assert_eq!(found, None, "{unit}");
    }
}

/// A client that may connect to a Unix socket with a path needs no key, and systemd's own mode is 0666.
#[test]
fn a_unix_socket_that_systemd_makes_is_not_for_everybody() {
    let root = tree();
    let socket = fs::read_to_string(root.path().join("usr/lib/systemd/system/rkllmd.socket"));
    let socket = socket.expect("the unit");
    let settings: Vec<&str> = socket
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    for wanted in ["SocketMode=0660", "SocketUser=rkllmd", "SocketGroup=rkllmd"] {
        assert!(settings.contains(&wanted), "no {wanted} in {settings:?}");
    }
}

/// The unit makes its folders when it starts, and tmpfiles makes the same ones before that.
#[test]
fn the_unit_and_the_package_make_the_same_folders() {
    let tmpfiles = fs::read_to_string(repository("packaging/rkllmd.tmpfiles")).expect("folders");
    let service = fs::read_to_string(repository("systemd/rkllmd.service")).expect("the service");
    let value = |key: String| {
        let line = service.lines().find_map(|line| line.strip_prefix(&key));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    for (kind, base) in [
        ("State", "/var/lib"),
        ("Cache", "/var/cache"),
        ("Runtime", "/run"),
    ] {
        let mode = value(format!("{kind}DirectoryMode="));
        for folder in value(format!("{kind}Directory=")).split(' ') {
            let path = format!("{base}/{folder}");
            let wanted = ["d", &path, mode, "rkllmd", "rkllmd", "-"];
            let made = tmpfiles
                .lines()
                .any(|line| line.split_whitespace().eq(wanted));
            assert!(made, "tmpfiles has no {path} with mode {mode}");
        }
    }
}

#[test]
fn the_user_and_the_folders_can_be_made() {
    if !is_root_for("making users and giving folders away") {
        return;
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(root.path().join("etc")).expect("a folder");
    let source = repository("packaging/rkllmd.sysusers");
    let target = "--replace=/usr/lib/sysusers.d/rkllmd.conf";
    let arguments = [target, source.to_str().expect("UTF-8")];
    let made = run("systemd-sysusers", root.path(), &arguments);
    assert!(made.status.success(), "{}", said(&made));
    let users = fs::read_to_string(root.path().join("etc/passwd")).expect("users");
    let home_and_shell = ":/var/lib/rkllmd:/usr/sbin/nologin";
    assert!(users.contains(home_and_shell), "{users}");
    let groups = fs::read_to_string(root.path().join("etc/group")).expect("groups");
    for group in ["video", "render"] {
        let prefix = format!("{group}:");
        let line = groups.lines().find(|line| line.starts_with(&prefix));
        assert!(
            line.is_some_and(|line| line.ends_with(":rkllmd")),
            "{groups}"
        );
    }
    let source = repository("packaging/rkllmd.tmpfiles");
    let arguments = ["--create", source.to_str().expect("UTF-8")];
    let made = run("systemd-tmpfiles", root.path(), &arguments);
    assert_eq!(said(&made), "");
    assert!(root.path().join("var/lib/rkllmd/models").is_dir());
}
