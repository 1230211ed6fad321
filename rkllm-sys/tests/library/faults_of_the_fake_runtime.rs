//! The fake runtime's faults are real: they end or stop the process that has them, as the vendor's
//! library does, and only on the occasion a scenario names. Each is had by a child of the test.

use crate::common::{Model, RUN_FAMILIES, collect, open, run, run_id};
use libc::{SIGABRT, SIGILL, SIGSEGV};
use rkllm_sys::{CallError, CallState, Handle, RunInput, RunOptions};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

const SCENARIO: &str = "RKLLM_SYS_TEST_SCENARIO";
const LIBRARY: &str = "RKLLM_SYS_TEST_LIBRARY";
const CHILD: &str = "faults_of_the_fake_runtime::the_child_that_has_the_fault";

/// Loads, runs twice and destroys. As a test of its own it has no fault, and so does all of that.
#[test]
fn the_child_that_has_the_fault() {
    let scenario = std::env::var(SCENARIO).unwrap_or_else(|_| "tokens = ['a', 'b']".to_owned());
    let library = std::env::var(LIBRARY).unwrap_or_else(|_| "1_3_1".to_owned());
    print_whole_lines();
    let model = Model::new(&scenario);
    let handle = model.load(&open(&library));
    for id in [1, 2] {
        let collected = run(&handle, &RunInput::Prompt("a prompt"), id);
        println!("run {id}: {}", collected.text());
    }
    handle.destroy().expect("destroyed");
    println!("destroyed");
}

/// Makes C's stdout line-buffered, as a worker does. Rust's is another buffer on the same pipe, so
/// lines of either would otherwise begin in the middle of the other's.
fn print_whole_lines() {
    unsafe extern "C" {
        static stdout: *mut libc::FILE;
    }
    // SAFETY: C's own stream, before anything was printed to it; without a buffer of ours it
    // allocates its own.
    let failed = unsafe { libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IOLBF, 4096) };
    assert_eq!(failed, 0, "setvbuf");
}

struct Faulty(Child);

impl Faulty {
    fn start(library: &str, scenario: &str) -> Self {
        let child = Command::new(std::env::current_exe().expect("the test's own path"))
            .args(["--exact", CHILD, "--nocapture", "--test-threads=1"])
            .env(SCENARIO, scenario)
            .env(LIBRARY, library)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        Faulty(child)
    }

    /// What it printed and how it ended.
    fn end(self) -> (String, ExitStatus) {
        let (printed, status) = self.end_with_bytes();
        (String::from_utf8(printed).expect("UTF-8"), status)
    }

    fn end_with_bytes(mut self) -> (Vec<u8>, ExitStatus) {
        let mut printed = Vec::new();
        let mut output = self.0.stdout.take().expect("piped");
        output.read_to_end(&mut printed).expect("read");
        (printed, self.0.wait().expect("ended"))
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        // Both fail when it has ended by itself, which is what most do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_crash_is_that_signal_after_that_many_tokens_of_that_run() {
    for library in RUN_FAMILIES {
        for (kind, signal) in [("segv", SIGSEGV), ("abort", SIGABRT), ("ill", SIGILL)] {
            let scenario = format!(
                "tokens = ['a', 'b']\n[[fault]]\ncall = 'run'\noccasion = 2\nafter-tokens = 1\n\
                 kind = '{kind}'"
            );
            let (printed, status) = Faulty::start(library, &scenario).end();
            assert_eq!(status.signal(), Some(signal), "{library} {kind}: {status}");
            assert!(printed.contains("run 1: ab"), "{library} {kind}: {printed}");
            assert!(!printed.contains("run 2"), "{library} {kind}: {printed}");
        }
    }
}

#[test]
fn every_call_can_have_one() {
    for (call, printed_before) in [
        ("init", "loading"),
        ("run", "loading"),
        ("destroy", "run 2"),
    ] {
        let scenario = format!("[[fault]]\ncall = '{call}'\nkind = 'exit'\ncode = 41");
        let (printed, status) = Faulty::start("1_3_1", &scenario).end();
        assert_eq!(status.code(), Some(41), "{call}: {printed}");
        assert!(printed.contains(printed_before), "{call}: {printed}");
        assert!(!printed.contains("destroyed"), "{call}: {printed}");
    }
}

#[test]
fn a_hang_outlives_an_abort() {
    let model =
        Model::new("tokens = ['a', 'b']\n[[fault]]\ncall = 'run'\nafter-tokens = 1\nkind = 'hang'");
    // The run never returns, so what it borrows lives as long as the process.
    let handle: &'static Handle = Box::leak(Box::new(model.load(&open("1_3_1"))));
    let (sink, collected) = collect();
    let run = std::thread::spawn(move || {
        handle.run(
            &RunInput::Prompt("x"),
            &RunOptions::default(),
            run_id(1),
            sink,
        )
    });
    assert_eq!(collected.wait_for_one().state, CallState::Normal);
    handle.abort().expect("an abort is accepted");
    // Nothing announces that nothing happens: a run that heeds the abort ends within this time.
    let ended = collected.each.recv_timeout(Duration::from_millis(500));
    assert!(ended.is_err(), "{ended:?}");
    assert!(!run.is_finished());
    assert!(handle.is_running().expect("answered"));
}

#[test]
fn a_fault_that_happens_once_is_not_had_by_the_next_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let marker = folder.path().join("marker");
    let scenario = format!(
        "tokens = ['a']\n[[fault]]\ncall = 'run'\nkind = 'segv'\nonce = '{}'",
        marker.display()
    );
    let (_, first) = Faulty::start("1_3_1", &scenario).end();
    assert_eq!(first.signal(), Some(SIGSEGV), "{first}");
    let (printed, second) = Faulty::start("1_3_1", &scenario).end();
    assert!(second.success(), "{second}: {printed}");
    assert!(printed.contains("run 2: a"), "{printed}");
}

