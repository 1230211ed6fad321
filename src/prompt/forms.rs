//! Forms of one conversation for templates that do not take every one: for those without a system message,
//! those whose roles must alternate, and those that know one call an answer. No form loses a text.

use minijinja::value::Value;

use super::ChatRole;
use super::conversation::TemplateMessage;

/// Puts each system text before the next user message; where none follows, it stays where it is, as a part
/// of the user message before it or as one of its own.
pub(super) fn fold_system(messages: Vec<TemplateMessage>) -> Vec<TemplateMessage> {
    let mut folded: Vec<TemplateMessage> = Vec::with_capacity(messages.len());
    // Each with the number of messages before it.
    let mut pending: Vec<(usize, String)> = Vec::new();
    for mut message in messages {
        match message.role {
            ChatRole::System => {
                if !message.content.trim().is_empty() {
                    pending.push((folded.len(), message.content));
                }
                continue;
            }
            ChatRole::User => {
                let before = pending.drain(..).map(|(_, text)| text);
                let texts: Vec<String> = before.chain([message.content]).collect();
                message.content = texts.join("\n\n");
            }
            ChatRole::Assistant | ChatRole::Tool => {}
        }
        folded.push(message);
    }
    let mut added = 0;
    for (before, text) in pending {
        let at = before + added;
        match folded[..at].last_mut() {
            Some(last) if last.role == ChatRole::User => append(&mut last.content, &text),
            _ => {
                folded.insert(at, TemplateMessage::new(ChatRole::User, text));
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

/// Makes neighbours of one role one message, as templates want it whose roles must alternate. Where users of
/// different names become one, each name stands before its text. Answers that have the same further keys
/// stay apart, and so do users that differ in more than their names.
pub(super) fn merge_neighbours(messages: Vec<TemplateMessage>) -> Vec<TemplateMessage> {
    let mut merged: Vec<TemplateMessage> = Vec::with_capacity(messages.len());
    // Neighbours that become one.
    let mut users: Vec<TemplateMessage> = Vec::new();
    for message in messages {
        let is_user = message.role == ChatRole::User;
        if !(is_user
            && users
                .last()
                .is_some_and(|last| differ_in_name(last, &message)))
        {
            merged.extend(as_one_user(std::mem::take(&mut users)));
        }
        if is_user {
            users.push(message);
            continue;
        }
        match merged.last_mut() {
            Some(last) if are_mergeable(last, &message) => {
                append(&mut last.content, &message.content);
                last.more.extend(message.more);
            }
            _ => merged.push(message),
        }
    }
    merged.extend(as_one_user(users));
    merged
}

fn are_mergeable(first: &TemplateMessage, second: &TemplateMessage) -> bool {
    // Behind a call comes its result.
    first.role == ChatRole::Assistant
        && second.role == ChatRole::Assistant
        && first.get(CALLS).is_none()
        && !first.shares_a_key(second)
}

const NAME: &str = "name";

/// They differ in nothing else, and perhaps not even in that.
fn differ_in_name(first: &TemplateMessage, second: &TemplateMessage) -> bool {
    fn others(message: &TemplateMessage) -> impl Iterator<Item = &(String, Value)> {
        message.more.iter().filter(|(name, _)| name != NAME)
    }
    others(first).eq(others(second))
}

fn as_one_user(users: Vec<TemplateMessage>) -> Option<TemplateMessage> {
    let mut users = users.into_iter();
    let mut one = users.next()?;
    let others: Vec<TemplateMessage> = users.collect();
    let have_names = others.iter().any(|user| user.get(NAME) != one.get(NAME));
    let named = |user: &TemplateMessage| match user.get(NAME).filter(|_| have_names) {
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
pub(super) fn begin_with_the_user(mut messages: Vec<TemplateMessage>) -> Vec<TemplateMessage> {
    let first = messages
        .iter()
        .position(|message| message.role != ChatRole::System);
    if let Some(first) = first
        && messages[first].role == ChatRole::Assistant
    {
        messages.insert(first, TemplateMessage::new(ChatRole::User, ""));
    }
    messages
}

const CALLS: &str = "tool_calls";

pub(super) fn has_several_calls(message: &TemplateMessage) -> bool {
    let calls = message.get(CALLS).and_then(Value::len);
    calls.is_some_and(|calls| calls > 1)
}

/// Gives each call an answer of its own, with its result behind it.
pub(super) fn one_call_an_answer(messages: Vec<TemplateMessage>) -> Vec<TemplateMessage> {
    let mut split: Vec<TemplateMessage> = Vec::with_capacity(messages.len());
    let mut messages = messages.into_iter().peekable();
    while let Some(mut message) = messages.next() {
        let calls: Vec<Value> = message
            .get(CALLS)
            .and_then(|calls| calls.try_iter().ok())
            .map(Iterator::collect)
            .unwrap_or_default();
        if calls.len() < 2 {
            split.push(message);
            continue;
        }
        for call in calls {
            let id = call.get_attr("id").ok();
            message.set(CALLS, Value::from(vec![call]));
            split.push(std::mem::replace(
                &mut message,
                TemplateMessage::new(ChatRole::Assistant, ""),
            ));
            let is_its_result = |result: &TemplateMessage| {
                result.role == ChatRole::Tool && result.get("tool_call_id") == id.as_ref()
            };
            while let Some(result) = messages.next_if(is_its_result) {
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

    fn message(role: ChatRole, content: &str) -> TemplateMessage {
        TemplateMessage::new(role, content)
    }

    fn all(messages: Vec<(ChatRole, &str)>) -> Vec<TemplateMessage> {
        let messages = messages.into_iter();
        messages.map(|(role, text)| message(role, text)).collect()
    }

    fn with(mut message: TemplateMessage, key: &str, value: impl Into<Value>) -> TemplateMessage {
        message.set(key, value.into());
        message
    }

    #[test]
    fn system_text_goes_before_the_next_user_text() {
        let folded = fold_system(vec![
            message(System, "be brief"),
            message(System, "be kind"),
            message(User, "hi"),
            message(Assistant, "ho"),
            message(System, ""),
            message(User, "more"),
        ]);
        let contents: Vec<_> = folded
            .iter()
            .map(|message| message.content.as_str())
            .collect();
        assert_eq!(contents, ["be brief\n\nbe kind\n\nhi", "ho", "more"]);
    }

    #[test]
    fn system_text_that_no_user_turn_follows_stays_where_it_is() {
        for (messages, folded) in [
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
            assert_eq!(fold_system(all(messages)), all(folded));
        }
    }

    #[test]
    fn neighbours_of_one_role_become_one_turn() {
        let calling = with(message(Assistant, ""), CALLS, vec![1]);
        let messages = vec![
            message(User, "a"),
            message(User, "b"),
            with(message(Assistant, "d"), "thinking", "so"),
            calling.clone(),
            calling.clone(),
            message(System, "e"),
            message(System, "f"),
        ];
        assert_eq!(
            merge_neighbours(messages),
            [
                message(User, "a\n\nb"),
                with(
                    with(message(Assistant, "d"), "thinking", "so"),
                    CALLS,
                    vec![1]
                ),
                calling,
                message(System, "e"),
                message(System, "f"),
            ]
        );
    }

    #[test]
    fn users_of_different_names_become_one_that_tells_them_apart() {
        let user = |name: &str, text| with(message(User, text), "name", name);
        for (messages, merged) in [
            (
                vec![message(User, "a"), user("Ada", "b"), user("Bob", "c")],
                vec![message(User, "a\n\nAda: b\n\nBob: c")],
            ),
            (
                vec![user("Ada", "a"), user("Ada", "b")],
                vec![user("Ada", "a\n\nb")],
            ),
            (
                vec![user("Ada", "a"), message(Assistant, "b"), user("Bob", "c")],
                vec![user("Ada", "a"), message(Assistant, "b"), user("Bob", "c")],
            ),
            (
                vec![user("Ada", "a"), with(user("Bob", "b"), "mood", "good")],
                vec![user("Ada", "a"), with(user("Bob", "b"), "mood", "good")],
            ),
        ] {
            assert_eq!(merge_neighbours(messages), merged);
        }
    }

    #[test]
    fn a_greeting_answers_an_empty_question() {
        let messages = vec![
            message(System, "a"),
            message(Assistant, "b"),
            message(User, "c"),
        ];
        let opened = begin_with_the_user(messages);
        assert_eq!(opened[1], message(User, ""));
        assert_eq!(begin_with_the_user(opened.clone()), opened);
        assert_eq!(begin_with_the_user(Vec::new()), []);
    }

    #[test]
    fn each_call_has_its_result_behind_it() {
        let call = |id: &str| Value::from_pairs([("id", id)]);
        let result = |id: &str, text| with(message(Tool, text), "tool_call_id", id);
        let answer = |content, ids: &[&str]| {
            let calls: Vec<Value> = ids.iter().map(|id| call(id)).collect();
            with(message(Assistant, content), CALLS, calls)
        };
        let one = vec![message(User, "q"), answer("x", &["a"]), result("a", "of a")];
        assert_eq!(one_call_an_answer(one.clone()), one);
        let messages = vec![
            message(User, "q"),
            answer("both", &["a", "b", "c"]),
            result("a", "of a"),
            result("c", "of c"),
            result("d", "of none"),
        ];
        assert_eq!(
            one_call_an_answer(messages),
            [
                message(User, "q"),
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
