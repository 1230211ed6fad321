//! Follows an answer through its grammar, and says of each next token whether it may come.
//!
//! ```text
//!   Before: a thought may begin ──opener──► Thought: free until its end ──► Answer: kept to the grammar
//!      └───────────────────── anything else, which is the answer's ──────────────▲
//! ```
//!
//! Ends of the model are not allowed before the answer can end, and not in a thought. An answer that can
//! only be followed by white space is complete.

use std::sync::Arc;

use anyhow::{Context, bail};
use llguidance::Matcher;
use llguidance::toktrie::TokenId;

use super::grammar;
use super::tokens::ModelTokens;
use super::{Limits, Thought};

/// What becomes of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Token,
    /// It is complete.
    End,
}

enum Place {
    /// What was said of a thought's opener.
    Before(Vec<u8>),
    /// What was said of the thought, as far as its end may be in it.
    Thought(Vec<u8>),
    Answer,
}

pub struct Follower {
    tokens: Arc<ModelTokens>,
    matcher: Matcher,
    thought: Option<Thought>,
    place: Place,
    /// Of what the run has drawn, so many tokens were followed.
    followed: usize,
    has_ended: bool,
}

impl Follower {
    /// `begun`: the bytes of an answer that is gone on with.
    pub fn new(
        grammar: &str,
        limits: &Limits,
        thought: Option<Thought>,
        tokens: Arc<ModelTokens>,
        begun: &[u8],
    ) -> anyhow::Result<Self> {
        let parser = grammar::parser(grammar, &tokens, limits).context("compiling a grammar")?;
        let place = match &thought {
            None => Place::Answer,
            Some(thought) if !thought.is_open && thought.open.is_empty() => Place::Answer,
            Some(thought) if thought.is_open => Place::Thought(Vec::new()),
            Some(_) => Place::Before(Vec::new()),
        };
        let mut follower = Self {
            matcher: Matcher::new(Ok(parser)),
            tokens,
            thought,
            place,
            followed: 0,
            has_ended: false,
        };
        if !begun.is_empty() {
            follower.says(begun, None)?;
        }
        Ok(follower)
    }

    /// Forbids what may not come next in `row`, by -inf. `drawn` is all that the run has drawn so far.
    ///
    /// # Errors
    /// The answer cannot be followed further, within its limits.
    pub fn row(&mut self, drawn: &[i32], row: &mut [f32]) -> anyhow::Result<Next> {
        while let Some(&id) = drawn.get(self.followed) {
            self.followed += 1;
            if self.tokens.ends.contains(&id) {
                self.has_ended = true;
            } else {
                let tokens = Arc::clone(&self.tokens);
                self.says(tokens.piece(id), Some(id))?;
            }
        }
        if self.has_ended {
            return Ok(Next::End);
        }
        match &self.place {
            Place::Thought(said) => {
                self.forbid_what_closes_and_goes_on(said, row);
                self.forbid_special(row);
                Ok(Next::Token)
            }
            Place::Before(said) => {
                let thought = self.thought.as_ref();
                let opener = thought.map_or("", |thought| &thought.open);
                let open_id = thought.and_then(|thought| thought.open_id);
                let rest = &opener.as_bytes()[said.len()..];
                let opens = |id: usize| {
                    if let Some(open_id) = open_id {
                        return usize::try_from(open_id) == Ok(id);
                    }
                    let piece = self.tokens.piece(id as i32);
                    !piece.is_empty() && (rest.starts_with(piece) || piece.starts_with(rest))
                };
                let kept: Vec<(usize, f32)> = (row.iter().copied().enumerate())
                    .filter(|&(id, _)| opens(id))
                    .collect();
                if said.is_empty() {
                    self.restrict(row)?;
                } else {
                    row.fill(f32::NEG_INFINITY);
                }
                for (id, logit) in kept {
                    row[id] = logit;
                }
                Ok(Next::Token)
            }
            Place::Answer => self.restrict(row),
        }
    }

