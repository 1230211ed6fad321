use super::*;
use proptest::prelude::*;

fn answer(tokens: &[(TokenKind, Option<i32>, &str)]) -> AnswerSoFar {
    let mut answer = AnswerSoFar::default();
    for (kind, id, text) in tokens {
        answer.push(*kind, *id, text);
    }
    answer.roll_back();
    answer
}

#[test]
fn text_and_ids_are_handed_over() {
    let answer = answer(&[
        (TokenKind::Text, Some(1), "a"),
        (TokenKind::Text, Some(2), "b"),
    ]);
    let begun = answer.begun(true).unwrap().unwrap();
    assert_eq!(
        (begun.text.as_str(), begun.token_ids),
        ("ab", Some(vec![1, 2]))
    );
    let by_text = answer.begun(false).unwrap().unwrap();
    assert_eq!(by_text.token_ids, None);
}

#[test]
fn what_was_made_is_told_as_far_as_it_is_known() {
    let ids = |answer: &AnswerSoFar, behind| answer.made_behind(behind).collect::<Vec<_>>();
    let mut known = AnswerSoFar::default();
    known.push(TokenKind::Text, Some(1), "a");
    known.put_in("</think>", Some(9));
    known.push(TokenKind::Text, Some(2), "b");
    known.push(TokenKind::Partial, Some(3), "");
    assert_eq!(ids(&known, 1), [Some(2), Some(3)]);
    assert_eq!(ids(&known, 3), []);
    known.push(TokenKind::Text, None, "c");
    assert_eq!(ids(&known, 1), [None, None, None]);
}

#[test]
fn half_a_character_is_made_again() {
    let answer = answer(&[
        (TokenKind::Text, Some(1), "a"),
        (TokenKind::Partial, Some(2), ""),
    ]);
    assert_eq!(answer.tokens(), 1);
    let begun = answer.begun(true).unwrap().unwrap();
    assert_eq!(begun.token_ids, Some(vec![1]));
}

#[test]
fn a_token_that_gave_a_part_of_its_text_goes_by_text() {
    let answer = answer(&[
        (TokenKind::Text, Some(1), "a"),
        (TokenKind::Partial, Some(2), "b"),
        (TokenKind::Partial, Some(3), ""),
    ]);
    assert_eq!(answer.tokens(), 2);
    let begun = answer.begun(true).unwrap().unwrap();
    assert_eq!((begun.text.as_str(), begun.token_ids), ("ab", None));
}

#[test]
fn a_swallowed_token_before_text_needs_its_id() {
    let swallowed = answer(&[
        (TokenKind::Text, Some(1), "a"),
        (TokenKind::Swallowed, Some(9), ""),
        (TokenKind::Text, Some(2), "b"),
    ]);
    assert_eq!(swallowed.begun(false), Err(Inexact::SwallowedToken));
    let begun = swallowed.begun(true).unwrap().unwrap();
    assert_eq!(begun.token_ids, Some(vec![1, 9, 2]));
    let without_id = answer(&[
        (TokenKind::Swallowed, None, ""),
        (TokenKind::Partial, Some(2), "b"),
    ]);
    assert_eq!(without_id.begun(true), Err(Inexact::SwallowedToken));
}

#[test]
fn a_swallowed_token_at_the_end_is_made_again() {
    let swallowed = answer(&[
        (TokenKind::Text, Some(1), "a"),
        (TokenKind::Swallowed, Some(9), ""),
    ]);
    assert_eq!(swallowed.tokens(), 1);
    let begun = swallowed.begun(true).unwrap().unwrap();
    assert_eq!(begun.token_ids, Some(vec![1]));
    let by_text = swallowed.begun(false).unwrap().unwrap();
    assert_eq!(by_text.text, "a");
    let only = answer(&[(TokenKind::Swallowed, None, "")]);
    assert_eq!(only.begun(false), Ok(None), "from the beginning");
}

