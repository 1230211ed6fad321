//! Everything the library hands to its callback reaches the owner of a handle, and everything that the
//! owner gives reaches the library; tensors are in `tensors_of_handles_are_exact`.

use std::time::Duration;

use crate::daemon_support::FAMILIES_RUN;
use crate::handle_support::{TestSupervisor, call, in_time, prompt, raw_template, rest, run};
use rkllmd::library_calls::{
    CallState, EmbedInput, ImageInput, Input, LibraryError, MultimodalInput, Param, Pooling,
    RunRequest,
};
use rkllmd::supervisor::RunEvent;

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
