//! Embedding rows as tokens. A row of an embedding input gets a negative token, equal rows the same
//! one, so that cells, history and prefix reuse need not know the difference; the rows themselves
//! are kept as long as a cell or the history names them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::vocabulary::Token;

#[derive(Clone)]
pub(crate) struct EmbeddingRows {
    /// Floats in a row.
    width: usize,
    rows: HashMap<Token, Box<[f32]>>,
    by_hash: HashMap<u64, Token>,
    next: Token,
}

impl EmbeddingRows {
    pub(crate) fn new(width: usize) -> EmbeddingRows {
        EmbeddingRows {
            width,
            rows: HashMap::new(),
            by_hash: HashMap::new(),
            next: -1,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn token_of(&mut self, row: &[f32]) -> Token {
        let hash = hash_of(row);
        if let Some(&known) = self.by_hash.get(&hash)
            && self.rows.get(&known).is_some_and(|kept| same(kept, row))
        {
            return known;
        }
        let token = self.next;
        // After two billion rows the oldest numbers are long gone.
        self.next = self.next.checked_sub(1).unwrap_or(-1);
        self.rows.insert(token, row.into());
        self.by_hash.insert(hash, token);
        token
    }

    pub(crate) fn row(&self, token: Token) -> Option<&[f32]> {
        self.rows.get(&token).map(|row| &**row)
    }

    /// Forgets the rows that none of `used` names.
    pub(crate) fn retain(&mut self, used: &[Vec<Token>]) {
        let named: std::collections::HashSet<Token> = used
            .iter()
            .flat_map(|tokens| tokens.iter().copied())
            .filter(|&token| token < 0)
            .collect();
        self.rows.retain(|token, _| named.contains(token));
        self.by_hash.retain(|_, token| named.contains(token));
    }
}

fn hash_of(row: &[f32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for value in row {
        value.to_bits().hash(&mut hasher);
    }
    hasher.finish()
}

/// Bit for bit: NaN is equal to itself here, and 0 is not -0.
fn same(left: &[f32], right: &[f32]) -> bool {
    left.iter()
        .map(|v| v.to_bits())
        .eq(right.iter().map(|v| v.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_are_one_token_and_none_of_the_vocabulary() {
        let mut rows = EmbeddingRows::new(2);
        let first = rows.token_of(&[1.0, 2.0]);
        assert!(first < 0);
        assert_eq!(rows.token_of(&[1.0, 2.0]), first);
        let other = rows.token_of(&[1.0, 3.0]);
        assert_ne!(other, first);
        assert_eq!(rows.row(other), Some(&[1.0, 3.0][..]));
    }

    #[test]
    fn rows_that_nothing_names_are_forgotten() {
        let mut rows = EmbeddingRows::new(1);
        let (kept, gone) = (rows.token_of(&[1.0]), rows.token_of(&[2.0]));
        rows.retain(&[vec![5, kept], vec![]]);
        assert!(rows.row(kept).is_some() && rows.row(gone).is_none());
        assert_ne!(rows.token_of(&[2.0]), kept);
    }
}
