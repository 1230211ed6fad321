//! What Python's string methods do to a text, with twins in it.

use std::borrow::Cow;
use std::ops::Range;

use super::twins::Twins;

pub(super) fn byte_at(text: &str, chars: usize) -> usize {
    text.char_indices()
        .nth(chars)
        .map_or(text.len(), |(at, _)| at)
}

/// Where `what` stands in `text`, from left to right and without overlap.
pub(super) fn found_all(twins: &Twins, text: &str, what: &str) -> Vec<Range<usize>> {
    let what = twins.plain(what);
    let plain = twins.plain(text);
    let found = plain
        .match_indices(&*what)
        .map(|(at, what)| at..at + what.len());
    if let Cow::Borrowed(_) = plain {
        return found.collect();
    }
    // Where each byte of the plain text stands in the written one.
    let mut places = Vec::with_capacity(plain.len() + 1);
    for (at, c) in text.char_indices() {
        places.extend(std::iter::repeat_n(at, twins.plain_char(c).len_utf8()));
    }
    places.push(text.len());
    found.map(|at| places[at.start]..places[at.end]).collect()
}

pub(super) fn replaced(text: &str, new: &str, found: impl Iterator<Item = Range<usize>>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for at in found {
        out.push_str(&text[copied..at.start]);
        out.push_str(new);
        copied = at.end;
    }
    out.push_str(&text[copied..]);
    out
}

/// Python's split without a separator: at runs of white space, which the ends lose.
pub(super) fn words(text: &str, limit: usize, from_right: bool) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = match from_right {
            true => rest.trim_end_matches(is_space),
            false => rest.trim_start_matches(is_space),
        };
        let border = match from_right {
            _ if words.len() == limit => None,
            true => rest.rfind(is_space),
            false => rest.find(is_space),
        };
        match border {
            _ if rest.is_empty() => break,
            Some(at) if from_right => {
                let width = rest[at..].chars().next().map_or(1, char::len_utf8);
                words.push(&rest[at + width..]);
                rest = &rest[..at];
            }
            Some(at) => {
                words.push(&rest[..at]);
                rest = &rest[at..];
            }
            None => {
                words.push(rest);
                break;
            }
        }
    }
    if from_right {
        words.reverse();
    }
    words
}

/// What Python calls white space: Unicode's and the four separators of ASCII.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

pub(super) fn strip(
    twins: &Twins,
    text: &str,
    chars: Option<&str>,
    left: bool,
    right: bool,
) -> String {
    let set = chars.map(|chars| twins.plain(chars));
    let goes = |c: char| match &set {
        Some(set) => set.contains(twins.plain_char(c)),
        None => is_space(c),
    };
    let text = if left {
        text.trim_start_matches(goes)
    } else {
        text
    };
    let text = if right {
        text.trim_end_matches(goes)
    } else {
        text
    };
    text.to_owned()
}

/// Python's `upper`, `lower`, `capitalize`, `title` and `swapcase`, and Jinja2's filter `title`,
/// which tells words apart by what stands before them. A letter written as a twin becomes another
/// twin.
pub(super) fn change_case(twins: &Twins, text: &str, method: &str) -> String {
    match method {
        "upper" if !twins.holds_twins(text) => return text.to_uppercase(),
        "lower" if !twins.holds_twins(text) => return text.to_lowercase(),
        _ => {}
    }
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for (index, written) in text.chars().enumerate() {
        let c = twins.plain_char(written);
        let is_upper = match method {
            "upper" => true,
            "capitalize" => index == 0,
            "title" | "title-filter" => !in_word,
            "swapcase" => c.is_lowercase(),
            _ => false,
        };
        in_word = match method {
            "title-filter" => !(is_space(c) || "-({[<".contains(c)),
            _ => c.is_alphabetic(),
        };
        let mut put = |changed: char| match twins.of(changed) {
            Some(twin) if written != c => out.push(twin),
            _ => out.push(changed),
        };
        match is_upper {
            true => c.to_uppercase().for_each(&mut put),
            false => c.to_lowercase().for_each(&mut put),
        }
    }
    out
}
