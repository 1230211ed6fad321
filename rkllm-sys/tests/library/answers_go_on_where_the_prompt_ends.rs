//! With `continue-answers` the fake runtime's answer goes on after what of it the prompt ends with,
//! byte for byte, whether that comes as text or as token ids: what a resumed answer is checked
//! against.

use crate::common::{Collected, Model, RUN_FAMILIES, open, run};
use rkllm_sys::{CallState, Handle, RunInput};

fn on_each_family(scenario: &str, test: impl Fn(&str, &Handle)) {
    for name in RUN_FAMILIES {
        let model = Model::new(scenario);
        let handle = model.load(&open(name));
        handle.set_chat_template("", "", "").expect(name);
        test(name, &handle);
    }
}

fn prompted(handle: &Handle, prompt: &str) -> Collected {
    run(handle, &RunInput::Prompt(prompt), 1)
}

/// Characters of one to four bytes: whole, in pieces, and split between two tokens.
const MIXED: &str = "continue-answers = true\neos-token-id = 2\ntokens = [
    'Grüße ', { text = '€', pieces = 3 }, 'aab', 'aaab', { bytes = [120, 0xF0, 0x9F] },
    { bytes = [0xA6, 0x80, 0x20] }, { text = '', id = 7 }, 'née', { text = '漢字', pieces = 2 },
]";
const MIXED_TEXT: &str = "Grüße €aabaaabx🦀 née漢字";

#[test]
fn beginning_and_remainder_are_the_answer_at_every_cut() {
    on_each_family(MIXED, |name, handle| {
        let cuts = (0..=MIXED_TEXT.len()).filter(|cut| MIXED_TEXT.is_char_boundary(*cut));
        for cut in cuts {
            let (given, rest) = MIXED_TEXT.split_at(cut);
            let got = prompted(handle, &format!("a prompt: {given}"));
            assert_eq!(got.bytes(), rest.as_bytes(), "{name}: cut at {cut}");
            let states = got.states();
            assert_eq!(states.last(), Some(&CallState::Finish), "{name}: {cut}");
            assert_eq!(got.ids().last(), Some(&2), "{name}: the end at {cut}");
        }
    });
}

#[test]
fn a_whole_answer_leaves_the_end_only() {
    on_each_family(MIXED, |name, handle| {
        let got = prompted(handle, &format!("a prompt: {MIXED_TEXT}"));
        let states = [CallState::Normal, CallState::Finish];
        assert_eq!((got.states().as_slice(), got.ids()), (&states[..], vec![2]));
        assert_eq!(got.bytes(), b"", "{name}");
    });
}

#[test]
fn a_token_that_was_cut_comes_as_its_rest_with_its_id() {
    on_each_family(MIXED, |name, handle| {
        // The crab's first two bytes ended one token, but they cannot have been sent on.
        let got = prompted(handle, "Grüße €aabaaabx");
        assert_eq!(
            got.all()[0].text.as_deref(),
            Some(&b"\xF0\x9F"[..]),
            "{name}"
        );
        assert_eq!(got.ids()[..2], [1004, 1005], "{name}");
        let got = prompted(handle, "Grüße €aabaaabx🦀 née漢");
        assert_eq!(
            got.states(),
            [CallState::Normal, CallState::Normal, CallState::Finish],
            "{name}: the rest has no pieces"
        );
        assert_eq!((got.text(), got.ids()), ("字".to_owned(), vec![1008, 2]));
    });
}

#[test]
fn ids_and_what_comes_after_them_are_the_answer_at_every_cut() {
    on_each_family(MIXED, |name, handle| {
        let all = prompted(handle, "a prompt").ids();
        let answer = &all[..all.len() - 1];
        for cut in 0..=answer.len() {
            let input = [&[17, 42], &answer[..cut]].concat();
            let got = run(handle, &RunInput::Tokens(&input), 1);
            assert_eq!(got.ids(), all[cut..], "{name}: cut at {cut}");
            assert!(MIXED_TEXT.as_bytes().ends_with(&got.bytes()), "{name}");
        }
    });
}

