//! A driver that is wedged, or a process whose memory is locked, makes the kernel answer no question
//! about a worker. Then leases are granted, the watchdog is fed, models load and /metrics is served
//! as before; only what the kernel would have told is not known, and is absent.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, PATIENCE, Setup, begin, chat, children, eventually, kill};
use crate::hung_kernel_support::{Hung, with_own_view};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Far less than a call into the kernel hangs here, far more than an answer takes.
const PROMPTLY: Duration = Duration::from_secs(20);

const SETTINGS: &str = "models.preload = [\"m\"]\nmodels.max-loaded = 2\n\
    memory.check-interval = \"50ms\"\n";
const QUICK: &str = "tokens = [\"fine\"]\n";

fn setup() -> Setup {
    let setup = Setup::new()
        .settings(SETTINGS)
        .scenario("m", QUICK)
        .scenario("other", QUICK);
    with_own_view(setup)
}

fn serves(daemon: &Daemon, model: &str) {
    let before = Instant::now();
    let answer = daemon.post("/v1/chat/completions", &chat(model, "x", json!({})));
    assert_eq!(answer.content(), "fine");
    assert!(before.elapsed() < PROMPTLY, "{:?}", before.elapsed());
}

fn metrics(daemon: &Daemon) -> String {
    let before = Instant::now();
    let page = daemon.get("/metrics");
    assert_eq!(page.status, 200);
    assert!(before.elapsed() < PROMPTLY, "{:?}", before.elapsed());
    page.body
}

fn memory_is_known(daemon: &Daemon, model: &str) -> bool {
    let line = format!("rkllmd_worker_memory_bytes{{model=\"{model}\"");
    metrics(daemon).contains(&line)
}

fn wait_until_memory_is_known(daemon: &Daemon, model: &str, is_known: bool) {
    eventually(&format!("{model}'s memory being known: {is_known}"), || {
        (memory_is_known(daemon, model) == is_known).then_some(())
    });
}

#[test]
fn a_worker_that_cannot_be_looked_at_serves_on_and_its_memory_is_absent() {
    for file in ["cgroup", "fdinfo"] {
        let daemon = setup().start();
        daemon.wait_for_phase("m", "ready");
        let worker = daemon.worker_pid();
        wait_until_memory_is_known(&daemon, "m", true);
        let path = format!("/proc/{worker}/{file}");
        let hung = match file {
            "fdinfo" => Hung::entries_of(&daemon, path),
            _ => Hung::new(&daemon, path),
        };
        wait_until_memory_is_known(&daemon, "m", false);
        serves(&daemon, "m");
        // Another model is loaded beside it, and is looked at.
        serves(&daemon, "other");
        wait_until_memory_is_known(&daemon, "other", true);
        assert!(!memory_is_known(&daemon, "m"), "{file}");
        let told = format!("a call about the process {worker} does not come back");
        daemon.log.wait_for(&told);
        daemon.signal(Signal::HUP);
        daemon.log.wait_for("reloaded: ");
        hung.answer();
        wait_until_memory_is_known(&daemon, "m", true);
        let lines = daemon.log.lines();
        let told = lines.iter().filter(|line| line.contains(&told)).count();
        assert_eq!(told, 1, "{file}: {lines:#?}");
        assert!(
            children(daemon.pid()).contains(&worker),
            "it was left alone"
        );
    }
}

#[test]
fn the_watchdog_is_fed_and_the_daemon_ends_when_asked() {
    let manager = tempfile::tempdir().expect("a folder");
    let path = manager.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let ping = || {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).expect("a message in time");
            if buffer[..length].starts_with(b"WATCHDOG=1") {
                return;
            }
        }
    };
    let watchdog = Duration::from_secs(2);
    let daemon = setup()
        .environment("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))
        .environment("WATCHDOG_USEC", &watchdog.as_micros().to_string())
        .start();
    daemon.wait_for_phase("m", "ready");
    let worker = daemon.worker_pid();
    let hung = Hung::new(&daemon, format!("/proc/{worker}/status"));
    daemon.log.wait_for("does not come back");
    for _ in 0..4 {
        let before = Instant::now();
        ping();
        assert!(before.elapsed() < watchdog, "{:?}", before.elapsed());
    }
    daemon.signal(Signal::TERM);
    daemon.log.wait_for("stopped");
    drop(hung);
    assert!(daemon.wait().success());
}

#[test]
fn a_load_that_cannot_be_looked_at_is_not_given_up_and_its_figures_are_absent() {
    // Granted is less than the load takes; beyond that it goes on while it gets on, which the
    // daemon cannot see here. The worker hangs in a look at itself, so that its own guard does not fire.
    let setup = Setup::new()
        .settings(
            "models.preload = [\"m\"]\ndeadlines.load-base = \"500ms\"\n\
             deadlines.load-per-gib = \"0s\"\ndeadlines.load-stall = \"2s\"\n\
             deadlines.heartbeat = \"10m\"\n",
        )
        .scenario(
            "m",
            "load-delay-ms = 5000\nload-progress = \"read\"\ntokens = [\"fine\"]\n",
        )
        .scenario("other", QUICK);
    let daemon = with_own_view(setup).start();
    daemon.wait_for_phase("m", "loading");
    let worker = daemon.worker_pid();
    let hung = Hung::new(&daemon, format!("/proc/{worker}/io"));
    let connection = TcpStream::connect(daemon.address).expect("a connection");
    let path = "/v1/loading/progress?model=m";
    let mut progress = begin(connection, "GET", path, None)
        .expect("an answer")
        .into_events();
    let last = eventually("a load far beyond its deadline", || {
        let data = progress.next_data().expect("it is loading");
        let event: Value = serde_json::from_str(&data).expect("JSON");
        let elapsed = event["elapsed_ms"].as_u64().expect("milliseconds");
        (elapsed > 8000).then_some(event)
    });
    assert_eq!(last["phase"], "loading", "{last}");
    assert!(last.get("read_bytes").is_none(), "{last}");
    assert!(last.get("resident_bytes").is_none(), "{last}");
    daemon.log.wait_for("does not come back");
    hung.answer();
    daemon.wait_for_phase("m", "ready");
    assert_eq!(daemon.worker_pid(), worker, "the load was not given up");
    serves(&daemon, "m");
}

#[test]
fn a_kill_without_an_explanation_is_told_as_such() {
    let daemon = setup().start();
    daemon.wait_for_phase("m", "ready");
    let worker = daemon.worker_pid();
    let _hung = Hung::new(&daemon, format!("/proc/{worker}/status"));
    daemon.log.wait_for("does not come back");
    kill(worker);
    let exits = "rkllmd_worker_exits_total{model=\"m\",cause=\"killed\"} 1";
    eventually("the end of the worker", || {
        metrics(&daemon).contains(exits).then_some(())
    });
    daemon.log.wait_for("whether memory was short is not known");
    // Its successor is looked at.
    serves(&daemon, "m");
    assert!(!children(daemon.pid()).contains(&worker));
    wait_until_memory_is_known(&daemon, "m", true);
}

#[test]
fn what_is_not_told_of_the_daemon_itself_is_absent() {
    let daemon = setup().start();
    let own = "process_resident_memory_bytes ";
    assert!(metrics(&daemon).contains(own));
    let hung = Hung::new(&daemon, format!("/proc/{}/stat", daemon.pid()));
    let page = metrics(&daemon);
    assert!(!page.contains(own), "{page}");
    assert!(page.contains("rkllmd_worker_phase{"), "{page}");
    serves(&daemon, "m");
    hung.answer();
    eventually("the figures", || {
        metrics(&daemon).contains(own).then_some(())
    });
}
