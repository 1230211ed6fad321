//! `rkllmd reload` changes a running daemon, or refuses as a whole; either way its caller learns
//! the outcome, and no answer that is under way is disturbed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, EventStream, Setup, chat, eventually};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::Signal;
use serde_json::{Value, json};

const SLOW: &str = "token-delay-us = 10000\nrepeat = { token = \"w \", times = 150 }\n";
const FINE: &str = "tokens = [\"fine\"]\n";

/// A daemon whose control socket is the test's own.
struct Running {
    daemon: Daemon,
    runtime: tempfile::TempDir,
}

impl Running {
    fn start(setup: Setup) -> Self {
        let runtime = tempfile::tempdir().expect("a folder");
        let path = runtime.path().to_str().expect("UTF-8");
        let daemon = setup.environment("RUNTIME_DIRECTORY", path).start();
        let running = Self { daemon, runtime };
        eventually("the control socket", || {
            running.socket().exists().then_some(())
        });
        running
    }

    fn socket(&self) -> std::path::PathBuf {
        self.runtime.path().join("control.sock")
    }

    fn reload(&self) -> Output {
        reload(self.runtime.path())
    }

    fn applied(&self) -> String {
        let output = self.reload();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn configure(&self, lines: &str) {
        let path = self.daemon.folder().join("rkllmd.toml");
        let old = fs::read_to_string(&path).expect("the configuration");
        fs::write(path, format!("{old}{lines}\n")).expect("the configuration");
    }

    fn model(&self, id: &str) -> std::path::PathBuf {
        self.daemon.folder().join("models").join(id)
    }

    fn install(&self, id: &str, scenario: &str) {
        fs::create_dir_all(self.model(id)).expect("a folder");
        let file = |name: &str, text: &str| fs::write(self.model(id).join(name), text);
        file("model.toml", "template = \"chatml\"\n").expect("a file");
        file("model.rkllm", scenario).expect("a file");
    }

    fn stream(&self, model: &str) -> EventStream {
        let body = chat(model, "x", json!({"stream": true}));
        let mut stream = self.daemon.stream("/v1/chat/completions", &body);
        assert_eq!(stream.next_content().as_deref(), Some("w "));
        stream
    }

    fn ask(&self, model: &str) -> crate::daemon_support::Answer {
        let body = chat(model, "x", json!({}));
        self.daemon.post("/v1/chat/completions", &body)
    }

    fn capacity(&self, model: &str) -> Value {
        let ready = self.daemon.get("/v1/ready").json();
        crate::daemon_support::find_model(&ready, model)["queue"]["capacity"].clone()
    }
}

fn reload(runtime: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .arg("reload")
        .env("RUNTIME_DIRECTORY", runtime)
        .output()
        .expect("the command runs")
}

fn rest_of(mut stream: EventStream) -> usize {
    std::iter::from_fn(|| stream.next_content()).count()
}

#[test]
fn models_and_settings_change_under_a_stream() {
    let setup = Setup::new()
        .settings("models.max-loaded = 3\nmodels.minimum-residency = \"10s\"")
        .scenario("changed", SLOW)
        .scenario("removed", SLOW)
        .scenario("kept", FINE);
    let running = Running::start(setup);
    assert_eq!(running.ask("kept").content(), "fine");
    let kept = running.daemon.worker_pid();
    let (changed, removed) = (running.stream("changed"), running.stream("removed"));

    running
        .configure("queue.capacity = 3\nhttp.body-limit-bytes = 2048\ndeadlines.spawn = \"20s\"");
    running.install("changed", "tokens = [\"another one\"]\n");
    running.install("added", FINE);
    fs::remove_dir_all(running.model("removed")).expect("it was there");
    let said = running.applied();
    let expected = "in force now: queue.capacity\n\
        in force for each model when it is loaded next: deadlines.spawn\n\
        NOT in force before a restart: http.body-limit-bytes\n\
        models added: added\n\
        models changed: changed\n\
        models removed: removed\n";
    assert_eq!(said, expected);
    for line in expected.lines() {
        running.daemon.log.wait_for(&format!("reloaded: {line}"));
    }

    assert_eq!(running.capacity("kept"), 3);
    assert_eq!(running.ask("added").content(), "fine");
    assert_eq!(running.ask("removed").error_code(), "model_not_found");
    // Nothing was disturbed.
    assert_eq!((rest_of(changed), rest_of(removed)), (149, 149));
    assert_eq!(running.ask("changed").content(), "another one");
    assert!(crate::daemon_support::children(running.daemon.pid()).contains(&kept));
    eventually("the end of the removed model's worker", || {
        (crate::daemon_support::children(running.daemon.pid()).len() == 3).then_some(())
    });

    assert_eq!(
        running.applied(),
        "NOT in force before a restart: http.body-limit-bytes\n"
    );
}

#[test]
fn a_wrong_configuration_is_refused_as_a_whole() {
    let running = Running::start(Setup::new().scenario("m", SLOW));
    let stream = running.stream("m");
    running.configure("queue.capacity = 3\nqueue.deadline = \"soon\"\nqueue.capacty = 4");
    running.install("added", FINE);
    let output = running.reload();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("rkllmd.toml:3: `queue.deadline`"), "{said}");
    assert!(said.contains("did you mean `queue.capacity`"), "{said}");
    running.daemon.log.wait_for("reload refused: ");
    assert_eq!(running.capacity("m"), 64, "the old one stays");
    assert_eq!(running.ask("added").error_code(), "model_not_found");
    assert_eq!(rest_of(stream), 149);

