//! While every read of the board hangs, as with a driver that is wedged, runs are granted, the watchdog is fed and
//! administrators are answered; nothing is told of the board, and all of it again when it answers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::board_support::{Board, GOOD};
use crate::daemon_support::{Daemon, Setup, chat, descriptors, eventually};
use crate::fuse_support::{HungMount, can_be_mounted};
use crate::manager::Manager;

/// Far more than an answer takes, far less than anything here hangs.
const PROMPTLY: Duration = Duration::from_secs(20);
/// What is looked for at each look; as many calls hang at the most, one of each kind.
const MOST_HELD: usize = 9;

fn board_when(daemon: &Daemon, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || {
        let before = Instant::now();
        let answer = daemon.get("/v1/status");
        assert!(before.elapsed() < PROMPTLY, "{:?}", before.elapsed());
        let board = answer.json()["board"].take();
        (board.is_object() && holds(&board)).then_some(board)
    })
}

fn serves(daemon: &Daemon) {
    let before = Instant::now();
    let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(answer.content(), "fine");
    assert!(before.elapsed() < PROMPTLY, "{:?}", before.elapsed());
}

#[test]
fn while_every_read_hangs_runs_are_granted_and_the_watchdog_is_fed() {
    if !can_be_mounted() {
        return;
    }
    let board = Board::of(GOOD);
    board.write("/run/rknpu/load = NPU load:  Core0: 25%, Core1:  0%, Core2:100%,\\n");
    let root = board.root().to_str().expect("UTF-8");
    let watchdog = Duration::from_secs(2);
    let manager = Manager::new();
    let setup = Setup::new()
        .settings(&format!(
            "board.root = {root:?}\nboard.interval = \"100ms\""
        ))
        .scenario("m", "tokens = [\"fine\"]\n")
        .environment("WATCHDOG_USEC", &watchdog.as_micros().to_string());
    let daemon = manager.attach(setup).start();
    let answers =
        |board: &Value| board["not_answering"] == json!([]) && board["npu_load"].is_array();
    board_when(&daemon, "a board that answers", answers);
    // Its worker stays, and what it takes.
    serves(&daemon);
    let open = descriptors(daemon.pid()).len();

    let hung = HungMount::over(board.root());
    let told = board_when(&daemon, "a board of which nothing answers", |board| {
        let silent = board["not_answering"].as_array().expect("names");
        silent.iter().any(|name| name == "the NPU's driver") && silent.len() >= 7
    });
    for (pointer, unknown) in [
        ("/npu_driver", json!(null)),
        ("/npu_load", json!(null)),
        ("/throttled", json!(null)),
        ("/memory/available_bytes", json!(null)),
        ("/thermal_zones", json!([])),
        ("/cooling_devices", json!([])),
        ("/devices", json!([])),
        ("/cpu_clusters", json!([])),
        ("/fans", json!([])),
        ("/pressure", json!([])),
        // It cannot have changed.
        ("/kernel", json!("6.1.43-rockchip-rk3588")),
    ] {
        assert_eq!(told.pointer(pointer), Some(&unknown), "{pointer}: {told}");
    }
    let held = hung.held();
    assert!((1..=MOST_HELD).contains(&held), "{held}");
    for _ in 0..6 {
        serves(&daemon);
        // What was queued before says nothing of now.
        manager.drain(Duration::from_millis(1));
        let before = Instant::now();
        manager.wait_for("WATCHDOG=1");
        assert!(before.elapsed() < watchdog, "{:?}", before.elapsed());
    }
    let page = daemon.get("/metrics").body;
    assert!(
        !page.contains("rkllmd_board_temperature_celsius{"),
        "{page}"
    );
    assert!(!page.contains("rkllmd_board_throttled{"), "{page}");
    // What hangs is left behind once, not at each look.
    assert_eq!(hung.held(), held);

    drop(hung);
    board_when(&daemon, "a board that answers again", answers);
    eventually("no descriptor more than before", || {
        (descriptors(daemon.pid()).len() <= open).then_some(())
    });
}
