//! What a run is given: the prompt, with the answer that another worker has begun right behind it,
//! as text or as tokens; and what is left of the context after it.

use super::tokenizer::Tokenizer;
use crate::ipc::{BegunAnswer, RunSpec};

/// Tokens of the context that stay unused: some releases take four of it for themselves
/// (`prompt: 1299 tokens, max context: 1020` with 1024).
const CONTEXT_RESERVE_TOKENS: u32 = 4;

/// How many tokens a run may still make when `used` tokens are in the context. At least one, so
/// that a run always ends by itself.
pub fn budget_left(context_length: u32, used: u32) -> u32 {
    context_length
        .saturating_sub(CONTEXT_RESERVE_TOKENS)
        .saturating_sub(used)
        .max(1)
}

/// What counts the tokens of a text and makes them.
pub trait Tokenise {
    fn count(&self, text: &str) -> anyhow::Result<u32>;
    fn ids(&self, text: &str) -> anyhow::Result<Vec<i32>>;
}

impl Tokenise for Tokenizer {
    fn count(&self, text: &str) -> anyhow::Result<u32> {
        self.count(text)
    }

    fn ids(&self, text: &str) -> anyhow::Result<Vec<i32>> {
        self.ids(text)
    }
}

/// An input that is ready to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedInput {
    pub form: InputForm,
    /// Tokens of the prompt alone; `None`: nothing here can count them.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the whole input; `None` likewise.
    pub input_tokens: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputForm {
    /// The runtime tokenises it.
    Text(String),
    /// Given to the runtime as they are; no template applies to them.
    Tokens(Vec<i32>),
}

impl PreparedInput {
    /// A begun answer goes by its tokens where they are known and the prompt's can be made: they
    /// are what the model made, and the text might be cut into others.
    pub fn prepare(spec: &RunSpec, tokenizer: Option<&impl Tokenise>) -> Self {
        if let Some(tokenizer) = tokenizer
            && let Some(BegunAnswer {
                token_ids: Some(begun),
                ..
            }) = &spec.begun
        {
            match tokenizer.ids(&spec.prompt) {
                Ok(prompt) => {
                    if let Some(input) = Self::of_tokens(prompt, begun) {
                        return input;
                    }
                }
                Err(error) => eprintln!("W rkllmd-worker: {error:#}"),
            }
        }
        Self::of_text(spec, tokenizer)
    }

    fn of_tokens(mut ids: Vec<i32>, begun: &[i32]) -> Option<Self> {
        let prompt_tokens = u32::try_from(ids.len()).ok()?;
        ids.extend_from_slice(begun);
        let input_tokens = u32::try_from(ids.len()).ok()?;
        // A run needs a token.
        (input_tokens > 0).then_some(Self {
            form: InputForm::Tokens(ids),
            prompt_tokens: Some(prompt_tokens),
            input_tokens: Some(input_tokens),
        })
    }

    fn of_text(spec: &RunSpec, tokenizer: Option<&impl Tokenise>) -> Self {
        let count = |text: &str| {
            let counted = tokenizer?.count(text);
            counted
                .inspect_err(|error| eprintln!("W rkllmd-worker: {error:#}"))
                .ok()
        };
        let prompt_tokens = count(&spec.prompt);
        match &spec.begun {
            None => Self {
                form: InputForm::Text(spec.prompt.clone()),
                prompt_tokens,
                input_tokens: prompt_tokens,
            },
            Some(begun) => {
                let text = [spec.prompt.as_str(), &begun.text].concat();
                Self {
                    prompt_tokens,
                    input_tokens: count(&text),
                    form: InputForm::Text(text),
                }
            }
        }
    }

    pub fn is_text(&self) -> bool {
        matches!(self.form, InputForm::Text(_))
    }
}

/// Bytes of the input as text, which deadlines use where tokens are not counted.
pub fn input_bytes(spec: &RunSpec) -> usize {
    spec.prompt.len() + spec.begun.as_ref().map_or(0, |begun| begun.text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::SamplingRequest;
    use proptest::prelude::*;
    use std::time::Duration;

    /// A token a byte, except that "ab" is one.
    struct Bytes;
    struct Broken;

    impl Tokenise for Bytes {
        fn count(&self, text: &str) -> anyhow::Result<u32> {
            Ok(u32::try_from(self.ids(text)?.len())?)
        }
        fn ids(&self, text: &str) -> anyhow::Result<Vec<i32>> {
            Ok(text.replace("ab", "X").bytes().map(i32::from).collect())
        }
    }

    impl Tokenise for Broken {
        fn count(&self, _: &str) -> anyhow::Result<u32> {
            anyhow::bail!("broken")
        }
        fn ids(&self, _: &str) -> anyhow::Result<Vec<i32>> {
            anyhow::bail!("broken")
        }
    }

    fn spec(prompt: &str, begun: Option<(&str, Option<&[i32]>)>) -> RunSpec {
        RunSpec {
            run: 1,
            prompt: prompt.to_owned(),
            begun: begun.map(|(text, ids)| BegunAnswer {
                text: text.to_owned(),
                token_ids: ids.map(<[i32]>::to_vec),
            }),
            sampling: SamplingRequest::default(),
            max_new_tokens: None,
            prefill_per_token: Duration::from_millis(1),
        }
    }

    #[test]
    fn a_begun_answer_goes_by_its_tokens_where_they_are_known() {
        let input =
            PreparedInput::prepare(&spec("ca", Some(("bd", Some(&[98, 100])))), Some(&Bytes));
        assert_eq!(
            input.form,
            InputForm::Tokens(vec![99, 97, 98, 100]),
            "`a` and `b` stay apart as they were made"
        );
        assert_eq!(
            (input.prompt_tokens, input.input_tokens),
            (Some(2), Some(4))
        );
        assert!(!input.is_text());
    }

    #[test]
    fn without_its_tokens_it_goes_by_its_text() {
        let input = PreparedInput::prepare(&spec("ca", Some(("bd", None))), Some(&Bytes));
        assert_eq!(input.form, InputForm::Text("cabd".to_owned()));
        assert_eq!(
            (input.prompt_tokens, input.input_tokens),
            (Some(2), Some(3))
        );
    }

    #[test]
    fn what_cannot_be_tokenised_goes_as_text_and_uncounted() {
        let with_ids = spec("ca", Some(("bd", Some(&[98, 100]))));
        let text = PreparedInput {
            form: InputForm::Text("cabd".to_owned()),
            prompt_tokens: None,
            input_tokens: None,
        };
        assert_eq!(PreparedInput::prepare(&with_ids, Some(&Broken)), text);
        assert_eq!(PreparedInput::prepare(&with_ids, None::<&Bytes>), text);
    }

    #[test]
    fn an_input_of_no_tokens_goes_as_text() {
        let input = PreparedInput::prepare(&spec("", Some(("", Some(&[])))), Some(&Bytes));
        assert_eq!(input.form, InputForm::Text(String::new()));
    }

    proptest! {
        #[test]
        fn the_budget_never_ends_and_never_passes_the_context(length in 0u32..20_000, used in 0u32..20_000) {
            let left = budget_left(length, used);
            prop_assert!(left >= 1);
            prop_assert!(left == 1 || used + left <= length);
        }
    }
}
