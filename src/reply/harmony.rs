//! Messages with headers, as gpt-oss writes them: a channel says what a message is, a recipient that
//! it is a call.

use super::format::{Marker, ReplyFormat};
use super::machine::{AFTER_CALL, Action, Bodies, CONTENT, Machine, START, Sink, THOUGHT};

const START_TOKEN: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const CONSTRAIN: &str = "<|constrain|>";
const MESSAGE: &str = "<|message|>";
const ENDS: [&str; 3] = ["<|end|>", "<|return|>", "<|call|>"];

/// What stands around a thought that is kept in the content.
pub(super) const THOUGHT_OPENS: &str = "<|channel|>analysis<|message|>";
pub(super) const THOUGHT_ENDS: &str = ENDS[0];

/// The texts of the tokens that messages are made of.
pub(super) const TOKENS: [&str; 7] = [
    START_TOKEN,
    CHANNEL,
    CONSTRAIN,
    MESSAGE,
    ENDS[0],
    ENDS[1],
    ENDS[2],
];

pub(super) fn build(machine: &mut Machine, format: &ReplyFormat) {
    let marker = |text: &str| Marker {
        id: format
            .harmony_ids
            .iter()
            .find_map(|(known, id)| (known == text).then_some(*id)),
        ..Marker::text(text)
    };
    let header = machine.add(Sink::Header);
    // What stands between messages is content, though nothing should.
    let between = machine.add(Sink::Gap {
        next: CONTENT,
        is_dropped: true,
        drops_brackets: true,
        json: None,
    });
    let arguments = machine.add(Sink::MessageArguments);
    machine.bodies = Some(Bodies {
        thought: THOUGHT,
        content: CONTENT,
        arguments,
    });
    // A prompt ends in `<|start|>assistant`, behind which a recipient may stand.
    for recipient in [" to=", "to="] {
        machine.on(START, &Marker::text(recipient), Action::Recipient, header);
    }
    let all = [START, CONTENT, THOUGHT, arguments, between, AFTER_CALL];
    for from in all {
        for (text, action) in [
            (START_TOKEN, Action::BeginHeader),
            (CHANNEL, Action::BeginHeader),
        ] {
            machine.on(from, &marker(text), action, header);
        }
        for end in ENDS {
            machine.on(from, &marker(end), Action::EndMessage, between);
        }
        machine.on(from, &marker(MESSAGE), Action::EndMessage, CONTENT);
        machine.on(from, &marker(CONSTRAIN), Action::None, from);
    }
    for text in [CHANNEL, CONSTRAIN] {
        machine.on(header, &marker(text), Action::HeaderWord, header);
    }
    machine.on(header, &marker(START_TOKEN), Action::BeginHeader, header);
    machine.on(header, &marker(MESSAGE), Action::OpenMessage, header);
    for end in ENDS {
        machine.on(header, &marker(end), Action::EndMessage, between);
    }
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body<'h> {
    Thought,
    Content,
    Call(&'h str),
}

impl<'h> Body<'h> {
    /// By the words of its header.
    pub fn of(header: &'h str) -> Self {
        let mut words = header.split_whitespace();
        let recipient = words.clone().find_map(|word| word.strip_prefix("to="));
        let function = recipient.map(|name| name.strip_prefix("functions.").unwrap_or(name));
        match function {
            None | Some("user" | "assistant" | "") => match words.any(|word| word == "analysis") {
                true => Self::Thought,
                false => Self::Content,
            },
            Some(name) => Self::Call(name),
        }
    }
}

/// Whether a header without a message is nothing but one.
pub(super) fn says_nothing(header: &str) -> bool {
    const KNOWN: [&str; 4] = ["assistant", "analysis", "commentary", "final"];
    let mut words = header.split_whitespace();
    words.all(|word| KNOWN.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_what_its_message_is() {
        for (header, body) in [
            ("analysis", Body::Thought),
            ("assistant\nfinal", Body::Content),
            ("commentary", Body::Content),
            ("commentary to=functions.f \njson", Body::Call("f")),
            ("assistant to=functions.f\ncommentary json", Body::Call("f")),
            ("analysis to=python code", Body::Call("python")),
            ("commentary to=functions.", Body::Content),
            ("", Body::Content),
        ] {
            assert_eq!(Body::of(header), body, "{header:?}");
        }
    }
}
