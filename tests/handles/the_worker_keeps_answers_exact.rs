//! What a worker delivers of an answer, whatever the runtime does, and how it takes over one that
//! another worker has begun: the process is real, the daemon is this test.

use crate::daemon_support::FAMILIES_RUN;
use crate::worker_support::{Worker, deadlines, of_first_slot, text_of};
use rkllmd::constraint::Vocabulary;
use rkllmd::generation::FinishReason;
use rkllmd::ipc::{BegunAnswer, Command, Event, RunOutcome, SlotCommand, SlotEvent, TokenKind};

#[test]
fn every_token_tells_its_id_and_what_stands_behind_its_text() {
    for family in FAMILIES_RUN {
        let scenario = "tokens = [\"a\", { text = \"é\", pieces = 2, id = 7 }, \
            { text = \"\", id = 8 }, { bytes = [0xc3], id = 9 }, { bytes = [0xa9], id = 10 }]\n";
        let mut worker = Worker::loaded(family, scenario, deadlines());
        worker.run(1, "x", None);
        let (events, end) = worker.until_end();
        let tokens: Vec<_> = events
            .into_iter()
            .filter_map(|event| match event {
                Event::Slot {
                    event: SlotEvent::Token { kind, id, text, .. },
                    ..
                } => Some((kind, id, text)),
                _ => None,
            })
            .collect();
        use TokenKind::{Partial, Swallowed, Text};
        let expected = [
            (Text, 1000, "a"),
            (Partial, 7, ""),
            (Text, 7, "é"),
            (Swallowed, 8, ""),
            (Partial, 9, ""),
            (Text, 10, "é"),
        ];
        let expected = expected.map(|(kind, id, text)| (kind, Some(id), text.to_owned()));
        assert_eq!(tokens, expected, "{family}");
        assert_eq!(end.generated_tokens, 6, "{family}");
    }
}

/// What the runtime was given, from the parameters that the fake one reports.
fn input_type(text: &str) -> u64 {
    let reported: serde_json::Value = serde_json::from_str(text).expect("the parameters");
    reported["run"]["input_type"].as_u64().expect("a number")
}

#[test]
fn a_begun_answer_is_taken_over_by_its_tokens_or_by_its_text() {
    const PROMPT: u64 = 0;
    const TOKENS: u64 = 1;
    let begun = |token_ids: Option<&[i32]>| BegunAnswer {
        text: " one two".to_owned(),
        tokens: Some(u32::try_from(token_ids.map_or(2, <[i32]>::len)).expect("small")),
        token_ids: token_ids.map(<[i32]>::to_vec),
    };
    for family in FAMILIES_RUN {
        let mut worker = Worker::start(family, "tokens = [\"{params}\"]\n");
        worker.load(deadlines(), true);
        while !matches!(worker.next(), Event::Loaded { .. }) {}

        // Three words in the prompt; the begun answer is two words or three ids.
        let cases = [
            (None, PROMPT, 3, Some(true)),
            (Some(begun(None)), PROMPT, 5, None),
            (Some(begun(Some(&[5, 6, 7]))), TOKENS, 6, None),
        ];
        for (run, (begun, expected_input, input_tokens, agrees)) in (1..).zip(cases) {
            worker.run(run, "say one two", begun);
            let (events, end) = worker.until_end();
            let counted = of_first_slot(SlotEvent::PromptCounted { run, tokens: 3 });
            let told: Vec<_> = events
                .iter()
                .filter(|event| **event != Event::Heartbeat)
                .collect();
            assert_eq!(told[0], &counted, "{family}: {events:?}");
            assert_eq!(input_type(&text_of(&events)), expected_input, "{family}");
            assert_eq!(end.prompt_tokens, Some(input_tokens), "{family}");
            let prefilled = end.perf.expect("perf figures").prefill_tokens;
            assert_eq!(prefilled, input_tokens, "{family}");
            assert_eq!(end.tokenizer_agrees, agrees, "{family}");
        }

        // Both count against the context.
        worker.run(4, "say one two", Some(begun(Some(&[5; 61]))));
        let (events, end) = worker.until_end();
        let counted = SlotEvent::PromptCounted { run: 4, tokens: 3 };
        assert_eq!(events[0], of_first_slot(counted));
        assert_eq!(
            end.outcome,
            RunOutcome::ContextLengthExceeded {
                prompt_tokens: 64,
                limit_tokens: 64,
            }
        );
    }
}

#[test]
fn what_the_library_prints_shows_whether_its_tokens_are_the_known_ones() {
    let scenario = "tokens = [{ text = \"one\", id = 0 }, { text = \" two\", id = 1 }, \
        { text = \" three\", id = 3 }, { text = \" four\", id = 4 }]\n";
    for family in FAMILIES_RUN {
        for (third, agrees) in [(" three", true), (" thirty", false)] {
            let mut worker = Worker::loaded(family, scenario, deadlines());
            worker.run(1, "x", None);
            let (_, end) = worker.until_end();
            assert_eq!(end.tokens_agree, None, "{family}: none are known");
            let mut vocabulary = Vocabulary::default();
            // The third ends answers.
            for word in [" one", " two", "[end]", third, " four"] {
                vocabulary.push(Some(word.as_bytes()), false);
            }
            let mut spec = worker.spec(2, "x", None);
            spec.vocabulary = Some(vocabulary);
            worker.ask(SlotCommand::Run(Box::new(spec)));
            let (events, end) = worker.until_end();
            assert_eq!(text_of(&events), "one two three four", "{family}");
            assert_eq!(end.tokens_agree, Some(agrees), "{family}");
            worker.run(3, "x", None);
            let (_, end) = worker.until_end();
            assert_eq!(end.tokens_agree, Some(agrees), "{family}: once told");
        }
    }
}

