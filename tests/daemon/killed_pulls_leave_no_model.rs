//! A pull that is killed, or whose daemon is, leaves no model that is served and no process, and the next one goes on
//! where it was.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;

use crate::daemon_support::{eventually, is_gone, kill, send};
use crate::hub_support::{Hub, Reply, random_bytes};
use crate::models_are_pulled::{MODEL, SIZE, holding_hub, repo, setup, transfers, wait_for_part};
use rustix::process::Signal;
use serde_json::json;

/// What has come so far of files that are on their way.
fn bytes_of_parts(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(it) if it.is_dir() => bytes_of_parts(&entry.path()),
        Ok(it) if entry.path().extension().is_some_and(|end| end == "part") => it.len(),
        _ => 0,
    });
    bytes.sum()
}

#[test]
fn a_killed_daemon_leaves_no_model_and_no_transfer() {
    let hub = holding_hub();
    let daemon = setup(&hub).start();
    let mut client = TcpStream::connect(daemon.address).expect("a connection");
    send(
        &mut client,
        "POST",
        "/api/pull",
        Some(&json!({"model": "owner/name"})),
    )
    .expect("a request");
    hub.wait_for_hold(0);
    let [transfer] = transfers(&daemon)[..] else {
        panic!("one process transfers it");
    };
    wait_for_part(&daemon, 100_000);
    daemon.signal(Signal::KILL);
    eventually("the end of the transfer", || {
        is_gone(transfer).then_some(())
    });
    let models = daemon.folder().join("models");
    assert!(!models.join("owner").exists());
    // The next daemon finds nothing of it, and goes on with it.
    let next = setup(&hub);
    fs::rename(models.join(".pulls"), next.models().join(".pulls")).expect("what has come");
    let next = next.start();
    assert_eq!(next.get("/api/tags").json()["models"], json!([]));
    let answer = next.post(
        "/api/pull",
        &json!({"model": "owner/name", "stream": false}),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(hub.sent(), SIZE as u64);
}

/// At fifty places of its file, in the middle of which the process that brings it is killed, or the daemon.
#[test]
fn a_killed_pull_leaves_no_model_and_the_next_goes_on() {
    const KILLS: usize = 50;
    let hub = {
        let repo = repo();
        let random = std::sync::Mutex::new(fastrand::Rng::with_seed(11));
        let files = std::sync::atomic::AtomicUsize::new(0);
        Hub::start(move |request, _| {
            let reply = repo.answer(request);
            let is_held = request.is_for_file()
                && files.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < KILLS;
            let place = random
                .lock()
                .expect("numbers")
                .usize(1..reply.body.len().max(40) / 20);
            Reply {
                hold_at: is_held.then_some(place),
                ..reply
            }
        })
    };
    let setup = setup(&hub);
    let models = setup.models();
    let mut daemon = setup.start_again();
    let body = json!({"model": "owner/name", "stream": false});
    let pulls = models.join(".pulls");
    for nth in 0..KILLS {
        let before = bytes_of_parts(&pulls);
        let mut client = TcpStream::connect(daemon.address).expect("a connection");
        send(&mut client, "POST", "/api/pull", Some(&body)).expect("a request");
        hub.wait_for_hold(nth);
        eventually("some of what has come being written", || {
            (bytes_of_parts(&pulls) > before).then_some(())
        });
        let [transfer] = transfers(&daemon)[..] else {
            panic!("one process transfers it");
        };
        if nth % 2 == 0 {
            kill(transfer);
            let mut answer = String::new();
            let mut reader = BufReader::new(client);
            reader.read_line(&mut answer).expect("an answer");
            assert!(answer.contains(" 503 "), "kill {nth}: {answer}");
        } else {
            // By SIGKILL.
            drop(daemon);
            eventually("the end of the transfer", || {
                is_gone(transfer).then_some(())
            });
            daemon = setup.start_again();
        }
        assert!(!models.join("owner").exists(), "kill {nth}");
        let listed = daemon.get("/api/tags").json();
        assert_eq!(listed["models"], json!([]), "kill {nth}");
    }
    let answer = daemon.post("/api/pull", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let model = models.join("owner/name").join(MODEL);
    assert_eq!(fs::read(model).expect("the model"), random_bytes(1, SIZE));
    let seen = hub.seen();
    let files = seen.iter().filter(|it| it.is_for_file());
    let offsets: Vec<usize> = files.map(|it| it.offset()).collect();
    assert!(
        offsets.is_sorted_by(|before, next| before < next),
        "each goes on where another was killed: {offsets:?}"
    );
    assert_eq!(offsets.len(), KILLS + 1);
}
