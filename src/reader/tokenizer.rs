//! Makes tokens of texts with a model's tokenizer.json, and texts of tokens. A large vocabulary takes
//! tens of megabytes.

use std::fs::File;
use std::io::{Read, Seek};

use anyhow::anyhow;
use tokenizers::DecoderWrapper;

use super::tokenizer_files::MAX_FILE_BYTES;

pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads a tokenizer.json. What it says about cutting texts short and filling them up is for
    /// training, and would change what a text's tokens are.
    pub fn read(mut file: &File) -> anyhow::Result<Self> {
        let mut json = Vec::new();
        file.rewind()?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut json)?;
        anyhow::ensure!(
            json.len() as u64 <= MAX_FILE_BYTES,
            "tokenizer.json is larger than {MAX_FILE_BYTES} bytes"
        );
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|error| anyhow!("reading tokenizer.json: {error}"))?;
        inner
            .with_truncation(None)
            .map_err(|error| anyhow!("reading tokenizer.json: {error}"))?;
        inner.with_padding(None);
        Ok(Self { inner })
    }

    /// The tokens of `text` exactly as it is, special tokens parsed and none added: the rendered
    /// text holds the ones that its template wants.
    pub fn ids(&self, text: &str) -> anyhow::Result<Vec<i32>> {
        let encoding = self.encode(text)?;
        let ids = encoding.get_ids().iter().map(|&id| i32::try_from(id));
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// The tokens of `text`, special tokens in it parsed; `add_special` adds those that the
    /// tokenizer puts around a text, such as a BOS token.
    pub fn encode_ids(&self, text: &str, add_special: bool) -> anyhow::Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, add_special)
            .map_err(|error| anyhow!("tokenising a text: {error}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of these tokens, special ones included. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> anyhow::Result<String> {
        self.inner
            .decode(ids, false)
            .map_err(|error| anyhow!("making text of tokens: {error}"))
    }

    /// Whether there is a token of this id.
    pub fn is_token(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some()
    }

    /// Behind the last id.
    pub fn ids_end(&self) -> u32 {
        let vocabulary = self.inner.get_vocab(true);
        vocabulary.into_values().max().map_or(0, |last| last + 1)
    }

    /// Whether the token stands beside the vocabulary that texts are made of, as control tokens do.
    pub fn is_added(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        added.contains_key(&id)
    }

    /// Whether what skips special tokens skips this one.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        added.get(&id).is_some_and(|token| token.special)
    }

    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The bytes that a token alone stands for, which may be part of a character. `None`: there is
    /// no such token.
    pub fn piece(&self, id: u32) -> Option<Vec<u8>> {
        let token = self.inner.id_to_token(id)?;
        // The tokenizer's own method of that name clones the map.
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        if added.contains_key(&id) {
            return Some(token.into_bytes());
        }
        let coding = match self.inner.get_decoder() {
            Some(decoder) => PieceCoding::of(decoder),
            None => PieceCoding::Plain,
        };
        Some(coding.bytes(&token))
    }

    fn encode(&self, text: &str) -> anyhow::Result<tokenizers::Encoding> {
        self.inner
            .encode_fast(text, false)
            .map_err(|error| anyhow!("tokenising a prompt: {error}"))
    }
}

/// How a vocabulary writes the bytes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceCoding {
    /// A character for each byte, as GPT-2 does.
    ByteLevel,
    /// `▁` for a space, `<0x0A>` for a byte, as SentencePiece does.
    SentencePiece,
    Plain,
}

impl PieceCoding {
    fn of(decoder: &DecoderWrapper) -> Self {
        match decoder {
            DecoderWrapper::ByteLevel(_) => Self::ByteLevel,
            DecoderWrapper::Metaspace(_) | DecoderWrapper::ByteFallback(_) => Self::SentencePiece,
            DecoderWrapper::Sequence(sequence) => sequence
                .get_decoders()
                .iter()
                .map(Self::of)
                .find(|coding| *coding != Self::Plain)
                .unwrap_or(Self::Plain),
            _ => Self::Plain,
        }
    }

    pub fn bytes(self, token: &str) -> Vec<u8> {
        match self {
            Self::ByteLevel => {
                let bytes: Option<Vec<u8>> = token.chars().map(byte_level_byte).collect();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Self::SentencePiece => match fallback_byte(token) {
                Some(byte) => vec![byte],
                None => token.replace('\u{2581}', " ").into_bytes(),
            },
            Self::Plain => token.as_bytes().to_vec(),
        }
    }
}

/// `<0x0A>`, which stands for a byte.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    (is_hex && digits.len() == 2).then_some(())?;
    u8::from_str_radix(digits, 16).ok()
}

/// The byte that a character of a byte-level vocabulary stands for: printable ones of Latin-1 for
/// themselves, and from U+0100 on the others in their order.
fn byte_level_byte(character: char) -> Option<u8> {
    let stands_for_itself = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(character) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(stands_for_itself),
        code => (0..=u8::MAX)
            .filter(|byte| !stands_for_itself(byte))
            .nth(usize::try_from(code - 0x100).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_level_pieces_are_their_bytes() {
        let bytes = |token| PieceCoding::ByteLevel.bytes(token);
        assert_eq!(bytes("\u{120}a\u{10A}"), b" a\n");
        assert_eq!(bytes("â\u{124}"), [0xE2, 0x82], "part of a character");
        assert_eq!(
            bytes("\u{100}\u{143}"),
            [0, 0xAD],
            "the first and the last one"
        );
        assert_eq!(bytes("\u{144}"), "\u{144}".as_bytes(), "of no byte");
    }

    #[test]
    fn sentence_pieces_are_their_bytes() {
        let bytes = |token| PieceCoding::SentencePiece.bytes(token);
        assert_eq!(bytes("\u{2581}the"), b" the");
        assert_eq!(bytes("<0xE2>"), [0xE2]);
        assert_eq!(bytes("<0x+2>"), b"<0x+2>");
    }
}
