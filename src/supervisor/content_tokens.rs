//! Which tokens the pieces of a reply's content are made of, where it is asked how likely they were.
//! Pure.
//!
//! What a token adds to the answer's text is known; what of that becomes content is learnt from the
//! pieces that follow, which are parts of that text in its order. Between them is what is no content:
//! markers, thoughts, calls. A place in the text belongs to the token whose byte stands there. Content that
//! ends within a character has no text of that, and its tokens all the same.

use std::collections::VecDeque;
use std::ops::Range;

use crate::conversation::{ReplyPiece, ScoredText, TokenLogprobs};
use crate::ipc::TokenKind;

#[derive(Debug, Default)]
pub(super) struct ContentTokens {
    /// Text that may still become content.
    text: String,
    /// Where it begins in all of the answer's text.
    begin: usize,
    /// Where the bytes of the next token begin: a part of a character comes before its text does.
    next_byte: usize,
    tokens: VecDeque<Placed>,
    /// Content that waits until it is known how much of its last token is content.
    carried: ScoredText,
}

#[derive(Debug)]
struct Placed {
    logprobs: TokenLogprobs,
    /// Its bytes in the text, of which it is not known yet whether they are content.
    at: Range<usize>,
    /// Where all of its bytes begin.
    begin: usize,
    /// Those of its bytes that are content.
    content: Vec<u8>,
    /// Each of its bytes is one of the text, so a part of them can be told; `Some`: the text has something
    /// else in the place of those from here on.
    inexact_from: Option<usize>,
}

impl Placed {
    /// Its first byte of which it is not known yet whether it is content.
    fn next(&self) -> usize {
        // Where the text has something else in their place, `at` is no longer that of its own bytes.
        self.inexact_from
            .unwrap_or_else(|| self.at.start - self.begin)
    }
}

/// What the end of an answer is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// What the answer goes on with would be content.
    Content,
    /// A stop string, or a thought or call that was cut.
    Other,
}

impl ContentTokens {
    /// Takes in what a token adds to the answer's text. `logprobs`: `None` if nothing is known of it.
    pub fn push(&mut self, kind: TokenKind, text: &str, logprobs: Option<TokenLogprobs>) {
        let before = self.end();
        self.text.push_str(text);
        if let Some(logprobs) = logprobs.filter(|_| kind != TokenKind::Swallowed) {
            let end = self.next_byte + logprobs.token.bytes.len();
            self.tokens.push_back(Placed {
                logprobs,
                at: self.next_byte..end,
                begin: self.next_byte,
                content: Vec::new(),
                inexact_from: None,
            });
            self.next_byte = end;
        } else {
            self.next_byte = self.next_byte.max(self.end());
        }
        let is_whole = kind != TokenKind::Partial;
        if kind == TokenKind::Replaced || (is_whole && self.next_byte != self.end()) {
            // The text has something else in the place of their bytes.
            let end = self.end();
            for token in &mut self.tokens {
                if token.at.end > before {
                    token.inexact_from = Some(token.next());
                    token.at = token.at.start.min(before)..end;
                }
            }
            self.next_byte = self.end();
        }
    }

    /// Gives the texts among the pieces their tokens. `is_settled`: nothing that came so far can be a part
    /// of later ones.
    pub fn score(&mut self, pieces: &mut Vec<ReplyPiece>, is_settled: bool) {
        for piece in std::mem::take(pieces) {
            match piece {
                ReplyPiece::Text(text) => {
                    self.take(&text);
                    self.let_go(self.half_taken(), pieces);
                }
                piece => {
                    self.settle();
                    self.let_go(0, pieces);
                    pieces.push(piece);
                }
            }
        }
        if is_settled {
            self.skip_to(self.end());
            self.let_go(self.half_taken(), pieces);
        }
    }

    /// No more of the answer follows.
    pub fn finish(&mut self, pieces: &mut Vec<ReplyPiece>, behind: Behind) {
        self.score(pieces, true);
        match behind {
            Behind::Content => self.take_begun(),
            Behind::Other => self.settle(),
        }
        self.let_go(0, pieces);
    }

