//! A handle counts as a loaded model and waits its turn like a request, and no client starves beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::handle_support::{MODEL, TestSupervisor, another_client, client, in_time, prompt, run};
use rkllmd::generation::GenerationError;
use rkllmd::library_calls::{Input, LibraryError, Param, Pooling};

const ANSWERS: &str = "tokens = [\"a\", \"b\"]\ntoken-delay-us = 2000\nembedding-size = 4\n";

fn one_place(family: &str, models: &[(&str, &str)]) -> TestSupervisor {
    TestSupervisor::with(family, models, |settings| settings.models.max_loaded = 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_workers_than_places() {
    let test = one_place("1_3_1", &[(MODEL, ANSWERS)]);
    let own = std::process::id();
    let handles = [test.open().await, test.open().await, test.open().await];
    for _ in 0..3 {
        for handle in &handles {
            assert_eq!(run(handle, prompt("hello")).await.unwrap().text(), "ab");
            assert_eq!(crate::daemon_support::children(own).len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_handle_and_the_models_own_requests_alternate() {
    let test = one_place("1_3_1", &[(MODEL, ANSWERS)]);
    let handle = test.open().await;
    let stop = Arc::new(AtomicBool::new(false));
    let busy = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut runs = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(run(&handle, prompt("hello")).await.unwrap().text(), "ab");
                runs += 1;
            }
            runs
        }
    });
    for _ in 0..5 {
        let inputs = vec![Input::prompt("one two")];
        let rows = test.pooled(inputs, Pooling::Last).await.unwrap().rows;
        assert_eq!(rows, [[4.0, 5.0, 6.0, 7.0]]);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(in_time(busy).await.unwrap() >= 4, "it had its turns too");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_for_a_place_is_told() {
    let slow = "repeat = { token = \"x\", times = 1000 }\ntoken-delay-us = 5000\n";
    let test = TestSupervisor::with("1_3_1", &[(MODEL, slow)], |settings| {
        settings.models.max_loaded = 1;
        settings.queue.deadline = Duration::from_millis(300);
    });
    let handle = test.open().await;
    let mut stream = in_time(handle.run(prompt("hello"), None)).await.unwrap();
    in_time(stream.next()).await;
    let error = test.open_with(Param::default()).await.unwrap_err();
    assert!(
        matches!(
            &error,
            LibraryError::Unavailable(GenerationError::QueueDeadline { model, .. }) if model == MODEL
        ),
        "{error:?}"
    );
    let unknown = in_time(test.supervisor.open_handle(
        another_client(),
        "other".into(),
        Param::default(),
    ))
    .await;
    assert!(
        matches!(
            unknown,
            Err(LibraryError::Unavailable(
                GenerationError::UnknownModel { .. }
            ))
        ),
        "{unknown:?}"
    );
    // A handle's own slot is no model.
    let slot = format!("{MODEL}#handle-1");
    let hidden = in_time(
        test.supervisor
            .open_handle(client(), slot.into(), Param::default()),
    )
    .await;
    assert!(hidden.is_err(), "{hidden:?}");
}
