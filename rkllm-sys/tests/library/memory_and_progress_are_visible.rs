//! What the fake runtime takes and reads shows in /proc while the call goes on, and what it took is
//! gone with the model: the figures that a supervisor's limits and deadlines follow. Each test watches its
//! process, which it has to itself under nextest.

use crate::common::{Model, RUN_FAMILIES, open, run};
use rkllm_sys::RunInput;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// What else in this process may come and go meanwhile.
const NOISE: u64 = 8 * MIB;

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).and_then(|word| word.parse().ok());
    // SAFETY: asks for a constant.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.map_or(0, |pages: u64| {
        pages * u64::try_from(page).expect("positive")
    })
}

fn read_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|bytes| bytes.parse().ok()).expect("a number")
}

/// What this process has and has read.
fn figures() -> [u64; 2] {
    [resident_bytes(), read_bytes()]
}

/// By how much each figure of this process grew in each of its steps while `call` went on.
fn growth(call: impl FnOnce() + Send) -> [Vec<u64>; 2] {
    let done = AtomicBool::new(false);
    let mut steps = [Vec::new(), Vec::new()];
    std::thread::scope(|scope| {
        let mut last = figures();
        scope.spawn(|| {
            call();
            done.store(true, Ordering::Release);
        });
        let mut over = false;
        while !over {
            std::thread::sleep(Duration::from_millis(5));
            // One more look when the call is over: its last step may be just before.
            over = done.load(Ordering::Acquire);
            let now = figures();
            for ((steps, last), now) in steps.iter_mut().zip(&mut last).zip(now) {
                // Reading /proc is reading too, but no step of the runtime's is that small.
                if now >= *last + MIB / 2 {
                    steps.push(now - *last);
                }
                *last = now;
            }
        }
    });
    steps
}

fn assert_about(actual: u64, mib: u64, what: &str) {
    let expected = mib * MIB;
    assert!(
        actual.abs_diff(expected) <= NOISE,
        "{what}: {} MiB instead of {mib}",
        actual / MIB
    );
}

#[test]
fn a_model_takes_memory_and_gives_it_back() {
    for name in RUN_FAMILIES {
        let library = open(name);
        let model = Model::new("memory-mib = 64\nmemory-mib-per-run = 16\ntokens = ['a']");
        let before = resident_bytes();
        let handle = model.load(&library);
        assert_about(resident_bytes() - before, 64, name);
        for id in 1..=3 {
            run(&handle, &RunInput::Prompt("x"), id);
            assert_about(resident_bytes() - before, 64 + 16 * id, name);
        }
        handle.destroy().expect(name);
        assert_about(resident_bytes().saturating_sub(before), 0, name);
    }
}

#[test]
fn memory_grows_while_a_call_goes_on() {
    for name in RUN_FAMILIES {
        for call in ["init", "run"] {
            let model = Model::new(&format!(
                "tokens = ['a']\n[[fault]]\ncall = '{call}'\nkind = 'grow-memory'\nmib = 40\n\
                 step-ms = 10"
            ));
            let library = open(name);
            let before = resident_bytes();
            let mut loaded = None;
            let in_init = growth(|| loaded = Some(model.load(&library)));
            let handle = loaded.expect("loaded");
            let in_run = growth(|| {
                assert_eq!(run(&handle, &RunInput::Prompt("x"), 1).text(), "a");
            });
            let ([with, _], [without, _]) = if call == "init" {
                (in_init, in_run)
            } else {
                (in_run, in_init)
            };
            assert!(with.len() >= 5, "{name} {call}: in steps: {with:?}");
            assert_about(with.iter().sum(), 40, &format!("{name} {call} {with:?}"));
            assert_about(without.iter().sum(), 0, &format!("{name} {call}"));
            handle.destroy().expect(name);
            assert_about(resident_bytes().saturating_sub(before), 0, name);
        }
    }
}

#[test]
fn a_load_shows_the_progress_that_it_should() {
    for name in RUN_FAMILIES {
        for (progress, mib_resident, mib_read) in
            [("none", 0, 0), ("memory", 20, 0), ("read", 0, 40)]
        {
            let model = Model::new(&format!(
                "load-delay-ms = 500\nload-progress = '{progress}'"
            ));
            let library = open(name);
            let mut loaded = None;
            let steps = growth(|| loaded = Some(model.load(&library)));
            for (steps, mib) in steps.iter().zip([mib_resident, mib_read]) {
                let what = format!("{name} {progress} {steps:?}");
                assert_about(steps.iter().sum(), mib, &what);
                assert!(mib == 0 || steps.len() >= 4, "{what}");
            }
        }
    }
}
