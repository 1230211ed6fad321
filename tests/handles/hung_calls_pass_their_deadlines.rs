//! A call that hangs ends by its own deadline and is made once more on another worker. Where it hangs there
//! too the error names the deadline, and the handle goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::daemon_support::FAMILIES_RUN;
use crate::handle_support::{
    MODEL, TestSupervisor, call, cross_attending, cross_attention, in_time, lora, prompt,
    raw_template, rest, run, saving, tools,
};
use rkllmd::ipc::{Event, PROTOCOL_VERSION, encode};
use rkllmd::library_calls::{Call, LibraryError, Param, Running};
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

        let mut stream = in_time(handle.run(prompt("hello"), None)).await.unwrap();
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
        let started = |when: &str| {
            let scenario = format!(
                "tokens = [\"fine\"]\n[[fault]]\ncall = \"{name}\"\nkind = \"hang\"\n{when}"
            );
            TestSupervisor::with("1_3_1", &[(MODEL, &scenario)], |settings| {
                settings.deadlines.control_call = Duration::from_millis(200);
                settings.deadlines.load_base = Duration::from_secs(1);
            })
        };
        let passed = format!("rkllmd_deadlines_passed_total{{deadline=\"{deadline}\"}}");

        let test = started("when-file = \"hang\"\n");
        let handle = test.open_with(cross_attending()).await.unwrap();
        run(&handle, saving("hello", "saved")).await.unwrap();
        test.order("hang");
        call(&handle, made.clone()).await.unwrap();
        assert_eq!(test.series(&passed), Some(1.0), "{name}");
        let text = run(&handle, prompt("hello")).await.unwrap().text();
        assert_eq!(text, "fine", "{name}");

        let test = started("");
        let handle = test.open_with(cross_attending()).await.unwrap();
        run(&handle, saving("hello", "saved")).await.unwrap();
        let error = call(&handle, made.clone()).await.unwrap_err();
        let LibraryError::DeadlinePassed {
            deadline: told,
            function,
            ..
        } = &error
        else {
            panic!("{name}: {error:?}")
        };
        let told = (told.to_string(), function.as_str());
        assert_eq!(told, (deadline.to_owned(), made.function()), "{name}");
        assert_eq!(test.series(&passed), Some(2.0), "{name}");
        let text = run(&handle, prompt("hello")).await.unwrap().text();
        assert_eq!(text, "fine", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_hangs_passes_its_deadline() {
    let started = |fault: &str| {
        let scenario = format!(
            "tokens = [\"a\", \"b\"]\n[[fault]]\ncall = \"run\"\nkind = \"hang\"\n\
             when-prompt-contains = \"hello\"\n{fault}"
        );
        TestSupervisor::with("1_3_1", &[(MODEL, &scenario)], |settings| {
            settings.deadlines.prefill_base = Duration::from_millis(500);
            settings.deadlines.inter_token = Duration::from_millis(500);
        })
    };
    // Nothing of it was seen, so that it can be run again.
    let test = started("once = \"hung\"\n");
    let handle = test.open().await;
    let given = run(&handle, prompt("hello")).await.unwrap();
    assert_eq!(given.text(), "ab");
    let passed = "rkllmd_deadlines_passed_total{deadline=\"prefill\"}";
    assert_eq!(test.series(passed), Some(1.0));

    for (fault, deadline) in [
        ("", "prefill"),
        ("once = \"hung\"\nafter-tokens = 1\n", "inter-token"),
    ] {
        let test = started(fault);
        let handle = test.open().await;
        let error = run(&handle, prompt("hello")).await.unwrap_err();
        assert!(
            matches!(&error, LibraryError::DeadlinePassed { deadline: passed, .. } if passed.to_string() == deadline),
            "{error:?}"
        );
        assert_eq!(run(&handle, prompt("again")).await.unwrap().text(), "ab");
    }
}

/// A worker's socket takes so much before it is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_take_its_order_is_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut hello = Vec::new();
    let event = Event::Hello {
        protocol: PROTOCOL_VERSION,
    };
    encode(&event, &mut hello).expect("a frame");
    let (hello_file, program) = (folder.path().join("hello"), folder.path().join("worker"));
    fs::write(&hello_file, hello).expect("a file");
    let script = format!(
        "#!/bin/sh\ncat {} >&0\nexec sleep 600\n",
        hello_file.display()
    );
    fs::write(&program, script).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    let test = TestSupervisor::with_workers_of(program, "1_3_1", &[(MODEL, "")], |settings| {
        settings.deadlines.library_open = Duration::from_millis(500);
    });
    let large = Param {
        img_start: Some("x".repeat(4 << 20)),
        ..Param::default()
    };
    let error = test.open_with(large).await.unwrap_err().to_string();
    assert!(error.contains("`library-open` deadline"), "{error}");
}
