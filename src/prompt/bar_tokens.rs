//! `<|name|>`, which is taken for a control token whether or not a model lists it.

use super::control_tokens::is_mark;

/// The longest word taken for a token's name.
const MAX_GENERIC_NAME_BYTES: usize = 64;

fn is_bar(c: char) -> bool {
    c == '|' || c == '｜'
}

fn is_name_char(c: char) -> bool {
    !is_bar(c) && c != '<' && c != '>' && !c.is_whitespace() && !is_mark(c)
}

/// The length of a token's name at the start of `text`; `None` if it is too long.
pub(super) fn name_len(text: &str) -> Option<usize> {
    let len = text
        .char_indices()
        .find(|(at, c)| !is_name_char(*c) || *at > MAX_GENERIC_NAME_BYTES)
        .map_or(text.len(), |(at, _)| at);
    (len <= MAX_GENERIC_NAME_BYTES).then_some(len)
}

/// Strips one bar; `None` if `text` does not start with one.
fn strip_bar(text: &str) -> Option<&str> {
    text.strip_prefix(is_bar)
}

/// Start and end of each `<|name|>`.
pub(super) fn generic_tokens(text: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    text.match_indices('<').filter_map(move |(start, _)| {
        let rest = generic_rest(&text[start + 1..])?;
        Some((start, text.len() - rest.len()))
    })
}

/// What follows `|name|>` at the start of `text`.
fn generic_rest(text: &str) -> Option<&str> {
    let after_bar = strip_bar(text)?;
    let len = name_len(after_bar).filter(|len| *len > 0)?;
    strip_bar(&after_bar[len..])?.strip_prefix('>')
}

/// Whether `text` is `<`, `<|`, `<|name` or `<|name|`.
pub(super) fn is_generic_opening(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('<') else {
        return false;
    };
    let Some(after_bar) = strip_bar(rest) else {
        return rest.is_empty();
    };
    name_len(after_bar).is_some_and(|len| {
        let rest = &after_bar[len..];
        rest.is_empty() || (len > 0 && strip_bar(rest) == Some(""))
    })
}

/// Whether `text` is `>`, `|>`, `name|>` or `|name|>`.
pub(super) fn is_generic_rest(text: &str) -> bool {
    let Some(rest) = text.strip_suffix('>') else {
        return false;
    };
    let Some(before) = rest.strip_suffix(is_bar) else {
        return rest.is_empty();
    };
    let name = before.strip_prefix(is_bar).unwrap_or(before);
    name_len(name) == Some(name.len())
}
