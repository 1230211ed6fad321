//! A conversation on its way into a template: client text neutralised, system text folded where
//! the template has no place for it, and the end of an answer to be continued marked.

use minijinja::value::Value;

use super::{ChatMessage, ChatRole, ControlTokens, TemplateError};
use crate::settings::ControlTokenPolicy;

/// One message whose texts are safe to render.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turn {
    pub role: ChatRole,
    pub content: String,
    pub name: Option<String>,
}

impl Turn {
    /// The dict that templates see.
    pub fn to_value(&self) -> Value {
        let fields = [
            ("role", self.role.name()),
            ("content", self.content.as_str()),
        ];
        let name = self.name.as_deref().map(|name| ("name", name));
        Value::from_pairs(fields.into_iter().chain(name))
    }
}

/// Makes the messages safe, or refuses them if that is the policy.
pub(super) fn turns(
    messages: &[ChatMessage],
    tokens: &ControlTokens,
    policy: ControlTokenPolicy,
) -> Result<Vec<Turn>, TemplateError> {
    let last = messages.len().saturating_sub(1);
    let turn = |(index, message): (usize, &ChatMessage)| {
        let texts = [Some(&message.content), message.name.as_ref()];
        let token = texts
            .into_iter()
            .flatten()
            .find_map(|text| tokens.find(text));
        if let (ControlTokenPolicy::Reject, Some(token)) = (policy, token) {
            return Err(TemplateError::ControlToken {
                index,
                token: token.to_owned(),
            });
        }
        let is_open = index == last && message.role == ChatRole::Assistant;
        let content = match is_open {
            // The model goes on right behind it, so nothing may be put there.
            true => tokens.protect_head(&message.content),
            false => tokens.protect(&message.content),
        };
        Ok(Turn {
            role: message.role,
            content: content.into_owned(),
            name: message
                .name
                .as_deref()
                .map(|name| tokens.protect(name).into_owned()),
        })
    };
    messages.iter().enumerate().map(turn).collect()
}

/// A client's variable with every string in it neutralised.
pub(super) fn client_value(value: &serde_json::Value, tokens: &ControlTokens) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(integer), _, _) => Value::from(integer),
            (None, Some(integer), _) => Value::from(integer),
            (None, None, float) => Value::from(float),
        },
        Json::String(text) => Value::from(tokens.protect(text).into_owned()),
        Json::Array(items) => items
            .iter()
            .map(|item| client_value(item, tokens))
            .collect(),
        Json::Object(fields) => Value::from_pairs(fields.iter().map(|(name, value)| {
            let name = tokens.protect(name).into_owned();
            (name, client_value(value, tokens))
        })),
    }
}

/// Puts each system text before the next user turn; where none follows, it becomes a user turn, or
/// a part of the last one.
pub(super) fn fold_system(turns: Vec<Turn>) -> Vec<Turn> {
    let mut folded: Vec<Turn> = Vec::with_capacity(turns.len());
    let mut pending: Vec<String> = Vec::new();
    for mut turn in turns {
        match turn.role {
            ChatRole::System => {
                if !turn.content.trim().is_empty() {
                    pending.push(turn.content);
                }
                continue;
            }
            ChatRole::User => {
                pending.push(turn.content);
                turn.content = pending.join("\n\n");
                pending.clear();
            }
            ChatRole::Assistant => {}
        }
        folded.push(turn);
    }
    if !pending.is_empty() {
        let text = pending.join("\n\n");
        match folded.last_mut() {
            Some(last) if last.role == ChatRole::User => {
                last.content = format!("{}\n\n{text}", last.content);
            }
            _ => folded.push(Turn {
                role: ChatRole::User,
                content: text,
                name: None,
            }),
        }
    }
    folded
}

/// A text put behind the answer that is to be continued, to find its end in the prompt.
pub(super) struct EndMark {
    text: String,
}

/// Marks the end of a trailing assistant turn.
///
/// The mark goes in before rendering, so the end is found also where a template changes the text
/// or drops its beginning.
pub(super) fn mark_open_end(turns: &mut [Turn]) -> Option<EndMark> {
    let unused = |text: &str| !turns.iter().any(|turn| turn.content.contains(text));
    let text = (0u32..)
        .map(|n| format!("\u{F5A0}{n}\u{F5A1}"))
        .find(|text| unused(text))?;
    let last = turns.last_mut()?;
    if last.role != ChatRole::Assistant {
        return None;
    }
    last.content.push_str(&text);
    // Tells whether the template keeps white space at the end of a message.
    last.content.push(' ');
    Some(EndMark { text })
}

impl EndMark {
    /// Ends the prompt where the mark is; white space before it goes if the template trims.
    pub fn cut(&self, prompt: &mut String) -> Option<()> {
        let end = prompt.rfind(&self.text)?;
        let keeps_white_space = prompt[end + self.text.len()..].starts_with(' ');
        prompt.truncate(end);
        if !keeps_white_space {
            prompt.truncate(prompt.trim_end().len());
        }
        // A template may show a message more than once.
        if prompt.contains(&self.text) {
            *prompt = prompt
                .replace(&format!("{} ", self.text), "")
                .replace(&self.text, "");
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(role: ChatRole, content: &str) -> Turn {
        Turn {
            role,
            content: content.to_owned(),
            name: None,
        }
    }

    use ChatRole::{Assistant, System, User};

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
    fn system_text_that_no_user_turn_follows_is_not_lost() {
        assert_eq!(
            fold_system(vec![turn(System, "only")]),
            [turn(User, "only")]
        );
        assert_eq!(
            fold_system(vec![turn(User, "hi"), turn(System, "late")]),
            [turn(User, "hi\n\nlate")]
        );
    }

    #[test]
    fn a_mark_that_a_client_guessed_is_not_used() {
        let mut turns = vec![turn(User, "\u{F5A0}0\u{F5A1}"), turn(Assistant, "so")];
        let mark = mark_open_end(&mut turns).unwrap();
        let mut prompt = format!("{}|{}|end", turns[0].content, turns[1].content);
        mark.cut(&mut prompt).unwrap();
        assert_eq!(prompt, "\u{F5A0}0\u{F5A1}|so");
    }
}
