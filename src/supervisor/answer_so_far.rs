//! What has come of an answer, from however many workers, and where another one can go on with it.
//! Pure.
//!
//! An answer can be continued exactly when the prompt and its text, or its tokens, stand for all
//! that the runtime had in its context. A token that the runtime does not print is in its context
//! and not in the text, so that an answer with one in its middle can be continued by its tokens
//! only. At its end such a token is left out: no client has seen anything of it, and the next worker
//! makes it again.
//!
//! What is put in, such as the marker that closes a thought, stands in the answer as if the model had
//! made it, and does not count as made.

use crate::ipc::{BegunAnswer, TokenKind};

/// Why an answer cannot be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inexact {
    /// Bytes that are no text are part of it and the tokens cannot be handed over.
    ReplacedBytes,
    /// A token without text stands before text and the tokens cannot be handed over.
    SwallowedToken,
}

impl Inexact {
    /// What it is counted as.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReplacedBytes => "not-text",
            Self::SwallowedToken => "special-token",
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Self::ReplacedBytes => "the runtime gave bytes for it that are not UTF-8",
            Self::SwallowedToken => "the runtime did not print a special token that is part of it",
        }
    }
}

/// A place in the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    text_bytes: usize,
    tokens: u32,
    ids: usize,
}

#[derive(Debug)]
pub struct AnswerSoFar {
    text: String,
    /// All that were made or put in, unless `ids_unknown`.
    token_ids: Vec<i32>,
    /// Tokens that were made.
    tokens: u32,
    /// Tokens that were put in; `None`: it is not known how many those are.
    put_in: Option<u32>,
    ids_unknown: bool,
    /// A token without text stands before text.
    swallowed: bool,
    swallowed_at_end: bool,
    /// U+FFFD stands in the text for other bytes.
    replaced: bool,
    /// What was left of the last tokens has been told.
    has_rest: bool,
    /// Behind the last text that left nothing held back.
    whole: Mark,
    /// Tokens up to the last one that had text.
    tokens_with_text: u32,
}

impl Default for AnswerSoFar {
    fn default() -> Self {
        Self {
            text: String::new(),
            token_ids: Vec::new(),
            tokens: 0,
            put_in: Some(0),
            ids_unknown: false,
            swallowed: false,
            swallowed_at_end: false,
            replaced: false,
            has_rest: false,
            whole: Mark::default(),
            tokens_with_text: 0,
        }
    }
}

impl AnswerSoFar {
    /// Takes in one token, or what is left of the last ones.
    pub fn push(&mut self, kind: TokenKind, id: Option<i32>, text: &str) {
        if kind == TokenKind::Rest {
            self.text.push_str(text);
            self.replaced = true;
            self.has_rest = true;
            self.tokens_with_text = self.tokens;
            return;
        }
        self.tokens += 1;
        self.text.push_str(text);
        match id {
            Some(id) if !self.ids_unknown => self.token_ids.push(id),
            _ => self.ids_unknown = true,
        }
        if kind == TokenKind::Swallowed {
            self.swallowed_at_end = true;
        }
        if !text.is_empty() {
            self.tokens_with_text = self.tokens;
            self.swallowed |= std::mem::take(&mut self.swallowed_at_end);
        }
        self.replaced |= kind == TokenKind::Replaced;
        // Behind replaced bytes something may be held back too.
        if kind == TokenKind::Text {
            self.whole = self.here();
        }
    }

    /// Puts in a text that no model made, behind what cannot be taken back any more; `id`: it is this
    /// token.
    pub fn put_in(&mut self, text: &str, id: Option<i32>) {
        self.roll_back();
        self.text.push_str(text);
        match id {
            Some(id) => self.token_ids.push(id),
            None => self.ids_unknown = true,
        }
        self.put_in = self.put_in.zip(id).map(|(tokens, _)| tokens + 1);
        self.tokens_with_text = self.tokens;
        self.whole = self.here();
    }

    /// Its text, from whichever workers.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Those that were made.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Those of which a reader may have seen something.
    pub fn tokens_seen(&self) -> u32 {
        self.tokens_with_text
    }

    /// Whether it can be made once more, from its beginning, by a run that makes the same tokens.
    pub fn check_repeatable(&self) -> Result<(), Inexact> {
        match self.has_rest {
            true => Err(Inexact::ReplacedBytes),
            false => Ok(()),
        }
    }