#[test]
fn faults_wait_for_their_prompt() {
    let scenario = |text| {
        format!(
            "tokens = ['a']\n[[fault]]\ncall = 'run'\nkind = 'segv'\n\
             when-prompt-contains = '{text}'"
        )
    };
    let (_, struck) = Faulty::start("1_3_1", &scenario("prom")).end();
    assert_eq!(struck.signal(), Some(SIGSEGV), "{struck}");
    let (printed, spared) = Faulty::start("1_3_1", &scenario("other")).end();
    assert!(spared.success(), "{spared}: {printed}");
}

#[test]
fn a_run_that_fails_at_once_calls_nothing_back_and_the_next_is_served() {
    for name in RUN_FAMILIES {
        let model = Model::new(
            "tokens = ['a']\n[[fault]]\ncall = 'run'\noccasion = 1\nkind = 'fail'\ncode = -3",
        );
        // Occasions are counted a library in a process, so each family counts its own.
        let handle = model.load(&open(name));
        let (sink, collected) = collect();
        let error = handle
            .run(
                &RunInput::Prompt("x"),
                &RunOptions::default(),
                run_id(1),
                sink,
            )
            .expect_err("a failure");
        assert!(
            matches!(error, CallError::Failed { code: -3, .. }),
            "{error:?}"
        );
        assert_eq!(collected.all(), [], "{name}");
        let collected = run(&handle, &RunInput::Prompt("x"), 2);
        assert_eq!(collected.text(), "a", "{name}");
    }
}

#[test]
fn a_run_can_return_without_finish() {
    let model = Model::new(
        "tokens = ['a', 'b']\n[[fault]]\ncall = 'run'\nafter-tokens = 1\nkind = 'never-finish'",
    );
    let handle = model.load(&open("1_3_1"));
    let collected = run(&handle, &RunInput::Prompt("x"), 1);
    assert_eq!(collected.states(), [CallState::Normal]);
}

#[test]
fn stdout_is_flooded_with_the_lines_asked_for() {
    let scenario = "tokens = ['a']\n[[fault]]\ncall = 'run'\noccasion = 1\n\
                    kind = 'flood-stdout'\nlines = 5000";
    let (printed, status) = Faulty::start("1_3_1", scenario).end();
    assert!(status.success(), "{status}");
    let lines = printed
        .lines()
        .filter(|line| line.starts_with("I rkllm: flood line"));
    assert_eq!(lines.count(), 5000);
}

