//! The texts that a runtime's tokeniser turns into control tokens, and how client text is kept
//! from being read as one.
//!
//! Neutralising puts one separator, a character that no control token contains, behind the first
//! character of every occurrence, overlapping ones included; a token of one character, which cannot be
//! broken, becomes another character that no token contains. Whatever the result holds between such
//! characters was contiguous in the input, so an occurrence in it would be one of those just broken: the
//! result holds none.
//!
//! Some tokens are looked for after the tokeniser has normalised the text. For them a text is read
//! folded (`folding`), and the separator is a character that outlives normalising.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::bar_tokens::{generic_tokens, is_generic_opening, is_generic_rest, name_len};
use super::folding::{Folded, fold};

/// ZERO WIDTH SPACE, WORD JOINER, ZERO WIDTH NON-JOINER: invisible, and not white space, so that no
/// template's `trim` takes a separator away again.
const SEPARATORS: [char; 3] = ['\u{200B}', '\u{2060}', '\u{200C}'];

/// Where a tokeniser normalises, invisible characters may go: these stay.
const LASTING_SEPARATORS: [char; 5] = ['·', '¦', '¬', '§', '¶'];

/// What takes the place of a token of one character.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

const PRIVATE_USE: std::ops::RangeInclusive<char> = '\u{E000}'..='\u{F8FF}';

const MAX_TOKEN_BYTES: usize = 256;

/// The control tokens of one model, plus every `<|name|>` (also with full-width bars) whether or
/// not the model lists it.
pub struct ControlTokens {
    /// Sorted, without duplicates.
    tokens: Vec<String>,
    /// Those of them that are looked for in normalised text, as they were given.
    normalized: Vec<String>,
    /// The same, each from its last character to its first, sorted.
    reversed: Vec<String>,
    automaton: Option<AhoCorasick>,
    /// Of the tokens that are looked for in normalised text, folded.
    folded: Option<AhoCorasick>,
    separator: char,
    replacement: char,
}

impl fmt::Debug for ControlTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.tokens).finish()
    }
}

impl Default for ControlTokens {
    fn default() -> Self {
        Self::new(std::iter::empty::<&str>())
    }
}

impl<S: Into<String>> FromIterator<S> for ControlTokens {
    fn from_iter<I: IntoIterator<Item = S>>(tokens: I) -> Self {
        Self::new(tokens)
    }
}

impl ControlTokens {
    /// Takes the tokens a model lists. White space, and single letters, digits and ASCII
    /// punctuation, are left out: every text is made of them.
    pub fn new<S: Into<String>>(tokens: impl IntoIterator<Item = S>) -> Self {
        Self::with_normalized(tokens, std::iter::empty())
    }

    /// Takes `normalized`, too: tokens that the tokeniser looks for when it has normalised the
    /// text, in a way that changes more than white space.
    pub fn with_normalized<S: Into<String>>(
        tokens: impl IntoIterator<Item = S>,
        normalized: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut tokens: Vec<String> = tokens.into_iter().map(Into::into).collect();
        let normalized: Vec<String> = normalized.into_iter().map(Into::into).collect();
        let mut folded: Vec<String> = normalized.iter().map(|token| fold(token)).collect();
        tokens.extend(normalized.iter().cloned());
        for list in [&mut tokens, &mut folded] {
            list.retain(|token| is_distinctive(token));
            list.sort_unstable();
            list.dedup();
        }
        // Folding makes several characters of one, and a token of one is a token as it is written.
        folded.retain(|token| token.chars().count() > 1);
        let (separator, replacement) = match folded.is_empty() {
            true => (
                first_unused(&tokens, SEPARATORS),
                first_unused(&tokens, [REPLACEMENT]),
            ),
            false => {
                let lasting = first_unused(&tokens, LASTING_SEPARATORS);
                (lasting, lasting)
            }
        };
        let separator = separator.unwrap_or(SEPARATORS[0]);
        let replacement = replacement.unwrap_or(REPLACEMENT);
        // Only a list that holds every candidate character gets here with such a token.
        tokens.retain(|token| !token.contains([separator, replacement]));
        let mut reversed: Vec<String> = tokens.iter().map(|token| backwards(token)).collect();
        reversed.sort_unstable();
        Self {
            automaton: automaton(&tokens),
            folded: automaton(&folded),
            reversed,
            tokens,
            normalized,
            separator,
            replacement,
        }
    }

    /// These and `more`.
    #[must_use]
    pub fn and(&self, more: impl IntoIterator<Item = String>) -> Self {
        let tokens = self.tokens.iter().cloned().chain(more);
        Self::with_normalized(tokens, self.normalized.iter().cloned())
    }

    /// The listed tokens, sorted; the `<|name|>` rule comes on top.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// The character that `neutralise` inserts.
    pub fn separator(&self) -> char {
        self.separator
    }

    /// The character that `neutralise` writes for a token of one character.
    pub fn replacement(&self) -> char {
        self.replacement
    }

