//! What models of each family write is read as thoughts, content and calls, however it is cut into
//! tokens.

use crate::reply_support::examples::{Example, examples, types};
use crate::reply_support::{Said, TokensOfMarkers, parser, read, splits};
#[allow(dead_code)]
use proptest::prelude::*;
use rkllmd::reply::ReplyFormat;

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
    for example in examples() {
        let format = example.family.format();
        for (index, tokens) in splits(&plain(&example), &[]).into_iter().enumerate() {
            assert_eq!(
                said(&format, &example, tokens),
                example.said,
                "{} split {index}: {}",
                example.family,
                example.output
            );
        }
    }
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
