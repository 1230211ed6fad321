//! The rows of hidden states that a request's inputs become.

use std::sync::Arc;

use super::shortened::Beginning;
use super::{Checked, Encoding, LongInputs, input_error, input_param, too_long_input};
use crate::admission::{EmbeddingError, EmbeddingRequest};
use crate::chat::{ContextLimit, Follows};
use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::plain_error;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::ipc::Prompt;
use crate::library_calls::{Input, PooledRows, WantedRow};
use crate::models::InstalledModel;

/// A runtime may put a token before a text and one behind it, and four of a context are the library's own.
const TOKENS_AROUND: usize = 2 + 4;

/// A number of four bytes as JSON, while the text of all of them grows.
const BYTES_PER_NUMBER: usize = 6;

/// What rows take.
pub(super) fn bytes_of(rows: &PooledRows) -> usize {
    rows.rows.iter().map(|row| size_of_val(&**row)).sum()
}

/// The rows of the inputs, which are taken out of the request, and what was changed of these. What they
/// become is charged.
pub(super) async fn rows(
    state: &HttpState,
    context: &RequestContext,
    checked: &mut Checked,
) -> Result<(PooledRows, Changed), RequestError> {
    let inputs = std::mem::take(&mut checked.inputs);
    if inputs.is_empty() {
        let none = PooledRows {
            rows: Vec::new(),
            prompt_tokens: Some(0),
        };
        return Ok((none, Changed::default()));
    }
    let (inputs, changed) = plain(state, checked, inputs).await?;
    let model = &checked.model;
    let request = EmbeddingRequest {
        model: Arc::clone(&model.id),
        adapter: model.adapter().cloned(),
        client: context.client.clone(),
        inputs,
        wanted: WantedRow::HiddenState(model.facts.embeddings.pooling),
        least_columns: checked.dimensions,
        total_deadline: state.total_deadline,
        keep_alive: checked.keep_alive,
        account: Some(context.account()),
    };
    context.takes_turns();
    let rows = state.engine.embed(request).await;
    let rows = rows.map_err(|error| {
        failed(
            context.caller.may_read_of_embeddings(error),
            checked.is_list,
        )
    })?;
    let bytes = bytes_of(&rows);
    // The rows are there, and go; what they become is at most so many times as large.
    let times = match checked.encoding {
        Encoding::Float => BYTES_PER_NUMBER,
        Encoding::Base64 => 2,
    };
    context.hold(bytes * times)?;
    Ok((rows, changed))
}

/// What was made of inputs that the runtime does not get as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changed {
    pub is_neutralised: bool,
    /// Of so many only the beginnings are embedded.
    pub cut: usize,
}

