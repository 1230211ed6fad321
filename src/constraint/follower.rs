//! Follows an answer through its grammar, and says of each next token whether it may come.
//!
//! ```text
//!   Before: a thought may begin ──opener──► Thought: free until its end ──► Answer: kept to the grammar
//!      └───────────────────── anything else, which is the answer's ──────────────▲
//!
//!   Free, where only calls are kept ──what a call begins with──► Answer ──it is whole──► Free
//! ```
//!
//! Ends of the model are not allowed before the answer can end, and not in a thought. An answer that can
//! only be followed by white space is complete.

mod stages;

use std::sync::Arc;

use anyhow::{Context, bail};
use llguidance::Matcher;
use llguidance::toktrie::TokenId;

use super::compiled::Parsers;
use super::opening::{Said, Watch};
use super::tokens::ModelTokens;
use super::unique_keys::{Beginning, UniqueKeys};
use super::{Constraint, Thought, UniqueIn};

/// What becomes of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Token,
    /// It is complete.
    End,
}

/// What of an answer was made before.
#[derive(Clone, Copy, Debug)]
pub enum Begun<'b> {
    Nothing,
    Tokens(&'b [i32]),
    /// Its tokens are not known.
    Text(&'b str),
}

/// How far an answer has come.
enum Stage {
    /// What was said of a thought's opener; it may be the beginning of the answer instead.
    Before {
        said: Vec<u8>,
        may_be_answer: bool,
    },
    /// What was said of the thought, as far as its end may be in it.
    Thought(Vec<u8>),
    Answer,
    /// Nothing is kept here; calls are.
    Free(Box<Watch>),
}

pub struct Follower {
    tokens: Arc<ModelTokens>,
    /// At the beginning of the grammar.
    start: Matcher,
    matcher: Matcher,
    thought: Option<Thought>,
    stage: Stage,
    /// What is free around calls, while one is followed.
    free: Option<Box<Watch>>,
    keys: Option<UniqueKeys>,
    unique_keys: UniqueIn,
    /// What the answer begins with says whether there are any.
    keys_if: Option<Beginning>,
    /// Of what the run has drawn, so many tokens were followed.
    followed: usize,
    has_ended: bool,
    /// What the last row said of it.
    may_end: bool,
}

impl Follower {
    /// With a grammar that is made for it.
    pub fn new(
        constraint: &Constraint,
        tokens: Arc<ModelTokens>,
        begun: Begun<'_>,
    ) -> anyhow::Result<Self> {
        Self::with(constraint, &Parsers::new(tokens), begun)
    }

    /// With one that is kept, if it was made before.
    pub fn with(
        constraint: &Constraint,
        parsers: &Parsers,
        begun: Begun<'_>,
    ) -> anyhow::Result<Self> {
        let Constraint {
            grammar,
            limits,
            how,
            thought,
            ..
        } = constraint;
        let parser = parsers.parser(grammar, limits);
        let parser = parser.context("compiling a grammar")?;
        let stage = match thought {
            _ if !how.opens.is_empty() => {
                Stage::Free(Box::new(Watch::new(how.opens.clone(), thought.as_ref())))
            }
            None => Stage::Answer,
            Some(thought) if thought.is_open => Stage::Thought(Vec::new()),
            Some(thought) if thought.open.is_empty() => Stage::Answer,
            Some(_) => Stage::Before {
                said: Vec::new(),
                may_be_answer: true,
            },
        };
        let start = Matcher::new(Ok(parser));
        let mut follower = Self {
            matcher: start.clone(),
            start,
            tokens: Arc::clone(parsers.tokens()),
            thought: thought.clone(),
            stage,
            free: None,
            keys: (how.unique_keys != UniqueIn::None).then(UniqueKeys::default),
            keys_if: Beginning::of(&how.unique_keys),
            unique_keys: how.unique_keys.clone(),
            followed: 0,
            has_ended: false,
            may_end: false,
        };
        match begun {
            Begun::Nothing => {}
            // Calls may begin and end in it.
            Begun::Text(text) if !how.opens.is_empty() => (text.char_indices())
                .map(|(at, c)| &text.as_bytes()[at..at + c.len_utf8()])
                .try_for_each(|c| follower.says(c, None))?,
            Begun::Text("") => {}
            Begun::Text(text) => follower.says(text.as_bytes(), None)?,
            Begun::Tokens(ids) => ids.iter().try_for_each(|&id| follower.token(id))?,
        }
        Ok(follower)
    }

    fn follow(&mut self, drawn: &[i32]) -> anyhow::Result<()> {
        while let Some(&id) = drawn.get(self.followed) {
            self.followed += 1;
            self.token(id)?;
        }
        Ok(())
    }

    /// What `row` would say, where it would leave the row as it is; `None`: it has to see it.
    ///
    /// # Errors
    /// As those of `row`.
    pub fn before_row(&mut self, drawn: &[i32]) -> anyhow::Result<Option<Next>> {
        self.follow(drawn)?;
        if self.has_ended {
            return Ok(Some(Next::End));
        }
        let is_free = matches!(&self.stage, Stage::Free(watch) if !watch.has_begun());
        if is_free {
            self.may_end = true;
        }
        Ok(is_free.then_some(Next::Token))
    }

    /// Forbids what may not come next in `row`, by -inf. `drawn` is all that the run has drawn so far.
    ///
    /// # Errors
    /// The answer cannot be followed further, within its limits.
    pub fn row(&mut self, drawn: &[i32], row: &mut [f32]) -> anyhow::Result<Next> {
        self.follow(drawn)?;
        if self.has_ended {
            return Ok(Next::End);
        }
        self.may_end = matches!(self.stage, Stage::Free(_));
        match &self.stage {
            Stage::Thought(said) => {
                self.forbid_what_closes_and_goes_on(said, row);
                self.forbid_special(row);
                Ok(Next::Token)
            }
            Stage::Before { .. } => self.restrict_before(row),
            Stage::Answer => self.restrict(row),
            Stage::Free(watch) => {
                if watch.has_begun() {
                    self.forbid_what_opens_wrong(watch, row);
                }
                Ok(Next::Token)
            }
        }
    }

    /// Whether the token that the last row was for could be an end.
    pub fn may_end(&self) -> bool {
        self.may_end
    }

    /// Whether the last token was an end of the model's, and no part of the answer.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether nothing can follow once `last` was drawn.
    ///
    /// # Errors
    /// As those of `row`.
    pub fn is_complete_behind(&mut self, last: i32) -> anyhow::Result<bool> {
        let drawn: Vec<i32> = std::iter::repeat_n(last, self.followed + 1).collect();
        let mut row = vec![0.0; self.tokens.count()];
        Ok(self.row(&drawn, &mut row)? == Next::End)
    }

    fn token(&mut self, id: i32) -> anyhow::Result<()> {
        if self.tokens.ends.contains(&id) && !self.is_followed_by(id) {
            self.has_ended = true;
            return Ok(());
        }
        let tokens = Arc::clone(&self.tokens);
        self.says(tokens.piece(id), Some(id))
    }

    /// Some markers of calls end a model's turn, too.
    fn is_followed_by(&mut self, id: i32) -> bool {
        let id = TokenId::try_from(id).unwrap_or(TokenId::MAX);
        matches!(self.stage, Stage::Answer)
            && !self.matcher.is_stopped()
            && self
                .matcher
                .validate_tokens(&[id])
                .is_ok_and(|count| count == 1)
    }

    /// Takes in what was said; `id`: all of it is this token.
    fn says(&mut self, bytes: &[u8], id: Option<i32>) -> anyhow::Result<()> {
        match &mut self.stage {
            Stage::Answer => self.answers(bytes, id),
            Stage::Before { .. } => self.says_before(bytes, id),
            Stage::Free(watch) => {
                if let Some(said) = watch.says(bytes, id) {
                    self.begin_call(&said)?;
                }
                Ok(())
            }
            Stage::Thought(said) => {
                let thought = self.thought.as_ref();
                if let (Some(closes), Some(id)) = (thought.and_then(|it| it.close_id), id) {
                    if id == closes {
                        self.stage = Stage::Answer;
                    }
                    return Ok(());
                }
                let closer = thought.map_or("", |thought| &thought.close);
                let closer = closer.as_bytes();
                said.extend_from_slice(bytes);
                let found = said.windows(closer.len()).position(|at| at == closer);
                let Some(found) = found else {
                    // Its end may have begun.
                    let kept = closer.len().saturating_sub(1);
                    said.drain(..said.len().saturating_sub(kept));
                    return Ok(());
                };
                let rest = said[found + closer.len()..].to_vec();
                self.stage = Stage::Answer;
                // Of a text that was made before, without its tokens, white space may be the answer's.
                let most = rest.len() - rest.trim_ascii_start().len();
                let least = if id.is_some() { most } else { 0 };
                let goes_on =
                    |from: &usize| self.goes_on_with(&[Said::Bytes(rest[*from..].to_vec())]);
                let from = (least..most).find(goes_on).unwrap_or(most);
                self.answers(&rest[from..], None)
            }
        }
    }

    fn answers(&mut self, bytes: &[u8], id: Option<i32>) -> anyhow::Result<()> {
        let id = id.and_then(|id| TokenId::try_from(id).ok());
        let is_special = id.is_some_and(|id| self.tokens.special.binary_search(&id).is_ok());
        self.says_keys(bytes, is_special);
        match id {
            Some(id) => self.matcher.consume_token(id)?,
            None => {
                let tokens = self.tokens.spell(bytes);
                self.matcher.consume_tokens(&tokens)?;
            }
        }
        self.end_call()
    }

    fn restrict(&mut self, row: &mut [f32]) -> anyhow::Result<Next> {
        if self.matcher.is_stopped() {
            let reason = self.matcher.stop_reason();
            if !reason.is_ok() {
                let error = self.matcher.get_error();
                bail!("{}", error.unwrap_or_else(|| reason.to_string()));
            }
            return Ok(Next::End);
        }
        let may_end = self.matcher.is_accepting()?;
        self.may_end = may_end;
        let allowed = self.matcher.compute_mask()?;
        let ends = match may_end {
            true => self.tokens.ends.as_slice(),
            false => &[],
        };
        let ends = ends.iter().filter_map(|&id| usize::try_from(id).ok());
        let ends: Vec<(usize, f32)> = ends.filter_map(|id| Some((id, *row.get(id)?))).collect();
        let left = self.tokens.white.restrict(allowed.as_slice(), row);
        for (id, logit) in ends {
            row[id] = logit;
        }
        let (mut any, goes_on) = (left.any, left.beyond);
        let keys = self.keys.as_ref().filter(|keys| keys.has_keys());
        if let Some(keys) = keys {
            for &id in &self.tokens.quotes {
                let is_there = allowed.is_allowed(id) && (id as usize) < row.len();
                if is_there && keys.is_repeated_by(self.tokens.piece(id as i32)) {
                    row[id as usize] = f32::NEG_INFINITY;
                }
            }
            any = row.iter().any(|logit| *logit != f32::NEG_INFINITY);
        }
        match (goes_on, may_end) {
            (false, true) => Ok(Next::End),
            _ if !any => bail!("no token of the model goes on with it"),
            _ => Ok(Next::Token),
        }
    }
}

#[cfg(test)]
mod tests;
