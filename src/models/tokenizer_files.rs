//! What `tokenizer_config.json` and `tokenizer.json` tell beside a model: the template, BOS and
//! EOS, and the special tokens. The vocabulary in them is skipped, never kept.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

const MAX_FILE_BYTES: u64 = 128 * 1024 * 1024;

/// What is kept of a `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    #[serde(default)]
    chat_template: Option<TemplateField>,
    #[serde(default)]
    bos_token: Option<TokenField>,
    #[serde(default)]
    eos_token: Option<TokenField>,
    #[serde(default)]
    added_tokens_decoder: std::collections::BTreeMap<String, AddedToken>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TemplateField {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenField {
    Text(String),
    Token { content: String },
}

/// One entry of `added_tokens` or `added_tokens_decoder`.
#[derive(Debug, Deserialize)]
struct AddedToken {
    content: String,
    #[serde(default)]
    special: bool,
}

impl TokenizerConfig {
    pub fn read(path: &Path) -> Result<Self, String> {
        let file = open(path)?;
        serde_json::from_reader(file).map_err(|e| e.to_string())
    }

    /// The template, of several named ones the one called `default`.
    pub fn chat_template(&self) -> Option<&str> {
        match self.chat_template.as_ref()? {
            TemplateField::One(template) => Some(template),
            TemplateField::Named(templates) => templates
                .iter()
                .find(|named| named.name == "default")
                .map(|named| named.template.as_str()),
        }
    }

    pub fn bos_token(&self) -> Option<&str> {
        self.bos_token.as_ref().map(TokenField::text)
    }

    pub fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_ref().map(TokenField::text)
    }

    pub fn special_tokens(&self) -> impl Iterator<Item = &str> {
        self.added_tokens_decoder
            .values()
            .filter(|token| token.special)
            .map(|token| token.content.as_str())
    }
}

impl TokenField {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Token { content } => content,
        }
    }
}

/// The special tokens of a `tokenizer.json`. Reading ends with its `added_tokens`, which stand
/// before the vocabulary, so a large file costs a small read.
pub(super) fn special_tokens(path: &Path) -> Result<Vec<String>, String> {
    let mut json = serde_json::Deserializer::from_reader(open(path)?);
    let mut found = None;
    let outcome = AddedTokens(&mut found).deserialize(&mut json);
    match (found, outcome) {
        (Some(tokens), _) => Ok(tokens),
        (None, Ok(())) => Ok(Vec::new()),
        (None, Err(e)) => Err(e.to_string()),
    }
}

fn open(path: &Path) -> Result<impl Read + use<>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    Ok(BufReader::with_capacity(64 * 1024, file).take(MAX_FILE_BYTES))
}

struct AddedTokens<'a>(&'a mut Option<Vec<String>>);

impl<'de> DeserializeSeed<'de> for AddedTokens<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AddedTokens<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the object of a tokenizer.json")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key != "added_tokens" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let tokens: Vec<AddedToken> = map.next_value()?;
            let special = tokens.into_iter().filter(|token| token.special);
            *self.0 = Some(special.map(|token| token.content).collect());
            return Ok(());
        }
        Ok(())
    }
}