/// Texts as the runtime gets them, if they fit its context or may be cut to: control tokens in them stay text,
/// and the model's suffix follows.
async fn plain(
    state: &HttpState,
    checked: &mut Checked,
    mut inputs: Vec<Input>,
) -> Result<(Vec<Input>, Changed), RequestError> {
    // Texts or token ids, never both.
    let (model, is_list) = (Arc::clone(&checked.model), checked.is_list);
    let limit = ContextLimit::of(&*state.engine, &model);
    let is_cut = matches!(checked.long_inputs, LongInputs::AreCut { .. });
    let mut changed = Changed::default();
    let mut cut = vec![false; inputs.len()];
    for (index, input) in inputs.iter_mut().enumerate() {
        let tokens = input.token_input.as_ref();
        let tokens = tokens.map_or(0, |tokens| tokens.input_ids.len());
        if let Some(text) = &mut input.prompt_input
            && is_cut
            && limit.check_text(text.len()).is_err()
        {
            // No more of it can be in the context.
            text.truncate(text.floor_char_boundary(limit.longest_text_bytes()));
            cut[index] = true;
        }
        let text = input.prompt_input.as_ref().map_or(0, String::len);
        limit
            .check_text(text)
            .and_then(|()| limit.check_tokens(tokens, Follows::Nothing))
            .map_err(|error| too_long(index, error, is_list))?;
    }
    let texts: Vec<String> = inputs
        .iter_mut()
        .filter_map(|input| input.prompt_input.take())
        .collect();
    if texts.is_empty() {
        return Ok((inputs, changed));
    }
    let policy = Some(state.chat.control_tokens);
    let counted = texts.iter().any(|text| limit.may_be_passed_by(text.len()));
    let param = |index: usize| input_param(is_list, index);
    let prompts = state.engine.plain(&model, texts, policy, counted).await;
    let mut prompts = prompts.map_err(|error| plain_error(error, param))?;
    if is_cut && counted {
        let shortened = shorten(state, &model, limit, &mut prompts).await?;
        for index in shortened {
            cut[index] = true;
        }
    }
    for (index, prompt) in prompts.iter().enumerate() {
        let tokens = prompt.tokens.as_ref().map_or(0, Vec::len);
        limit
            .check_tokens(tokens, Follows::Nothing)
            .map_err(|error| too_long(index, error, is_list))?;
        let is_unknown = counted && prompt.tokens.is_none();
        // It may be too long, which is not known.
        if is_unknown && checked.long_inputs == (LongInputs::AreCut { as_asked: true }) {
            checked.ignored.push("truncate");
            checked.long_inputs = LongInputs::AreRefused;
        }
    }
    let suffix = &model.facts.embeddings.suffix;
    changed.is_neutralised = prompts.iter().any(|prompt| !prompt.neutralised.is_empty());
    changed.cut = cut.iter().filter(|is_cut| **is_cut).count();
    let inputs = prompts
        .into_iter()
        .map(|prompt| Input::prompt(prompt.text + suffix))
        .collect();
    Ok((inputs, changed))
}

/// Leaves of each text that is too long a beginning that fits beside what follows every text. Returns which.
async fn shorten(
    state: &HttpState,
    model: &InstalledModel,
    limit: ContextLimit,
    prompts: &mut [Prompt],
) -> Result<Vec<usize>, RequestError> {
    let suffix = vec![model.facts.embeddings.suffix.clone()];
    let suffix = state.engine.plain(model, suffix, None, true).await?;
    let of_suffix = suffix.iter().filter_map(|prompt| prompt.tokens.as_ref());
    let around: usize = of_suffix.map(Vec::len).sum::<usize>() + TOKENS_AROUND;
    let room = limit.tokens().saturating_sub(around).max(1);
    let mut searches: Vec<(usize, Beginning)> = Vec::new();
    for (index, prompt) in prompts.iter().enumerate() {
        let tokens = prompt.tokens.as_ref().map_or(0, Vec::len);
        if tokens > room {
            searches.push((index, Beginning::of(&prompt.text, tokens, room)));
        }
    }
    loop {
        // One question for all.
        let tried = searches.iter().enumerate();
        let tried = tried.filter_map(|(at, (index, search))| {
            let end = search.next(&prompts[*index].text)?;
            Some((at, end, prompts[*index].text[..end].to_owned()))
        });
        let tried = Vec::from_iter(tried);
        if tried.is_empty() {
            break;
        }
        let texts = tried.iter().map(|(.., text)| text.clone()).collect();
        // They are plain already.
        let counted = state.engine.plain(model, texts, None, true).await?;
        for ((at, end, _), prompt) in tried.iter().zip(counted) {
            let tokens = prompt.tokens.map_or(usize::MAX, |tokens| tokens.len());
            searches[*at].1.learn(*end, tokens);
        }
    }
    let found = searches.iter().filter(|(_, search)| search.fitting() > 0);
    let cut = found.map(|(index, search)| {
        let prompt = &mut prompts[*index];
        prompt.text.truncate(search.fitting());
        // They are counted, and fit.
        prompt.tokens = Some(Vec::new());
        *index
    });
    Ok(cut.collect())
}

fn too_long(index: usize, error: GenerationError, is_list: bool) -> RequestError {
    failed(too_long_input(index, error), is_list)
}

fn failed(error: EmbeddingError, is_list: bool) -> RequestError {
    input_error(error, "input", |index| input_param(is_list, index))
}
