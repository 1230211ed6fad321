//! `rkllmd tune` on copies of boards, as the doctor sees it.

use std::process::{Command, Output};

use serde_json::Value;

use crate::board_support::{Board, check};

/// As many an RK3588 comes: every governor waits for load.
const SLOW: &str = "invented-rk3588-vendor-5.10";
const GOVERNORS: [&str; 3] = ["cpu.governor", "npu.governor", "ddr.governor"];

fn rkllmd(board: &Board, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(arguments)
        .arg("--sysroot")
        .arg(board.root())
        .env_clear()
        .output()
        .expect("the program starts")
}

fn lines(output: &Output) -> Vec<String> {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

fn statuses(board: &Board) -> [String; 3] {
    let report = rkllmd(board, &["doctor", "--json"]).stdout;
    let report: Value = serde_json::from_slice(&report).unwrap();
    GOVERNORS.map(|id| check(&report, id)["status"].as_str().unwrap().to_owned())
}

#[test]
fn the_doctor_finds_tuned_governors_right_and_restored_ones_as_they_were() {
    let board = Board::of(SLOW);
    let before = statuses(&board);
    assert_eq!(before, ["warn", "warn", "warn"]);
    let told = rkllmd(&board, &["tune", "--dry-run"]);
    assert_eq!(told.status.code(), Some(0));
    let told = lines(&told);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(
        told.iter()
            .all(|line| line.ends_with("would become performance"))
    );
    assert_eq!(statuses(&board), before);
    let tuned = rkllmd(&board, &["tune"]);
    assert_eq!(tuned.status.code(), Some(0), "{:?}", lines(&tuned));
    assert_eq!(statuses(&board), ["ok", "ok", "ok"]);
    let restored = rkllmd(&board, &["tune", "--restore"]);
    assert_eq!(restored.status.code(), Some(0));
    let restored = lines(&restored);
    assert!(
        restored.contains(&"dmc: dmc_ondemand again".to_owned()),
        "{restored:?}"
    );
    assert_eq!(statuses(&board), before);
    let again = rkllmd(&board, &["tune", "--restore"]);
    assert_eq!((again.status.code(), lines(&again)), (Some(0), Vec::new()));
}

#[test]
fn a_governor_that_cannot_be_set_is_exit_code_1_and_changes_none() {
    let board = Board::of(SLOW);
    let npu = "/sys/class/devfreq/fdab0000.npu/governor";
    board.remove(npu);
    // The kernel lets no user write it.
    std::os::unix::fs::symlink("/proc/sys/kernel/osrelease", board.path(npu)).unwrap();
    let before = statuses(&board);
    let failed = rkllmd(&board, &["tune"]);
    assert_eq!(failed.status.code(), Some(1));
    let told = lines(&failed);
    assert!(
        told.iter().any(|line| line.starts_with("fdab0000.npu: ")),
        "{told:?}"
    );
    assert!(
        told.contains(&"dmc: dmc_ondemand again".to_owned()),
        "{told:?}"
    );
    assert_eq!(statuses(&board), before);
}

#[test]
fn a_folder_that_is_not_there_is_a_wrong_command_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(["tune", "--sysroot", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