#[test]
fn without_a_tokenizer_a_begun_answer_goes_by_its_text() {
    let mut worker = Worker::loaded("1_3_1", "echo-prompt = true\n", deadlines());
    let begun = BegunAnswer {
        text: " two three".to_owned(),
        token_ids: Some(vec![5, 6, 7]),
        tokens: Some(3),
    };
    worker.run(1, "one", Some(begun));
    let (events, end) = worker.until_end();
    assert_eq!(text_of(&events), "one two three");
    assert_eq!(end.prompt_tokens, Some(3));
    assert_eq!(end.tokenizer_agrees, None);
    let counted = |event: &Event| {
        matches!(
            event,
            Event::Slot {
                event: SlotEvent::PromptCounted { .. },
                ..
            }
        )
    };
    assert!(!events.iter().any(counted), "{events:?}");
}

#[test]
fn results_against_the_rules_change_no_answer() {
    let fault = |more: &str| {
        format!("tokens = [\"all \", \"is \", \"well\"]\n[[fault]]\ncall = \"run\"\n{more}\n")
    };
    let cases = [
        ("kind = \"finish-twice\"", 3, Some(1)),
        ("kind = \"text-after-finish\"", 3, Some(1)),
        ("kind = \"null-text\"\nafter-tokens = 1", 4, Some(1)),
        ("kind = \"null-text\"\nid = -1\nafter-tokens = 1", 3, None),
        (
            "kind = \"special-token\"\nid = 9\nafter-tokens = 1",
            4,
            Some(1),
        ),
        ("kind = \"never-finish\"\nafter-tokens = 3", 3, None),
        ("kind = \"late-callback\"", 3, Some(1)),
    ];
    for family in FAMILIES_RUN {
        for (fault_is, tokens, prompt_tokens) in cases {
            let mut worker = Worker::loaded(family, &fault(fault_is), deadlines());
            for run in 1..=2 {
                worker.run(run, "x", None);
                let (events, end) = worker.until_end();
                assert_eq!(text_of(&events), "all is well", "{family} {fault_is}");
                assert_eq!(end.generated_tokens, tokens, "{family} {fault_is}");
                assert_eq!(end.outcome, RunOutcome::Finished(FinishReason::Stop));
                assert!(!end.tainted, "{family} {fault_is}");
                let counted = end.prompt_tokens;
                assert!(
                    counted.is_none() || counted == prompt_tokens,
                    "{family} {fault_is}: {end:?}"
                );
            }
            worker.send(Command::Unload);
            assert_eq!(worker.exit_code(), Some(0), "{family} {fault_is}");
        }
    }
}

#[test]
fn an_answer_taken_over_goes_on_byte_for_byte() {
    let scenario = "tokens = [\"The \", \"sky\", { text = \" é\", pieces = 2, id = 7 }, \
        \" is\", { text = \"\", id = 8 }, \" blue\", \".\"]\ncontinue-answers = true\n";
    for family in FAMILIES_RUN {
        let mut worker = Worker::start(family, scenario);
        worker.load(deadlines(), true);
        while !matches!(worker.next(), Event::Loaded { .. }) {}
        worker.run(1, "what", None);
        let (events, end) = worker.until_end();
        let whole = text_of(&events);
        assert_eq!(
            (whole.as_str(), end.generated_tokens),
            ("The sky é is blue.", 8)
        );
        let tokens: Vec<_> = events
            .into_iter()
            .filter_map(|event| match event {
                Event::Slot {
                    event: SlotEvent::Token { kind, id, text, .. },
                    ..
                } => Some((kind, id.expect("an id"), text)),
                _ => None,
            })
            .collect();
        for cut in 1..=tokens.len() {
            let (done, rest) = tokens.split_at(cut);
            let text: String = done.iter().map(|(_, _, text)| text.as_str()).collect();
            let ids: Vec<i32> = done.iter().map(|(_, id, _)| *id).collect();
            // With tokens, then with text alone.
            for token_ids in [Some(ids), None] {
                let by_tokens = token_ids.is_some();
                let begun = BegunAnswer {
                    text: text.clone(),
                    token_ids,
                    tokens: Some(u32::try_from(cut).expect("small")),
                };
                let run = u64::try_from(2 * cut).expect("small") + u64::from(by_tokens);
                worker.run(run, "what", Some(begun));
                let (events, end) = worker.until_end();
                let resumed = text_of(&events);
                assert_eq!([text.clone(), resumed].concat(), whole, "{family} {cut}");
                if by_tokens {
                    let left = u32::try_from(rest.len()).expect("small");
                    assert_eq!(end.generated_tokens, left, "{family} {cut}");
                    let input = u32::try_from(1 + cut).expect("small");
                    assert_eq!(end.prompt_tokens, Some(input), "{family} {cut}");
                }
            }
        }
    }
}