/// As a special token, which a runtime does not print and knows by its text.
#[test]
fn a_token_that_is_not_printed_may_have_a_text_in_prompts() {
    let scenario = "continue-answers = true\neos-token-id = 2\ntokens = [
        { text = '', in-prompt = '<a>', id = 7 }, 'one', { text = '', in-prompt = '</a>', id = 8 }, 'two',
    ]";
    on_each_family(scenario, |name, handle| {
        let all = [7, 1001, 8, 1003, 2];
        for (given, tokens) in [("", 0), ("<a>", 1), ("<a>one", 2), ("<a>one</a>", 3)] {
            let got = prompted(handle, &format!("a prompt: {given}"));
            assert_eq!(got.ids(), all[tokens..], "{name}: {given}");
        }
        assert_eq!(prompted(handle, "a prompt").text(), "onetwo", "{name}");
    });
}

#[test]
fn the_longest_beginning_counts() {
    let scenario = "continue-answers = true\ntokens = ['ab', 'ab', 'c']";
    on_each_family(scenario, |name, handle| {
        for (prompt, rest) in [
            ("x", "ababc"),
            ("xab", "abc"),
            ("xabab", "c"),
            ("ab x", "ababc"),
        ] {
            assert_eq!(prompted(handle, prompt).text(), rest, "{name}: {prompt}");
        }
    });
}

#[test]
fn a_repeated_token_goes_on_in_the_middle_of_a_round() {
    let scenario = "continue-answers = true\nrepeat = { token = 'na ', times = 500 }";
    on_each_family(scenario, |name, handle| {
        let whole = "na ".repeat(500);
        for cut in [0, 1, 2, 3, 374, 1497, 1499, 1500] {
            let got = prompted(handle, &format!("sing: {}", &whole[..cut]));
            assert_eq!(got.text(), whole[cut..], "{name}: cut at {cut}");
        }
        let got = run(handle, &RunInput::Tokens(&[1, 1000, 1000, 1000]), 1);
        assert_eq!(got.text(), whole[9..], "{name}");
    });
}

#[test]
fn conditions_choose_the_answer_that_goes_on() {
    let scenario = "continue-answers = true\ntokens = ['another']\n\
        [[answer]]\nwhen-prompt-contains = 'first'\ntokens = ['one ', 'two']\n\
        [[answer]]\nwhen-prompt-contains = '17 '\ntokens = ['three ', 'four']";
    on_each_family(scenario, |name, handle| {
        assert_eq!(prompted(handle, "first: one t").text(), "wo", "{name}");
        assert_eq!(prompted(handle, "other: one t").text(), "another", "{name}");
        let got = run(handle, &RunInput::Tokens(&[17, 5, 1000]), 1);
        assert_eq!(got.text(), "four", "{name}");
        let got = run(handle, &RunInput::Tokens(&[18, 5, 1000]), 1);
        assert_eq!(got.text(), "", "{name}: the other answer's only token");
    });
}

#[test]
fn faults_and_budgets_count_the_tokens_of_this_run() {
    let scenario = "continue-answers = true\ntokens = ['a', 'b', 'c', 'd']\n\
        [[fault]]\ncall = 'run'\nafter-tokens = 1\nkind = 'never-finish'";
    on_each_family(scenario, |name, handle| {
        let got = prompted(handle, "x: ab");
        assert_eq!((got.text().as_str(), got.all().len()), ("c", 1), "{name}");
    });
    for name in RUN_FAMILIES {
        let model = Model::new("continue-answers = true\ntokens = ['a', 'b', 'c', 'd']");
        let mut params = model.params();
        params.max_new_tokens = Some(1);
        let handle = open(name).init(&params).expect(name);
        handle.set_chat_template("", "", "").expect(name);
        assert_eq!(prompted(&handle, "x: ab").text(), "c", "{name}");
    }
}

#[test]
fn without_the_key_every_answer_begins_at_its_beginning() {
    on_each_family("tokens = ['a', 'b']", |name, handle| {
        assert_eq!(prompted(handle, "x: a").text(), "ab", "{name}");
        let got = run(handle, &RunInput::Tokens(&[1000]), 1);
        assert_eq!(got.text(), "ab", "{name}");
    });
}

#[test]
fn the_kind_of_input_is_visible() {
    on_each_family("tokens = ['{params}']", |name, handle| {
        let kind = |input| {
            let report = run(handle, input, 1).text();
            let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
            report["run"]["input_type"].as_i64()
        };
        assert_eq!(kind(&RunInput::Prompt("x")), Some(0), "{name}");
        assert_eq!(kind(&RunInput::Tokens(&[1])), Some(1), "{name}");
    });
}
