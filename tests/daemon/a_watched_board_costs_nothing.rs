//! An idle daemon that looks at its board, as often as it does unless told otherwise, takes next to nothing of it.

use std::time::Duration;

use crate::board_support::{Board, GOOD};
use crate::daemon_support::{Setup, anonymous_bytes, cpu_ticks, descriptors, eventually};

/// In `cpu_ticks`: 0.2 % of a core.
const MOST_TICKS_IN_1000_SECONDS: u64 = 200;
const MOST_GROWTH_BYTES: u64 = 1 << 20;

/// For how long it is idle: a minute, or as long as IDLE_SECONDS says.
fn idle() -> Duration {
    let seconds = std::env::var("IDLE_SECONDS").ok();
    let seconds = seconds.map(|seconds| seconds.parse().expect("IDLE_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(60))
}

#[test]
fn an_idle_daemon_with_sensors_is_idle() {
    let board = Board::of(GOOD);
    board.write("/run/rknpu/load = NPU load:  Core0: 25%, Core1:  0%, Core2:100%,\\n");
    let root = board.root().to_str().expect("UTF-8");
    let daemon = Setup::new()
        .settings(&format!("board.root = {root:?}"))
        .start();
    eventually("the board was looked at", || {
        let status = daemon.get("/v1/status").json();
        status["board"]["npu_load"].is_array().then_some(())
    });
    let pid = daemon.pid();
    let figures = || {
        let open = descriptors(pid).len();
        (cpu_ticks(pid), open, anonymous_bytes(pid))
    };
    let (ticks, open, bytes) = figures();
    let idle = idle();
    std::thread::sleep(idle);
    let (ticks_after, open_after, bytes_after) = figures();
    let used = ticks_after - ticks;
    let most = (idle.as_secs() * MOST_TICKS_IN_1000_SECONDS).div_ceil(1000);
    assert!(
        used <= most,
        "{used} hundredths of a second in {idle:?}, at most {most}"
    );
    assert!(open_after <= open, "{:?}", descriptors(pid));
    let growth = bytes_after.saturating_sub(bytes);
    assert!(
        growth <= MOST_GROWTH_BYTES,
        "{growth} bytes more in {idle:?}"
    );
    // It did look meanwhile.
    board.write("/run/rknpu/load = NPU load:  Core0: 50%, Core1:  0%, Core2:100%,\\n");
    eventually("the board is looked at", || {
        let status = daemon.get("/v1/status").json();
        (status["board"]["npu_load"][0] == 0.5).then_some(())
    });
}
