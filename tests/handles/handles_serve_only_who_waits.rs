//! What a handle's client gave up is not done: an abort meets the run it was meant for whatever the
//! handle is doing, and a call whose client waits no more is not made.

use std::time::Duration;

use crate::handle_support::{
    MODEL, TestSupervisor, another_client, call, in_time, keeping, matrices, prompt, raw_template,
    rest, run, template,
};
use rkllmd::generation::{GenerationError, ModelId};
use rkllmd::library_calls::{
    Call, EmbedInput, InferMode, Input, LibraryError, Param, RowSelection, RunRequest, Running,
};
use rkllmd::models::Catalog;
use rkllmd::supervisor::{HandleReset, QueueEnd, RunEvent, RunStream};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

const LONG: &str = "repeat = { token = \"x\", times = 200 }\ntoken-delay-us = 10000\n\
    [[answer]]\nwhen-prompt-contains = \"short\"\ntokens = [\"y\"]\n";

/// Waits until the process that has an ordered fault has removed its file.
async fn taken(test: &TestSupervisor, file: &str) {
    let path = test.folder.path().join("models").join(file);
    in_time(async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits until the run has its place, and has given its first result.
async fn begun(stream: &mut RunStream) {
    while !matches!(in_time(stream.next()).await, Some(RunEvent::Result(_))) {}
}

/// On one thread the handle's task sees the run and the abort at the same moment.
#[tokio::test]
async fn an_abort_right_behind_its_run_ends_it() {
    let test = TestSupervisor::new("1_3_1", LONG);
    let handle = test.open().await;
    let stream = in_time(handle.run(prompt("long"), None)).await.unwrap();
    in_time(handle.abort()).await.unwrap();
    let given = rest(stream).await.unwrap();
    assert!(given.text().len() < 100, "{}", given.text().len());
    assert_eq!(run(&handle, prompt("short")).await.unwrap().text(), "y");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_during_the_replay_ends_the_run_that_waits_for_it() {
    let scenario = format!(
        "{LONG}[[fault]]\ncall = \"run\"\nkind = \"segv\"\nwhen-file = \"crash\"\n\
         [[fault]]\ncall = \"set_chat_template\"\nkind = \"delay\"\nms = 1000\nwhen-file = \"slow\"\n"
    );
    let test = TestSupervisor::new("1_3_1", &scenario);
    let handle = test.open().await;
    call(&handle, raw_template()).await.unwrap();
    test.order("slow");
    test.order("crash");
    let stream = in_time(handle.run(prompt("long"), None)).await.unwrap();
    taken(&test, "slow").await;
    in_time(handle.abort()).await.unwrap();
    let given = rest(stream).await.unwrap();
    assert!(given.results.is_empty(), "{}", given.text().len());
    assert_eq!(run(&handle, prompt("short")).await.unwrap().text(), "y");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_run_is_not_repeated_when_the_abort_kills_its_worker() {
    let scenario = format!(
        "prefill-delay-ms = 500\nrecord = \"faults\"\n{LONG}\
         [[fault]]\ncall = \"abort\"\nkind = \"segv\"\nonce = \"died\"\n\
         [[fault]]\ncall = \"run\"\nkind = \"delay\"\nms = 0\n"
    );
    let test = TestSupervisor::new("1_3_1", &scenario);
    let handle = test.open().await;
    let stream = in_time(handle.run(prompt("long"), None)).await.unwrap();
    let faults = test.folder.path().join("models/faults");
    in_time(async {
        while !faults.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    in_time(handle.abort()).await.unwrap();
    let error = rest(stream).await.unwrap_err();
    assert!(
        matches!(error, LibraryError::WorkerDied { .. }),
        "{error:?}"
    );
    assert_eq!(run(&handle, prompt("short")).await.unwrap().text(), "y");
}

/// How long that takes is the client's doing, and no fault of the library.
#[tokio::test(flavor = "multi_thread")]
async fn the_results_of_an_aborted_run_can_be_read_later() {
    let scenario = "repeat = { token = \"x\", times = 1000000 }\ntoken-delay-us = 1000\nvocab-size = 16\n\
        [[answer]]\nwhen-prompt-contains = \"short\"\ntokens = [\"y\"]\n";
    let test = TestSupervisor::with("1_3_1", &[(MODEL, scenario)], |settings| {
        settings.deadlines.abort_to_finish = Duration::from_millis(300);
    });
    let handle = test.open().await;
    let mut ask = matrices("long", InferMode::GetLogits, RowSelection::Last);
    ask.generate_after_logits = true;
    let mut stream = in_time(handle.run(ask, None)).await.unwrap();
    begun(&mut stream).await;
    // Long enough to fill all that waits for a reader, and later for the deadlines of both sides.
    tokio::time::sleep(Duration::from_millis(500)).await;
    in_time(handle.abort()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(4000)).await;
    rest(stream).await.unwrap();
    assert_eq!(run(&handle, prompt("short")).await.unwrap().text(), "y");
    assert_eq!(test.series("rkllmd_deadlines_passed_total"), None);
    assert_eq!(test.series("rkllmd_worker_exits_total"), None);
}

/// An abort of ours that the library does not heed is under the same deadline as a client's.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_does_not_end_with_its_logits_passes_a_deadline() {
    let scenario = "repeat = { token = \"x\", times = 1000000 }\ntoken-delay-us = 5000\n\
        [[fault]]\ncall = \"abort\"\nkind = \"ignore\"\n";
    for limit in [1 << 20, 4] {
        let test = TestSupervisor::with("1_3_1", &[(MODEL, scenario)], |settings| {
            settings.deadlines.abort_to_finish = Duration::from_millis(500);
            settings.library.tensor_limit_bytes = limit;
        });
        let handle = test.open().await;
        let ask = matrices("one", InferMode::GetLogits, RowSelection::Last);
        let error = in_time(run(&handle, ask)).await.unwrap_err();
        let LibraryError::DeadlinePassed { deadline, .. } = error else {
            panic!("{limit}: {error:?}")
        };
        assert_eq!(deadline.name(), "abort-to-finish", "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_client_has_left_is_not_made() {
    let scenario =
        format!("{LONG}[[answer]]\nwhen-prompt-contains = \"what\"\ntokens = [\"{{params}}\"]\n");
    let test = TestSupervisor::new("1_3_1", &scenario);
    let handle = test.open().await;
    let stream = in_time(handle.run(prompt("long"), None)).await.unwrap();
    let given_up = handle.call(template("", "<unwanted>", ""), None);
    let waited = tokio::time::timeout(Duration::from_millis(100), given_up).await;
    assert!(waited.is_err(), "it waits for the run");
    in_time(handle.abort()).await.unwrap();
    rest(stream).await.unwrap();
    let told = run(&handle, prompt("what")).await.unwrap().text();
    assert!(!told.contains("<unwanted>"), "{told}");
}

/// The same while it waits for a place.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_given_up_holds_up_no_other() {
    let models = [(MODEL, LONG), ("other", LONG)];
    let test = TestSupervisor::with("1_3_1", &models, |settings| settings.models.max_loaded = 1);
    let handle = test.open().await;
    let other = test
        .supervisor
        .open_handle(another_client(), "other".into(), Param::default());
    let other = in_time(other).await.unwrap();
    let mut stream = in_time(other.run(prompt("long"), None)).await.unwrap();
    begun(&mut stream).await;
    let given_up = handle.call(Call::GetKvCacheSize, None);
    let waited = tokio::time::timeout(Duration::from_millis(100), given_up).await;
    assert!(waited.is_err(), "it waits for the place");
    let closed = tokio::time::timeout(Duration::from_millis(500), handle.is_running()).await;
    assert!(closed.is_ok());
    in_time(other.abort()).await.unwrap();
    rest(stream).await.unwrap();
    // It was not evicted for the call that was given up.
    assert_eq!(run(&other, prompt("short")).await.unwrap().text(), "y");
    let evicted = "rkllmd_worker_exits_total{model=\"other\",cause=\"unloaded\"}";
    assert_eq!(test.series(evicted), None);
}

/// Bytes that workers have sent and this process has not read.
fn unread_bytes() -> u64 {
    let own = rustix::process::getpid();
    let this = rustix::process::pidfd_open(own, PidfdFlags::empty()).expect("this process");
    let sockets = crate::daemon_support::descriptors(std::process::id())
        .into_iter()
        .filter(|(_, what)| what.starts_with("socket:"));
    // One that has been closed since holds nothing.
    let unread = sockets.filter_map(|(number, _)| {
        let flags = PidfdGetfdFlags::empty();
        let socket = rustix::process::pidfd_getfd(&this, number.cast_signed(), flags).ok()?;
        rustix::io::ioctl_fionread(&socket).ok()
    });
    unread.sum()
}

/// On one thread the result has arrived and its reader has gone when the handle's task looks.
#[tokio::test]
async fn lost_history_is_told_to_the_next_run_when_the_first_ones_reader_has_gone() {
    let scenario = "tokens = [\"a\"]\n[[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = \"go\"\n\
        when-prompt-contains = \"two\"\nrecord = \"begun\"\n";
    // A sign of life must not be taken for the result.
    let test = TestSupervisor::with("1_3_1", &[(MODEL, scenario)], |settings| {
        settings.deadlines.heartbeat = Duration::from_secs(3600);
    });
    let models = test.folder.path().join("models");
    let handle = test.open().await;
    run(&handle, keeping("one")).await.unwrap();
    let [pid] = crate::daemon_support::children(std::process::id())[..] else {
        panic!("one worker")
    };
    crate::daemon_support::kill(pid);
    let exits = "rkllmd_worker_exits_total{model=\"m\",cause=\"killed-from-outside\"}";
    test.until_series(exits, 1.0).await;
    // Its worker is back once the library answers, so the run begins at once.
    in_time(async {
        while handle.is_running().await.unwrap().answered_by != Running::Library {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let stream = in_time(handle.run(prompt("two"), None)).await.unwrap();
    in_time(async {
        while !models.join("begun").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(unread_bytes(), 0);
    // From here on the only thread reads nothing until the result is there.
    test.order("go");
    crate::daemon_support::eventually("the result", || (unread_bytes() > 0).then_some(()));
    // The runtime learns of the result here, and goes on with this task before the handle's.
    tokio::task::yield_now().await;
    drop(stream);
    let after = run(&handle, prompt("three")).await.unwrap();
    assert!(
        matches!(after.reset, Some(HandleReset::WorkerDied { .. })),
        "{:?}",
        after.reset
    );
}

/// A client's counts are not checked yet when the time for a run is reckoned from them.
#[tokio::test(flavor = "multi_thread")]
async fn counts_that_cannot_be_true_are_refused_and_the_handle_lives() {
    let test = TestSupervisor::new("1_3_1", LONG);
    let handle = test.open().await;
    for n_tokens in [usize::MAX, usize::MAX / 2, 1 << 61] {
        let embed_input = Some(EmbedInput {
            embed: vec![0.5; 8],
            n_tokens,
        });
        let request = RunRequest {
            inputs: vec![Input {
                embed_input,
                ..Input::default()
            }],
            ..RunRequest::default()
        };
        let error = run(&handle, request).await.unwrap_err();
        assert!(matches!(error, LibraryError::BadValue { .. }), "{error:?}");
    }
    assert_eq!(run(&handle, prompt("short")).await.unwrap().text(), "y");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_is_named_as_such() {
    let test = TestSupervisor::new("1_3_1", LONG);
    let lease = test
        .supervisor
        .lease(another_client(), ModelId::from("nobody"), QueueEnd::Back);
    let error = in_time(lease).await.unwrap_err();
    let model = "nobody".to_owned();
    assert_eq!(error, GenerationError::UnknownModel { model });
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time_describes_a_library() {
    let test = TestSupervisor::new("1_3_1", LONG);
    let mut asking: tokio::task::JoinSet<_> = (0..16)
        .map(|_| {
            let supervisor = test.supervisor.clone();
            async move { supervisor.default_param(None).await }
        })
        .collect();
    let mut most = 0;
    loop {
        most = most.max(crate::daemon_support::children(std::process::id()).len());
        match tokio::time::timeout(Duration::from_millis(1), asking.join_next()).await {
            Ok(None) => break,
            Ok(Some(asked)) => assert!(asked.unwrap().is_ok()),
            Err(_) => {}
        }
    }
    assert_eq!(most, 1, "processes at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_how_long_a_handle_waits_for_its_turn() {
    let models = [(MODEL, LONG), ("other", LONG)];
    let mut kept = None;
    let test = TestSupervisor::with("1_3_1", &models, |settings| {
        settings.models.max_loaded = 1;
        kept = Some(settings.clone());
    });
    let handle = test.open().await;
    let other = test
        .supervisor
        .open_handle(another_client(), "other".into(), Param::default());
    let other = in_time(other).await.unwrap();
    let mut settings = kept.unwrap();
    settings.queue.deadline = Duration::from_millis(200);
    let catalog =
        Catalog::scan_apart(&settings, Some(env!("CARGO_BIN_EXE_rkllmd").into())).unwrap();
    in_time(test.supervisor.reload(&settings, catalog.into())).await;
    let mut stream = in_time(other.run(prompt("long"), None)).await.unwrap();
    begun(&mut stream).await;
    let error = run(&handle, prompt("short")).await.unwrap_err();
    let LibraryError::Unavailable(GenerationError::QueueDeadline { waited, .. }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(waited, Duration::from_millis(200));
    in_time(other.abort()).await.unwrap();
    rest(stream).await.unwrap();
}