    /// The first control token in `text`.
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        let listed = self.automaton.as_ref().and_then(|automaton| {
            let found = automaton.find(text)?;
            Some((found.start(), found.end()))
        });
        let folded = self.folded.as_ref().and_then(|automaton| {
            let folded = Folded::new(text);
            let found = automaton.find(&folded.text)?;
            let range = folded.original(found.range());
            Some((range.start, range.end))
        });
        let generic = generic_tokens(text).next();
        let first = [listed, folded, generic].into_iter().flatten().min();
        first.map(|(start, end)| &text[start..end])
    }

    /// Every control token in `text`, those that overlap too, in no order.
    pub(super) fn occurrences(&self, text: &str) -> impl Iterator<Item = Range<usize>> {
        let mut found: Vec<Range<usize>> = generic_tokens(text)
            .map(|(start, end)| start..end)
            .collect();
        if let Some(automaton) = &self.automaton {
            found.extend(automaton.find_overlapping_iter(text).map(|m| m.range()));
        }
        if let Some(automaton) = &self.folded {
            let folded = Folded::new(text);
            let matches = automaton.find_overlapping_iter(&folded.text);
            found.extend(matches.map(|m| folded.original(m.range())));
        }
        found.into_iter()
    }

    /// What keeps the control token at `found` in `text` from being one.
    pub(super) fn remedy(&self, text: &str, found: &Range<usize>) -> Remedy {
        let first = text[found.start..].chars().next().map_or(1, char::len_utf8);
        match found.len() <= first {
            true => Remedy::replace(found.clone(), self.replacement),
            false => self.break_at(found.start + first),
        }
    }

    pub(super) fn break_at(&self, place: usize) -> Remedy {
        Remedy::replace(place..place, self.separator)
    }

    /// `text` with every control token in it broken by a separator, or replaced if it is one
    /// character; unchanged where there is none.
    pub fn neutralise<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let found = self.occurrences(text);
        let mut remedies: Vec<Remedy> = found.map(|found| self.remedy(text, &found)).collect();
        if remedies.is_empty() {
            return Cow::Borrowed(text);
        }
        remedies.sort_unstable();
        remedies.dedup();
        let mut out = String::with_capacity(text.len() + remedies.len() * 3);
        let mut copied = 0;
        for remedy in remedies {
            copied = remedy.apply(text, copied, &mut out);
        }
        out.push_str(&text[copied..]);
        Cow::Owned(out)
    }

    /// Where the longest proper beginning of a token starts that `text` ends with.
    pub(super) fn opening_at_end(&self, text: &str) -> Option<usize> {
        let window = text.len().saturating_sub(MAX_TOKEN_BYTES);
        text.char_indices()
            .rev()
            .map(|(start, _)| start)
            .take_while(|start| *start >= window)
            .filter(|start| {
                let end = &text[*start..];
                is_proper_beginning(end, &self.tokens) || is_generic_opening(end)
            })
            .last()
    }

    /// Where the longest proper end of a token ends that `text` starts with.
    pub(super) fn rest_at_start(&self, text: &str) -> Option<usize> {
        text.char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .take_while(|end| *end <= MAX_TOKEN_BYTES)
            .filter(|end| {
                let start = &text[..*end];
                is_proper_beginning(&backwards(start), &self.reversed) || is_generic_rest(start)
            })
            .last()
    }

    /// Whether `text` can be a part of a token.
    pub(super) fn is_inside_one(&self, text: &str) -> bool {
        let is_name = name_len(text) == Some(text.len());
        !text.is_empty() && (is_name || self.tokens.iter().any(|token| token.contains(text)))
    }
}

/// A character that is written into a text, at a place or instead of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Remedy {
    pub start: usize,
    pub end: usize,
    character: char,
}

impl Remedy {
    fn replace(range: Range<usize>, character: char) -> Self {
        Self {
            start: range.start,
            end: range.end,
            character,
        }
    }

    /// Writes what stands in `text` from `copied` up to here, and the character. Answers how much
    /// of the text is done.
    pub fn apply(self, text: &str, copied: usize, out: &mut String) -> usize {
        out.push_str(&text[copied..self.start]);
        out.push(self.character);
        self.end
    }
}

/// The first of these characters, or else of the private-use ones, that no token holds.
fn first_unused<const N: usize>(tokens: &[String], candidates: [char; N]) -> Option<char> {
    let mut candidates = candidates.into_iter().chain(PRIVATE_USE);
    candidates.find(|c| !tokens.iter().any(|token| token.contains(*c)))
}

fn automaton(tokens: &[String]) -> Option<AhoCorasick> {
    (!tokens.is_empty())
        .then(|| {
            AhoCorasick::builder()
                .match_kind(MatchKind::Standard)
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(tokens)
                .ok()
        })
        .flatten()
}

/// Every text holds white space, which tokenizers have tokens of, and single letters, digits and
/// punctuation.
fn is_distinctive(token: &str) -> bool {
    let mut chars = token.chars();
    let is_common = |c: char| c.is_alphanumeric() || c.is_ascii_punctuation();
    let is_one_common = match (chars.next(), chars.next()) {
        (None, _) => true,
        (Some(only), None) => is_common(only),
        _ => false,
    };
    token.len() <= MAX_TOKEN_BYTES && !is_one_common && !token.chars().all(char::is_whitespace)
}

/// What neutralising writes; a broken `<|name|>` must not count as one again.
pub(super) fn is_mark(c: char) -> bool {
    c == REPLACEMENT
        || SEPARATORS.contains(&c)
        || LASTING_SEPARATORS.contains(&c)
        || PRIVATE_USE.contains(&c)
}

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

/// Whether one of `texts`, which are sorted and all different, starts with `beginning` and goes on.
fn is_proper_beginning(beginning: &str, texts: &[String]) -> bool {
    let at = texts.partition_point(|text| text.as_str() <= beginning);
    texts
        .get(at)
        .is_some_and(|text| text.starts_with(beginning))
}

#[cfg(test)]
mod tests;
