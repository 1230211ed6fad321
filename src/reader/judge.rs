//! How a model judges documents (`[rerank]` in `model.toml`), for those that were made to: what it reads of
//! a query and a document, and which tokens are its yes and its no.

use serde::{Deserialize, Serialize};

/// What Qwen3-Reranker was trained with.
const PROMPT: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on the \
    Query and the Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n\
    <|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n\
    <|im_start|>assistant\n<think>\n\n</think>\n\n";
const INSTRUCTION: &str =
    "Given a web search query, retrieve relevant passages that answer the query";
/// In the vocabulary of Qwen3.
const YES: i32 = 9693;
const NO: i32 = 2152;

const QUERY: &str = "{query}";
const DOCUMENT: &str = "{document}";

/// The keys of `[rerank]`; every one may be absent.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Rerank {
    prompt: String,
    instruction: String,
    yes: i32,
    no: i32,
}

impl Default for Rerank {
    fn default() -> Self {
        Self {
            prompt: PROMPT.to_owned(),
            instruction: INSTRUCTION.to_owned(),
            yes: YES,
            no: NO,
        }
    }
}

impl Rerank {
    pub fn check(&self) -> Result<(), String> {
        for name in [QUERY, DOCUMENT] {
            if self.prompt.matches(name).count() != 1 {
                return Err(format!("rerank.prompt must hold {name} once"));
            }
        }
        if self.prompt.contains('\0') || self.instruction.contains('\0') {
            return Err("rerank holds a NUL".to_owned());
        }
        if [QUERY, DOCUMENT]
            .iter()
            .any(|name| self.instruction.contains(name))
        {
            return Err(format!(
                "rerank.instruction cannot hold {QUERY} or {DOCUMENT}"
            ));
        }
        if self.yes < 0 || self.no < 0 || self.yes == self.no {
            return Err("rerank.yes and rerank.no must be the ids of two tokens".to_owned());
        }
        Ok(())
    }
}

impl From<Rerank> for Judge {
    fn from(rerank: Rerank) -> Self {
        Self {
            prompt: rerank.prompt.replace("{instruction}", &rerank.instruction),
            yes: rerank.yes,
            no: rerank.no,
        }
    }
}

/// How a model judges documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judge {
    /// Holds the places of a query and a document, once each.
    prompt: String,
    /// The ids of its answers.
    pub yes: i32,
    pub no: i32,
}

impl Judge {
    /// Of what it reads beside a query and a document.
    pub fn bytes(&self) -> usize {
        self.prompt.len()
    }

    /// What it reads of the two. What either says is never a place for the other.
    pub fn prompt(&self, query: &str, document: &str) -> String {
        let mut places = [(QUERY, query), (DOCUMENT, document)];
        places.sort_by_key(|(name, _)| self.prompt.find(name));
        let mut prompt = String::with_capacity(self.prompt.len() + query.len() + document.len());
        let mut rest = self.prompt.as_str();
        for (name, text) in places {
            if let Some((before, behind)) = rest.split_once(name) {
                prompt.push_str(before);
                prompt.push_str(text);
                rest = behind;
            }
        }
        prompt + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_and_a_document_have_their_places() {
        let judge = |prompt: &str| {
            let rerank = Rerank {
                prompt: prompt.to_owned(),
                instruction: "do".to_owned(),
                ..Rerank::default()
            };
            rerank.check().map(|()| Judge::from(rerank))
        };
        let forward = judge("{instruction}: {query} | {document}.").expect("a prompt");
        assert_eq!(
            forward.prompt("{document}", "{query}"),
            "do: {document} | {query}."
        );
        let backward = judge("{document} | {query}.").expect("a prompt");
        assert_eq!(backward.prompt("q", "{query}"), "{query} | q.");
        for wrong in [
            "",
            "{query}",
            "{document}",
            "{query}{query}{document}",
            "\0{query}{document}",
        ] {
            assert!(judge(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_a_word_it_is_as_qwens() {
        let judge = Judge::from(Rerank::default());
        let prompt = judge.prompt("Q", "D");
        assert!(
            prompt.contains("<Query>: Q\n<Document>: D<|im_end|>\n"),
            "{prompt}"
        );
        assert!(prompt.ends_with("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
        assert!(Rerank::default().check().is_ok());
        assert!(
            Rerank {
                no: YES,
                ..Rerank::default()
            }
            .check()
            .is_err()
        );
    }
}
