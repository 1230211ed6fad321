//! Everything that can happen between a library's callback and a sink, in one process that ends by
//! itself: for a memory checker, which `scripts/valgrind-callbacks` runs it under. It checks what
//! it gets, so a run that did not do what it should is no clean run.
//!
//! ```text
//! callback_path [FAMILY]...        families that are run, 1_2_1 and 1_3_1 when none is named
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Collected, Model, collect, open, run, run_id, wait_until};
use rkllm_sys::{
    CallError, CallState, ControlHandle, Flow, Handle, Library, ReleaseBuffer, ResultSink,
    ResultView, RunInput, RunMode, RunOptions, late_callbacks,
};
use std::sync::Arc;

use CallState::{Finish, Normal};

/// A run that ends only when it is aborted.
const ENDLESS: &str = "repeat = { token = 'x', times = 3600000 }\ntoken-delay-us = 1000\n";

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let families = if named.is_empty() {
        vec!["1_2_1".to_owned(), "1_3_1".to_owned()]
    } else {
        named
    };
    // What std keeps for a thread is freed at its end, but that of the main thread never is.
    std::thread::spawn(move || families.iter().for_each(|family| exercise(family)))
        .join()
        .expect("every check holds");
    // Also the threads that called back late, so that nothing of theirs counts as lost.
    wait_until("the end of all other threads", || {
        let threads = std::fs::read_dir("/proc/self/task").expect("Linux");
        threads.count() == 1
    });
    eprintln!("late callbacks: {}", late_callbacks());
}

fn exercise(family: &str) {
    let library = open(family);
    for thread in ["caller", "other"] {
        let thread = format!("callback-thread = '{thread}'\n");
        every_shape_of_a_token(&library, &thread);
        answers_that_go_on(&library, &thread);
        matrices(&library, &thread);
        released_buffers(&library, &thread);
        aborts(&library, &thread);
        a_sink_that_panics(&library, &thread);
        results_against_the_rules(&library, &thread);
        callbacks_that_come_late(&library, &thread);
        failures(&library, &thread);
    }
    eprintln!("{family}: done");
}

fn prompted(handle: &Handle, id: u64) -> Collected {
    run(handle, &RunInput::Prompt("a prompt"), id)
}

fn every_shape_of_a_token(library: &Arc<Library>, settings: &str) {
    let model = Model::new(&format!(
        "{settings}eos-token-id = 2\ntokens = ['plain ', {{ text = '€', pieces = 3 }}, \
         {{ bytes = [255, 254] }}, {{ text = '', id = 7 }}, '{{params}}']"
    ));
    let handle = model.load(library);
    for id in 1..=20 {
        let got = prompted(&handle, id);
        assert!(got.bytes().starts_with("plain €".as_bytes()));
        assert_eq!(got.ids().len(), 8);
    }
    let got = run(&handle, &RunInput::Tokens(&[1, 2, 3]), 21);
    assert_eq!(got.states().last(), Some(&Finish));
    assert!(handle.kv_cache_size().expect("a size") > 0);
    handle.clear_kv_cache(false).expect("cleared");
    handle.destroy().expect("destroyed");
}

fn answers_that_go_on(library: &Arc<Library>, settings: &str) {
    let model = Model::new(&format!(
        "{settings}continue-answers = true\ntokens = ['Grüße', ' €', ' aab', 'aaab']"
    ));
    let handle = model.load(library);
    handle.set_chat_template("", "", "").expect("set");
    let answer = "Grüße € aabaaab";
    for cut in (0..=answer.len()).filter(|cut| answer.is_char_boundary(*cut)) {
        let got = run(&handle, &RunInput::Prompt(&answer[..cut]), 1);
        assert_eq!(got.bytes(), &answer.as_bytes()[cut..]);
    }
    let got = run(&handle, &RunInput::Tokens(&[5, 1000, 1001]), 1);
    assert_eq!(got.text(), " aabaaab");
}

fn matrices(library: &Arc<Library>, settings: &str) {
    let model = Model::new(&format!("{settings}tokens = ['a']"));
    let handle = model.load(library);
    for mode in [RunMode::LastHiddenLayer, RunMode::Logits] {
        let (sink, collected) = collect();
        let options = RunOptions {
            mode,
            ..RunOptions::default()
        };
        handle
            .run(&RunInput::Prompt("two words"), &options, run_id(1), sink)
            .expect("a run");
        let all = collected.all();
        assert!(
            all.iter()
                .any(|seen| seen.hidden.is_some() || seen.logits.is_some())
        );
    }
}

struct Release(Option<ReleaseBuffer>);

impl ResultSink for Release {
    fn on_result(&mut self, _: ResultView<'_>) -> Flow {
        self.0.map_or(Flow::Continue, Flow::ReleaseBuffer)
    }
}

