//! What a pull costs: the times between the tokens of a stream of the demo model while a model comes at 20 MB/s,
//! and while none does, in turns; and the most memory of all that takes part in a pull of a gigabyte, which
//! comes as fast as it goes.

use std::fs;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::beside_a_stream::{MODEL, Pairs, gaps};
use crate::daemon_support::{Daemon, Setup, all_children, eventually, send};
use crate::hub_support::{COMMIT, Hub, Reply, Request, hex};
use crate::peak_memory::peak_bytes;
use crate::report::{Report, Target};
use crate::statistics::median;

const FILE: &str = "model-Q4_1.gguf";
const FILE_BYTES: usize = 1_000_000_000;
/// Some 20 MB a second.
const PIECE_BYTES: usize = 200_000;
const PAUSE: Duration = Duration::from_millis(10);
/// A pull has begun when so much has come.
const BEGUN_BYTES: u64 = 2_000_000;
/// The memory of processes is looked at so often.
const LOOKS: Duration = Duration::from_millis(10);

pub fn measure(report: &mut Report) {
    report.section(
        "pulls",
        "a stream of the demo model beside a pull, in turns; a pull of 1 GB",
    );
    let digest = digest_of_zeros();
    beside_a_stream(report, &digest);
    memory(report, &digest);
}

/// The file is nothing but zeros, which cost no memory here.
fn digest_of_zeros() -> String {
    let piece = vec![0; PIECE_BYTES];
    let mut digest = Sha256::new();
    for _ in 0..FILE_BYTES / PIECE_BYTES {
        digest.update(&piece);
    }
    hex(&digest.finalize())
}

/// A hub where each repository has the file, sent in pieces with a pause before each.
fn hub(digest: &str, pause: Duration) -> Hub {
    let digest = digest.to_owned();
    Hub::start(move |request, _| answer(request, &digest, pause))
}

fn answer(request: &Request, digest: &str, pause: Duration) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    let listed = path.strip_prefix("/api/models/");
    if let Some(id) = listed.and_then(|rest| rest.strip_suffix("/revision/main")) {
        return Reply::json(&json!({
            "id": id, "sha": COMMIT, "private": false, "gated": false,
            "cardData": {"license": "apache-2.0"},
            "siblings": [{"rfilename": FILE, "size": FILE_BYTES, "blobId": COMMIT,
                "lfs": {"sha256": digest, "size": FILE_BYTES, "pointerSize": 134}}],
        }));
    }
    if !path.ends_with(&format!("/resolve/{COMMIT}/{FILE}")) {
        return Reply::status(404).header("x-error-code", "EntryNotFound");
    }
    Reply {
        body: vec![0; FILE_BYTES],
        drip: Some((PIECE_BYTES, pause)),
        ..Reply::status(200)
            .header("accept-ranges", "bytes")
            .header("x-repo-commit", COMMIT)
            .header("content-type", "application/octet-stream")
            .header("x-linked-etag", format!("\"{digest}\""))
            .header("x-linked-size", FILE_BYTES.to_string())
    }
}

fn start(hub: &Hub) -> Daemon {
    Setup::new()
        .demo_model(MODEL)
        .all_threads()
        .settings(&format!("hub.endpoint = {:?}", hub.endpoint()))
        .settings("hub.keep-free-bytes = 0\nhttp.header-delay = \"30s\"")
        .start()
}

/// The processes that transfer models.
fn transfers(daemon: &Daemon) -> Vec<u32> {
    let all = all_children(daemon.pid()).into_iter();
    all.filter(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == "rkllmd-transfer")
    })
    .collect()
}

/// The gaps of a stream during which a pull goes on, which is given up after it; and the megabytes that came
/// in a second.
fn gaps_beside_a_pull(daemon: &Daemon, hub: &Hub, number: usize) -> (Vec<f64>, f64) {
    let before = hub.sent();
    let mut client = TcpStream::connect(daemon.address).expect("a connection");
    // Nothing has come of this one yet.
    let body = json!({"model": format!("owner/name{number}")});
    send(&mut client, "POST", "/api/pull", Some(&body)).expect("a request");
    eventually("the begin of the pull", || {
        (hub.sent() > before + BEGUN_BYTES).then_some(())
    });
    let (began, sent) = (Instant::now(), hub.sent());
    let gaps = gaps(daemon);
    let rate = (hub.sent() - sent) as f64 / began.elapsed().as_secs_f64() / 1e6;
    assert!(
        !transfers(daemon).is_empty(),
        "the pull ended before the stream"
    );
    drop(client);
    eventually("the end of the pull", || {
        transfers(daemon).is_empty().then_some(())
    });
    (gaps, rate)
}

fn beside_a_stream(report: &mut Report, digest: &str) {
    let hub = hub(digest, PAUSE);
    let daemon = start(&hub);
    // Loads the model.
    gaps(&daemon);
    let mut rates = Vec::new();
    let mut beside = |number| {
        let (gaps, rate) = gaps_beside_a_pull(&daemon, &hub, number);
        rates.push(rate);
        gaps
    };
    let pairs = Pairs::measure(&daemon, &mut beside);
    let label = "what came of models, while they came";
    report.figure("pull_mb_per_second", label, median(rates), "MB/s");
    pairs.promise(
        report,
        [
            "median beside a pull / without, median of 5 pairs",
            "p99 beside a pull / without, median of 5 pairs",
        ],
    );
}

fn memory(report: &mut Report, digest: &str) {
    let hub = hub(digest, Duration::ZERO);
    let daemon = start(&hub);
    assert_eq!(daemon.get("/health").status, 200);
    let before = peak_bytes(daemon.pid());
    let is_over = AtomicBool::new(false);
    let (peak, answer, took) = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut peak: u64 = 0;
            while !is_over.load(Ordering::Relaxed) {
                let of_now = transfers(&daemon).into_iter().map(peak_bytes).sum();
                peak = peak.max(of_now);
                thread::sleep(LOOKS);
            }
            peak
        });
        let began = Instant::now();
        let answer = daemon.post("/api/pull", &json!({"model": "owner/name"}));
        let took = began.elapsed();
        is_over.store(true, Ordering::Relaxed);
        (looking.join().expect("it looks"), answer, took)
    });
    let last = answer.body.lines().last().unwrap_or_default();
    assert!(
        answer.status == 200 && last.contains("success"),
        "{}: {last}",
        answer.status
    );
    assert!(peak > 0, "no process transferred it");
    let rate = FILE_BYTES as f64 / took.as_secs_f64() / 1e6;
    report.figure("gigabyte_mb_per_second", "a pull of 1 GB", rate, "MB/s");
    report.figure(
        "transfer_peak_mb",
        "its process, resident memory at most",
        peak as f64 / 1e6,
        "MB",
    );
    let more = peak_bytes(daemon.pid()) - before;
    report.promise(
        "pull_peak_mb",
        "its process and what the daemon has more, at most",
        ((peak + more) as f64 / 1e6, "MB"),
        Target::AtMost(30.0),
    );
}