    /// What was not seen is taken back, and may be made again.
    pub fn roll_back(&mut self) {
        let end = self.end();
        while let Some(last) = self.tokens.back_mut() {
            if last.at.start >= end && last.content.is_empty() {
                self.tokens.pop_back();
                continue;
            }
            last.at.end = last.at.end.min(end.max(last.at.start));
            break;
        }
        self.next_byte = end;
    }

    /// The text is content.
    fn take(&mut self, text: &str) {
        self.carried.text.push_str(text);
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            // As much as there is of it in one place.
            let (skipped, length) = match self.text.find(rest) {
                Some(at) => (at, rest.len()),
                None => match self.text.find(first) {
                    Some(at) => (at, alike(&self.text[at..], rest)),
                    // It is not the answer's own.
                    None => break,
                },
            };
            self.skip_to(self.begin + skipped);
            self.take_up_to(self.begin + length);
            rest = &rest[length..];
        }
    }

    /// What comes before is no content.
    fn skip_to(&mut self, place: usize) {
        while let Some(first) = self.tokens.front_mut()
            && first.at.start < place
        {
            if first.at.end > place {
                first.at.start = place;
                break;
            }
            self.tell_first();
        }
        self.text.drain(..place - self.begin);
        self.begin = place;
    }

    /// What comes before is content.
    fn take_up_to(&mut self, place: usize) {
        while let Some(first) = self.tokens.front_mut()
            && first.at.start < place
        {
            let bytes = &first.logprobs.token.bytes;
            let is_exact = first.inexact_from.is_none();
            let from = first.next();
            // Of those that are no text, all.
            let to = match is_exact {
                true => first.at.end.min(place) - first.begin,
                false => bytes.len(),
            };
            first.content.extend_from_slice(&bytes[from..to]);
            if is_exact && first.at.end > place {
                first.at.start = place;
                break;
            }
            self.tell_first();
        }
        self.text.drain(..place - self.begin);
        self.begin = place;
    }

    /// Bytes behind all text are the beginning of a character, which is content.
    fn take_begun(&mut self) {
        while let Some(first) = self.tokens.front_mut() {
            let bytes = first.logprobs.token.bytes.get(first.next()..);
            first.content.extend_from_slice(bytes.unwrap_or_default());
            self.tell_first();
        }
    }

    /// Nothing more is to be learnt of the first token.
    fn tell_first(&mut self) {
        if let Some(Placed {
            mut logprobs,
            content,
            ..
        }) = self.tokens.pop_front()
            && !content.is_empty()
        {
            logprobs.token.bytes = content;
            self.carried.tokens.push(logprobs);
        }
    }

    /// Bytes of content that the first token has, of which it is not known whether it has more.
    fn half_taken(&self) -> usize {
        let first = self.tokens.front();
        first.map_or(0, |first| first.content.len())
    }

    /// No more of the token that is content in part is.
    fn settle(&mut self) {
        if self.half_taken() > 0 {
            self.tell_first();
        }
    }

    /// Tells what was carried, but for that many bytes at its end.
    fn let_go(&mut self, but: usize, pieces: &mut Vec<ReplyPiece>) {
        let ScoredText { text, tokens } = &mut self.carried;
        let told = text.floor_char_boundary(text.len().saturating_sub(but));
        if told == 0 && (but > 0 || tokens.is_empty()) {
            return;
        }
        let rest = text.split_off(told);
        pieces.push(ReplyPiece::ScoredText(ScoredText {
            text: std::mem::replace(text, rest),
            tokens: std::mem::take(tokens),
        }));
    }

    fn end(&self) -> usize {
        self.begin + self.text.len()
    }
}

/// Bytes of whole characters with which both begin.
fn alike(one: &str, other: &str) -> usize {
    let both = one.chars().zip(other.chars());
    both.take_while(|(a, b)| a == b)
        .map(|(a, _)| a.len_utf8())
        .sum()
}

#[cfg(test)]
mod tests;
