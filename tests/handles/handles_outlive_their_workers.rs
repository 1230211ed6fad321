//! A handle goes on when its worker dies or has to make room: what can be replayed is, and what is lost is told
//! once.

use crate::daemon_support::FAMILIES_RUN;
use crate::handle_support::{
    MODEL, TestSupervisor, call, cross_attending, cross_attention, in_time, keeping, lora, prompt,
    run, saving, template, tools,
};
use rkllmd::library_calls::{Call, LibraryError, LoraAdapter, LoraParam};
use rkllmd::supervisor::HandleReset;

const CRASH_ON_ORDER: &str =
    "\n[[fault]]\ncall = \"run\"\nkind = \"segv\"\nwhen-file = \"crash\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_call_arrives_and_is_replayed_to_the_next_worker() {
    let scenario = format!("tokens = [\"{{params}}\"]\n{CRASH_ON_ORDER}");
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, &scenario);
        let handle = test.open_with(cross_attending()).await.unwrap();
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

        test.order("crash");
        let after = run(&handle, request).await.unwrap();
        assert_eq!(
            after.text(),
            before.text(),
            "{family}: nothing is forgotten"
        );
        assert_eq!(after.reset, None, "{family}: no history was kept");
        let deaths = "rkllmd_worker_exits_total{model=\"m\",cause=\"sigsegv\"}";
        assert_eq!(test.series(deaths), Some(1.0), "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_history_is_told_once() {
    let scenario = format!("tokens = [\"a\"]\n{CRASH_ON_ORDER}");
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, &scenario);
        let handle = test.open().await;
        assert_eq!(run(&handle, keeping("one")).await.unwrap().reset, None);
        assert_eq!(run(&handle, keeping("two")).await.unwrap().reset, None);
        test.order("crash");
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
    let test = TestSupervisor::with("1_3_1", &[(MODEL, "tokens = [\"{params}\"]")], |settings| {
        settings.models.max_loaded = 1;
    });
    let first = test.open().await;
    call(&first, template("", "<mine>", "")).await.unwrap();
    run(&first, keeping("one")).await.unwrap();
    let second = test.open().await;
    let there = run(&second, prompt("two")).await.unwrap();
    assert!(!there.text().contains("<mine>"));
    let back = run(&first, prompt("three")).await.unwrap();
    assert_eq!(back.reset, Some(HandleReset::Evicted));
    assert!(back.text().contains("<mine>"), "{}", back.text());
    let replied = in_time(second.call(Call::GetKvCacheSize, None))
        .await
        .unwrap();
    assert_eq!(replied.handle_reset, None, "it had none to lose");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_given_results_ends_with_an_error_when_its_worker_dies() {
    // What a worker has not sent when it dies was not given: tokens come slowly.
    let scenario = "tokens = [\"a\", \"b\", \"c\", \"d\"]\ntoken-delay-us = 50000\n\
        [[fault]]\ncall = \"run\"\nkind = \"segv\"\nafter-tokens = 2\nonce = \"died\"\n";
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, scenario);
        let handle = test.open().await;
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
        let test = TestSupervisor::new(family, scenario);
        let handle = test.open().await;
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
async fn a_refusal_has_the_code_and_the_runtimes_own_words() {
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, "tokens = [\"a\"]");
        let handle = test.open().await;
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
