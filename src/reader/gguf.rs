//! What a GGUF file's header tells about its model, read in bounded memory.
//!
//! The vocabulary is streamed and never kept: only the strings that are asked for stay. Every
//! length is checked against the file before anything is allocated, so a truncated or hostile file
//! is an error and nothing worse.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use crate::library_calls::ModelShape;

mod header;
mod vocabulary;

use header::{Header, ValueType};
pub(super) use vocabulary::vocabulary;

const MAGIC: [u8; 4] = *b"GGUF";
/// Headers are vocabulary and merges, 20 MB at most so far; a longer one is not read to its end.
const MAX_HEADER_BYTES: u64 = 256 * 1024 * 1024;
const MAX_KEY_BYTES: u64 = 64 * 1024;
const MAX_TEMPLATE_BYTES: u64 = 1024 * 1024;
const MAX_NAME_BYTES: u64 = 4096;
const MAX_TOKEN_BYTES: u64 = 256;
/// The largest lists seen have about 6,000 control tokens.
const MAX_SPECIAL_TOKENS: usize = 65_536;
/// A file has one of each of `LENGTHS`; many more are the mark of a hostile one.
const MAX_LENGTHS: usize = 64;
/// Ends of keys, behind the architecture's name.
const LENGTHS: [&str; 7] = [
    ".context_length",
    ".embedding_length",
    ".block_count",
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
    ".attention.value_length",
];
/// Parts of keys of architectures whose layers keep something else than each token's keys and values.
const OTHER_CACHES: [&str; 3] = [".attention.kv_lora_rank", ".ssm.", ".wkv."];

const TOKEN_TYPE_CONTROL: u64 = 3;
const TOKEN_TYPE_USER_DEFINED: u64 = 4;

#[derive(Debug, thiserror::Error)]
pub(super) enum GgufError {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it does not start with `GGUF`")]
    NotGguf,
    #[error("GGUF version {0} is not supported, only 2 and 3")]
    Version(u32),
    #[error("it is a big-endian GGUF file")]
    BigEndian,
    #[error("it is truncated or damaged: {what} at byte {offset} reaches past the end of the file")]
    PastEnd { what: &'static str, offset: u64 },
    #[error("it is damaged: {what} at byte {offset}")]
    Damaged { what: &'static str, offset: u64 },
    #[error("its header is longer than {} MiB", MAX_HEADER_BYTES >> 20)]
    HeaderTooLong,
}

/// The facts kept from a header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GgufFacts {
    pub architecture: Option<String>,
    pub name: Option<String>,
    /// `model`, `adapter`, …; absent in most files.
    pub kind: Option<String>,
    pub context_length: Option<u32>,
    pub shape: ModelShape,
    pub chat_template: Option<String>,
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    /// Tokens of type CONTROL, and user-defined ones that are written like markers.
    pub control_tokens: Vec<String>,
    /// Tokens that are not made of text, and tokens that were added, with their ids.
    pub listed_tokens: Vec<(String, i32)>,
    /// Its vocabulary is of a kind whose bytes are known.
    pub spells_tokens: bool,
}

/// Reads the header of a file that is `len` bytes long. With `read`, not mapped: a file that is cut
/// short meanwhile is an error then.
pub(super) fn read(file: &File, len: u64) -> Result<GgufFacts, GgufError> {
    read_from(BufReader::with_capacity(64 * 1024, file), len)
}

/// Reads a header of a source that is `len` bytes long.
pub(super) fn read_from<R: Read + Seek>(source: R, len: u64) -> Result<GgufFacts, GgufError> {
    let mut header = Header {
        source,
        offset: 0,
        len,
    };
    let mut draft = Draft::default();
    header.read_pairs(&mut draft)?;
    draft.finish(&mut header)
}

/// What is collected while the pairs pass by; token strings are looked up afterwards.
#[derive(Default)]
struct Draft {
    facts: GgufFacts,
    /// Each key that ends like one of `LENGTHS`; the architecture's may come later.
    lengths: Vec<(String, u64)>,
    /// Its layers do not all keep each token's keys and values, or not as many of each.
    has_other_cache: bool,
    tokens: Option<StringArray>,
    control_ids: BTreeSet<u64>,
    user_defined_ids: BTreeSet<u64>,
    bos_id: Option<u64>,
    eos_id: Option<u64>,
}

/// Where an array of strings lies.
#[derive(Clone, Copy)]
struct StringArray {
    offset: u64,
    count: u64,
}

impl Draft {
    fn finish<R: Read + Seek>(mut self, header: &mut Header<R>) -> Result<GgufFacts, GgufError> {
        if let Some(tokens) = self.tokens {
            self.look_up(tokens, header)?;
            self.facts.shape.vocabulary_tokens = u32::try_from(tokens.count).ok();
        }
        let architecture = self.facts.architecture.as_deref().unwrap_or_default();
        let length = |name: &str| {
            let key = format!("{architecture}.{name}");
            let length = self.lengths.iter().find(|(name, _)| *name == key);
            length.and_then(|(_, length)| u32::try_from(*length).ok())
        };
        let (context, embedding) = (length("context_length"), length("embedding_length"));
        self.facts.context_length = context;
        self.facts.shape.embedding_columns = embedding;
        let token_bytes = token_bytes(length).filter(|_| !self.has_other_cache);
        self.facts.shape.token_bytes = token_bytes;
        Ok(self.facts)
    }

