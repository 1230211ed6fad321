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
mod tests;
