//! What `tokenizer_config.json` and `tokenizer.json` tell beside a model: the template, BOS and
//! EOS, and the special tokens. The vocabulary in them is skipped, never kept.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::reply::ResponseTemplate;

pub(super) const MAX_FILE_BYTES: u64 = 128 * 1024 * 1024;

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
    unk_token: Option<TokenField>,
    #[serde(default)]
    sep_token: Option<TokenField>,
    #[serde(default)]
    pad_token: Option<TokenField>,
    #[serde(default)]
    cls_token: Option<TokenField>,
    #[serde(default)]
    mask_token: Option<TokenField>,
    #[serde(default)]
    additional_special_tokens: Option<TokenList>,
    #[serde(default)]
    extra_special_tokens: Option<TokenList>,
    #[serde(default)]
    model_specific_special_tokens: Option<TokenList>,
    #[serde(default)]
    added_tokens_decoder: std::collections::BTreeMap<String, AddedToken>,
    #[serde(default)]
    response_template: Option<serde_json::Value>,
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

/// Newer files give some tokens names of their own.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenList {
    Plain(Vec<TokenField>),
    Named(std::collections::BTreeMap<String, TokenField>),
    Other(IgnoredAny),
}

impl TokenList {
    fn texts(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Plain(tokens) => Box::new(tokens.iter().map(TokenField::text)),
            Self::Named(tokens) => Box::new(tokens.values().map(TokenField::text)),
            Self::Other(_) => Box::new(std::iter::empty()),
        }
    }
}

/// One entry of `added_tokens` or `added_tokens_decoder`.
#[derive(Debug, Deserialize)]
struct AddedToken {
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    id: Option<i32>,
    #[serde(default)]
    normalized: bool,
}

impl TokenizerConfig {
    pub fn read(file: &File) -> Result<Self, String> {
        serde_json::from_reader(bounded(file)).map_err(|e| e.to_string())
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

    /// How the checkpoint says that it replies. `Err`: that cannot be read.
    pub fn response_template(&self) -> Result<ResponseTemplate, String> {
        let template = self.response_template.as_ref().map(ResponseTemplate::read);
        template.unwrap_or_else(|| Ok(ResponseTemplate::default()))
    }

    pub fn bos_token(&self) -> Option<&str> {
        self.bos_token.as_ref().map(TokenField::text)
    }

    pub fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_ref().map(TokenField::text)
    }

    /// The added tokens that the file tells the ids of, which are its keys.
    pub fn added_tokens(&self) -> impl Iterator<Item = (&str, i32)> {
        self.added_tokens_decoder.iter().filter_map(|(id, token)| {
            let id = id.parse().ok().filter(|id| *id >= 0)?;
            Some((token.content.as_str(), id))
        })
    }

