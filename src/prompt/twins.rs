//! Characters that only a template and the daemon can write.
//!
//! A twin is a private-use character that stands for one other character. What the template itself
//! writes of a control token is written in twins before rendering; what a client sends never holds
//! one, because a character of the client's that looks like a twin is swapped for an unused one. So
//! whatever a template does to its texts, a character of the prompt that is no twin may be the
//! client's, and a control token that holds one is not the template's own. A twin takes one
//! character as well: lengths, slices and trimming do not change.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use super::TemplateError;

/// The twins' first place: Supplementary Private Use Area-B, which no text in use holds.
const FIRST: u32 = 0x10_0000;
const LAST: u32 = 0x10_FFFD;

/// The twins of one template.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// By the twin's place.
    originals: Vec<char>,
    places: HashMap<char, u32>,
}

impl Twins {
    /// Twins for every character that can be part of what is to be written in them.
    pub fn new<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, TemplateError> {
        let mut twins = Self::default();
        for c in texts.into_iter().flat_map(str::chars) {
            if (FIRST..=LAST).contains(&(c as u32)) {
                return Err(TemplateError::Broken(format!(
                    "U+{:X} in the template or its tokens is used for other things",
                    c as u32
                )));
            }
            let place = twins.originals.len() as u32;
            twins.places.entry(c).or_insert_with(|| {
                twins.originals.push(c);
                place
            });
        }
        // One place is the end mark's.
        if twins.originals.len() as u32 >= LAST - FIRST {
            return Err(TemplateError::Broken(
                "its tokens have too many different characters".to_owned(),
            ));
        }
        Ok(twins)
    }

    pub fn of(&self, c: char) -> Option<char> {
        char::from_u32(FIRST + self.places.get(&c)?)
    }

    /// `text` in twins, as far as there are any.
    pub fn write(&self, text: &str) -> String {
        text.chars().map(|c| self.of(c).unwrap_or(c)).collect()
    }

    /// A character that neither a template nor a client can write.
    pub fn end_mark(&self) -> char {
        // `new` keeps this place free.
        char::from_u32(FIRST + self.originals.len() as u32).unwrap_or('\u{10FFFD}')
    }

    pub fn is_reserved(&self, c: char) -> bool {
        c as u32 >= FIRST && c <= self.end_mark()
    }

    /// What a twin stands for.
    pub fn original(&self, c: char) -> Option<char> {
        let place = (c as u32).checked_sub(FIRST)?;
        self.originals.get(place as usize).copied()
    }

    pub fn plain_char(&self, c: char) -> char {
        self.original(c).unwrap_or(c)
    }

    pub fn holds_twins(&self, text: &str) -> bool {
        text.chars().any(|c| self.original(c).is_some())
    }

    /// `text` with each twin replaced by what it stands for.
    pub fn plain<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.holds_twins(text) {
            text.chars().map(|c| self.plain_char(c)).collect()
        } else {
            Cow::Borrowed(text)
        }
    }
}

/// Swaps characters of one request that look like twins, and swaps them back in its prompt.
#[derive(Debug, Default)]
pub(super) struct Swaps {
    there: HashMap<char, char>,
    back: HashMap<char, char>,
}

impl Swaps {
    /// Looks through everything that the client sent.
    pub fn new<'t>(
        twins: &Twins,
        texts: impl Iterator<Item = &'t str> + Clone,
    ) -> Result<Self, TemplateError> {
        let reserved: BTreeSet<char> = texts
            .clone()
            .flat_map(str::chars)
            .filter(|c| twins.is_reserved(*c))
            .collect();
        if reserved.is_empty() {
            return Ok(Self::default());
        }
        // Unassigned planes and Private Use Area-A: as far as templates can tell, such characters
        // are what private-use ones are.
        let is_spare = |c: char| (0x4_0000..0xE_0000).contains(&(c as u32)) || in_area_a(c);
        let taken: BTreeSet<char> = texts
            .flat_map(str::chars)
            .filter(|c| is_spare(*c))
            .collect();
        let mut spare = ('\u{F0000}'..='\u{FFFFD}')
            .chain('\u{40000}'..='\u{DFFFF}')
            .filter(|c| is_spare(*c) && !taken.contains(c));
        let mut swaps = Self::default();
        for c in reserved {
            let other = spare.next().ok_or(TemplateError::TooManyCharacters)?;
            swaps.there.insert(c, other);
            swaps.back.insert(other, c);
        }
        Ok(swaps)
    }

    /// A text of the client's as the template may see it.
    pub fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.there.is_empty() {
            return Cow::Borrowed(text);
        }
        let swapped = |c| self.there.get(&c).copied().unwrap_or(c);
        Cow::Owned(text.chars().map(swapped).collect())
    }

    pub fn back(&self, c: char) -> char {
        match self.back.is_empty() {
            true => c,
            false => self.back.get(&c).copied().unwrap_or(c),
        }
    }
}

fn in_area_a(c: char) -> bool {
    ('\u{F0000}'..='\u{FFFFD}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_is_one_character_and_stands_for_one() {
        let twins = Twins::new(["<a>", "<é>"]).unwrap();
        let written = twins.write("<é>x");
        assert_eq!(written.chars().count(), 4);
        assert!(written.chars().take(3).all(|c| twins.original(c).is_some()));
        assert_eq!(twins.plain(&written), "<é>x");
        assert_eq!(twins.original(twins.end_mark()), None);
    }

    #[test]
    fn what_looks_like_a_twin_is_swapped_and_comes_back() {
        let twins = Twins::new(["<a>"]).unwrap();
        let text = format!(
            "x\u{F0000}{}{}y\u{10FFFD}",
            twins.write("<a>"),
            twins.end_mark()
        );
        let swaps = Swaps::new(&twins, std::iter::once(text.as_str())).unwrap();
        let swapped = swaps.apply(&text);
        assert!(!twins.holds_twins(&swapped) && !swapped.contains(twins.end_mark()));
        assert_eq!(swapped.chars().count(), text.chars().count());
        let back: String = swapped.chars().map(|c| swaps.back(c)).collect();
        assert_eq!(back, text);
    }
}
