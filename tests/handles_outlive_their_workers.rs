//! A handle goes on when its worker hangs, dies or has to make room: what can be replayed is, what
//! is lost is told once, and a deadline that passes is an error with its name.

mod daemon_support;
mod handle_support;

use std::time::{Duration, Instant};

use daemon_support::FAMILIES_RUN;
use handle_support::{
    MODEL, Place, call, in_time, keeping, prompt, raw_template, rest, run, template,
};
use rkllmd::library_calls::{
    Call, CrossAttnParam, ExtendParam, LibraryError, LoraAdapter, LoraParam, Outcome, Param,
    PromptCacheParam, Running,
};
use rkllmd::supervisor::{HandleReset, RunEvent};

const CRASH_ON_ORDER: &str =
    "\n[[fault]]\ncall = \"run\"\nkind = \"segv\"\nwhen-file = \"crash\"\n";

fn lora(name: &str) -> Call {
    Call::LoadLora(LoraAdapter {
        lora_adapter_path: "style.rkllm".to_owned(),
        lora_adapter_name: name.to_owned(),
        scale: 0.5,
    })
}

fn tools() -> Call {
    Call::SetFunctionTools {
        system_prompt: "Use them.".to_owned(),
        tools: "[{\"name\":\"clock\"}]".to_owned(),
        tool_response_str: "tool_response".to_owned(),
    }
}

fn cross_attention() -> Call {
    Call::SetCrossAttnParams(CrossAttnParam {
        encoder_k_cache: vec![1.5; 4],
        encoder_v_cache: vec![2.5; 4],
        encoder_mask: vec![3.5; 2],
        encoder_pos: vec![4; 2],
        num_tokens: 2,
    })
}

fn saving(text: &str, cache: &str) -> rkllmd::library_calls::RunRequest {
    let mut request = prompt(text);
    request.infer.prompt_cache_params = Some(PromptCacheParam {
        save_prompt_cache: 1,
        prompt_cache_path: cache.to_owned(),
    });
    request
}

