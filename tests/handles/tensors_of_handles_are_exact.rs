//! Hidden states and logits reach the owner of a handle exact to the bit, within their limits.

use std::time::Duration;

use crate::daemon_support::FAMILIES_RUN;
use crate::handle_support::{
    TestSupervisor, WholeTensor, call, in_time, matrices, prompt, raw_template, run,
};
use rkllmd::generation::GenerationError;
use rkllmd::library_calls::{
    CallState, ExtendParam, InferMode, Input, LibraryError, Param, Pooling, RowSelection,
    RunRequest,
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
            RunEvent::Ended { code, .. } => panic!("{results} results, then {code}"),
            RunEvent::Failed(error) => break error,
        }
    };
    assert!(results <= 8, "{results} results waited");
    let too_slow = GenerationError::SlowReader {
        stalled: Duration::from_millis(500),
    };
    assert_eq!(error, LibraryError::Unavailable(too_slow));
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