#[test]
fn bytes_that_are_no_text_need_their_tokens() {
    let replaced = answer(&[
        (TokenKind::Replaced, Some(1), "\u{fffd}"),
        (TokenKind::Text, Some(2), "b"),
    ]);
    assert_eq!(replaced.begun(false), Err(Inexact::ReplacedBytes));
    let begun = replaced.begun(true).unwrap().unwrap();
    assert_eq!(begun.token_ids, Some(vec![1, 2]));
}

#[test]
fn nothing_but_a_half_character_starts_from_the_beginning() {
    let answer = answer(&[(TokenKind::Partial, Some(1), "")]);
    assert_eq!(answer.begun(true), Ok(None));
}

#[test]
fn what_is_left_of_half_a_character_is_no_token() {
    let mut answer = AnswerSoFar::default();
    answer.push(TokenKind::Text, Some(1), "a");
    answer.push(TokenKind::Partial, Some(2), "");
    answer.push(TokenKind::Rest, None, "\u{fffd}");
    answer.roll_back();
    assert_eq!(answer.tokens(), 2);
    assert_eq!(answer.begun(false), Err(Inexact::ReplacedBytes));
}

#[test]
fn what_is_put_in_is_handed_over_and_is_not_counted_as_made() {
    let mut answer = AnswerSoFar::default();
    answer.push(TokenKind::Text, Some(1), "a");
    // Half a character, which no client has seen.
    answer.push(TokenKind::Partial, Some(2), "");
    answer.put_in("</t>", Some(9));
    answer.push(TokenKind::Text, Some(3), "b");
    answer.push(TokenKind::Swallowed, Some(4), "");
    answer.roll_back();
    assert_eq!((answer.tokens(), answer.tokens_in_context()), (2, Some(3)));
    let begun = answer.begun(true).unwrap().unwrap();
    assert_eq!(
        (begun.text.as_str(), begun.token_ids, begun.tokens),
        ("a</t>b", Some(vec![1, 9, 3]), Some(3))
    );
}

#[test]
fn a_text_of_unknown_tokens_is_put_in_as_text() {
    let mut answer = AnswerSoFar::default();
    answer.put_in("</t>", None);
    assert_eq!((answer.tokens(), answer.tokens_in_context()), (0, None));
    let begun = answer.begun(true).unwrap().unwrap();
    assert_eq!((begun.text.as_str(), begun.token_ids), ("</t>", None));
}

fn any_token() -> impl Strategy<Value = (TokenKind, Option<i32>, String)> {
    prop_oneof![
        (prop::option::of(0i32..9), "[ab]{1,2}").prop_map(|(id, text)| (TokenKind::Text, id, text)),
        (prop::option::of(0i32..9), "[ab]{0,2}").prop_map(|(id, text)| (
            TokenKind::Partial,
            id,
            text
        )),
        prop::option::of(0i32..9).prop_map(|id| (TokenKind::Swallowed, id, String::new())),
        prop::option::of(0i32..9).prop_map(|id| (TokenKind::Replaced, id, "\u{fffd}".to_owned())),
    ]
}

proptest! {
    #[test]
    fn what_is_handed_over_is_what_was_received(
        lives in prop::collection::vec(prop::collection::vec(any_token(), 0..6), 1..4),
        trusted in any::<bool>(),
    ) {
        let mut answer = AnswerSoFar::default();
        let mut received = String::new();
        let mut pushed = 0;
        for life in lives {
            for (kind, id, text) in life {
                answer.push(kind, id, &text);
                received.push_str(&text);
                pushed += 1;
            }
            answer.roll_back();
            prop_assert!(answer.tokens() <= pushed);
            if let Ok(Some(begun)) = answer.begun(trusted) {
                prop_assert_eq!(&begun.text, &received);
                if let Some(ids) = begun.token_ids {
                    prop_assert_eq!(u32::try_from(ids.len()).unwrap(), answer.tokens());
                }
            } else if !received.is_empty() {
                prop_assert!(answer.begun(trusted).is_err(), "text is never forgotten");
            }
        }
    }
}