    fn look_up<R: Read + Seek>(
        &mut self,
        tokens: StringArray,
        header: &mut Header<R>,
    ) -> Result<(), GgufError> {
        let mut wanted: BTreeSet<u64> = &self.control_ids | &self.user_defined_ids;
        wanted.extend(self.bos_id.into_iter().chain(self.eos_id));
        header.seek_to(tokens.offset)?;
        let mut next = 0;
        for id in wanted.into_iter().take_while(|id| *id < tokens.count) {
            for _ in next..id {
                header.skip_string("a token")?;
            }
            next = id + 1;
            let Some(text) = header.read_string("a token", MAX_TOKEN_BYTES)? else {
                continue;
            };
            if self.bos_id == Some(id) {
                self.facts.bos_token = Some(text.clone());
            }
            if self.eos_id == Some(id) {
                self.facts.eos_token = Some(text.clone());
            }
            let is_listed = self.control_ids.contains(&id) || self.user_defined_ids.contains(&id);
            if let Ok(id) = i32::try_from(id)
                && is_listed
            {
                self.facts.listed_tokens.push((text.clone(), id));
            }
            if self.control_ids.contains(&id)
                || (self.user_defined_ids.contains(&id) && is_marker(&text))
            {
                self.facts.control_tokens.push(text);
            }
        }
        Ok(())
    }
}

/// What a cache holds of a token, at 16 bits a number. `None`: the header does not tell.
fn token_bytes(length: impl Fn(&str) -> Option<u32>) -> Option<u64> {
    const NUMBER_BYTES: u64 = 2;
    let heads = length("attention.head_count")?;
    let head = length("embedding_length")?.checked_div(heads)?;
    let row = |name| u64::from(length(name).unwrap_or(head));
    let both = row("attention.key_length") + row("attention.value_length");
    let heads_kept = length("attention.head_count_kv").unwrap_or(heads);
    let rows = u64::from(length("block_count")?).checked_mul(heads_kept.into())?;
    rows.checked_mul(both)?.checked_mul(NUMBER_BYTES)
}

/// User-defined tokens are mostly words and white space; those with bars at an end are markers of messages.
fn is_marker(token: &str) -> bool {
    ["<|", "<｜"].iter().any(|open| token.starts_with(open))
        || ["|>", "｜>"].iter().any(|close| token.ends_with(close))
        || ["<start_of_turn>", "<end_of_turn>"].contains(&token)
}

impl<R: Read + Seek> Header<R> {
    fn read_pairs(&mut self, draft: &mut Draft) -> Result<(), GgufError> {
        self.each_pair(|header, key, kind| header.read_pair(key, kind, draft))
    }

    fn read_pair(
        &mut self,
        key: &str,
        kind: ValueType,
        draft: &mut Draft,
    ) -> Result<(), GgufError> {
        let facts = &mut draft.facts;
        match (key, kind) {
            ("general.architecture", ValueType::String) => {
                facts.architecture = self.read_string("a name", MAX_NAME_BYTES)?;
            }
            ("general.name", ValueType::String) => {
                facts.name = self.read_string("a name", MAX_NAME_BYTES)?;
            }
            ("general.type", ValueType::String) => {
                facts.kind = self.read_string("a name", MAX_NAME_BYTES)?;
            }
            ("tokenizer.chat_template", ValueType::String) => {
                facts.chat_template = self.read_string("the template", MAX_TEMPLATE_BYTES)?;
            }
            ("tokenizer.ggml.model", ValueType::String) => {
                let model = self.read_string("a name", MAX_NAME_BYTES)?;
                facts.spells_tokens = model.as_deref().is_some_and(vocabulary::is_known);
            }
            ("tokenizer.ggml.bos_token_id", ValueType::Scalar(bytes)) => {
                draft.bos_id = Some(self.read_integer(bytes)?);
            }
            ("tokenizer.ggml.eos_token_id", ValueType::Scalar(bytes)) => {
                draft.eos_id = Some(self.read_integer(bytes)?);
            }
            ("tokenizer.ggml.tokens", ValueType::Array) => {
                draft.tokens = self.read_token_array()?;
            }
            ("tokenizer.ggml.token_type", ValueType::Array) => self.read_token_types(draft)?,
            (_, ValueType::Scalar(bytes)) if LENGTHS.iter().any(|name| key.ends_with(name)) => {
                let length = self.read_integer(bytes)?;
                if draft.lengths.len() < MAX_LENGTHS {
                    draft.lengths.push((key.to_owned(), length));
                }
            }
            _ => {
                // One number for each layer.
                let differs = key.ends_with(".attention.head_count_kv");
                draft.has_other_cache |=
                    differs || OTHER_CACHES.iter().any(|part| key.contains(part));
                self.skip_value(kind, 0)?;
            }
        }
        Ok(())
    }

    /// Remembers where the tokens are and goes past them.
    fn read_token_array(&mut self) -> Result<Option<StringArray>, GgufError> {
        let (kind, count) = self.read_array_head()?;
        let offset = self.offset;
        self.skip_items(kind, count, 0)?;
        let is_strings = matches!(kind, ValueType::String);
        Ok(is_strings.then_some(StringArray { offset, count }))
    }

    fn read_token_types(&mut self, draft: &mut Draft) -> Result<(), GgufError> {
        let (kind, count) = self.read_array_head()?;
        let ValueType::Scalar(bytes) = kind else {
            return self.skip_items(kind, count, 0);
        };
        for id in 0..count {
            let ids = match self.read_integer(bytes)? {
                TOKEN_TYPE_CONTROL => &mut draft.control_ids,
                TOKEN_TYPE_USER_DEFINED => &mut draft.user_defined_ids,
                _ => continue,
            };
            if ids.len() >= MAX_SPECIAL_TOKENS {
                return Err(self.damaged("too many control tokens"));
            }
            ids.insert(id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