fn cross_attending() -> Param {
    Param {
        extend_param: ExtendParam {
            use_cross_attn: Some(1),
            ..ExtendParam::default()
        },
        ..Param::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_arrives_and_is_replayed_to_the_next_worker() {
    let scenario = format!("tokens = [\"{{params}}\"]\n{CRASH_ON_ORDER}");
    for family in FAMILIES_RUN {
        let place = Place::new(family, &scenario);
        let handle = place.open_with(cross_attending()).await.unwrap();
        run(&handle, saving("beginning", "first")).await.unwrap();
        for made in [
            template("system", "<user>", "<end>"),
            tools(),
            lora("style"),
            lora("other"),
            cross_attention(),
            Call::LoadPromptCache {
                prompt_cache_path: "first".to_owned(),
            },
        ] {
            call(&handle, made).await.unwrap();
        }
        let mut request = prompt("what was set up?");
        request.infer.lora_params = Some(LoraParam {
            lora_adapter_name: "other".to_owned(),
        });
        request.inputs[0].role = Some("tool".to_owned());
        request.inputs[0].enable_thinking = true;
        let before = run(&handle, request.clone()).await.unwrap();
        let told: serde_json::Value = serde_json::from_str(&before.text()).expect("JSON");
        assert_eq!(told["template"]["prefix"], "<user>", "{family}");
        assert_eq!(told["tools"]["tools"], "[{\"name\":\"clock\"}]", "{family}");
        assert_eq!(told["tools"]["tool_response"], "tool_response", "{family}");
        assert_eq!(told["loras"][0]["name"], "style", "{family}");
        assert_eq!(told["loras"][1]["file"], "style.rkllm", "{family}");
        assert_eq!(told["loras"][1]["scale"], 0.5, "{family}");
        assert_eq!(told["cross_attn"]["num_tokens"], 2, "{family}");
        assert_eq!(
            [
                &told["cross_attn"]["k"],
                &told["cross_attn"]["v"],
                &told["cross_attn"]["mask"]
            ],
            [&1.5, &2.5, &3.5],
            "{family}"
        );
        assert_eq!(told["cross_attn"]["pos"], 4, "{family}");
        assert!(
            told["prompt_cache"].as_str().unwrap().contains("beginning"),
            "{family}"
        );
        assert_eq!(told["run"]["lora"], "other", "{family}");
        assert_eq!(told["run"]["role"], "tool", "{family}");
        assert_eq!(told["run"]["enable_thinking"], true, "{family}");

        place.order("crash");
        let after = run(&handle, request).await.unwrap();
        assert_eq!(
            after.text(),
            before.text(),
            "{family}: nothing is forgotten"
        );
        assert_eq!(after.reset, None, "{family}: no history was kept");
        let deaths = "rkllmd_worker_exits_total{model=\"m\",cause=\"sigsegv\"}";
        assert_eq!(place.series(deaths), Some(1.0), "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_history_is_told_once() {
    let scenario = format!("tokens = [\"a\"]\n{CRASH_ON_ORDER}");
    for family in FAMILIES_RUN {
        let place = Place::new(family, &scenario);
        let handle = place.open().await;
        assert_eq!(run(&handle, keeping("one")).await.unwrap().reset, None);
        assert_eq!(run(&handle, keeping("two")).await.unwrap().reset, None);
        place.order("crash");
        let after = run(&handle, keeping("three")).await.unwrap();
        let Some(HandleReset::WorkerDied { cause }) = after.reset else {
            panic!("{family}: {:?}", after.reset)
        };
        assert!(cause.contains("SIGSEGV"), "{family}: {cause}");
        assert_eq!(
            run(&handle, keeping("four")).await.unwrap().reset,
            None,
            "{family}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_handle_makes_room_and_comes_back() {
    let place = Place::with("1_3_1", &[(MODEL, "tokens = [\"{params}\"]")], |settings| {
        settings.models.max_loaded = 1;
    });
    let first = place.open().await;
    call(&first, template("", "<mine>", "")).await.unwrap();
    run(&first, keeping("one")).await.unwrap();
    let second = place.open().await;
    let there = run(&second, prompt("two")).await.unwrap();
    assert!(!there.text().contains("<mine>"));
    let back = run(&first, prompt("three")).await.unwrap();
    assert_eq!(back.reset, Some(HandleReset::Evicted));
    assert!(back.text().contains("<mine>"), "{}", back.text());
    let replied = in_time(second.call(Call::GetKvCacheSize)).await.unwrap();
    assert_eq!(replied.handle_reset, None, "it had none to lose");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_given_results_ends_with_an_error_when_its_worker_dies() {
    // What a worker has not sent when it dies was not given: tokens come slowly.
    let scenario = "tokens = [\"a\", \"b\", \"c\", \"d\"]\ntoken-delay-us = 50000\n\
        [[fault]]\ncall = \"run\"\nkind = \"segv\"\nafter-tokens = 2\nonce = \"died\"\n";
    for family in FAMILIES_RUN {
        let place = Place::new(family, scenario);
        let handle = place.open().await;
        let error = run(&handle, prompt("hello")).await.unwrap_err();
        assert!(
            matches!(error, LibraryError::WorkerDied { .. }),
            "{family}: {error:?}"
        );
        assert!(error.to_string().contains("SIGSEGV"), "{family}: {error}");
        assert_eq!(
            run(&handle, prompt("hello")).await.unwrap().text(),
            "abcd",
            "{family}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_kills_every_worker_is_given_up() {
    let scenario = "tokens = [\"fine\"]\n\
        [[fault]]\ncall = \"run\"\nkind = \"abort\"\nwhen-prompt-contains = \"poison\"\n";
    for family in FAMILIES_RUN {
        let place = Place::new(family, scenario);
        let handle = place.open().await;
        let error = run(&handle, prompt("poison")).await.unwrap_err();
        assert!(
            matches!(error, LibraryError::WorkerDied { .. }),
            "{family}: {error:?}"
        );
        assert_eq!(
            run(&handle, prompt("hello")).await.unwrap().text(),
            "fine",
            "{family}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn is_running_asks_the_library_and_does_not_hang_with_it() {
    let scenario = "repeat = { token = \"x\", times = 100 }\ntoken-delay-us = 10000\n\
        [[fault]]\ncall = \"is_running\"\nkind = \"hang\"\nwhen-file = \"hang\"\n\
        [[answer]]\nwhen-prompt-contains = \"again\"\ntokens = [\"y\"]\n";
    for family in FAMILIES_RUN {
        let place = Place::with(family, &[(MODEL, scenario)], |settings| {
            settings.deadlines.control_call = Duration::from_millis(300);
        });
        let handle = place.open().await;
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

        place.order("hang");
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

        place.order("hang");
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
        assert_eq!(place.series(expiries), Some(2.0), "{family}");
        let replaced = "rkllmd_worker_exits_total{model=\"m\",cause=\"tainted\"}";
        assert_eq!(place.series(replaced), Some(2.0), "{family}");
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
        let place = Place::with("1_3_1", &[(MODEL, &scenario)], |settings| {
            settings.deadlines.control_call = Duration::from_millis(200);
            settings.deadlines.load_base = Duration::from_secs(1);
        });
        let handle = place.open_with(cross_attending()).await.unwrap();
        run(&handle, saving("hello", "saved")).await.unwrap();
        place.order("hang");
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
            (*passed, function.as_str()),
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
        let place = Place::with("1_3_1", &[(MODEL, &scenario)], |settings| {
            settings.deadlines.prefill_base = Duration::from_millis(500);
            settings.deadlines.inter_token = Duration::from_millis(500);
        });
        let handle = place.open().await;
        let error = run(&handle, prompt("hello")).await.unwrap_err();
        assert!(
            matches!(error, LibraryError::DeadlinePassed { deadline: passed, .. } if passed == deadline),
            "{error:?}"
        );
        assert_eq!(run(&handle, prompt("hello")).await.unwrap().text(), "ab");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_has_the_code_and_the_runtimes_own_words() {
    for family in FAMILIES_RUN {
        let place = Place::new(family, "tokens = [\"a\"]");
        let handle = place.open().await;
        let mut request = prompt("hello");
        request.infer.lora_params = Some(LoraParam {
            lora_adapter_name: "nobody".to_owned(),
        });
        let refused = run(&handle, request).await.unwrap_err();
        let expected = "E rkllm: Not Found Lora adapter named: nobody";
        let LibraryError::Failed {
            function,
            code,
            reason,
        } = refused
        else {
            panic!("{family}: {refused:?}")
        };
        assert_eq!((function.as_str(), code), ("rkllm_run", -1), "{family}");
        assert_eq!(reason.as_deref(), Some(expected), "{family}");
        call(&handle, lora("style")).await.unwrap();
        let twice = call(&handle, lora("style")).await.unwrap_err();
        assert!(
            twice.to_string().contains("already initialized"),
            "{family}: {twice}"
        );
        for name in ["../secret", "/etc/passwd", "absent"] {
            let outside = Call::LoadLora(LoraAdapter {
                lora_adapter_path: name.to_owned(),
                lora_adapter_name: "x".to_owned(),
                scale: 1.0,
            });
            let error = call(&handle, outside).await.unwrap_err();
            assert!(
                matches!(error, LibraryError::BadValue { .. }),
                "{family}: {error:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_cache_saves_prefill() {
    for family in FAMILIES_RUN {
        let place = Place::new(family, "tokens = [\"a\"]");
        let handle = place.open().await;
        call(&handle, raw_template()).await.unwrap();
        let evaluated = |given: &handle_support::Given| {
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
    let place = Place::with("1_3_1", &[(MODEL, "tokens = [\"a\"]")], |settings| {
        settings.library.prompt_caches_limit_bytes = 1;
    });
    let handle = place.open().await;
    run(&handle, saving("one", "first")).await.unwrap();
    let error = run(&handle, saving("two", "second")).await.unwrap_err();
    assert!(matches!(error, LibraryError::TooLarge { .. }), "{error:?}");
    let caches = place.folder.path().join("state/prompt-caches");
    assert_eq!(std::fs::read_dir(caches).unwrap().count(), 1);
    run(&handle, saving("three", "first")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_the_cache_are_removed() {
    let place = Place::new("1_3_1", "tokens = [\"a\"]");
    let handle = place.open().await;
    call(&handle, raw_template()).await.unwrap();
    run(&handle, prompt("one two three four")).await.unwrap();
    let size = async || {
        in_time(handle.call(Call::GetKvCacheSize))
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

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_is_dropped_or_closed_destroys_its_model() {
    let scenario = "repeat = { token = \"x\", times = 100000 }\ntoken-delay-us = 1000\n";
    for family in FAMILIES_RUN {
        let place = Place::with(family, &[(MODEL, scenario)], |settings| {
            // Nobody else could have a place before it is gone.
            settings.models.minimum_residency = Duration::from_secs(3600);
        });
        let unloaded = "rkllmd_worker_exits_total{model=\"m\",cause=\"unloaded\"}";
        let handle = place.open().await;
        in_time(handle.close()).await.unwrap();
        assert_eq!(
            place.series(unloaded),
            Some(1.0),
            "{family}: closed means gone"
        );
        drop(place.open().await);
        place.until_series(unloaded, 2.0).await;
        // In the middle of a run.
        let handle = place.open().await;
        let mut stream = in_time(handle.run(prompt("hello"))).await.unwrap();
        while !matches!(in_time(stream.next()).await, Some(RunEvent::Result(_))) {}
        drop(handle);
        place.until_series(unloaded, 3.0).await;
        assert!(rest(stream).await.is_err(), "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_nobody_waits_for_is_not_opened() {
    let place = Place::new("1_3_1", "load-delay-ms = 60000\n");
    let opening = place.open_with(Param::default());
    let given_up = tokio::time::timeout(Duration::from_millis(500), opening).await;
    assert!(given_up.is_err(), "it was still loading");
    let own = std::process::id();
    in_time(async {
        while !daemon_support::children(own).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_cycles_of_init_and_destroy_leave_nothing() {
    let place = Place::new("1_3_1", "tokens = [\"a\"]");
    let cycle = async || {
        let handle = place.open().await;
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
    assert_eq!(daemon_support::children(own), Vec::<u32>::new());
}