fn released_buffers(library: &Arc<Library>, settings: &str) {
    let handle = Model::new(&format!("{settings}tokens = ['a', 'b']")).load(library);
    let sink = Box::new(Release(handle.release_buffer()));
    let options = RunOptions::default();
    handle
        .run(&RunInput::Prompt("x"), &options, run_id(1), sink)
        .expect("a run");
}

/// Aborts its run at the third token.
struct AbortInside(ControlHandle, usize);

impl ResultSink for AbortInside {
    fn on_result(&mut self, _: ResultView<'_>) -> Flow {
        self.1 += 1;
        if self.1 == 3 {
            self.0.abort().expect("aborted");
        }
        Flow::Continue
    }
}

fn aborts(library: &Arc<Library>, settings: &str) {
    let handle = Model::new(&format!("{settings}{ENDLESS}")).load(library);
    let options = RunOptions::default();
    for id in 1..=5 {
        let (sink, collected) = collect();
        std::thread::scope(|scope| {
            let run =
                scope.spawn(|| handle.run(&RunInput::Prompt("x"), &options, run_id(id), sink));
            collected.wait_for_one();
            assert!(handle.is_running().expect("answered"));
            handle.kv_cache_size().expect("answered");
            handle.abort().expect("aborted");
            run.join().expect("no panic").expect("a run");
        });
        assert_eq!(collected.states().last(), Some(&Finish));
    }
    let sink = Box::new(AbortInside(handle.control(), 0));
    handle
        .run(&RunInput::Prompt("x"), &options, run_id(9), sink)
        .expect("a run");
}

struct Panic;

impl ResultSink for Panic {
    fn on_result(&mut self, _: ResultView<'_>) -> Flow {
        // No message of the panic hook's: it is expected.
        std::panic::resume_unwind(Box::new("the sink fell over".to_owned()));
    }
}

fn a_sink_that_panics(library: &Arc<Library>, settings: &str) {
    let handle = Model::new(&format!("{settings}{ENDLESS}")).load(library);
    let options = RunOptions::default();
    let error = handle
        .run(&RunInput::Prompt("x"), &options, run_id(1), Box::new(Panic))
        .expect_err("a panic");
    assert!(matches!(error, CallError::SinkPanicked { .. }), "{error}");
}

fn results_against_the_rules(library: &Arc<Library>, settings: &str) {
    let faults: String = [
        ("null-text", "after-tokens = 1"),
        ("special-token", "after-tokens = 2\nid = 5"),
        ("finish-twice", ""),
        ("text-after-finish", "text = 'more'"),
    ]
    .map(|(kind, keys)| format!("[[fault]]\ncall = 'run'\nkind = '{kind}'\n{keys}\n"))
    .concat();
    let model = Model::new(&format!("{settings}tokens = ['a', 'b']\n{faults}"));
    let handle = model.load(library);
    for id in 1..=10 {
        let got = prompted(&handle, id);
        let states = [Normal, Normal, Normal, Normal, Finish, Finish, Normal];
        assert_eq!(
            (got.states().as_slice(), got.text().as_str()),
            (&states[..], "abmore")
        );
    }
}

fn callbacks_that_come_late(library: &Arc<Library>, settings: &str) {
    let before = late_callbacks();
    let faults = ["run", "destroy"]
        .map(|call| format!("[[fault]]\ncall = '{call}'\nkind = 'late-callback'\n"))
        .concat();
    let model = Model::new(&format!("{settings}tokens = ['a', 'b']\n{faults}"));
    let handle = model.load(library);
    for id in 1..=10 {
        assert_eq!(prompted(&handle, id).text(), "ab");
    }
    handle.destroy().expect("destroyed");
    drop(model);
    // Meanwhile other models come, run and go.
    let other = Model::new(&format!("{settings}{ENDLESS}")).load(library);
    let (sink, collected) = collect();
    std::thread::scope(|scope| {
        let options = RunOptions::default();
        let other = &other;
        let run =
            scope.spawn(move || other.run(&RunInput::Prompt("x"), &options, run_id(99), sink));
        wait_until("ten late callbacks and one after destroy", || {
            late_callbacks() == before + 11
        });
        other.abort().expect("aborted");
        run.join().expect("no panic").expect("a run");
    });
    assert!(collected.all().iter().all(|seen| seen.run == run_id(99)));
}

fn failures(library: &Arc<Library>, settings: &str) {
    for kind in ["fail", "error-state", "never-finish"] {
        let model = Model::new(&format!(
            "{settings}tokens = ['a', 'b']\n[[fault]]\ncall = 'run'\nafter-tokens = 1\n\
             kind = '{kind}'"
        ));
        let handle = model.load(library);
        let (sink, collected) = collect();
        let result = handle.run(
            &RunInput::Prompt("x"),
            &RunOptions::default(),
            run_id(1),
            sink,
        );
        assert_eq!(result.is_ok(), kind == "never-finish", "{kind}");
        assert_eq!(collected.text(), "a");
    }
    let broken = Model::new("unknown = 1");
    assert!(library.init(&broken.params()).is_err());
}
