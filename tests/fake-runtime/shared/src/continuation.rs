//! Where an answer goes on when its beginning is already at the end of the prompt: after the
//! longest such beginning, to the byte. Nothing here runs for a scenario without
//! `continue-answers`.

use crate::answer::{Event, NORMAL, Sequence};
use std::ffi::CString;

/// What of a sequence is left to hand over.
#[derive(Default)]
pub struct Start {
    /// The rest of a token whose beginning is in the prompt; comes first.
    pub head: Option<Event>,
    /// Events of the sequence that are not handed over, that of `head` among them.
    pub skip: u64,
}

/// The longest beginning of the answer's text that `prompt` ends with, left out.
pub fn of_text(sequence: &Sequence, prompt: &[u8]) -> Start {
    let cycle: Vec<u8> = sequence.events.iter().flat_map(text).copied().collect();
    let found = longest_beginning_at_the_end(&cycle, sequence.times, prompt);
    if found == 0 {
        return Start::default();
    }
    let events = sequence.events.len() as u64;
    if found as u64 == sequence.times.saturating_mul(cycle.len() as u64) {
        // Tokens without text at its end are part of an answer that is already there.
        return Start {
            head: None,
            skip: sequence.times * events,
        };
    }
    let mut rest = (found - 1) % cycle.len() + 1;
    let mut skip = ((found - rest) / cycle.len()) as u64 * events;
    for event in &sequence.events {
        if rest == 0 {
            break;
        }
        skip += 1;
        let text = text(event);
        if rest < text.len() {
            let left = CString::new(&text[rest..]).expect("part of a C string");
            let head = Some(Event {
                state: NORMAL,
                text: left,
                id: event.id,
                in_prompt: None,
            });
            return Start { head, skip };
        }
        rest -= text.len();
    }
    Start { head: None, skip }
}

/// The longest beginning of the answer's token ids that `ids` end with, left out.
pub fn of_ids(sequence: &Sequence, ids: &[i32]) -> Start {
    let cycle: Vec<i32> = sequence.events.iter().map(|event| event.id).collect();
    let found = longest_beginning_at_the_end(&cycle, sequence.times, ids);
    Start {
        head: None,
        skip: found as u64,
    }
}

/// What stands for it in a prompt: that of a token stands for its NORMAL, not for the WAITINGs before it.
fn text(event: &Event) -> &[u8] {
    match &event.in_prompt {
        _ if event.state != NORMAL => b"",
        Some(text) => text,
        None => event.text.as_bytes(),
    }
}

