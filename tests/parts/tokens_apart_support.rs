//! Templates with control tokens, and which characters of a prompt are parts of one.

use std::sync::Arc;

use rkllmd::prompt::{ChatTemplate, ControlTokens, Rendered, SpecialTokens};

pub const TOKENS: [&str; 9] = [
    "<|im_start|>",
    "<|im_end|>",
    "<s>",
    "</s>",
    "[INST]",
    "<SPECIAL_10>",
    "[/",
    "⏵",
    "<⏵>",
];

pub fn compiled(source: &str, tokens: &[&str]) -> ChatTemplate {
    let tokens = Arc::new(ControlTokens::new(tokens.iter().copied()));
    let special = SpecialTokens {
        bos: "<s>".into(),
        eos: "</s>".into(),
    };
    ChatTemplate::compile(source, special, tokens).unwrap_or_else(|e| panic!("{source}: {e}"))
}

/// What is written to break or replace a token; no name holds it, or a broken token would count again.
const MARKS: &str = "\u{200B}\u{2060}\u{200C}·¦¬§¶\u{FFFD}";

/// Every control token in `text`, found the slow way.
pub fn tokens_in(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for token in TOKENS {
        let starts = (0..text.len())
            .filter(|at| text.is_char_boundary(*at) && text[*at..].starts_with(token));
        found.extend(starts.map(|at| (at, token)));
    }
    for (start, _) in text.match_indices('<') {
        let Some(end) = text[start..].find('>').map(|len| start + len + 1) else {
            continue;
        };
        let token = &text[start..end];
        let inner = token[1..token.len() - 1]
            .strip_prefix(['|', '｜'])
            .and_then(|inner| inner.strip_suffix(['|', '｜']));
        let is_name = inner.is_some_and(|name| {
            !name.is_empty()
                && !name
                    .chars()
                    .any(|c| "<|｜".contains(c) || MARKS.contains(c) || c.is_whitespace())
        });
        if is_name && !TOKENS.contains(&token) {
            found.push((start, token));
        }
    }
    found
}

/// No token lies in, or reaches into, a span of the client's; and outside is nothing but tokens.
pub fn assert_apart(rendered: &Rendered) {
    let Rendered {
        prompt,
        client_spans,
        ..
    } = rendered;
    for (start, token) in tokens_in(prompt) {
        let end = start + token.len();
        assert!(
            client_spans
                .iter()
                .all(|span| span.end <= start || end <= span.start),
            "{token} at {start} in {client_spans:?} of {prompt:?}"
        );
    }
    let mut at = 0;
    for span in client_spans.iter().chain([&(prompt.len()..prompt.len())]) {
        let mut own = &prompt[at..span.start];
        while !own.is_empty() {
            let (_, token) = tokens_in(own)
                .into_iter()
                .find(|(start, _)| *start == 0)
                .unwrap_or_else(|| panic!("{own:?} is no token, in {prompt:?}"));
            own = &own[token.len()..];
        }
        at = span.end;
    }
}
