//! What a handle keeps of a prompt is not evaluated again, takes no more room than it may, and can be removed in part.

use crate::daemon_support::FAMILIES_RUN;
use crate::handle_support::{
    Given, MODEL, TestSupervisor, call, in_time, prompt, raw_template, run, saving,
};
use rkllmd::library_calls::{Call, LibraryError, Outcome};

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_cache_saves_prefill() {
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, "tokens = [\"a\"]");
        let handle = test.open().await;
        call(&handle, raw_template()).await.unwrap();
        let evaluated = |given: &Given| {
            let last = given.results.last().unwrap();
            last.results[0].perf.unwrap().prefill_tokens
        };
        let first = run(&handle, saving("one two three", "p")).await.unwrap();
        assert_eq!(evaluated(&first), 3, "{family}");
        call(
            &handle,
            Call::LoadPromptCache {
                prompt_cache_path: "p".to_owned(),
            },
        )
        .await
        .unwrap();
        let cached = run(&handle, prompt("one two three four")).await.unwrap();
        assert_eq!(evaluated(&cached), 1, "{family}");
        call(&handle, Call::ReleasePromptCache).await.unwrap();
        let whole = run(&handle, prompt("one two three four")).await.unwrap();
        assert_eq!(evaluated(&whole), 4, "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_do_not_fill_the_disk_with_prompt_caches() {
    let test = TestSupervisor::with("1_3_1", &[(MODEL, "tokens = [\"a\"]")], |settings| {
        settings.library.prompt_caches_limit_bytes = 1;
    });
    let handle = test.open().await;
    run(&handle, saving("one", "first")).await.unwrap();
    let error = run(&handle, saving("two", "second")).await.unwrap_err();
    assert!(matches!(error, LibraryError::TooLarge { .. }), "{error:?}");
    let caches = test.folder.path().join("state/prompt-caches");
    assert_eq!(std::fs::read_dir(caches).unwrap().count(), 1);
    run(&handle, saving("three", "first")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_the_cache_are_removed() {
    let test = TestSupervisor::new("1_3_1", "tokens = [\"a\"]");
    let handle = test.open().await;
    call(&handle, raw_template()).await.unwrap();
    run(&handle, prompt("one two three four")).await.unwrap();
    let size = async || {
        in_time(handle.call(Call::GetKvCacheSize, None))
            .await
            .unwrap()
            .value
    };
    assert_eq!(size().await, Outcome::KvCacheSizes(vec![5]));
    let range = |start: Vec<i32>, end| Call::ClearKvCache {
        keep_system_prompt: 0,
        start_pos: Some(start),
        end_pos: Some(end),
    };
    call(&handle, range(vec![1], vec![3])).await.unwrap();
    assert_eq!(size().await, Outcome::KvCacheSizes(vec![3]));
    let error = call(&handle, range(vec![1, 2], vec![3, 4]))
        .await
        .unwrap_err();
    assert!(matches!(error, LibraryError::BadValue { .. }), "{error:?}");
}
