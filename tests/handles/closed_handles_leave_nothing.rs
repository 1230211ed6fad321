//! A handle that is closed, dropped or not waited for leaves no worker, descriptor or place behind.

use std::time::Duration;

use crate::daemon_support::{FAMILIES_RUN, children};
use crate::handle_support::{MODEL, TestSupervisor, in_time, prompt, rest, run};
use rkllmd::library_calls::Param;
use rkllmd::supervisor::RunEvent;

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_is_dropped_or_closed_destroys_its_model() {
    let scenario = "repeat = { token = \"x\", times = 100000 }\ntoken-delay-us = 1000\n";
    for family in FAMILIES_RUN {
        let test = TestSupervisor::with(family, &[(MODEL, scenario)], |settings| {
            // Nothing else could have a place before it is gone.
            settings.models.minimum_residency = Duration::from_secs(3600);
        });
        let unloaded = "rkllmd_worker_exits_total{model=\"m\",cause=\"unloaded\"}";
        let handle = test.open().await;
        in_time(handle.close()).await.unwrap();
        assert_eq!(
            test.series(unloaded),
            Some(1.0),
            "{family}: closed means gone"
        );
        drop(test.open().await);
        test.until_series(unloaded, 2.0).await;
        // In the middle of a run.
        let handle = test.open().await;
        let mut stream = in_time(handle.run(prompt("hello"), None)).await.unwrap();
        while !matches!(in_time(stream.next()).await, Some(RunEvent::Result(_))) {}
        drop(handle);
        test.until_series(unloaded, 3.0).await;
        assert!(rest(stream).await.is_err(), "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_without_a_waiting_client_is_not_opened() {
    let test = TestSupervisor::new("1_3_1", "load-delay-ms = 60000\n");
    let opening = test.open_with(Param::default());
    let given_up = tokio::time::timeout(Duration::from_millis(500), opening).await;
    assert!(given_up.is_err(), "it was still loading");
    let own = std::process::id();
    in_time(async {
        while !children(own).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_cycles_of_init_and_destroy_leave_nothing() {
    let test = TestSupervisor::new("1_3_1", "tokens = [\"a\"]");
    let cycle = async || {
        let handle = test.open().await;
        assert_eq!(run(&handle, prompt("hello")).await.unwrap().text(), "a");
        in_time(handle.close()).await.unwrap();
    };
    let own = std::process::id();
    let open = || {
        let listing = std::fs::read_dir(format!("/proc/{own}/fd"));
        listing.unwrap().count()
    };
    let before = open();
    for _ in 0..50 {
        cycle().await;
    }
    // The pipe of the last worker's lines is closed by a task of its own.
    in_time(async {
        while open() > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(children(own), Vec::<u32>::new());
}
