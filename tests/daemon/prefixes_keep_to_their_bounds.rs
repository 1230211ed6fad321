//! Bytes, disk, memory and time of prefixes: what several slots do at the same time, what was cut short, what
//! does not answer, and what has gone.

use std::fs;
use std::thread;

use crate::daemon_support::{Setup, eventually, kill};
use crate::hung_kernel_support::{Hung, with_own_view};
use crate::prefixes_support::{
    NEW_WORDS, SCENARIO, WORDS, beginning, folder, metric, names, setup, turn,
};
use rustix::process::Signal;

#[test]
fn slots_that_save_at_the_same_time_keep_to_the_bounds_together() {
    const LIMIT: u64 = 16_000;
    const DAILY: u64 = 40_000;
    let daemon = setup(4, "")
        .settings(&format!(
            "prefixes.limit-bytes = {LIMIT}\nprefixes.written-per-day-bytes = {DAILY}"
        ))
        .start();
    let kept = || {
        let folder = folder(&daemon);
        let length = |name: &String| fs::metadata(folder.join(name)).map_or(0, |it| it.len());
        names(&folder, ".cache").iter().map(length).sum::<u64>()
    };
    thread::scope(|scope| {
        for client in 0..4 {
            let (daemon, kept) = (&daemon, &kept);
            scope.spawn(move || {
                let mut conversations = [0, 1, 2].map(|n| beginning(&format!("c{client}{n}x")));
                for _ in 0..4 {
                    for conversation in &mut conversations {
                        turn(daemon, conversation);
                        let kept = kept();
                        assert!(kept <= LIMIT, "{kept}");
                    }
                }
            });
        }
    });
    let written = metric(&daemon, "rkllmd_prefix_written_bytes_total");
    assert!((LIMIT..=DAILY).contains(&written), "{written}");
    assert!(metric(&daemon, "rkllmd_prefix_files") >= 2);
}

/// Wherever it was cut; of the third one as many bytes are there for each token.
#[test]
fn a_file_that_the_library_cut_short_is_never_loaded() {
    let head = 12 + 4 * (WORDS + 3);
    for bytes in [2000, head + 10_001, head + (WORDS + 3) * 32] {
        let scenario = format!(
            "vendors-cache = true\ncut-cache = {{ when-prompt-contains = \"b0 \", bytes = {bytes} }}\n\
             {SCENARIO}"
        );
        let daemon = Setup::new().scenario("m", &scenario).start();
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(beginning);
        turn(&daemon, &mut a);
        turn(&daemon, &mut c);
        assert!(
            turn(&daemon, &mut a) <= NEW_WORDS,
            "what is whole is loaded"
        );
        for _ in 0..3 {
            assert!(turn(&daemon, &mut b) >= WORDS as u64, "cut to {bytes}");
            turn(&daemon, &mut c);
        }
        // Behind its answer, and before the next one's: a library that does so is let be.
        daemon.log.wait_for("not kept any more");
        assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 2);
    }
}

#[test]
fn a_file_that_was_cut_after_it_was_kept_is_never_loaded() {
    let daemon = setup(1, "").start();
    let [mut a, mut b] = ["a", "b"].map(beginning);
    turn(&daemon, &mut a);
    turn(&daemon, &mut b);
    let kept = folder(&daemon).join(&names(&folder(&daemon), ".cache")[0]);
    let text = fs::read(&kept).expect("the file");
    fs::write(&kept, &text[..text.len() - 40]).expect("a shorter one");
    assert!(turn(&daemon, &mut a) >= WORDS as u64);
    assert_eq!(metric(&daemon, "rkllmd_prefix_loads_total"), 0);
    turn(&daemon, &mut b);
    assert!(turn(&daemon, &mut a) <= NEW_WORDS, "others are as ever");
}

