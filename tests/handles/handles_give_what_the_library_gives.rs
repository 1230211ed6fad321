//! Everything the library hands to its callback reaches the owner of a handle, exact to the bit.

use std::time::Duration;

use crate::daemon_support::FAMILIES_RUN;
use crate::handle_support::{
    TestSupervisor, WholeTensor, call, in_time, matrices, prompt, raw_template, rest, run,
};
use rkllmd::generation::GenerationError;
use rkllmd::library_calls::{
    CallState, EmbedInput, ExtendParam, ImageInput, InferMode, Input, LibraryError,
    MultimodalInput, Param, Pooling, RowSelection, RunRequest,
};
use rkllmd::supervisor::RunEvent;

const MATRICES: &str = "tokens = [\"a\", \"b\"]\nembedding-size = 4\nvocab-size = 5\n";

fn tensor(num_tokens: usize, shape: [usize; 2], first: usize) -> WholeTensor {
    let values = first..first + shape[0] * shape[1];
    WholeTensor {
        num_tokens,
        shape,
        data: values.map(|value| value as f32).collect(),
    }
}

fn descriptors(pid: u32) -> usize {
    let listing = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a living process");
    listing.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_states_are_exact_and_never_null() {
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, MATRICES);
        let handle = test.open().await;
        call(&handle, raw_template()).await.unwrap();
        let ask = |rows| matrices("one two three", InferMode::GetLastHiddenLayer, rows);
        let all = run(&handle, ask(RowSelection::All)).await.unwrap();
        assert_eq!(all.hidden(0), tensor(3, [3, 4], 0), "{family}");
        assert_eq!(
            all.states(),
            [CallState::Normal, CallState::Normal, CallState::Finish],
            "{family}: one without data, one with, the end"
        );
        let last = run(&handle, ask(RowSelection::Last)).await.unwrap();
        assert_eq!(last.hidden(0), tensor(3, [1, 4], 8), "{family}");
        let mean = run(&handle, ask(RowSelection::Mean)).await.unwrap();
        assert_eq!(mean.hidden(0).data, [4.0, 5.0, 6.0, 7.0], "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logits_are_exact_and_the_run_ends_with_them_unless_asked_otherwise() {
    let scenario = format!("{MATRICES}token-delay-us = 20000\n").replace(
        "tokens = [\"a\", \"b\"]",
        "repeat = { token = \"x\", times = 50 }",
    );
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, &scenario);
        let handle = test.open().await;
        call(&handle, raw_template()).await.unwrap();
        let mut ask = matrices("one two", InferMode::GetLogits, RowSelection::All);
        let given = run(&handle, ask.clone()).await.unwrap();
        assert_eq!(given.logits(), tensor(2, [2, 5], 0), "{family}");
        assert!(given.text().len() < 5, "{family}: {}", given.text());
        ask.generate_after_logits = true;
        let generated = run(&handle, ask).await.unwrap();
        assert_eq!(generated.logits(), tensor(2, [2, 5], 0), "{family}");
        assert_eq!(generated.text(), "x".repeat(50), "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn perf_figures_come_with_finish_and_are_the_librarys() {
    let scenario = "tokens = [\"a\"]\n[perf]\nprefill-time-ms = 12.5\nprefill-tokens = 7\n\
                    generate-time-ms = 30.25\ngenerate-tokens = 3\nmemory-usage-mb = 99.5\n";
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, scenario);
        let handle = test.open().await;
        let given = run(&handle, prompt("hello")).await.unwrap();
        let with_perf: Vec<_> = given
            .results
            .iter()
            .filter_map(|result| Some((result.state, result.results[0].perf?)))
            .collect();
        let [(state, perf)] = with_perf[..] else {
            panic!("{family}: {with_perf:?}")
        };
        assert_eq!(state, CallState::Finish, "{family}");
        assert_eq!(
            (
                perf.prefill_time_ms,
                perf.prefill_tokens,
                perf.generate_time_ms
            ),
            (12.5, 7, 30.25),
            "{family}"
        );
        assert_eq!(
            (perf.generate_tokens, perf.memory_usage_mb),
            (3, 99.5),
            "{family}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_tensors_are_exact_and_leave_no_descriptor_behind() {
    const COLUMNS: usize = 60_000;
    const WORDS: usize = 20;
    let scenario = format!(
        "embedding-size = {COLUMNS}\nrecord = \"pids\"\n\
                            [[fault]]\ncall = \"run\"\nkind = \"delay\"\nms = 0\n"
    );
    let text = ["word"; WORDS].join(" ");
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, &scenario);
        let handle = test.open().await;
        call(&handle, raw_template()).await.unwrap();
        let ask = |rows| matrices(&text, InferMode::GetLastHiddenLayer, rows);
        let all = run(&handle, ask(RowSelection::All)).await.unwrap();
        assert!(
            all.hidden(0) == tensor(WORDS, [WORDS, COLUMNS], 0),
            "{family}"
        );
        let pids = std::fs::read_to_string(test.folder.path().join("models/pids")).unwrap();
        let worker: u32 = pids.split(' ').next().unwrap().parse().unwrap();
        let before = (descriptors(std::process::id()), descriptors(worker));
        for _ in 0..20 {
            let last = run(&handle, ask(RowSelection::Last)).await.unwrap();
            let expected = tensor(WORDS, [1, COLUMNS], (WORDS - 1) * COLUMNS);
            assert!(last.hidden(0) == expected, "{family}");
        }
        // The worker closes a file right after it was sent, the daemon after it was read.
        in_time(async {
            while (descriptors(std::process::id()), descriptors(worker)) != before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tensor_over_the_limit_is_an_error_that_says_so() {
    let scenario = "tokens = [\"a\"]\nembedding-size = 60000\n";
    let test = TestSupervisor::with("1_3_1", &[("m", scenario)], |settings| {
        settings.library.tensor_limit_bytes = 1_000_000;
    });
    let handle = test.open().await;
    call(&handle, raw_template()).await.unwrap();
    let ask = |rows| matrices("a b c d e", InferMode::GetLastHiddenLayer, rows);
    let error = run(&handle, ask(RowSelection::All)).await.unwrap_err();
    assert_eq!(
        error,
        LibraryError::TooLarge {
            what: "last_hidden_layer".to_owned(),
            bytes: 1_200_000,
            limit_bytes: 1_000_000,
        }
    );
    let last = run(&handle, ask(RowSelection::Last)).await.unwrap();
    assert_eq!(last.hidden(0).shape, [1, 60_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_counts_for_the_tensors_of_all_sequences_together() {
    let scenario = "tokens = [\"a\"]\nembedding-size = 60000\n";
    let test = TestSupervisor::with("1_3_1", &[("m", scenario)], |settings| {
        settings.library.tensor_limit_bytes = 1_000_000;
    });
    let param = Param {
        extend_param: ExtendParam {
            n_batch: Some(4),
            ..ExtendParam::default()
        },
        ..Param::default()
    };
    let handle = test.open_with(param).await.unwrap();
    let ask = |texts: [&str; 4]| RunRequest {
        inputs: texts.map(Input::prompt).into(),
        ..matrices("", InferMode::GetLastHiddenLayer, RowSelection::All)
    };
    let error = run(&handle, ask(["a b", "c", "d", "e"])).await.unwrap_err();
    assert_eq!(
        error,
        LibraryError::TooLarge {
            what: "last_hidden_layer".to_owned(),
            bytes: 1_200_000,
            limit_bytes: 1_000_000,
        },
        "none of them is too large alone"
    );
    let given = run(&handle, ask(["a", "c", "d", "e"])).await.unwrap();
    assert_eq!(given.hidden(3).shape, [1, 60_000]);
}

/// A run for tensors holds few of them, however slow their reader is.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_logits_does_not_fill_the_daemon_with_them() {
    let scenario =
        "repeat = { token = \"x\", times = 1000 }\ntoken-delay-us = 1000\nvocab-size = 16\n";
    let test = TestSupervisor::with("1_3_1", &[("m", scenario)], |settings| {
        settings.http.slow_reader_timeout = Duration::from_millis(500);
    });
    let handle = test.open().await;
    let mut ask = matrices("one two", InferMode::GetLogits, RowSelection::Last);
    ask.generate_after_logits = true;
    let mut stream = in_time(handle.run(ask, None)).await.unwrap();
    let told = "rkllmd_deadlines_passed_total";
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(test.series(told), None, "the library is not to blame");
    let mut results = 0;
    let error = loop {
        match in_time(stream.next()).await.expect("an end") {
            RunEvent::Started { .. } => {}
            RunEvent::Result(_) => results += 1,
            RunEvent::Ended { code } => panic!("{results} results, then {code}"),
            RunEvent::Failed(error) => break error,
        }
    };
    assert!(results <= 8, "{results} results waited");
    let too_slow = GenerationError::SlowReader {
        stalled: Duration::from_millis(500),
    };
    assert_eq!(error, LibraryError::Unavailable(too_slow));
}

/// On a board where a token takes longer than the setting allows for.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_for_prefill_follows_what_was_measured() {
    let scenario = "tokens = [\"a\"]\nembedding-size = 4\n\
        [perf]\nprefill-tokens = 100\nprefill-time-ms = 50000\n\
        [[fault]]\ncall = \"run\"\nkind = \"delay\"\nms = 1500\nwhen-prompt-contains = \"slow\"\n";
    for taught_by_the_model in [false, true] {
        let test = TestSupervisor::with("1_3_1", &[("m", scenario)], |settings| {
            settings.deadlines.prefill_base = Duration::from_millis(300);
            settings.deadlines.prefill_per_token = Duration::from_millis(1);
        });
        if taught_by_the_model {
            let inputs = vec![Input::prompt("hello")];
            test.pooled(inputs, Pooling::Last).await.unwrap();
        }
        let handle = test.open().await;
        if !taught_by_the_model {
            run(&handle, prompt("hello")).await.unwrap();
        }
        let given = run(&handle, prompt("a slow one")).await;
        assert_eq!(given.unwrap().text(), "a", "{taught_by_the_model}");
    }
}

/// The vendor's library calls back once before it has computed them.
#[tokio::test(flavor = "multi_thread")]
async fn hidden_states_have_the_time_for_prefill_until_they_are_there() {
    let scenario = "hidden-states = \"none\"\n\
        [[fault]]\ncall = \"run\"\nkind = \"delay\"\nms = 4500\nafter-tokens = 0\n";
    let test = TestSupervisor::with("1_3_1", &[("m", scenario)], |settings| {
        settings.deadlines.inter_token = Duration::from_millis(300);
    });
    let handle = test.open().await;
    let ask = matrices("one", InferMode::GetLastHiddenLayer, RowSelection::Last);
    let given = run(&handle, ask).await.unwrap();
    assert_eq!(given.states(), [CallState::Normal, CallState::Finish]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_have_inputs_and_results_of_their_own() {
    let scenario = "tokens = [\"x\"]\nembedding-size = 4\n\
        [[answer]]\nwhen-prompt-contains = \"first\"\ntokens = [\"1a\", \"1b\", \"1c\"]\n\
        [[answer]]\nwhen-prompt-contains = \"second\"\ntokens = [\"2a\"]\n";
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, scenario);
        let param = Param {
            extend_param: ExtendParam {
                n_batch: Some(3),
                ..ExtendParam::default()
            },
            ..Param::default()
        };
        let handle = test.open_with(param).await.unwrap();
        let inputs = ["the first", "the second one", "another"];
        let batch = |mode, rows| RunRequest {
            inputs: inputs.iter().map(|text| Input::prompt(*text)).collect(),
            ..matrices("", mode, rows)
        };
        let given = run(&handle, batch(InferMode::Generate, RowSelection::Last))
            .await
            .unwrap();
        let texts = |slot: usize| -> String {
            let slots = given.results.iter().map(|result| &result.results[slot]);
            slots.filter_map(|slot| slot.text.as_deref()).collect()
        };
        assert_eq!(
            [texts(0), texts(1), texts(2)],
            ["1a1b1c", "2a", "x"],
            "{family}"
        );
        let second = &given.results[1].results[1];
        assert_eq!(
            (second.batch_slot, second.token_id),
            (1, Some(-1)),
            "{family}: has ended"
        );
        let hidden = run(
            &handle,
            batch(InferMode::GetLastHiddenLayer, RowSelection::All),
        );
        let hidden = hidden.await.unwrap();
        assert_eq!(hidden.hidden(0), tensor(2, [2, 4], 0), "{family}");
        assert_eq!(hidden.hidden(1), tensor(3, [3, 4], 1000), "{family}");
        assert_eq!(hidden.hidden(2), tensor(1, [1, 4], 2000), "{family}");
        let error = run(&handle, prompt("only one")).await.unwrap_err();
        assert!(
            matches!(error, LibraryError::BadValue { .. }),
            "{family}: {error}"
        );
        let sizes = in_time(handle.call(rkllmd::library_calls::Call::GetKvCacheSize, None)).await;
        let rkllmd::library_calls::Outcome::KvCacheSizes(sizes) = sizes.unwrap().value else {
            panic!("{family}: no sizes")
        };
        assert_eq!(sizes.len(), 3, "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_embeddings_and_images_arrive() {
    let image = ImageInput {
        image_embed: vec![2.5; 12],
        n_image_tokens: 3,
        n_image: 1,
        image_width: 448,
        image_height: 336,
        ..ImageInput::default()
    };
    let multimodal = |image_start: Option<&str>| RunRequest {
        inputs: vec![Input {
            multimodal_input: Some(MultimodalInput {
                prompt: "see <image>".to_owned(),
                image: Some(ImageInput {
                    image_start: image_start.map(str::to_owned),
                    ..image.clone()
                }),
                ..MultimodalInput::default()
            }),
            ..Input::default()
        }],
        ..RunRequest::default()
    };
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, "echo-prompt = true");
        let handle = test.open().await;
        call(&handle, raw_template()).await.unwrap();
        let tokens = RunRequest {
            inputs: vec![Input::tokens(vec![17, 4, 99])],
            ..RunRequest::default()
        };
        assert_eq!(
            run(&handle, tokens).await.unwrap().text(),
            "17 4 99",
            "{family}"
        );
        let embed = RunRequest {
            inputs: vec![Input {
                embed_input: Some(EmbedInput {
                    embed: vec![0.5; 16],
                    n_tokens: 2,
                }),
                ..Input::default()
            }],
            ..RunRequest::default()
        };
        assert_eq!(
            run(&handle, embed).await.unwrap().text(),
            "embeddings 2 8",
            "{family}"
        );
        let seen = run(&handle, multimodal(None)).await.unwrap();
        assert_eq!(seen.text(), "see <image> 1x3 448x336 2.5", "{family}");
        let tagged = run(&handle, multimodal(Some("<start>"))).await;
        if family == "1_2_1" {
            let error = tagged.unwrap_err();
            assert!(
                error.to_string().ends_with("is not in librkllmrt 1.2.3"),
                "{error}"
            );
        } else {
            tagged.unwrap();
        }
        let nothing = RunRequest {
            inputs: vec![Input::default()],
            ..RunRequest::default()
        };
        let error = run(&handle, nothing).await.unwrap_err();
        assert!(
            matches!(error, LibraryError::BadValue { .. }),
            "{family}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_release_lacks_is_named_with_the_release() {
    let test = TestSupervisor::new("1_2_1", "tokens = [\"a\"]");
    let not_here = |error: LibraryError| {
        assert!(
            matches!(error, LibraryError::NotInLibrary { .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().ends_with("is not in librkllmrt 1.2.3"),
            "{error}"
        );
    };
    let param = Param {
        ignore_eos_token: Some(true),
        ..Param::default()
    };
    not_here(test.open_with(param).await.unwrap_err());
    let handle = test.open().await;
    let mut request = prompt("hello");
    request.infer.max_new_tokens = Some(3);
    not_here(run(&handle, request).await.unwrap_err());
    assert_eq!(run(&handle, prompt("hello")).await.unwrap().text(), "a");

    let test = TestSupervisor::new("1_3_1", "tokens = [\"a\"]");
    let param = Param {
        img_start: Some("<img>".to_owned()),
        ..Param::default()
    };
    let error = test.open_with(param).await.unwrap_err();
    assert!(
        matches!(error, LibraryError::NotInLibrary { .. }),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_defaults_are_those_of_the_library_that_is_installed() {
    for (family, version) in [("1_2_1", "1.2.3"), ("1_3_1", "1.3.1")] {
        let test = TestSupervisor::new(family, "");
        let asked = in_time(test.supervisor.default_param(None)).await.unwrap();
        assert_eq!(asked.library_version, version);
        let param = asked.param;
        // As the fake's write_defaults has them.
        assert_eq!((param.max_context_len, param.top_k), (Some(512), Some(40)));
        assert_eq!((param.top_p, param.repeat_penalty), (Some(0.9), Some(1.1)));
        assert_eq!(param.ignore_eos_token.is_some(), family == "1_3_1");
        let extend = param.extend_param;
        assert_eq!(
            (extend.enabled_cpus_mask, extend.n_batch),
            (Some(0xF0), Some(1))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pooled_rows_come_from_the_models_ordinary_worker() {
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, MATRICES);
        let pooled = |pooling| {
            let inputs = vec![Input::prompt("one two three"), Input::tokens(vec![7, 8])];
            test.pooled(inputs, pooling)
        };
        let last = pooled(Pooling::Last).await.unwrap();
        assert_eq!(last.rows[0], [8.0, 9.0, 10.0, 11.0], "{family}");
        assert_eq!(last.rows[1], [4.0, 5.0, 6.0, 7.0], "{family}");
        assert_eq!(last.prompt_tokens, Some(5), "{family}");
        let mean = pooled(Pooling::Mean).await.unwrap();
        assert_eq!(mean.rows[0], [4.0, 5.0, 6.0, 7.0], "{family}");
        assert_eq!(mean.rows[1], [2.0, 3.0, 4.0, 5.0], "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_in_the_middle_ends_the_run_and_the_next_is_whole() {
    let scenario = "repeat = { token = \"x\", times = 1000 }\ntoken-delay-us = 5000\n\
                    [[answer]]\nwhen-prompt-contains = \"short\"\ntokens = [\"y\"]\n";
    for family in FAMILIES_RUN {
        let test = TestSupervisor::new(family, scenario);
        let handle = test.open().await;
        let mut stream = in_time(handle.run(prompt("long"), None)).await.unwrap();
        while !matches!(in_time(stream.next()).await, Some(RunEvent::Result(_))) {}
        in_time(handle.abort()).await.unwrap();
        let given = rest(stream).await.unwrap();
        assert_eq!(given.states().last(), Some(&CallState::Finish), "{family}");
        assert!(given.results.len() < 900, "{family}");
        assert_eq!(
            run(&handle, prompt("short")).await.unwrap().text(),
            "y",
            "{family}"
        );
    }
}
