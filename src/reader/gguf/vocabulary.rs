//! The bytes of a model's tokens, from its GGUF file. Read when an answer is to be kept to a format, and
//! not before: a vocabulary is the largest part of a header.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::{GgufError, Header, ValueType};
use crate::constraint::Vocabulary;
use crate::reader::tokenizer::PieceCoding;

const MAX_TOKENS: u64 = 1 << 20;
const MAX_TOKEN_BYTES: u64 = 64 * 1024;
const MAX_NAME_BYTES: u64 = 4096;

/// Tokens of these types are made of text.
const NORMAL: u64 = 1;
const BYTE: u64 = 6;
/// Of the others llama.cpp prints these.
const USER_DEFINED: u64 = 4;

/// The ids of these end an answer.
const ENDS: [&str; 3] = [
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
];

/// Where an array lies.
#[derive(Clone, Copy)]
struct Array {
    offset: u64,
    count: u64,
    item_bytes: u64,
}

#[derive(Default)]
struct Found {
    coding: Option<PieceCoding>,
    tokens: Option<Array>,
    types: Option<Array>,
    ends: Vec<i32>,
}

/// `None`: the file has no vocabulary, or one of a kind whose bytes are not known here.
pub(in crate::reader) fn vocabulary(
    file: &File,
    len: u64,
) -> Result<Option<Vocabulary>, GgufError> {
    vocabulary_from(BufReader::with_capacity(64 * 1024, file), len)
}

pub(super) fn vocabulary_from<R: Read + Seek>(
    mut source: R,
    len: u64,
) -> Result<Option<Vocabulary>, GgufError> {
    source.seek(SeekFrom::Start(0))?;
    let mut header = Header {
        source,
        offset: 0,
        len,
    };
    let mut found = Found::default();
    header.each_pair(|header, key, kind| found.take(header, key, kind))?;
    let (Some(coding), Some(tokens)) = (found.coding, found.tokens) else {
        return Ok(None);
    };
    if tokens.count > MAX_TOKENS {
        return Err(header.damaged("too many tokens"));
    }
    let types = match found.types {
        Some(types) => header.numbers(types)?,
        None => Vec::new(),
    };
    header.seek_to(tokens.offset)?;
    let mut vocabulary = Vocabulary::default();
    for id in 0..tokens.count {
        let token = header.read_string("a token", MAX_TOKEN_BYTES)?;
        let kind = usize::try_from(id).ok().and_then(|id| types.get(id));
        let is_text = matches!(kind, None | Some(&(NORMAL | BYTE)));
        match (token, is_text) {
            (Some(token), true) => vocabulary.push(Some(&coding.bytes(&token)), false),
            (Some(token), false) => vocabulary.push(Some(token.as_bytes()), true),
            (None, _) => vocabulary.push(None, true),
        }
        if !is_text && kind != Some(&USER_DEFINED) {
            vocabulary.last_is_unprinted();
        }
    }
    let is_there = |id: &i32| u64::try_from(*id).is_ok_and(|id| id < tokens.count);
    vocabulary.ends = found.ends.into_iter().filter(is_there).collect();
    Ok(Some(vocabulary))
}

impl Found {
    fn take<R: Read + Seek>(
        &mut self,
        header: &mut Header<R>,
        key: &str,
        kind: ValueType,
    ) -> Result<(), GgufError> {
        match (key, kind) {
            ("tokenizer.ggml.model", ValueType::String) => {
                let model = header.read_string("a name", MAX_NAME_BYTES)?;
                self.coding = model.as_deref().and_then(coding);
            }
            ("tokenizer.ggml.tokens", ValueType::Array) => {
                let (kind, count) = header.read_array_head()?;
                let offset = header.offset;
                header.skip_items(kind, count, 0)?;
                self.tokens = matches!(kind, ValueType::String).then_some(Array {
                    offset,
                    count,
                    item_bytes: 0,
                });
            }
            ("tokenizer.ggml.token_type", ValueType::Array) => {
                let (kind, count) = header.read_array_head()?;
                let offset = header.offset;
                header.skip_items(kind, count, 0)?;
                if let ValueType::Scalar(item_bytes) = kind {
                    self.types = Some(Array {
                        offset,
                        count,
                        item_bytes,
                    });
                }
            }
            (key, ValueType::Scalar(bytes)) if ENDS.contains(&key) => {
                let id = header.read_integer(bytes)?;
                self.ends.extend(i32::try_from(id).ok());
            }
            _ => header.skip_value(kind, 0)?,
        }
        Ok(())
    }
}

/// Whether the bytes of a vocabulary of this kind are known.
pub(super) fn is_known(model: &str) -> bool {
    coding(model).is_some()
}

/// How llama.cpp's kinds of vocabularies write bytes.
fn coding(model: &str) -> Option<PieceCoding> {
    match model {
        "gpt2" => Some(PieceCoding::ByteLevel),
        "llama" | "t5" => Some(PieceCoding::SentencePiece),
        _ => None,
    }
}

impl<R: Read + Seek> Header<R> {
    fn numbers(&mut self, array: Array) -> Result<Vec<u64>, GgufError> {
        if array.count > MAX_TOKENS {
            return Err(self.damaged("too many types of tokens"));
        }
        self.seek_to(array.offset)?;
        (0..array.count)
            .map(|_| self.read_integer(array.item_bytes))
            .collect()
    }
}