    // So it is with a folder that cannot be read.
    let config = running.daemon.folder().join("rkllmd.toml");
    fs::write(config, "").expect("the configuration");
    let models = running.daemon.folder().join("models");
    fs::rename(&models, running.daemon.folder().join("elsewhere")).expect("moved");
    let output = running.reload();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("reading the models folder"), "{said}");
    assert_eq!(
        running.daemon.get("/v1/models").json()["data"][0]["id"],
        "m"
    );
}

#[test]
fn what_waits_is_served_or_told() {
    let setup = Setup::new().scenario("m", SLOW).scenario("gone", FINE);
    let running = Running::start(setup);
    let stream = running.stream("m");
    std::thread::scope(|scope| {
        // One place, and it is taken: both wait.
        let same = scope.spawn(|| running.ask("m"));
        let other = scope.spawn(|| running.ask("gone"));
        eventually("two waiting", || {
            let ready = running.daemon.get("/v1/ready").json();
            let waits =
                |model| crate::daemon_support::find_model(&ready, model)["queue"]["waiting"] == 1;
            (waits("m") && waits("gone")).then_some(())
        });
        fs::remove_dir_all(running.model("gone")).expect("it was there");
        running.configure("queue.capacity = 1\nqueue.deadline = \"1h\"");
        running.applied();
        let other = other.join().expect("an answer");
        assert_eq!(other.error_code(), "model_not_found");
        assert_eq!(rest_of(stream), 149);
        assert_eq!(same.join().expect("an answer").content(), "w ".repeat(150));
    });
}

#[test]
fn an_embedding_between_its_turns_is_told_that_its_model_has_gone() {
    // Each input is a turn, and the first of them outlasts the reload.
    let slow = "tokens = [\"x\"]\nprefill-delay-ms = 4000\n";
    let running = Running::start(Setup::new().scenario("m", slow));
    std::thread::scope(|scope| {
        let embedding = scope.spawn(|| {
            let body = json!({"model": "m", "input": vec!["one"; 8]});
            running.daemon.post("/v1/embeddings", &body)
        });
        running.daemon.wait_for_phase("m", "running");
        let model = running.model("m");
        let aside = running.daemon.folder().join("aside");
        fs::rename(&model, &aside).expect("it was there");
        running.applied();
        // Back by the end of the turn, with another queue.
        fs::rename(&aside, &model).expect("it was there");
        running.applied();
        let answer = embedding.join().expect("an answer");
        assert_eq!(answer.error_code(), "model_not_found", "{}", answer.body);
    });
}

#[test]
fn a_model_that_failed_is_tried_again() {
    let setup = Setup::new()
        .settings("models.preload = [\"m\"]\nrecovery.backoff-first = \"1h\"\nrecovery.backoff-longest = \"1h\"")
        .scenario("m", "no such key = 1\n");
    let running = Running::start(setup);
    running.daemon.wait_for_phase("m", "failed");
    running.install("m", FINE);
    assert!(running.applied().contains("models changed: m"));
    running.daemon.wait_for_phase("m", "ready");
    assert_eq!(running.ask("m").content(), "fine");
}