/// A worker that waits in the kernel for a disk cannot be ended, and gets no successor.
#[test]
fn a_disk_that_does_not_answer_is_waited_for_by_no_worker() {
    let setup = setup(1, "").settings("deadlines.prefix-file-base = \"1s\"");
    let daemon = with_own_view(setup).start();
    let [mut a, mut b] = ["a", "b"].map(beginning);
    turn(&daemon, &mut a);
    turn(&daemon, &mut b);
    let kept = folder(&daemon).join(&names(&folder(&daemon), ".cache")[0]);
    let hung = Hung::new(&daemon, &kept);
    assert!(turn(&daemon, &mut a) >= WORDS as u64);
    daemon.log.wait_for("the disk does not answer");
    turn(&daemon, &mut b);
    turn(&daemon, &mut a);
    assert_eq!(metric(&daemon, "rkllmd_worker_exits_total"), 0);
    assert_eq!(metric(&daemon, "rkllmd_prefix_loads_total"), 0);
    hung.answer();
}

#[test]
fn a_worker_without_memory_for_a_file_writes_none() {
    let daemon = setup(1, "")
        .settings("memory.worker-soft-limit-bytes = 1")
        .start();
    let [mut a, mut b] = ["a", "b"].map(beginning);
    turn(&daemon, &mut a);
    turn(&daemon, &mut b);
    assert!(turn(&daemon, &mut a) >= WORDS as u64);
    assert_eq!(metric(&daemon, "rkllmd_prefix_saves_total"), 0);
    assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 0);
}

#[test]
fn a_load_has_a_deadline_of_its_own() {
    let fault = "[[fault]]\ncall = \"load_prompt_cache\"\nkind = \"hang\"\nonce = \"hung\"\n";
    let daemon = setup(1, fault)
        .settings("deadlines.prefix-file-base = \"500ms\"")
        .start();
    let mut conversations = ["a", "b"].map(beginning);
    for _ in 0..3 {
        for conversation in &mut conversations {
            turn(&daemon, conversation);
        }
    }
    let page = daemon.get("/metrics").body;
    let passed = "rkllmd_deadlines_passed_total{deadline=\"prefix-file\"} 1";
    assert!(page.contains(passed), "{page}");
    assert_eq!(metric(&daemon, "rkllmd_worker_exits_total"), 1);
}

#[test]
fn the_files_of_the_last_model_go_with_it() {
    let daemon = setup(1, "").start();
    let [mut a, mut b] = ["a", "b"].map(beginning);
    turn(&daemon, &mut a);
    turn(&daemon, &mut b);
    assert_eq!(names(&folder(&daemon), ".cache").len(), 1);
    fs::remove_dir_all(daemon.folder().join("models/m")).expect("the model");
    daemon.signal(Signal::HUP);
    eventually("the end of its files", || {
        names(&folder(&daemon), ".cache").is_empty().then_some(())
    });
}

/// Although no request has looked at the models folder since.
#[test]
fn a_prefix_is_of_the_file_that_its_worker_has_opened() {
    let daemon = setup(1, "").start();
    let [mut a, mut b] = ["a", "b"].map(beginning);
    turn(&daemon, &mut a);
    turn(&daemon, &mut b);
    let model = daemon.folder().join("models/m/model.rkllm");
    let (text, times) = (
        fs::read(&model).expect("the model"),
        fs::metadata(&model).expect("the model"),
    );
    let other = model.with_extension("new");
    fs::write(&other, text).expect("another file");
    let file = fs::File::options().write(true).open(&other);
    let modified = times.modified().expect("a time");
    file.and_then(|file| file.set_modified(modified))
        .expect("the same time");
    fs::rename(&other, &model).expect("in its place");
    let worker = daemon.worker_pid();
    kill(worker);
    eventually("another worker", || {
        (daemon.phase("m") == "ready" && daemon.worker_pid() != worker).then_some(())
    });
    // Tells how long a prefill takes.
    turn(&daemon, &mut beginning("c"));
    assert!(turn(&daemon, &mut a) >= WORDS as u64);
    assert_eq!(metric(&daemon, "rkllmd_prefix_loads_total"), 0);
}