    /// The ids of those that were made behind the first `tokens`, as far as they are known.
    pub fn made_behind(&self, tokens: u32) -> impl Iterator<Item = Option<i32>> + '_ {
        let count = self.tokens.saturating_sub(tokens) as usize;
        // Nothing is put in behind one that is made, without another run.
        let first = self.token_ids.len().checked_sub(count);
        let ids = first.filter(|_| !self.ids_unknown);
        let ids = ids.map_or(&[][..], |first| &self.token_ids[first..]);
        let known = ids.iter().copied().map(Some);
        known.chain(std::iter::repeat(None)).take(count)
    }

    /// Those that were made and those that were put in; `None`: it is not known how many those are.
    pub fn tokens_in_context(&self) -> Option<u32> {
        Some(self.tokens.saturating_add(self.put_in?))
    }

    /// Takes back what the lost worker had held back, and tokens without text at the end: the next
    /// one makes them again.
    pub fn roll_back(&mut self) {
        self.swallowed_at_end = false;
        if self.whole.text_bytes == self.text.len() {
            self.tokens = self.whole.tokens;
            self.token_ids.truncate(self.whole.ids);
        } else {
            // The last token gave a part of its text, so its id stands for more than the text.
            self.tokens = self.tokens_with_text;
            self.ids_unknown = true;
            self.whole = self.here();
        }
    }

    /// What another worker has to be given; `None`: it starts from the beginning.
    /// `ids_are_trusted`: the runtime makes the same tokens of text as the model's tokenizer.
    pub fn begun(&self, ids_are_trusted: bool) -> Result<Option<BegunAnswer>, Inexact> {
        if self.tokens == 0 && self.text.is_empty() {
            return Ok(None);
        }
        self.check_exact(ids_are_trusted)?;
        let by_tokens = self.goes_by_tokens(ids_are_trusted);
        Ok(Some(BegunAnswer {
            text: self.text.clone(),
            token_ids: by_tokens.then(|| self.token_ids.clone()),
            tokens: self.tokens_in_context(),
        }))
    }

    /// Whether what `begun` gives would stand for all of the answer.
    pub fn check_exact(&self, ids_are_trusted: bool) -> Result<(), Inexact> {
        let by_tokens = self.goes_by_tokens(ids_are_trusted);
        if self.swallowed && !by_tokens {
            return Err(Inexact::SwallowedToken);
        }
        if self.replaced && !by_tokens {
            return Err(Inexact::ReplacedBytes);
        }
        Ok(())
    }

    fn goes_by_tokens(&self, ids_are_trusted: bool) -> bool {
        ids_are_trusted && !self.ids_unknown
    }

    fn here(&self) -> Mark {
        Mark {
            text_bytes: self.text.len(),
            tokens: self.tokens,
            ids: self.token_ids.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(tokens: &[(TokenKind, Option<i32>, &str)]) -> AnswerSoFar {
        let mut answer = AnswerSoFar::default();
        for (kind, id, text) in tokens {
            answer.push(*kind, *id, text);
        }
        answer.roll_back();
        answer
    }

    #[test]
    fn text_and_ids_are_handed_over() {
        let answer = answer(&[
            (TokenKind::Text, Some(1), "a"),
            (TokenKind::Text, Some(2), "b"),
        ]);
        let begun = answer.begun(true).unwrap().unwrap();
        assert_eq!(
            (begun.text.as_str(), begun.token_ids),
            ("ab", Some(vec![1, 2]))
        );
        let by_text = answer.begun(false).unwrap().unwrap();
        assert_eq!(by_text.token_ids, None);
    }

    #[test]
    fn what_was_made_is_told_as_far_as_it_is_known() {
        let ids = |answer: &AnswerSoFar, behind| answer.made_behind(behind).collect::<Vec<_>>();
        let mut known = AnswerSoFar::default();
        known.push(TokenKind::Text, Some(1), "a");
        known.put_in("</think>", Some(9));
        known.push(TokenKind::Text, Some(2), "b");
        known.push(TokenKind::Partial, Some(3), "");
        assert_eq!(ids(&known, 1), [Some(2), Some(3)]);
        assert_eq!(ids(&known, 3), []);
        known.push(TokenKind::Text, None, "c");
        assert_eq!(ids(&known, 1), [None, None, None]);
    }

    #[test]
    fn half_a_character_is_made_again() {
        let answer = answer(&[
            (TokenKind::Text, Some(1), "a"),
            (TokenKind::Partial, Some(2), ""),
        ]);
        assert_eq!(answer.tokens(), 1);
        let begun = answer.begun(true).unwrap().unwrap();
        assert_eq!(begun.token_ids, Some(vec![1]));
    }

    #[test]
    fn a_token_that_gave_a_part_of_its_text_goes_by_text() {
        let answer = answer(&[
            (TokenKind::Text, Some(1), "a"),
            (TokenKind::Partial, Some(2), "b"),
            (TokenKind::Partial, Some(3), ""),
        ]);
        assert_eq!(answer.tokens(), 2);
        let begun = answer.begun(true).unwrap().unwrap();
        assert_eq!((begun.text.as_str(), begun.token_ids), ("ab", None));
    }

    #[test]
    fn a_swallowed_token_before_text_needs_its_id() {
        let swallowed = answer(&[
            (TokenKind::Text, Some(1), "a"),
            (TokenKind::Swallowed, Some(9), ""),
            (TokenKind::Text, Some(2), "b"),
        ]);
        assert_eq!(swallowed.begun(false), Err(Inexact::SwallowedToken));
        let begun = swallowed.begun(true).unwrap().unwrap();
        assert_eq!(begun.token_ids, Some(vec![1, 9, 2]));
        let without_id = answer(&[
            (TokenKind::Swallowed, None, ""),
            (TokenKind::Partial, Some(2), "b"),
        ]);
        assert_eq!(without_id.begun(true), Err(Inexact::SwallowedToken));
    }

    #[test]
    fn a_swallowed_token_at_the_end_is_made_again() {
        let swallowed = answer(&[
            (TokenKind::Text, Some(1), "a"),
            (TokenKind::Swallowed, Some(9), ""),
        ]);
        assert_eq!(swallowed.tokens(), 1);
        let begun = swallowed.begun(true).unwrap().unwrap();
        assert_eq!(begun.token_ids, Some(vec![1]));
        let by_text = swallowed.begun(false).unwrap().unwrap();
        assert_eq!(by_text.text, "a");
        let only = answer(&[(TokenKind::Swallowed, None, "")]);
        assert_eq!(only.begun(false), Ok(None), "from the beginning");
    }

    #[test]
    fn bytes_that_are_no_text_need_their_tokens() {
        let replaced = answer(&[
            (TokenKind::Replaced, Some(1), "\u{fffd}"),
            (TokenKind::Text, Some(2), "b"),
        ]);
        assert_eq!(replaced.begun(false), Err(Inexact::ReplacedBytes));
        let begun = replaced.begun(true).unwrap().unwrap();
        assert_eq!(begun.token_ids, Some(vec![1, 2]));
    }

    #[test]
    fn nothing_but_a_half_character_starts_from_the_beginning() {
        let answer = answer(&[(TokenKind::Partial, Some(1), "")]);
        assert_eq!(answer.begun(true), Ok(None));
    }

    #[test]
    fn what_is_left_of_half_a_character_is_no_token() {
        let mut answer = AnswerSoFar::default();
        answer.push(TokenKind::Text, Some(1), "a");
        answer.push(TokenKind::Partial, Some(2), "");
        answer.push(TokenKind::Rest, None, "\u{fffd}");
        answer.roll_back();
        assert_eq!(answer.tokens(), 2);
        assert_eq!(answer.begun(false), Err(Inexact::ReplacedBytes));
    }

    #[test]
    fn what_is_put_in_is_handed_over_and_is_not_counted_as_made() {
        let mut answer = AnswerSoFar::default();
        answer.push(TokenKind::Text, Some(1), "a");
        // Half a character, which no client has seen.
        answer.push(TokenKind::Partial, Some(2), "");
        answer.put_in("</t>", Some(9));
        answer.push(TokenKind::Text, Some(3), "b");
        answer.push(TokenKind::Swallowed, Some(4), "");
        answer.roll_back();
        assert_eq!((answer.tokens(), answer.tokens_in_context()), (2, Some(3)));
        let begun = answer.begun(true).unwrap().unwrap();
        assert_eq!(
            (begun.text.as_str(), begun.token_ids, begun.tokens),
            ("a</t>b", Some(vec![1, 9, 3]), Some(3))
        );
    }

    #[test]
    fn a_text_of_unknown_tokens_is_put_in_as_text() {
        let mut answer = AnswerSoFar::default();
        answer.put_in("</t>", None);
        assert_eq!((answer.tokens(), answer.tokens_in_context()), (0, None));
        let begun = answer.begun(true).unwrap().unwrap();
        assert_eq!((begun.text.as_str(), begun.token_ids), ("</t>", None));
    }

    fn any_token() -> impl Strategy<Value = (TokenKind, Option<i32>, String)> {
        prop_oneof![
            (prop::option::of(0i32..9), "[ab]{1,2}").prop_map(|(id, text)| (
                TokenKind::Text,
                id,
                text
            )),
            (prop::option::of(0i32..9), "[ab]{0,2}").prop_map(|(id, text)| (
                TokenKind::Partial,
                id,
                text
            )),
            prop::option::of(0i32..9).prop_map(|id| (TokenKind::Swallowed, id, String::new())),
            prop::option::of(0i32..9).prop_map(|id| (
                TokenKind::Replaced,
                id,
                "\u{fffd}".to_owned()
            )),
        ]
    }

    proptest! {
        #[test]
        fn what_is_handed_over_is_what_was_received(
            lives in prop::collection::vec(prop::collection::vec(any_token(), 0..6), 1..4),
            trusted in any::<bool>(),
        ) {
            let mut answer = AnswerSoFar::default();
            let mut received = String::new();
            let mut pushed = 0;
            for life in lives {
                for (kind, id, text) in life {
                    answer.push(kind, id, &text);
                    received.push_str(&text);
                    pushed += 1;
                }
                answer.roll_back();
                prop_assert!(answer.tokens() <= pushed);
                if let Ok(Some(begun)) = answer.begun(trusted) {
                    prop_assert_eq!(&begun.text, &received);
                    if let Some(ids) = begun.token_ids {
                        prop_assert_eq!(u32::try_from(ids.len()).unwrap(), answer.tokens());
                    }
                } else if !received.is_empty() {
                    prop_assert!(answer.begun(trusted).is_err(), "text is never forgotten");
                }
            }
        }
    }
}
