//! The tokens of a model, as the engine wants them.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use serde::{Deserialize, Serialize};

use super::mask::TokenSet;

/// The bytes of a model's tokens, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// One behind the other.
    bytes: Vec<u8>,
    lengths: Vec<u32>,
    /// Those that structure a prompt, which no grammar spells, and ids without a token; in their order.
    special: Vec<u32>,
    /// Of those, in their order, which a runtime does not print unless it is told to.
    unprinted: Vec<u32>,
    /// Those that end an answer.
    pub ends: Vec<i32>,
}

impl Vocabulary {
    /// The next id's. `None`: it has no token.
    pub fn push(&mut self, piece: Option<&[u8]>, is_special: bool) {
        let piece = piece.unwrap_or_default();
        if is_special || piece.is_empty() {
            self.special.push(self.lengths.len() as u32);
        }
        self.bytes.extend_from_slice(piece);
        self.lengths.push(piece.len() as u32);
    }

    /// A runtime does not print the last one, unless it is told to.
    pub fn last_is_unprinted(&mut self) {
        let last = self.lengths.len().checked_sub(1);
        self.unprinted.extend(last.map(|last| last as u32));
    }

    /// Whether a token is spelled so.
    pub fn has(&self, piece: &[u8]) -> bool {
        self.pieces().any(|other| other == piece)
    }

    /// A reader may have sent anything.
    pub fn is_whole(&self) -> bool {
        let all: u64 = self.lengths.iter().map(|&length| u64::from(length)).sum();
        let is_there = |&id: &u32| (id as usize) < self.lengths.len();
        all == self.bytes.len() as u64
            && self.special.is_sorted()
            && self.special.iter().all(is_there)
            && self.unprinted.is_sorted()
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.lengths.iter().map(move |&length| {
            let (piece, behind) = rest.split_at((length as usize).min(rest.len()));
            rest = behind;
            piece
        })
    }
}

/// A vocabulary that grammars can be followed over.
pub struct ModelTokens {
    environment: TokEnv,
    pub(super) factory: ParserFactory,
    pub(super) ends: Vec<i32>,
    /// Those that are white space and nothing else.
    pub(super) white: TokenSet,
    /// Those that no grammar spells.
    pub(super) special: Vec<u32>,
    /// Of the others, those with a quote of JSON in them.
    pub(super) quotes: Vec<TokenId>,
    vocabulary: Vocabulary,
    /// Where each one's bytes begin.
    offsets: Vec<usize>,
}

impl ModelTokens {
    pub fn new(vocabulary: Vocabulary) -> anyhow::Result<Self> {
        let mut special = vocabulary.special.iter().copied().peekable();
        let mut words: Vec<Vec<u8>> = Vec::with_capacity(vocabulary.lengths.len() + 1);
        for (id, piece) in vocabulary.pieces().enumerate() {
            let is_special = special.next_if_eq(&(id as u32)).is_some();
            words.push(match is_special {
                true => marked(id, piece),
                false => piece.to_vec(),
            });
        }
        // The engine's own end stands behind them: a model may have several ends, or none that is known.
        let end = words.len();
        words.push(marked(end, b"<end>"));
        let info = TokRxInfo::new(words.len() as u32, end as TokenId);
        let quotes = (0..).zip(vocabulary.pieces());
        let quotes = quotes.filter(|(id, piece)| {
            piece.contains(&b'"') && vocabulary.special.binary_search(id).is_err()
        });
        let is_white = |piece: &[u8]| piece.iter().all(u8::is_ascii_whitespace);
        let offsets = vocabulary.lengths.iter().scan(0, |next, &length| {
            let offset = *next;
            *next += length as usize;
            Some(offset)
        });
        let offsets = offsets.collect();
        let environment: TokEnv = Arc::new(Environment(TokTrie::from(&info, &words)));
        Ok(Self {
            factory: ParserFactory::new_simple(&environment)?,
            environment,
            white: vocabulary.pieces().map(is_white).collect(),
            special: vocabulary.special.clone(),
            quotes: quotes.map(|(id, _)| id).collect(),
            ends: vocabulary.ends.clone(),
            offsets,
            vocabulary,
        })
    }

    /// One for each byte and so many that no text spells, for who only wants to know whether a grammar
    /// can be compiled.
    pub fn of_bytes(special: usize) -> anyhow::Result<Self> {
        let mut vocabulary = Vocabulary::default();
        for byte in 0..=u8::MAX {
            // What begins with this byte is the engine's own.
            let is_special = byte == TokTrie::SPECIAL_TOKEN_MARKER;
            vocabulary.push(Some(&[byte]), is_special);
        }
        for _ in 0..special {
            vocabulary.push(Some(b"<special>"), true);
        }
        Self::new(vocabulary)
    }

    /// What a token spells; control tokens their own text.
    pub fn piece(&self, id: i32) -> &[u8] {
        let place = usize::try_from(id).ok();
        let of = |place: usize| {
            let (offset, length) = (
                *self.offsets.get(place)?,
                *self.vocabulary.lengths.get(place)?,
            );
            self.vocabulary.bytes.get(offset..offset + length as usize)
        };
        place.and_then(of).unwrap_or_default()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.white.count()
    }

    /// Those that end an answer.
    pub fn ends(&self) -> &[i32] {
        &self.ends
    }

    /// Whether it ends an answer, where it is no part of one.
    pub fn is_end(&self, id: i32) -> bool {
        self.ends.contains(&id)
    }

    /// Whether a runtime prints nothing of it, unless it is told to.
    pub fn is_unprinted(&self, id: i32) -> bool {
        let id = u32::try_from(id);
        id.is_ok_and(|id| self.vocabulary.unprinted.binary_search(&id).is_ok())
    }

    /// Tokens that spell `text`, though the model's tokenizer may choose others.
    pub fn spell(&self, text: &[u8]) -> Vec<TokenId> {
        self.environment.tok_trie().greedy_tokenize(text)
    }
}

/// A name that no text and no other token has.
fn marked(id: usize, piece: &[u8]) -> Vec<u8> {
    let name = format!("<{id}:");
    [
        &[TokTrie::SPECIAL_TOKEN_MARKER],
        name.as_bytes(),
        piece,
        b">",
    ]
    .concat()
}

/// Which tokens a text is made of is the model's choice: no text is forced upon it by its tokens.
struct Environment(TokTrie);

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(text)
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}
