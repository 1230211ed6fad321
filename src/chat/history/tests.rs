use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn message(role: ChatRole) -> ChatMessage {
    ChatMessage::new(role, "x")
}

fn calling(ids: &[&str]) -> ChatMessage {
    let calls: Vec<_> = ids
        .iter()
        .map(|id| json!({"id": id, "function": {"name": "f", "arguments": "{}"}}))
        .collect();
    let mut message = message(ChatRole::Assistant);
    message.more.insert("tool_calls".to_owned(), json!(calls));
    message
}

fn result(id: Option<&str>) -> ChatMessage {
    let mut message = message(ChatRole::Tool);
    if let Some(id) = id {
        message.more.insert("tool_call_id".to_owned(), json!(id));
    }
    message
}

fn kept(messages: &[ChatMessage], turns: usize) -> Vec<usize> {
    Turns::of(messages).kept(turns, messages).collect()
}

#[test]
fn the_oldest_turns_go_and_the_system_stays() {
    use ChatRole::{Assistant, System, User};
    let messages: Vec<_> = [System, User, Assistant, User, Assistant, System, User]
        .into_iter()
        .map(message)
        .collect();
    assert_eq!(Turns::of(&messages).most(), 2);
    assert_eq!(kept(&messages, 0), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(kept(&messages, 1), [0, 3, 4, 5, 6]);
    assert_eq!(kept(&messages, 2), [0, 5, 6]);
}

#[test]
fn a_greeting_is_a_turn_of_its_own_and_one_turn_stays() {
    use ChatRole::{Assistant, System, User};
    let greeted: Vec<_> = [System, Assistant, User].into_iter().map(message).collect();
    assert_eq!(kept(&greeted, 1), [0, 2]);
    let alone: Vec<_> = [System, User, Assistant].into_iter().map(message).collect();
    assert_eq!(Turns::of(&alone).most(), 0);
    assert_eq!(Turns::of(&[]).most(), 0);
}

#[test]
fn a_result_that_comes_late_keeps_its_call() {
    let user = || message(ChatRole::User);
    // The user speaks before the second result is there.
    let messages = [
        user(),
        calling(&["a", "b"]),
        result(Some("a")),
        user(),
        result(Some("b")),
        user(),
    ];
    assert_eq!(Turns::of(&messages).most(), 1);
    assert_eq!(kept(&messages, 1), [5]);
    let unnamed = [user(), calling(&["a"]), user(), result(None), user()];
    assert_eq!(kept(&unnamed, 1), [4]);
}

/// Any order of messages, with ids that are made, answered late, twice or never.
fn any_messages() -> impl Strategy<Value = Vec<ChatMessage>> {
    let id = prop::sample::select(vec!["a", "b", "c"]);
    let one = prop_oneof![
        Just(message(ChatRole::System)),
        Just(message(ChatRole::User)),
        Just(message(ChatRole::Assistant)),
        prop::collection::vec(id.clone(), 1..3).prop_map(|ids| calling(&ids)),
        prop::option::of(id).prop_map(result),
    ];
    prop::collection::vec(one, 0..24)
}

/// The call that each result answers: the last one of its id before it, else the last one.
fn calls_of_results(messages: &[ChatMessage]) -> Vec<(usize, usize)> {
    let ids = |message: &ChatMessage| -> BTreeSet<String> {
        let calls = message
            .more
            .get("tool_calls")
            .and_then(|calls| calls.as_array());
        let ids = calls.into_iter().flatten().map(|call| call["id"].as_str());
        ids.map(|id| id.expect("an id").to_owned()).collect()
    };
    let results = messages.iter().enumerate();
    let results = results.filter(|(_, message)| message.role == ChatRole::Tool);
    let pair = |(index, message): (usize, &ChatMessage)| {
        let id = message.more.get("tool_call_id").and_then(|id| id.as_str());
        let before = || (0..index).rev();
        let named = id.and_then(|id| before().find(|at| ids(&messages[*at]).contains(id)));
        let call = named.or_else(|| before().find(|at| !ids(&messages[*at]).is_empty()));
        call.map(|call| (call, index))
    };
    results.filter_map(pair).collect()
}

/// Turns of these many bytes, in which the system speaks at times.
fn turns_of(bytes: &[usize]) -> Vec<ChatMessage> {
    let turn = |(at, bytes): (usize, &usize)| {
        let system = (at % 3 == 1).then(|| ChatMessage::new(ChatRole::System, "y".repeat(at)));
        let said = ChatMessage::new(ChatRole::User, "x".repeat(bytes / 2));
        let answered = ChatMessage::new(ChatRole::Assistant, "x".repeat(bytes - bytes / 2));
        system.into_iter().chain([said, answered])
    };
    bytes.iter().enumerate().flat_map(turn).collect()
}

proptest! {
    /// What goes at one turn goes at the next ones, until a quarter of the room is full again.
    #[test]
    fn the_same_turns_are_gone_many_times_in_a_row(
        bytes in prop::collection::vec(1_usize..120, 40..80),
        room in 100_usize..200,
    ) {
        let fewest = |all: &[ChatMessage], turns: &Turns, steps: &[usize]| -> usize {
            let size = |gone: usize| turns.kept(gone, all).map(|at| all[at].bytes()).sum::<usize>();
            let fits = |gone: &&usize| size(**gone) <= room * BYTES_PER_TOKEN;
            let gone = steps.iter().find(fits).copied();
            gone.unwrap_or(turns.most())
        };
        let (mut changes, mut last, mut grown) = (0, 0, 0);
        for count in 1..=bytes.len() {
            let all = turns_of(&bytes[..count]);
            let turns = Turns::of(&all);
            let steps = turns.steps(&all, room);
            prop_assert!(steps.is_sorted_by(|a, b| a < b));
            prop_assert_eq!((steps[0], steps[steps.len() - 1]), (0, turns.most()));
            let gone = fewest(&all, &turns, &steps);
            prop_assert!(gone >= last);
            if gone != last {
                changes += 1;
                last = gone;
            }
            if gone > 0 {
                grown += bytes[count - 1];
                // No more goes than a step and a turn beyond what had to.
                let every = Vec::from_iter(0..=turns.most());
                let had_to = fewest(&all, &turns, &every);
                let more: usize = bytes[had_to..gone].iter().sum();
                prop_assert!(more <= room / STEPS * BYTES_PER_TOKEN + 120, "{} bytes", more);
            }
        }
        // So many bytes come at least from one change to the next.
        let step = room / STEPS * BYTES_PER_TOKEN;
        prop_assert!(changes <= grown / step.saturating_sub(120).max(1) + 2, "{} changes", changes);
    }

    #[test]
    fn nothing_is_split_and_nothing_said_by_the_system_goes(messages in any_messages()) {
        let turns = Turns::of(&messages);
        let mut before = messages.len() + 1;
        for count in 0..=turns.most() {
            let kept: BTreeSet<usize> = turns.kept(count, &messages).collect();
            prop_assert!(kept.len() < before, "each turn has a message");
            before = kept.len();
            for (call, result) in calls_of_results(&messages) {
                prop_assert_eq!(kept.contains(&call), kept.contains(&result));
            }
            let first = kept.iter().copied().find(|at| messages[*at].role != ChatRole::System);
            for (index, message) in messages.iter().enumerate() {
                let is_system = message.role == ChatRole::System;
                let stays = is_system || first.is_some_and(|first| index >= first);
                prop_assert_eq!(kept.contains(&index), stays, "{} of {}", index, count);
            }
            if let Some(first) = first.filter(|_| count > 0) {
                prop_assert_eq!(messages[first].role, ChatRole::User);
            }
            // What is asked stays.
            let last = messages.iter().rposition(|message| message.role != ChatRole::System);
            prop_assert!(last.is_none_or(|last| kept.contains(&last)));
        }
    }

    /// The fewest turns go that are enough, after few tries.
    #[test]
    fn the_search_finds_the_fewest(
        sizes in prop::collection::vec((1_usize..2000, 1_usize..600), 2..200),
        most_percent in 1_usize..100,
        is_endless in any::<bool>(),
    ) {
        let of_rest = |part: fn(&(usize, usize)) -> usize| -> Vec<usize> {
            (0..sizes.len()).map(|from| sizes[from..].iter().map(part).sum()).collect()
        };
        let (bytes, tokens) = (of_rest(|size| size.0), of_rest(|size| size.1));
        let room = tokens[0] * most_percent / 100;
        prop_assume!(tokens[0] > room);
        let whole = if is_endless { Size::Endless } else { Size::Tokens(tokens[0]) };
        let mut search = Search::new(room, &bytes, whole);
        let mut tries = 0_u32;
        while let Some(turns) = search.next() {
            prop_assert!((1..sizes.len()).contains(&turns));
            search.learn(turns, Size::Tokens(tokens[turns]));
            tries += 1;
            prop_assert!(tries <= 12, "of {} turns", sizes.len());
        }
        let fewest = (1..sizes.len()).find(|turns| tokens[*turns] <= room);
        prop_assert_eq!(search.found(), fewest);
    }
}