    /// Every token that any of the fields calls special.
    pub fn special_tokens(&self) -> impl Iterator<Item = &str> {
        let added = self
            .added_tokens_decoder
            .values()
            .filter(|token| token.special)
            .map(|token| token.content.as_str());
        let lists = [
            &self.additional_special_tokens,
            &self.extra_special_tokens,
            &self.model_specific_special_tokens,
        ];
        let single = [
            &self.bos_token,
            &self.eos_token,
            &self.unk_token,
            &self.sep_token,
            &self.pad_token,
            &self.cls_token,
            &self.mask_token,
        ];
        added
            .chain(lists.into_iter().flatten().flat_map(TokenList::texts))
            .chain(single.into_iter().flatten().map(TokenField::text))
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

/// A token of a `tokenizer.json` that its vocabulary does not have.
#[derive(Debug)]
pub(super) struct ListedToken {
    pub text: String,
    pub id: Option<i32>,
    pub special: bool,
    /// It is looked for in normalised text, and normalising changes more than white space.
    pub normalized: bool,
}

/// The added tokens of a `tokenizer.json`. Reading ends with them and its `normalizer`, which stand
/// before the vocabulary, so a large file costs a small read.
pub(super) fn added_tokens(file: &File) -> Result<Vec<ListedToken>, String> {
    added_tokens_of(bounded(file))
}

fn added_tokens_of(json: impl Read) -> Result<Vec<ListedToken>, String> {
    let mut json = serde_json::Deserializer::from_reader(json);
    let mut found = Found::default();
    let outcome = Sections(&mut found).deserialize(&mut json);
    let tokens = match (found.tokens, &outcome) {
        (Some(tokens), _) => tokens,
        (None, Ok(())) => Vec::new(),
        (None, Err(e)) => return Err(e.to_string()),
    };
    // A normaliser that cannot be read may do anything.
    let folds = found.folds.unwrap_or(outcome.is_err());
    let listed = |token: AddedToken| ListedToken {
        text: token.content,
        id: token.id,
        special: token.special,
        normalized: token.normalized && folds,
    };
    Ok(tokens.into_iter().map(listed).collect())
}

/// What comes before the vocabulary.
#[derive(Default)]
struct Found {
    tokens: Option<Vec<AddedToken>>,
    folds: Option<bool>,
}

#[derive(Deserialize)]
struct NormalizerField {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    normalizers: Vec<NormalizerField>,
}

impl NormalizerField {
    /// Whether it makes one text of several that differ in more than white space.
    fn folds(&self) -> bool {
        match self.kind.as_str() {
            "Sequence" => self.normalizers.iter().any(Self::folds),
            // `Replace` writes spaces as vocabularies do; what else it may do is the model's own.
            "Prepend" | "Strip" | "ByteLevel" | "Replace" => false,
            _ => true,
        }
    }
}

fn bounded(file: &File) -> impl Read {
    BufReader::with_capacity(64 * 1024, file).take(MAX_FILE_BYTES)
}

struct Sections<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for Sections<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Sections<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the object of a tokenizer.json")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "added_tokens" => self.0.tokens = Some(map.next_value()?),
                "normalizer" => {
                    let normalizer: Option<NormalizerField> = map.next_value()?;
                    self.0.folds = Some(normalizer.is_some_and(|normalizer| normalizer.folds()));
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            if self.0.tokens.is_some() && self.0.folds.is_some() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_normalised_text_count_as_such_where_the_normaliser_folds() {
        for (normalizer, folds) in [
            ("null", false),
            (r#"{"type":"Sequence","normalizers":[]}"#, false),
            (
                r#"{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"x"}]}"#,
                false,
            ),
            (
                r#"{"type":"Sequence","normalizers":[{"type":"Lowercase"}]}"#,
                true,
            ),
            (r#"{"type":"BertNormalizer","lowercase":true}"#, true),
            (r#"{"type":"Sequence","#, true),
            ("7", true),
        ] {
            let json = format!(
                r#"{{"added_tokens":[{{"id":1,"content":"<a>","special":true,"normalized":true}},
                {{"id":2,"content":"<b>","special":true,"normalized":false}},
                {{"id":3,"content":"c","special":false,"normalized":true}}],
                "normalizer":{normalizer},"model":{{}}}}"#
            );
            let tokens = added_tokens_of(json.as_bytes()).unwrap();
            let seen = tokens
                .iter()
                .map(|token| (token.text.as_str(), token.normalized));
            let expected = [("<a>", folds), ("<b>", false), ("c", folds)];
            assert!(seen.eq(expected), "{normalizer}: {tokens:?}");
        }
    }

    #[test]
    fn a_normaliser_is_found_before_the_tokens_too() {
        let json = r#"{"normalizer":{"type":"NFKC"},
            "added_tokens":[{"id":1,"content":"<a>","special":true,"normalized":true}]}"#;
        let tokens = added_tokens_of(json.as_bytes()).unwrap();
        assert!(tokens[0].normalized, "{tokens:?}");
    }
}