#[test]
fn the_init_lines_are_the_vendors() {
    let scenario = "platform = 'RK3576'\nnpu-core-num = 2\nmodel-dtype = 'W4A16_G128'\n\
                    [[fault]]\ncall = 'init'\nkind = 'print'\ntext = 'I rkllm: Using mrope'";
    let (printed, status) = Faulty::start("1_2_1", scenario).end();
    assert!(status.success(), "{status}");
    for line in [
        "I rkllm: rkllm-runtime version: 1.2.3, rknpu driver version: 0.9.8, platform: RK3576",
        "I rkllm: rkllm-toolkit version: 1.2.3, max_context_limit: 4096, npu_core_num: 2, \
         target_platform: RK3576, model_dtype: W4A16_G128",
        "I rkllm: Using mrope",
        "I rkllm: Enabled cpus: [4, 5, 6, 7]",
        "I rkllm: Enabled cpus num: 4",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
}

#[test]
fn bytes_that_are_no_text_go_to_stdout_as_they_are() {
    let scenario = "tokens = ['a']\n[[fault]]\ncall = 'run'\noccasion = 1\n\
                    kind = 'print-bytes'\nbytes = [1, 255, 0, 254, 27]";
    for library in RUN_FAMILIES {
        let (printed, status) = Faulty::start(library, scenario).end_with_bytes();
        assert!(status.success(), "{library}: {status}");
        // Nothing of the library's comes after them, the next line is the test's own.
        let wanted = b"\x01\xFF\0\xFE\x1Brun 1: a";
        let found = printed.windows(wanted.len()).any(|part| part == wanted);
        assert!(found, "{library}: {}", String::from_utf8_lossy(&printed));
    }
}

#[test]
fn a_crash_in_prefill_comes_before_any_token() {
    let scenario = "tokens = ['a', 'b']\nprefill-delay-ms = 50\n[[fault]]\ncall = 'run'\n\
                    occasion = 2\nin-prefill = true\nkind = 'segv'";
    for library in RUN_FAMILIES {
        let (printed, status) = Faulty::start(library, scenario).end();
        assert_eq!(status.signal(), Some(SIGSEGV), "{library}: {status}");
        assert!(printed.contains("run 1: ab"), "{library}: {printed}");
    }
}

#[test]
fn a_file_orders_a_fault_for_one_process_which_is_recorded_before_it_happens() {
    for library in RUN_FAMILIES {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (order, record) = (folder.path().join("order"), folder.path().join("record"));
        let scenario = format!(
            "tokens = ['a', 'b']\nrecord = '{}'\n[[fault]]\ncall = 'run'\nafter-tokens = 1\n\
             kind = 'segv'\nwhen-file = '{}'",
            record.display(),
            order.display()
        );
        let (_, spared) = Faulty::start(library, &scenario).end();
        assert!(spared.success(), "{library}: nothing was ordered: {spared}");
        assert!(!record.exists(), "{library}: nothing happened");

        let mut pids = Vec::new();
        for _ in 0..2 {
            std::fs::write(&order, "").expect("ordered");
            let child = Faulty::start(library, &scenario);
            pids.push(child.0.id());
            let (_, struck) = child.end();
            assert_eq!(struck.signal(), Some(SIGSEGV), "{library}: {struck}");
            assert!(!order.exists(), "{library}: the order is spent");
        }
        let (_, spared) = Faulty::start(library, &scenario).end();
        assert!(spared.success(), "{library}: {spared}");
        let recorded = std::fs::read_to_string(&record).expect("a record");
        let expected: Vec<_> = pids.iter().map(|pid| format!("{pid} run segv\n")).collect();
        assert_eq!(recorded, expected.concat(), "{library}");
    }
}

#[test]
fn a_control_call_that_hangs_leaves_the_run_alone() {
    for name in RUN_FAMILIES {
        for call in ["is_running", "get_kv_cache_size"] {
            let model = Model::new(&format!(
                "repeat = {{ token = 'x', times = 50 }}\ntoken-delay-us = 2000\n\
                 [[fault]]\ncall = '{call}'\nkind = 'hang'"
            ));
            // The hung call never returns, so what it holds lives as long as the process.
            let handle: &'static Handle = Box::leak(Box::new(model.load(&open(name))));
            let hung = std::thread::spawn(move || match call {
                "is_running" => handle.is_running().map(|_| ()),
                _ => handle.kv_cache_size().map(|_| ()),
            });
            let collected = run(handle, &RunInput::Prompt("x"), 1);
            assert_eq!(collected.text().len(), 50, "{name} {call}");
            handle.abort().expect("other control calls are answered");
            assert!(!hung.is_finished(), "{name} {call}");
        }
    }
}

#[test]
fn what_cannot_happen_as_it_is_written_is_refused() {
    for (scenario, reason) in [
        ("unknown = 1", "unknown field"),
        (
            "continue-answers = true\necho-prompt = true",
            "cannot be continued",
        ),
        ("load-progress = 'read'", "without load-delay-ms"),
        ("[[fault]]\ncall = 'run'\nkind = 'ignore'", "only [Abort]"),
        (
            "[[fault]]\ncall = 'init'\nkind = 'finish-twice'",
            "only [Run]",
        ),
        (
            "[[fault]]\ncall = 'abort'\nkind = 'late-callback'",
            "only [Run, Destroy]",
        ),
        (
            "[[fault]]\ncall = 'destroy'\nkind = 'grow-memory'\nmib = 1",
            "only [Run, Init]",
        ),
        (
            "[[fault]]\ncall = 'init'\nkind = 'hang'\nin-prefill = true",
            "only a run",
        ),
        (
            "[[fault]]\ncall = 'run'\nkind = 'hang'\nin-prefill = true\nafter-tokens = 1",
            "no token comes in prefill",
        ),
        (
            "[[fault]]\ncall = 'run'\nkind = 'null-text'\nin-prefill = true",
            "not in prefill",
        ),
        (
            "[[fault]]\ncall = 'run'\nkind = 'hang'\nonce = 'a'\nwhen-file = 'b'",
            "once or when-file",
        ),
        ("[[fault]]\ncall = 'run'\nkind = 'grow-memory'", "needs mib"),
        (
            "[[fault]]\ncall = 'run'\nkind = 'special-token'",
            "needs id",
        ),
        (
            "[[fault]]\ncall = 'run'\nkind = 'print-bytes'",
            "needs bytes",
        ),
        (
            "[[fault]]\ncall = 'run'\nkind = 'hang'\nms = 5",
            "has no ms",
        ),
    ] {
        let (printed, status) = Faulty::start("1_3_1", scenario).end();
        assert_eq!(status.code(), Some(101), "{scenario}: the child fell over");
        assert!(
            printed.contains("E rkllm: scenario"),
            "{scenario}: {printed}"
        );
        assert!(printed.contains(reason), "{scenario}: {printed}");
    }
}
