//! What a run is given: the prompt, with the answer that another worker has begun right behind it,
//! as text or as tokens; and what is left of the context after it.

use crate::ipc::RunSpec;

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

/// An input that is ready to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedInput {
    pub form: InputForm,
    /// Tokens of the prompt alone; `None`: they did not come with the run.
    pub prompt_tokens: Option<u32>,
    /// Tokens of the whole input; `None`: not all are known. Those of a begun answer are the ones it was made of.
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
    /// A begun answer goes by its tokens where they and the prompt's are known: they are what the
    /// model made, and the text might be cut into others.
    pub fn prepare(spec: &RunSpec) -> Self {
        let begun = spec.begun.as_ref();
        let prompt_tokens = spec
            .prompt_tokens
            .as_ref()
            .and_then(|tokens| u32::try_from(tokens.len()).ok());
        let input_tokens = Self::count(spec);
        let ids = begun.and_then(|begun| begun.token_ids.as_ref());
        let form = match (&spec.prompt_tokens, ids) {
            // A run needs a token.
            (Some(prompt), Some(ids)) if !(prompt.is_empty() && ids.is_empty()) => {
                InputForm::Tokens([prompt, ids.as_slice()].concat())
            }
            _ => InputForm::Text(match begun {
                None => spec.prompt.clone(),
                Some(begun) => [spec.prompt.as_str(), &begun.text].concat(),
            }),
        };
        Self {
            form,
            prompt_tokens,
            input_tokens,
        }
    }

    /// The tokens of the whole input, where all are known.
    pub fn count(spec: &RunSpec) -> Option<u32> {
        let prompt = u32::try_from(spec.prompt_tokens.as_ref()?.len()).ok()?;
        let begun = spec.begun.as_ref().map_or(Some(0), |begun| begun.tokens)?;
        Some(prompt.saturating_add(begun))
    }

    /// Whether the runtime makes the tokens of an input whose own are known exactly.
    pub fn is_counted_text(&self, spec: &RunSpec) -> bool {
        matches!(self.form, InputForm::Text(_)) && spec.begun.is_none()
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
    use crate::ipc::BegunAnswer;
    use proptest::prelude::*;
    use std::time::Duration;

    fn spec(
        prompt: &str,
        tokens: Option<&[i32]>,
        begun: Option<(&str, Option<&[i32]>)>,
    ) -> RunSpec {
        RunSpec {
            run: 1,
            prompt: prompt.to_owned(),
            prompt_tokens: tokens.map(Into::into),
            begun: begun.map(|(text, ids)| BegunAnswer {
                text: text.to_owned(),
                token_ids: ids.map(<[i32]>::to_vec),
                tokens: Some(2),
            }),
            draws: Default::default(),
            constraint: None,
            adapter: None,
            redraws: None,
            vocabulary: None,
            sampling: SamplingRequest::default(),
            max_new_tokens: None,
            prefill_per_token: Duration::from_millis(1),
            credit: 0,
            save: None,
        }
    }

    fn prepared(spec: &RunSpec) -> (InputForm, Option<u32>, Option<u32>) {
        let input = PreparedInput::prepare(spec);
        (input.form, input.prompt_tokens, input.input_tokens)
    }

    #[test]
    fn a_begun_answer_goes_by_its_tokens_where_they_are_known() {
        let spec = spec("ca", Some(&[99, 97]), Some(("bd", Some(&[98, 100]))));
        let expected = InputForm::Tokens(vec![99, 97, 98, 100]);
        assert_eq!(prepared(&spec), (expected, Some(2), Some(4)));
        assert!(!PreparedInput::prepare(&spec).is_counted_text(&spec));
    }

    #[test]
    fn without_its_tokens_it_goes_by_its_text() {
        let spec = spec("ca", Some(&[99, 97]), Some(("bd", None)));
        let expected = InputForm::Text("cabd".to_owned());
        assert_eq!(prepared(&spec), (expected, Some(2), Some(4)));
        assert!(
            !PreparedInput::prepare(&spec).is_counted_text(&spec),
            "its text may be cut into others"
        );
    }

    #[test]
    fn a_prompt_goes_as_text() {
        let spec = spec("ca", Some(&[99, 97]), None);
        let expected = InputForm::Text("ca".to_owned());
        assert_eq!(prepared(&spec), (expected, Some(2), Some(2)));
        assert!(PreparedInput::prepare(&spec).is_counted_text(&spec));
    }

    #[test]
    fn a_prompt_without_tokens_goes_as_text_and_uncounted() {
        let spec = spec("ca", None, Some(("bd", Some(&[98, 100]))));
        let expected = InputForm::Text("cabd".to_owned());
        assert_eq!(prepared(&spec), (expected, None, None));
    }

    #[test]
    fn an_input_of_no_tokens_goes_as_text() {
        let spec = spec("", Some(&[]), Some(("", Some(&[]))));
        assert_eq!(prepared(&spec).0, InputForm::Text(String::new()));
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
