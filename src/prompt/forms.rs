//! Forms of one conversation for templates that do not take every one: for those without a system turn,
//! those whose roles must alternate, and those that know one call an answer. No form loses a text.

use minijinja::value::Value;

use super::ChatRole;
use super::conversation::Turn;

/// Puts each system text before the next user turn; where none follows, it stays where it is, as a part
/// of the user turn before it or as one of its own.
pub(super) fn fold_system(turns: Vec<Turn>) -> Vec<Turn> {
    let mut folded: Vec<Turn> = Vec::with_capacity(turns.len());
    // Each with the number of turns before it.
    let mut pending: Vec<(usize, String)> = Vec::new();
    for mut turn in turns {
        match turn.role {
            ChatRole::System => {
                if !turn.content.trim().is_empty() {
                    pending.push((folded.len(), turn.content));
                }
                continue;
            }
            ChatRole::User => {
                let before = pending.drain(..).map(|(_, text)| text);
                let texts: Vec<String> = before.chain([turn.content]).collect();
                turn.content = texts.join("\n\n");
            }
            ChatRole::Assistant | ChatRole::Tool => {}
        }
        folded.push(turn);
    }
    let mut added = 0;
    for (before, text) in pending {
        let at = before + added;
        match folded[..at].last_mut() {
            Some(last) if last.role == ChatRole::User => append(&mut last.content, &text),
            _ => {
                folded.insert(at, Turn::new(ChatRole::User, text));
                added += 1;
            }
        }
    }
    folded
}

fn append(content: &mut String, text: &str) {
    if !content.is_empty() && !text.is_empty() {
        content.push_str("\n\n");
    }
    content.push_str(text);
}

/// Makes neighbours of one role one turn, as templates want it whose roles must alternate. Where users of
/// different names become one, each name stands before its text. Answers that have the same further keys
/// stay apart, and so do users that differ in more than their names.
pub(super) fn merge_neighbours(turns: Vec<Turn>) -> Vec<Turn> {
    let mut merged: Vec<Turn> = Vec::with_capacity(turns.len());
    // Neighbours that become one.
    let mut users: Vec<Turn> = Vec::new();
    for turn in turns {
        let is_user = turn.role == ChatRole::User;
        if !(is_user && users.last().is_some_and(|last| differ_in_name(last, &turn))) {
            merged.extend(as_one_user(std::mem::take(&mut users)));
        }
        if is_user {
            users.push(turn);
            continue;
        }
        match merged.last_mut() {
            Some(last) if are_mergeable(last, &turn) => {
                append(&mut last.content, &turn.content);
                last.more.extend(turn.more);
            }
            _ => merged.push(turn),
        }
    }
    merged.extend(as_one_user(users));
    merged
}

fn are_mergeable(first: &Turn, second: &Turn) -> bool {
    // Behind a call comes its result.
    first.role == ChatRole::Assistant
        && second.role == ChatRole::Assistant
        && first.get(CALLS).is_none()
        && !first.shares_a_key(second)
}

const NAME: &str = "name";

/// They differ in nothing else, and perhaps not even in that.
fn differ_in_name(first: &Turn, second: &Turn) -> bool {
    fn others(turn: &Turn) -> impl Iterator<Item = &(String, Value)> {
        turn.more.iter().filter(|(name, _)| name != NAME)
    }
    others(first).eq(others(second))
}

fn as_one_user(users: Vec<Turn>) -> Option<Turn> {
    let mut users = users.into_iter();
    let mut one = users.next()?;
    let others: Vec<Turn> = users.collect();
    let have_names = others.iter().any(|user| user.get(NAME) != one.get(NAME));
    let named = |user: &Turn| match user.get(NAME).filter(|_| have_names) {
        Some(name) => format!("{name}: {}", user.content),
        None => user.content.clone(),
    };
    one.content = named(&one);
    for user in &others {
        append(&mut one.content, &named(user));
    }
    if have_names {
        one.more.retain(|(name, _)| name != NAME);
    }
    Some(one)
}

/// Puts an empty question before an answer that opens the conversation, such as a greeting.
pub(super) fn begin_with_the_user(mut turns: Vec<Turn>) -> Vec<Turn> {
    let first = turns.iter().position(|turn| turn.role != ChatRole::System);
    if let Some(first) = first
        && turns[first].role == ChatRole::Assistant
    {
        turns.insert(first, Turn::new(ChatRole::User, ""));
    }
    turns
}

const CALLS: &str = "tool_calls";

