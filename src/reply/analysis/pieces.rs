//! Texts between what was put in, taken apart.

use crate::reply::format::Marker;

pub(super) fn common_start(a: &str, b: &str) -> usize {
    let same = a.char_indices().zip(b.chars());
    same.take_while(|((_, a), b)| a == b)
        .last()
        .map_or(0, |((at, c), _)| at + c.len_utf8())
}

pub(super) fn common_end(a: &str, b: &str) -> usize {
    let same = a.chars().rev().zip(b.chars().rev());
    same.take_while(|(a, b)| a == b)
        .map(|(a, _)| a.len_utf8())
        .sum()
}

/// As `common_start`, and no tag is cut in two.
pub(super) fn common_tags_at_start(a: &str, b: &str) -> usize {
    let len = common_start(a, b);
    match open_tag(&a[..len]) {
        // Where one of them ends, nothing was cut.
        Some(start) if len < a.len() && len < b.len() => start,
        _ => len,
    }
}

/// As `common_end`, and no tag is cut in two.
pub(super) fn common_tags_at_end(a: &str, b: &str) -> usize {
    let len = common_end(a, b);
    let start = a.len() - len;
    let Some(tag) = open_tag(&a[..start]) else {
        return len;
    };
    let closer = a[tag..].chars().next().and_then(closer_of);
    let end = closer.and_then(|closer| a[start..].find(closer));
    len - end.map_or(0, |end| end + 1)
}

/// Where a tag starts that `text` does not close.
fn open_tag(text: &str) -> Option<usize> {
    let start = text.rfind(['<', '['])?;
    let closer = text[start..].chars().next().and_then(closer_of)?;
    (!text[start..].contains(closer)).then_some(start)
}

/// A text in tags, white space, and what is between: `<a>\n<b=` is `<a>`, `\n` and `<b=`.
pub(super) fn tags(text: &str) -> Vec<&str> {
    let mut tags = Vec::new();
    let mut start = 0;
    let mut closer = None;
    for (at, c) in text.char_indices() {
        let is_space = c.is_whitespace() && closer.is_none();
        let was_space = text[start..at].chars().all(char::is_whitespace);
        let opens = closer_of(c).filter(|_| closer.is_none());
        if at > start && (opens.is_some() || is_space != was_space && closer.is_none()) {
            tags.push(&text[start..at]);
            start = at;
        }
        if opens.is_some() {
            closer = opens;
        } else if closer == Some(c) {
            let end = at + c.len_utf8();
            tags.push(&text[start..end]);
            start = end;
            closer = None;
        }
    }
    if start < text.len() {
        tags.push(&text[start..]);
    }
    tags
}

fn closer_of(c: char) -> Option<char> {
    match c {
        '<' => Some('>'),
        '[' => Some(']'),
        _ => None,
    }
}

pub(super) fn is_blank(text: &&str) -> bool {
    text.trim().is_empty()
}

/// Whether a tag ends as it began: `<a>`, not `<a=`.
pub(super) fn is_whole(tag: &str) -> bool {
    match tag.chars().next().and_then(closer_of) {
        Some(closer) => tag.ends_with(closer),
        None => true,
    }
}

/// A marker of a text, with the white space before it.
pub(super) fn marker(text: &str) -> Marker {
    let start = text.trim_start();
    Marker::text(start.trim_end()).after(&text[..text.len() - start.len()])
}

pub(super) fn some_marker(text: &str) -> Option<Marker> {
    (!text.trim().is_empty()).then(|| marker(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fall_into_tags() {
        for (text, expected) in [
            ("<a>\n<b=", &["<a>", "\n", "<b="][..]),
            ("\n</p>\n<p=", &["\n", "</p>", "\n", "<p="]),
            ("[A][B]f<c d=\"", &["[A]", "[B]", "f", "<c d=\""]),
            (">\n", &[">", "\n"]),
            ("", &[]),
        ] {
            assert_eq!(tags(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_common_ends_between_characters() {
        assert_eq!(common_start("aé1", "aé2"), 3);
        assert_eq!(common_end("1éa", "2éa"), 3);
        assert_eq!(common_start("a", "b"), 0);
        assert_eq!(common_end("ab", "ab"), 2);
        assert_eq!(common_tags_at_start("x<a>", "x</a>"), 1);
        assert_eq!(common_tags_at_start("x<", "x</a>"), 2);
        assert_eq!(common_tags_at_end("<|a|><|e|>\n", "<|o|>\n"), 1);
    }
}