/// Length of the longest beginning of `cycle`, taken `times` times, that `all` ends with (Knuth,
/// Morris and Pratt's search, in time linear in that length at most).
fn longest_beginning_at_the_end<T: Copy + Eq>(cycle: &[T], times: u64, all: &[T]) -> usize {
    let times = usize::try_from(times).unwrap_or(usize::MAX);
    let most = cycle.len().saturating_mul(times).min(all.len());
    let wanted: Vec<T> = cycle.iter().copied().cycle().take(most).collect();
    // For each place, the length of the longest beginning that ends there and is not all of it.
    let mut shorter = vec![0; most];
    let advance = |shorter: &[usize], mut matched: usize, item: T| {
        while matched > 0 && (matched == most || wanted[matched] != item) {
            matched = shorter[matched - 1];
        }
        matched + usize::from(wanted[matched] == item)
    };
    for place in 1..most {
        shorter[place] = advance(&shorter, shorter[place - 1], wanted[place]);
    }
    all[all.len() - most..]
        .iter()
        .fold(0, |matched, item| advance(&shorter, matched, *item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::WAITING;
    use proptest::prelude::*;

    fn event(state: u32, text: &[u8], id: i32) -> Event {
        Event {
            state,
            text: CString::new(text).expect("no NUL"),
            id,
            in_prompt: None,
        }
    }

    fn sequence(tokens: &[(u32, Vec<u8>)], times: u64) -> Sequence {
        let mut events = Vec::new();
        for (index, (pieces, text)) in tokens.iter().enumerate() {
            let id = 1000 + i32::try_from(index).expect("few");
            events.extend((1..*pieces).map(|_| event(WAITING, b"", id)));
            events.push(event(NORMAL, text, id));
        }
        Sequence {
            events,
            times,
            end: None,
            end_ignored: false,
        }
    }

    /// All events in the order in which they come.
    fn unrolled(sequence: &Sequence) -> Vec<&Event> {
        (0..sequence.times).flat_map(|_| &sequence.events).collect()
    }

    fn remainder(sequence: &Sequence, start: &Start) -> Vec<u8> {
        let head = start.head.iter();
        let others = unrolled(sequence).into_iter().skip(start.skip as usize);
        head.chain(others).flat_map(text).copied().collect()
    }

    /// The obvious way, as slow as it is.
    fn longest_by_trying(answer: &[u8], prompt: &[u8]) -> usize {
        let lengths = (0..=answer.len()).rev();
        lengths
            .into_iter()
            .find(|length| prompt.ends_with(&answer[..*length]))
            .expect("every prompt ends with nothing")
    }

    /// Few different bytes, so that beginnings overlap; parts of characters among them.
    fn tokens() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
        let byte = prop::sample::select(vec![b'a', b'b', 0xE2, 0x82, 0xAC]);
        prop::collection::vec((1u32..4, prop::collection::vec(byte, 0..4)), 0..12)
    }

    proptest! {
        #[test]
        fn prefix_and_remainder_are_the_answer(
            tokens in tokens(), times in 0u64..4, before in "[ab]{0,6}",
        ) {
            let sequence = sequence(&tokens, times);
            let answer: Vec<u8> = unrolled(&sequence).into_iter().flat_map(text).copied().collect();
            for cut in 0..=answer.len() {
                let prompt = [before.as_bytes(), &answer[..cut]].concat();
                let found = longest_by_trying(&answer, &prompt);
                prop_assert!(found >= cut);
                let start = of_text(&sequence, &prompt);
                prop_assert_eq!(remainder(&sequence, &start), &answer[found..]);
            }
        }

        #[test]
        fn ids_and_what_comes_after_them_are_the_answer(tokens in tokens(), times in 0u64..4) {
            let sequence = sequence(&tokens, times);
            let ids: Vec<i32> = unrolled(&sequence).iter().map(|event| event.id).collect();
            for cut in 0..=ids.len() {
                let input = [&[1, 2], &ids[..cut]].concat();
                let start = of_ids(&sequence, &input);
                prop_assert!(start.head.is_none());
                // Ids of two tokens differ, but a token's pieces have the same one.
                let skipped = &ids[..start.skip as usize];
                prop_assert!(input.ends_with(skipped) && skipped.len() >= cut);
            }
        }
    }

    #[test]
    fn a_token_that_was_cut_keeps_its_id_and_its_state() {
        let sequence = sequence(&[(1, b"one".to_vec()), (3, "€".as_bytes().to_vec())], 1);
        let start = of_text(&sequence, b"prompt: one\xE2\x82");
        let head = start.head.expect("the rest of the character");
        assert_eq!((head.state, head.id), (NORMAL, 1001));
        assert_eq!(head.text.as_bytes(), b"\xAC");
        assert_eq!(start.skip, 4, "and its two WAITINGs do not come");
    }

    #[test]
    fn a_whole_answer_leaves_nothing_not_even_its_tokens_without_text() {
        let sequence = sequence(&[(1, b"a".to_vec()), (1, Vec::new())], 2);
        assert_eq!(of_text(&sequence, b"x aa").skip, 4);
        assert_eq!(
            of_text(&sequence, b"x a").skip,
            1,
            "one without text is due"
        );
        assert_eq!(of_text(&sequence, b"x").skip, 0);
    }

    #[test]
    fn a_long_answer_is_searched_once() {
        let sequence = sequence(&[(1, b"aaaaaaab".to_vec())], u64::MAX);
        let prompt = b"aaaaaaab".repeat(100_000);
        // Quadratic, this would take minutes.
        assert_eq!(of_text(&sequence, &prompt).skip, 100_000);
    }
}