/// Gives each call an answer of its own, with its result behind it.
pub(super) fn one_call_an_answer(turns: Vec<Turn>) -> Vec<Turn> {
    let mut split: Vec<Turn> = Vec::with_capacity(turns.len());
    let mut turns = turns.into_iter().peekable();
    while let Some(mut turn) = turns.next() {
        let calls: Vec<Value> = turn
            .get(CALLS)
            .and_then(|calls| calls.try_iter().ok())
            .map(Iterator::collect)
            .unwrap_or_default();
        if calls.len() < 2 {
            split.push(turn);
            continue;
        }
        for call in calls {
            let id = call.get_attr("id").ok();
            turn.set(CALLS, Value::from(vec![call]));
            split.push(std::mem::replace(
                &mut turn,
                Turn::new(ChatRole::Assistant, ""),
            ));
            let is_its_result = |result: &Turn| {
                result.role == ChatRole::Tool && result.get("tool_call_id") == id.as_ref()
            };
            while let Some(result) = turns.next_if(is_its_result) {
                split.push(result);
            }
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use super::ChatRole::{Assistant, System, Tool, User};
    use super::*;

    fn turn(role: ChatRole, content: &str) -> Turn {
        Turn::new(role, content)
    }

    fn all(turns: Vec<(ChatRole, &str)>) -> Vec<Turn> {
        let turns = turns.into_iter();
        turns.map(|(role, text)| turn(role, text)).collect()
    }

    fn with(mut turn: Turn, key: &str, value: impl Into<Value>) -> Turn {
        turn.set(key, value.into());
        turn
    }

    #[test]
    fn system_text_goes_before_the_next_user_text() {
        let folded = fold_system(vec![
            turn(System, "be brief"),
            turn(System, "be kind"),
            turn(User, "hi"),
            turn(Assistant, "ho"),
            turn(System, ""),
            turn(User, "more"),
        ]);
        let contents: Vec<_> = folded.iter().map(|turn| turn.content.as_str()).collect();
        assert_eq!(contents, ["be brief\n\nbe kind\n\nhi", "ho", "more"]);
    }

    #[test]
    fn system_text_that_no_user_turn_follows_stays_where_it_is() {
        for (turns, folded) in [
            (vec![(System, "only")], vec![(User, "only")]),
            (
                vec![(User, "hi"), (System, "late"), (System, "later")],
                vec![(User, "hi\n\nlate\n\nlater")],
            ),
            (
                vec![(User, "hi"), (System, "before"), (Assistant, "Bon")],
                vec![(User, "hi\n\nbefore"), (Assistant, "Bon")],
            ),
            (
                vec![
                    (User, "hi"),
                    (Assistant, "ho"),
                    (System, "a"),
                    (System, "b"),
                    (Assistant, "he"),
                    (System, "c"),
                ],
                vec![
                    (User, "hi"),
                    (Assistant, "ho"),
                    (User, "a\n\nb"),
                    (Assistant, "he"),
                    (User, "c"),
                ],
            ),
        ] {
            assert_eq!(fold_system(all(turns)), all(folded));
        }
    }

    #[test]
    fn neighbours_of_one_role_become_one_turn() {
        let calling = with(turn(Assistant, ""), CALLS, vec![1]);
        let turns = vec![
            turn(User, "a"),
            turn(User, "b"),
            with(turn(Assistant, "d"), "thinking", "so"),
            calling.clone(),
            calling.clone(),
            turn(System, "e"),
            turn(System, "f"),
        ];
        assert_eq!(
            merge_neighbours(turns),
            [
                turn(User, "a\n\nb"),
                with(with(turn(Assistant, "d"), "thinking", "so"), CALLS, vec![1]),
                calling,
                turn(System, "e"),
                turn(System, "f"),
            ]
        );
    }

    #[test]
    fn users_of_different_names_become_one_that_tells_them_apart() {
        let user = |name: &str, text| with(turn(User, text), "name", name);
        for (turns, merged) in [
            (
                vec![turn(User, "a"), user("Ada", "b"), user("Bob", "c")],
                vec![turn(User, "a\n\nAda: b\n\nBob: c")],
            ),
            (
                vec![user("Ada", "a"), user("Ada", "b")],
                vec![user("Ada", "a\n\nb")],
            ),
            (
                vec![user("Ada", "a"), turn(Assistant, "b"), user("Bob", "c")],
                vec![user("Ada", "a"), turn(Assistant, "b"), user("Bob", "c")],
            ),
            (
                vec![user("Ada", "a"), with(user("Bob", "b"), "mood", "good")],
                vec![user("Ada", "a"), with(user("Bob", "b"), "mood", "good")],
            ),
        ] {
            assert_eq!(merge_neighbours(turns), merged);
        }
    }

    #[test]
    fn a_greeting_answers_an_empty_question() {
        let turns = vec![turn(System, "a"), turn(Assistant, "b"), turn(User, "c")];
        let opened = begin_with_the_user(turns);
        assert_eq!(opened[1], turn(User, ""));
        assert_eq!(begin_with_the_user(opened.clone()), opened);
        assert_eq!(begin_with_the_user(Vec::new()), []);
    }

    #[test]
    fn each_call_has_its_result_behind_it() {
        let call = |id: &str| Value::from_pairs([("id", id)]);
        let result = |id: &str, text| with(turn(Tool, text), "tool_call_id", id);
        let answer = |content, ids: &[&str]| {
            let calls: Vec<Value> = ids.iter().map(|id| call(id)).collect();
            with(turn(Assistant, content), CALLS, calls)
        };
        let one = vec![turn(User, "q"), answer("x", &["a"]), result("a", "of a")];
        assert_eq!(one_call_an_answer(one.clone()), one);
        let turns = vec![
            turn(User, "q"),
            answer("both", &["a", "b", "c"]),
            result("a", "of a"),
            result("c", "of c"),
            result("d", "of none"),
        ];
        assert_eq!(
            one_call_an_answer(turns),
            [
                turn(User, "q"),
                answer("both", &["a"]),
                result("a", "of a"),
                answer("", &["b"]),
                answer("", &["c"]),
                result("c", "of c"),
                result("d", "of none"),
            ]
        );
    }
}
