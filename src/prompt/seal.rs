//! From what a template wrote to the prompt: twins become what they stand for, and control tokens
//! that are not wholly the template's are broken, or replaced if they are one character.
//!
//! A break goes beside a character that is no twin, so it never lies inside a token of the
//! template's own; and no token contains what is written, so it makes none.

use std::ops::Range;

use super::Rendered;
use super::control_tokens::{ControlTokens, Remedy};
use super::twins::{Swaps, Twins};

/// A prompt whose twins have been replaced.
struct Plain {
    text: String,
    /// Bytes that were twins, in order and apart from each other.
    own: Vec<Range<usize>>,
}

pub(super) fn seal(
    written: &str,
    tokens: &ControlTokens,
    twins: &Twins,
    swaps: &Swaps,
) -> Rendered {
    let Plain { text, own } = plain(written, twins, swaps);
    seal_own(&text, &own, tokens)
}

/// The same of a text of which `own`, in order and apart from each other, is the template's.
pub(super) fn seal_own(text: &str, own: &[Range<usize>], tokens: &ControlTokens) -> Rendered {
    let mut remedies = Vec::new();
    let mut own_tokens = Vec::new();
    for found in tokens.occurrences(text) {
        let at = own.partition_point(|range| range.end <= found.start);
        match own.get(at) {
            Some(range) if range.start <= found.start && found.end <= range.end => {
                own_tokens.push(found);
            }
            Some(range) if range.start <= found.start => remedies.push(tokens.break_at(range.end)),
            // The first character may be the client's: behind it, or instead of it.
            _ => remedies.push(tokens.remedy(text, &found)),
        }
    }
    remedies.sort_unstable();
    remedies.dedup();
    own_tokens.sort_unstable_by_key(|range| (range.start, range.end));
    assemble(text, &remedies, &own_tokens)
}

/// The control tokens that the template wrote and that are not wholly in twins.
pub(super) fn tokens_in_doubt(written: &str, tokens: &ControlTokens, twins: &Twins) -> Vec<String> {
    let Plain { text, own } = plain(written, twins, &Swaps::default());
    let found = tokens.occurrences(&text).filter(|found| {
        !own.iter()
            .any(|range| range.start <= found.start && found.end <= range.end)
    });
    found.map(|found| text[found].to_owned()).collect()
}

fn plain(written: &str, twins: &Twins, swaps: &Swaps) -> Plain {
    let mut text = String::with_capacity(written.len());
    let mut own: Vec<Range<usize>> = Vec::new();
    for c in written.chars() {
        let start = text.len();
        match twins.original(c) {
            Some(original) => {
                text.push(original);
                match own.last_mut() {
                    Some(last) if last.end == start => last.end = text.len(),
                    _ => own.push(start..text.len()),
                }
            }
            None => text.push(swaps.back(c)),
        }
    }
    Plain { text, own }
}

/// `remedies` and `own_tokens` are sorted. A remedy lies inside or at an end of what is between own
/// tokens.
fn assemble(text: &str, remedies: &[Remedy], own_tokens: &[Range<usize>]) -> Rendered {
    let mut prompt = String::with_capacity(text.len() + remedies.len() * 3);
    let mut client_spans = Vec::new();
    let neutralised = remedies.len();
    let mut remedies = remedies.iter().copied().peekable();
    let mut copied = 0;
    let end = text.len()..text.len();
    for token in own_tokens.iter().chain([&end]) {
        if token.start > copied {
            let start = prompt.len();
            while let Some(remedy) = remedies.next_if(|remedy| remedy.end <= token.start) {
                copied = remedy.apply(text, copied, &mut prompt);
            }
            prompt.push_str(&text[copied..token.start]);
            client_spans.push(start..prompt.len());
            copied = token.start;
        }
        if token.end > copied {
            prompt.push_str(&text[copied..token.end]);
            copied = token.end;
        }
    }
    Rendered {
        prompt,
        client_spans,
        neutralised,
        neutralised_in: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(pieces: &[(&str, bool)]) -> Rendered {
        let tokens = ControlTokens::new(["<a>", "<bc>", "><", "]x["]);
        let twins = Twins::new(["<abc>]x["]).unwrap();
        let written: String = pieces
            .iter()
            .map(|(text, own)| match own {
                true => twins.write(text),
                false => (*text).to_owned(),
            })
            .collect();
        seal(&written, &tokens, &twins, &Swaps::default())
    }

    #[test]
    fn only_what_is_wholly_the_templates_stays_a_token() {
        for (pieces, prompt, spans) in [
            (
                &[("<a>", true), ("hi", false), ("<a>", true)][..],
                "<a>hi<a>",
                &[(3, 5)][..],
            ),
            (&[("<a>", false)], "<\u{200B}a>", &[(0, 6)][..]),
            (
                &[("<", true), ("a", false), (">", true)],
                "<\u{200B}a>",
                &[(0, 6)][..],
            ),
            (&[("<", false), ("a>", true)], "<\u{200B}a>", &[(0, 6)][..]),
            (&[("<a", true), (">", false)], "<a\u{200B}>", &[(0, 6)][..]),
            // Two tokens that share a character.
            (
                &[("<a>", true), ("<", false)],
                "<a>\u{200B}<",
                &[(3, 7)][..],
            ),
            (
                &[("]", true), ("x", false), ("[", true)],
                "]\u{200B}x[",
                &[(0, 6)][..],
            ),
            (&[], "", &[]),
        ] {
            let rendered = sealed(pieces);
            assert_eq!(rendered.prompt, prompt, "{pieces:?}");
            let found = rendered.client_spans.iter();
            let found: Vec<_> = found.map(|span| (span.start, span.end)).collect();
            assert_eq!(found, spans, "{pieces:?}");
        }
    }
}