#[test]
fn the_log_filter_changes() {
    let running = Running::start(Setup::new().settings("log.filter = \"warn,rkllmd=info\""));
    let config = running.daemon.folder().join("rkllmd.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    fs::write(&config, text.replace("rkllmd=info", "rkllmd=debug")).expect("the configuration");
    assert_eq!(running.applied(), "in force now: log.filter\n");
    // A client of the control socket that goes at once is worth a debug line only.
    drop(UnixStream::connect(running.socket()).expect("a connection"));
    running.daemon.log.wait_for("DEBUG");
}

#[test]
fn sighup_reloads_too_and_the_service_manager_hears_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout");
    let next = || {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let until = |start: &str| {
        loop {
            let message = next();
            if message.starts_with(start) {
                return message;
            }
        }
    };
    let setup = Setup::new().environment("NOTIFY_SOCKET", path.to_str().expect("UTF-8"));
    let running = Running::start(setup);
    until("READY=1");
    running.install("added", FINE);
    running.daemon.signal(Signal::HUP);
    let reloading = until("RELOADING=1\nMONOTONIC_USEC=");
    let then: u64 = reloading
        .rsplit('=')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a time");
    until("READY=1");
    running.daemon.log.wait_for("reloaded: models added: added");
    let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
    let now: f64 = uptime
        .split(' ')
        .next()
        .and_then(|s| s.parse().ok())
        .expect("seconds");
    let age = now - then as f64 / 1e6;
    assert!((-1.0..60.0).contains(&age), "{age} s ago");
    // Refused is an end, too.
    running.configure("nonsense");
    assert_eq!(running.reload().status.code(), Some(78));
    until("RELOADING=1");
    until("READY=1");
}

#[test]
fn without_a_daemon_the_command_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = reload(folder.path());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("control.sock"), "{said}");
}

#[test]
fn the_control_socket_is_its_owners_and_goes_with_the_daemon() {
    let running = Running::start(Setup::new());
    // From then on a client can connect, and not before its permissions are right.
    eventually("a socket that is listened on", || {
        UnixStream::connect(running.socket()).ok()
    });
    let mode = fs::metadata(running.socket())
        .expect("the socket")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let Running { daemon, runtime } = running;
    // Killed, it leaves the socket behind, and the next one takes its place.
    daemon.signal(Signal::KILL);
    daemon.wait();
    assert!(runtime.path().join("control.sock").exists());
    let path = runtime.path().to_str().expect("UTF-8").to_owned();
    let next = Setup::new().environment("RUNTIME_DIRECTORY", &path).start();
    eventually("a reload", || {
        reload(runtime.path()).status.success().then_some(())
    });
    // A second daemon leaves it alone and serves.
    let second = Setup::new().environment("RUNTIME_DIRECTORY", &path).start();
    assert_eq!(second.get("/health").status, 200);
    drop(second);
    assert!(reload(runtime.path()).status.success());
    next.signal(Signal::TERM);
    assert!(next.wait().success());
    assert!(!runtime.path().join("control.sock").exists());
}

#[test]
fn a_reload_tells_that_the_next_start_would_be_refused() {
    let running = Running::start(Setup::new().scenario("m", FINE));
    // The test's own --listen outweighs the file, so what is written there is the policy.
    let said = running.applied();
    assert!(!said.contains("warning"), "{said}");
    drop(running);

    let setup = Setup::new()
        .listen(&["0.0.0.0:0"])
        .settings("http.auth = 'none'");
    let running = Running::start(setup);
    let path = running.daemon.folder().join("rkllmd.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    fs::write(&path, text.replace("http.auth = 'none'", "")).expect("the configuration");
    let said = running.applied();
    assert!(
        said.contains("NOT in force before a restart: http.auth"),
        "{said}"
    );
    assert!(
        said.contains("warning: the next start would fail: refusing to listen on 0.0.0.0:0"),
        "{said}"
    );
    assert_eq!(running.daemon.get("/v1/models").status, 200, "as it was");
}

#[test]
fn a_reload_that_hangs_does_not_hold_up_the_end() {
    let running = Running::start(Setup::new().scenario("m", FINE));
    let config = running.daemon.folder().join("rkllmd.toml");
    fs::remove_file(&config).expect("the configuration");
    let (fifo, mode) = (FileType::Fifo, Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(CWD, &config, fifo, mode, 0).expect("a named pipe");
    running.daemon.signal(Signal::HUP);
    // It can be opened without waiting once the daemon reads from it, and then it reads for ever.
    let _writer = eventually("the daemon reading", || {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        rustix::fs::open(&config, flags, Mode::empty()).ok()
    });
    let before = Instant::now();
    running.daemon.signal(Signal::TERM);
    assert!(running.daemon.wait().success());
    assert!(
        before.elapsed() < Duration::from_secs(20),
        "{:?}",
        before.elapsed()
    );
}