    /// Takes in what was said; `id`: all of it is this token.
    fn says(&mut self, bytes: &[u8], id: Option<i32>) -> anyhow::Result<()> {
        match &mut self.place {
            Place::Answer => self.answers(bytes, id),
            Place::Before(said) => {
                let thought = self.thought.as_ref();
                if let (Some(opens), Some(id)) = (thought.and_then(|it| it.open_id), id) {
                    if id == opens {
                        self.place = Place::Thought(Vec::new());
                        return Ok(());
                    }
                    self.place = Place::Answer;
                    return self.answers(bytes, Some(id));
                }
                let opener = thought.map_or("", |thought| &thought.open);
                let opener = opener.as_bytes();
                said.extend_from_slice(bytes);
                if said.starts_with(opener) && !opener.is_empty() {
                    let rest = said[opener.len()..].to_vec();
                    self.place = Place::Thought(Vec::new());
                    return self.says(&rest, None);
                }
                if opener.starts_with(said) {
                    return Ok(());
                }
                let is_one_token = said.len() == bytes.len();
                let said = std::mem::take(said);
                self.place = Place::Answer;
                self.answers(&said, id.filter(|_| is_one_token))
            }
            Place::Thought(said) => {
                let thought = self.thought.as_ref();
                if let (Some(closes), Some(id)) = (thought.and_then(|it| it.close_id), id) {
                    if id == closes {
                        self.place = Place::Answer;
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
                let rest = said[found + closer.len()..].trim_ascii_start().to_vec();
                self.place = Place::Answer;
                self.answers(&rest, None)
            }
        }
    }

    fn answers(&mut self, bytes: &[u8], id: Option<i32>) -> anyhow::Result<()> {
        match id.and_then(|id| TokenId::try_from(id).ok()) {
            Some(id) => self.matcher.consume_token(id)?,
            None => {
                let tokens = self.tokens.spell(bytes);
                self.matcher.consume_tokens(&tokens)?;
            }
        }
        Ok(())
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
        let allowed = self.matcher.compute_mask()?;
        let is_white = &self.tokens.is_white;
        let mut goes_on = false;
        let mut any = false;
        for (id, logit) in row.iter_mut().enumerate() {
            let is_known = id < is_white.len();
            match is_known && allowed.is_allowed(id as TokenId) {
                true => {
                    goes_on |= !is_white[id];
                    any = true;
                }
                false => {
                    let is_end = may_end && self.tokens.ends.contains(&(id as i32));
                    if !is_end {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
        match (goes_on, may_end) {
            (false, true) => Ok(Next::End),
            _ if !any => bail!("no token of the model goes on with it"),
            _ => Ok(Next::Token),
        }
    }

    /// All but what closes the thought: of the others some end the answer, and none is a thought's.
    fn forbid_special(&self, row: &mut [f32]) {
        let closer = self.thought.as_ref().map_or("", |thought| &thought.close);
        let ends = self.tokens.ends.iter().copied();
        let special = self.tokens.special.iter().map(|&id| id as i32);
        for id in ends.chain(special) {
            if self.tokens.piece(id) != closer.as_bytes()
                && let Some(logit) = usize::try_from(id).ok().and_then(|id| row.get_mut(id))
            {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// A token may end the thought in its middle, and only white space may stand behind that: what the
    /// answer begins with is to be chosen by the grammar.
    fn forbid_what_closes_and_goes_on(&self, said: &[u8], row: &mut [f32]) {
        let thought = self.thought.as_ref();
        if thought.is_some_and(|thought| thought.close_id.is_some()) {
            return;
        }
        let closer = thought.map_or("", |thought| &thought.close);
        let closer = closer.as_bytes();
        for begun in 0..closer.len() {
            if !said.ends_with(&closer[..begun]) {
                continue;
            }
            let rest = &closer[begun..];
            for (id, logit) in row.iter_mut().enumerate() {
                let behind = self.tokens.piece(id as i32).strip_prefix(rest);
                if behind.is_some_and(|behind| !behind.trim_ascii().is_empty()) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
