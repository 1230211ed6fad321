//! Grammars that were made before: those of the latest requests, by what they were made of.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use llguidance::TokenParser;
use rustix::process::nice;
use sha2::{Digest, Sha256};

use super::tokens::ModelTokens;
use super::{Compiled, Limits, NICE, Unenforceable, Wanted, grammar};

/// Making a grammar recurses. What a reader could do in its 8 MiB can be done here.
const STACK_BYTES: usize = 32 << 20;

type Key = [u8; 32];

/// What was made last, at the end; what was not used for longest goes.
struct Latest<T> {
    made: Vec<(Key, T)>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { made: Vec::new() }
    }
}

impl<T> Latest<T> {
    fn get(&mut self, key: &Key) -> Option<&T> {
        let place = self.made.iter().position(|(known, _)| known == key)?;
        let found = self.made.remove(place);
        self.made.push(found);
        self.made.last().map(|(_, made)| made)
    }

    fn keep(&mut self, key: Key, made: T, most: usize) {
        if most == 0 {
            return;
        }
        while self.made.len() >= most {
            self.made.remove(0);
        }
        self.made.push((key, made));
    }
}

fn key(of: &impl serde::Serialize, limits: &Limits) -> Option<Key> {
    let bytes = postcard::to_stdvec(&(of, limits)).ok()?;
    Some(Sha256::digest(&bytes).into())
}

/// A reader's: from what clients want to the engine's own JSON.
#[derive(Default)]
pub struct CompiledGrammars {
    latest: Latest<Compiled>,
}

impl CompiledGrammars {
    /// As [`compile`](super::compile), once for what is wanted again.
    ///
    /// # Errors
    /// There is no grammar.
    pub fn compile(&mut self, wanted: &Wanted, limits: &Limits) -> Result<Compiled, Unenforceable> {
        let key = key(wanted, limits);
        if let Some(made) = key.as_ref().and_then(|key| self.latest.get(key)) {
            return Ok(made.clone());
        }
        let made = grammar::compile(wanted, limits)?;
        if let Some(key) = key {
            self.latest.keep(key, made.clone(), limits.kept_grammars);
        }
        Ok(made)
    }
}

/// A worker's: parsers of grammars over the tokens of its model, not begun.
pub struct Parsers {
    tokens: Arc<ModelTokens>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    latest: Latest<TokenParser>,
    made: u64,
}

impl Parsers {
    pub fn new(tokens: Arc<ModelTokens>) -> Self {
        Self {
            tokens,
            state: Mutex::default(),
        }
    }

    pub fn tokens(&self) -> &Arc<ModelTokens> {
        &self.tokens
    }

    /// How many were made.
    pub fn made(&self) -> u64 {
        self.state().made
    }

    pub(super) fn parser(&self, grammar: &str, limits: &Limits) -> anyhow::Result<TokenParser> {
        let key = key(&grammar, limits);
        // A copy is independent of what it was made from.
        let known = key.and_then(|key| self.state().latest.get(&key).map(TokenParser::deep_clone));
        if let Some(known) = known {
            return Ok(known);
        }
        let parser = self.make(grammar, limits)?;
        let mut state = self.state();
        state.made += 1;
        if let Some(key) = key {
            state
                .latest
                .keep(key, parser.deep_clone(), limits.kept_grammars);
        }
        Ok(parser)
    }

    /// At a low priority, which only a thread of its own can be given for a while.
    fn make(&self, grammar: &str, limits: &Limits) -> anyhow::Result<TokenParser> {
        let (grammar, limits) = (grammar.to_owned(), *limits);
        let tokens = Arc::clone(&self.tokens);
        let made = std::thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // No client is refused to give way.
                let _ = nice(NICE);
                grammar::parser(&grammar, &tokens, &limits)
            })?;
        made.join().map_err(|_| anyhow!("making it failed"))?
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::{Begun, Constraint, Follower, How, Need, Next, WhiteSpace};

    fn limits(kept_grammars: usize) -> Limits {
        Limits {
            white_space: WhiteSpace::None,
            schema_bytes: 1 << 20,
            schema_depth: 16,
            grammar_symbols: 100_000,
            lexer_states: 8_000,
            lexer_steps: 200_000,
            kept_grammars,
        }
    }

    fn parsers() -> Parsers {
        Parsers::new(Arc::new(ModelTokens::of_bytes(0).expect("tokens")))
    }

    fn follower(parsers: &Parsers, word: &str, limits: &Limits) -> Follower {
        let wanted = Wanted::Regex(word.to_owned());
        let compiled = grammar::compile(&wanted, limits).expect("a grammar");
        let constraint = Constraint {
            grammar: compiled.grammar.into(),
            limits: *limits,
            how: How::default(),
            thought: None,
            need: Need::Needed,
        };
        Follower::with(&constraint, parsers, Begun::Nothing).expect("it compiles")
    }

    #[test]
    fn a_grammar_is_made_once_and_followed_from_its_beginning_each_time() {
        let (parsers, limits) = (parsers(), limits(2));
        let says = |word: &str| {
            let mut follower = follower(&parsers, word, &limits);
            let drawn: Vec<i32> = word.bytes().map(i32::from).collect();
            for at in 0..drawn.len() {
                let mut row = [0.0; 256];
                let next = follower.row(&drawn[..at], &mut row).expect("it goes on");
                assert_eq!(next, Next::Token);
                let allowed: Vec<usize> = (0..256).filter(|&id| row[id] == 0.0).collect();
                assert_eq!(allowed, [drawn[at] as usize]);
            }
        };
        (0..3).for_each(|_| says("one"));
        assert_eq!(parsers.made(), 1);
        says("two");
        says("one");
        assert_eq!(parsers.made(), 2);
        // Of three, two are kept.
        says("three");
        says("one");
        assert_eq!(parsers.made(), 3);
        says("two");
        assert_eq!(parsers.made(), 4);
    }

    #[test]
    fn none_is_kept_where_none_is_to_be() {
        let (parsers, limits) = (parsers(), limits(0));
        for _ in 0..2 {
            follower(&parsers, "one", &limits);
        }
        assert_eq!(parsers.made(), 2);
    }

    #[test]
    fn what_is_wanted_again_is_not_compiled_again() {
        let (mut grammars, limits) = (CompiledGrammars::default(), limits(1));
        let wanted = Wanted::Regex("a".to_owned());
        let first = grammars.compile(&wanted, &limits).expect("a grammar");
        assert_eq!(grammars.latest.made.len(), 1);
        assert_eq!(grammars.compile(&wanted, &limits), Ok(first));
        let other = grammars.compile(&Wanted::Regex("b".to_owned()), &limits);
        assert_ne!(grammars.compile(&wanted, &limits), other);
        assert_eq!(grammars.latest.made.len(), 1);
    }
}
