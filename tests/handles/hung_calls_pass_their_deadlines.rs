//! A call that hangs ends by its own deadline, which the error names, and the handle goes on with another worker.

use std::time::{Duration, Instant};

use crate::daemon_support::FAMILIES_RUN;
use crate::handle_support::{
    MODEL, TestSupervisor, call, cross_attending, cross_attention, in_time, lora, prompt,
    raw_template, rest, run, saving, tools,
};
use rkllmd::library_calls::{Call, LibraryError, Running};
use rkllmd::supervisor::RunEvent;

#[tokio::test(flavor = "multi_thread")]
async fn is_running_asks_the_library_and_does_not_hang_with_it() {
    let scenario = "repeat = { token = \"x\", times = 100 }\ntoken-delay-us = 10000\n\
        [[fault]]\ncall = \"is_running\"\nkind = \"hang\"\nwhen-file = \"hang\"\n\
        [[answer]]\nwhen-prompt-contains = \"again\"\ntokens = [\"y\"]\n";
    for family in FAMILIES_RUN {
        let test = TestSupervisor::with(family, &[(MODEL, scenario)], |settings| {
            settings.deadlines.control_call = Duration::from_millis(300);
        });
        let handle = test.open().await;
        let idle = in_time(handle.is_running()).await.unwrap();
        assert_eq!(
            (idle.running, idle.answered_by),
            (false, Running::Library),
            "{family}"
        );

        let mut stream = in_time(handle.run(prompt("hello"))).await.unwrap();
        while !matches!(in_time(stream.next()).await, Some(RunEvent::Result(_))) {}
        let busy = in_time(handle.is_running()).await.unwrap();
        assert_eq!(
            (busy.running, busy.answered_by),
            (true, Running::Library),
            "{family}"
        );

        test.order("hang");
        let began = Instant::now();
        let hung = in_time(handle.is_running()).await.unwrap();
        assert_eq!(
            (hung.running, hung.answered_by),
            (true, Running::Daemon),
            "{family}"
        );
        assert!(began.elapsed() < Duration::from_secs(3), "{family}");
        let given = rest(stream).await.unwrap();
        assert_eq!(
            given.text().len(),
            99,
            "{family}: the run beside it is whole"
        );
        assert_eq!(
            run(&handle, prompt("again")).await.unwrap().text(),
            "y",
            "{family}"
        );

        test.order("hang");
        let hung = in_time(handle.is_running()).await.unwrap();
        assert_eq!(
            (hung.running, hung.answered_by),
            (false, Running::Daemon),
            "{family}"
        );
        assert_eq!(
            run(&handle, prompt("again")).await.unwrap().text(),
            "y",
            "{family}"
        );
        let expiries = "rkllmd_deadlines_passed_total{deadline=\"control-call\"}";
        assert_eq!(test.series(expiries), Some(2.0), "{family}");
        let replaced = "rkllmd_worker_exits_total{model=\"m\",cause=\"tainted\"}";
        assert_eq!(test.series(replaced), Some(2.0), "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_passes_its_own_deadline() {
    let cache = Call::LoadPromptCache {
        prompt_cache_path: "saved".to_owned(),
    };
    let clear = Call::ClearKvCache {
        keep_system_prompt: 0,
        start_pos: None,
        end_pos: None,
    };
    let calls = [
        ("load_lora", lora("style"), "load"),
        ("load_prompt_cache", cache, "load"),
        (
            "release_prompt_cache",
            Call::ReleasePromptCache,
            "control-call",
        ),
        ("clear_kv_cache", clear, "control-call"),
        ("get_kv_cache_size", Call::GetKvCacheSize, "control-call"),
        ("set_chat_template", raw_template(), "control-call"),
        ("set_function_tools", tools(), "control-call"),
        ("set_cross_attn_params", cross_attention(), "control-call"),
    ];
    for (name, made, deadline) in calls {
        let scenario = format!(
            "tokens = [\"fine\"]\n[[fault]]\ncall = \"{name}\"\nkind = \"hang\"\nwhen-file = \"hang\"\n"
        );
        let test = TestSupervisor::with("1_3_1", &[(MODEL, &scenario)], |settings| {
            settings.deadlines.control_call = Duration::from_millis(200);
            settings.deadlines.load_base = Duration::from_secs(1);
        });
        let handle = test.open_with(cross_attending()).await.unwrap();
        run(&handle, saving("hello", "saved")).await.unwrap();
        test.order("hang");
        let error = call(&handle, made.clone()).await.unwrap_err();
        let LibraryError::DeadlinePassed {
            deadline: passed,
            function,
            ..
        } = &error
        else {
            panic!("{name}: {error:?}")
        };
        assert_eq!(
            (passed.name(), function.as_str()),
            (deadline, made.function()),
            "{name}"
        );
        assert_eq!(
            run(&handle, prompt("hello")).await.unwrap().text(),
            "fine",
            "{name}"
        );
        call(&handle, made).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_hangs_passes_its_deadline() {
    for (fault, deadline) in [("", "prefill"), ("after-tokens = 1\n", "inter-token")] {
        let scenario = format!(
            "tokens = [\"a\", \"b\"]\n[[fault]]\ncall = \"run\"\nkind = \"hang\"\nonce = \"hung\"\n{fault}"
        );
        let test = TestSupervisor::with("1_3_1", &[(MODEL, &scenario)], |settings| {
            settings.deadlines.prefill_base = Duration::from_millis(500);
            settings.deadlines.inter_token = Duration::from_millis(500);
        });
        let handle = test.open().await;
        let error = run(&handle, prompt("hello")).await.unwrap_err();
        assert!(
            matches!(error, LibraryError::DeadlinePassed { deadline: passed, .. } if passed.name() == deadline),
            "{error:?}"
        );
        assert_eq!(run(&handle, prompt("hello")).await.unwrap().text(), "ab");
    }
}
