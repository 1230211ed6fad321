//! What models of each family write is read as thoughts, content and calls, however it is cut into
//! tokens.

use crate::reply_support::examples::{Example, examples, types};
use crate::reply_support::{Said, TokensOfMarkers, call, parser, read, splits};
#[allow(dead_code)]
use proptest::prelude::*;
use rkllmd::reply::{OpenedIn, ReplyFamily, ReplyFormat};

fn plain(example: &Example) -> String {
    example.output.replace('¦', "")
}

fn said(
    format: &ReplyFormat,
    example: &Example,
    tokens: Vec<rkllmd::reply::ReplyToken>,
) -> Vec<Said> {
    read(parser(format, example.opened_in, types()), tokens)
}

#[test]
fn every_family_is_read_in_one_piece_and_in_single_characters() {
    let mut wrong = Vec::new();
    for example in examples() {
        let format = example.family.format();
        for (index, tokens) in splits(&plain(&example), &[]).into_iter().enumerate() {
            let said = said(&format, &example, tokens);
            if said != example.said {
                let Example { family, output, .. } = example;
                wrong.push(format!("{family} split {index}: {output:?}: {said:?}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn markers_that_are_tokens_are_read_whether_the_runtime_prints_them_or_not() {
    for example in examples() {
        for is_printed in [false, true] {
            let tokens = TokensOfMarkers::new(is_printed);
            let format = example.family.format().with_ids(&|text| tokens.id(text));
            let output = tokens.cut(&mut format.clone(), example.output, &[]);
            assert_eq!(
                said(&format, &example, output),
                example.said,
                "{} printed {is_printed}: {}",
                example.family,
                example.output
            );
        }
    }
}

#[test]
fn a_parameter_that_is_not_closed_ends_with_its_call() {
    let tokens = TokensOfMarkers::new(true);
    let only_calls = |text: &str| {
        let is_around_calls = text.contains("tool_call");
        is_around_calls.then(|| tokens.id(text)).flatten()
    };
    for output in [
        "<tool_call>\n<function=f>\n<parameter=a>\nabc\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n<parameter=b>\nx\n</function>\n</tool_call>",
        "<tool_call>\n<function=f>\n<parameter=a>\nabc\n</tool_call><tool_call>\n<function=g>\n<parameter=b>\nx\n</tool_call>\n",
        "<function=f>\n<parameter=a>\nabc\n</function>\n<function=g>\n<parameter=b>\nx\n</function>\n</tool_call>",
    ] {
        let format = ReplyFamily::Qwen3Coder.format();
        let by_id = format.clone().with_ids(&only_calls);
        let mut answers: Vec<_> = splits(output, &[])
            .into_iter()
            .map(|tokens| (&format, tokens))
            .collect();
        answers.push((&by_id, tokens.cut(&mut by_id.clone(), output, &[])));
        for (format, answer) in answers {
            assert_eq!(
                read(parser(format, OpenedIn::Content, types()), answer),
                [call("f", "{\"a\": \"abc\"}"), call("g", "{\"b\": \"x\"}")],
                "{output}"
            );
        }
    }
    // What only reads like an end is the value's.
    let output = "<tool_call>\n<function=f>\n<parameter=a>\n</tool_call>, </function>\n</parameter>\n</function>\n</tool_call>";
    for tokens in splits(output, &[]) {
        let format = ReplyFamily::Qwen3Coder.format();
        assert_eq!(
            read(parser(&format, OpenedIn::Content, types()), tokens),
            [call("f", "{\"a\": \"</tool_call>, </function>\"}")]
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_an_answer_is_cut_does_not_matter(cuts in prop::collection::vec(0usize..10_000, 0..40)) {
        for example in examples() {
            let format = example.family.format();
            for tokens in splits(&plain(&example), &cuts) {
                prop_assert_eq!(&said(&format, &example, tokens), &example.said, "{}", example.output);
            }
            let tokens = TokensOfMarkers::new(false);
            let format = format.with_ids(&|text| tokens.id(text));
            let output = tokens.cut(&mut format.clone(), example.output, &cuts);
            prop_assert_eq!(&said(&format, &example, output), &example.said, "{}", example.output);
        }
    }
}
