//! Names that no model has, by their pattern, and the model that they mean: `gpt-* = qwen3`.

use std::fmt;
use std::str::FromStr;

use super::as_text::as_text;

/// A pattern of names, in which `*` stands for any characters, and the model that such a name means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelAlias {
    pattern: String,
    /// Id or alias of a model.
    pub model: String,
}

impl ModelAlias {
    /// Whether a name is of the pattern, in any case.
    pub fn means(&self, name: &str) -> bool {
        let (pattern, name) = (self.pattern.to_lowercase(), name.to_lowercase());
        let mut parts = pattern.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        // What comes first is taken: it leaves the most to those behind it.
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl fmt::Display for ModelAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.pattern, self.model)
    }
}

impl FromStr for ModelAlias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').map(|(pattern, model)| {
            let (pattern, model) = (pattern.trim(), model.trim());
            (pattern.to_owned(), model.to_owned())
        });
        match parts {
            Some((pattern, model)) if !pattern.is_empty() && !model.is_empty() => {
                Ok(Self { pattern, model })
            }
            _ => Err(format!(
                "`{text}` is no alias: write PATTERN = MODEL, such as \"gpt-* = qwen3\", in which * stands \
                 for any characters"
            )),
        }
    }
}

as_text!(ModelAlias);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_characters_and_case_is_none() {
        for (pattern, name, means) in [
            ("gpt-*", "gpt-4o", true),
            ("gpt-*", "GPT-", true),
            ("gpt-*", "a-gpt-4o", false),
            ("claude-*-haiku*", "claude-3-5-haiku-latest", true),
            ("claude-*-haiku*", "claude-haiku", false),
            ("*haiku", "claude-haiku", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*b", "ab", false),
            ("*", "anything", true),
            ("rkllm", "rkllm", true),
            ("rkllm", "rkllm2", false),
            ("É*", "école", true),
        ] {
            let alias: ModelAlias = format!("{pattern} = m").parse().unwrap();
            assert_eq!(alias.means(name), means, "{pattern} {name}");
            assert_eq!(alias.model, "m");
        }
    }

    #[test]
    fn what_is_no_alias_is_refused_with_its_form() {
        for text in ["", "gpt-*", "= m", "gpt-* =", "="] {
            let error = text.parse::<ModelAlias>().unwrap_err();
            assert!(error.contains("PATTERN = MODEL"), "{error}");
        }
        let alias: ModelAlias = "gpt-*=a/b".parse().unwrap();
        assert_eq!(alias.to_string(), "gpt-* = a/b");
    }
}
